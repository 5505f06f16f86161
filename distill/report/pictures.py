"""The pictures of a report: how many there may be and how large. The one place that keeps the page small.

None of these bounds knows how many images were scored: the page of a million is as large as the page of a hundred.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from PIL import Image

from distill.data.decode import DecodeError, decode
from distill.data.views import fixed_view

if TYPE_CHECKING:
    from distill.core.types import ImageRecord
    from distill.data.views import Resize

__all__ = [
    "AUDITED", "DISAGREEMENTS", "EPOCHS", "GROUPS", "HEAT_MAPS", "LARGEST", "MASKS", "MISTAKES", "MOST", "REASONS",
    "as_jpeg", "copy_of", "fitting", "photo", "scaled_photo",
]  # fmt: skip

MISTAKES: Final = 12
DISAGREEMENTS: Final = 12
HEAT_MAPS: Final = 6
MASKS: Final = 3  # of the best, the middle and the worst images, six pictures each; of two that differ, four each
EPOCHS: Final = 6  # of the strip through training
AUDITED: Final = 16  # of what the audit found
GROUPS: Final = 200  # lines of the table; `report.json` has all
REASONS: Final = 50  # why images were left out, of which damaged files may have one each

MOST: Final = 150
"""Pictures of a page. The bounds above let at most 130 come together."""

LARGEST: Final = 20_000_000
"""Bytes of them all; as base64 a third more, so that the page stays below 30 MB whatever lies in the run folder."""

_SIDE: Final = 160  # pixels of a photo's longer side
_WIDE: Final = 960  # of a strip
_SMALL: Final = 60_000  # bytes: smaller files go in as they are, pixel by pixel


def fitting(pictures: Mapping[str, bytes]) -> dict[str, bytes]:
    """The first of them, as many as the page may have."""
    kept: dict[str, bytes] = {}
    size = 0
    for name, picture in pictures.items():
        size += len(picture)
        if len(kept) == MOST or size > LARGEST:
            break
        kept[name] = picture
    return kept


def photo(record: ImageRecord, resize: Resize, max_megapixels: float) -> bytes | None:
    """The fixed view of an image as a small JPEG; None where it is gone or damaged since it was scored."""
    view = fixed_view(record.width, record.height, resize)
    return scaled_photo(record.path, max_megapixels, (view.left, view.top, view.width, view.height))


def scaled_photo(
    path: str, max_megapixels: float, part: tuple[float, float, float, float] | None = None
) -> bytes | None:
    """A part of an image (left, top, width, height; all of it if left out) as a small JPEG; None where it is gone."""
    try:
        image = decode(path, max_megapixels)
    except (DecodeError, ValueError):  # a name with a zero byte, from a file that somebody edited, is a ValueError
        return None
    left, top, width, height = part or (0, 0, *image.size)
    scale = _SIDE / max(width, height)
    size = max(1, round(scale * width)), max(1, round(scale * height))
    # Digits of 8 pixels keep their pixels; photos are scaled down.
    how = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.BILINEAR
    return as_jpeg(image.resize(size, how, box=(left, top, left + width, top + height)))


def copy_of(path: Path) -> bytes | None:
    """A picture that a stage or a command drew: as it is, or where it is large as JPEG; None where it is gone."""
    try:
        data = path.read_bytes()
        if len(data) <= _SMALL:
            return data
        with Image.open(io.BytesIO(data)) as image:
            return as_jpeg(image.convert("RGB"))
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


def as_jpeg(image: Image.Image) -> bytes:
    """An RGB picture as JPEG, scaled down to the width of the page."""
    if image.width > _WIDE:
        image = image.resize((_WIDE, max(1, round(image.height * _WIDE / image.width))), Image.Resampling.BILINEAR)
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=85)
    return stream.getvalue()
