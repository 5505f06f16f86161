"""Contact sheets: pictures in rows, a few lines under each."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from PIL import Image, ImageDraw, ImageFont

from distill.core.errors import UserError
from distill.core.files import replacing
from distill.report.wording import printable

__all__ = ["GREY", "INK", "RED", "Color", "Line", "Tile", "save"]

Color = tuple[int, int, int]
Line = tuple[str, Color]
"""A text and its colour."""

INK: Final[Color] = (20, 20, 20)
GREY: Final[Color] = (120, 120, 120)
RED: Final[Color] = (190, 30, 30)

_PAPER: Final[Color] = (255, 255, 255)
_GAP = 12
_LINE = 17
_FONT = 13

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


class Tile(NamedTuple):
    """A picture and the lines under it."""

    picture: Image.Image
    caption: Sequence[Line]


def save(
    tiles: Iterable[Tile],
    path: Path,
    *,
    count: int,
    width: int,
    height: int,
    lines: int,
    columns: int,
    legend: Sequence[Line] = (),
) -> None:
    """Write a contact sheet as PNG.

    Args:
        tiles: what to draw, row after row.
        path: file to write; it appears whole or not at all.
        count: number of tiles, at least one.
        width: of a picture at most, in pixels; it is centred in as much room.
        height: of a picture at most.
        lines: under a picture, at most.
        columns: pictures in a row, at most.
        legend: names and their colours, above all pictures; a square of the colour stands before each name.

    Raises:
        UserError: `path` is a folder.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder, expected the name of a file")
    font, columns = _font(), min(columns, count)
    right, below = width + _GAP, height + _LINE * lines + _GAP
    whole = columns * right + _GAP
    names = _laid_out(legend, whole - 2 * _GAP, font)
    head = _LINE * (1 + max(row for _, row, _ in names)) + _GAP if names else 0
    sheet = Image.new("RGB", (whole, head + -(-count // columns) * below + _GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for (text, color), (across, row, _) in zip(legend, names, strict=True):
        left, top = _GAP + across, _GAP + row * _LINE
        pen.rectangle((left, top + 2, left + _FONT - 2, top + _FONT), fill=color)
        pen.text((left + _LINE, top), printable(text), fill=INK, font=font)
    for place, tile in enumerate(tiles):
        left, top = _GAP + place % columns * right, head + _GAP + place // columns * below
        picture = tile.picture
        sheet.paste(picture, (left + (width - picture.width) // 2, top + (height - picture.height) // 2))
        for number, (text, ink) in enumerate(tile.caption):
            pen.text((left, top + height + 2 + number * _LINE), _fitting(text, width, font), fill=ink, font=font)
    with replacing(path) as temporary:
        sheet.save(temporary, format="PNG")


def _laid_out(legend: Sequence[Line], width: int, font: _Font) -> list[tuple[int, int, int]]:
    """Where each name begins, in pixels, in which row, and where it ends."""
    places: list[tuple[int, int, int]] = []
    for text, _ in legend:
        own = _LINE + round(font.getlength(printable(text))) + _LINE
        start, row = (places[-1][2], places[-1][1]) if places else (0, 0)
        if start and start + own > width:
            start, row = 0, row + 1
        places.append((start, row, start + own))
    return places


def _fitting(text: str, width: int, font: _Font) -> str:
    text = printable(text)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _font() -> _Font:
    """DejaVu Sans, which matplotlib brings and which knows more scripts than Pillow's own."""
    found = importlib.util.find_spec("matplotlib")
    folders = list(found.submodule_search_locations or ()) if found else []
    for folder in folders:
        path = Path(folder) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if path.exists():
            return ImageFont.truetype(str(path), _FONT)
    return ImageFont.load_default(_FONT)
