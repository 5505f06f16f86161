"""Photos beside what the teacher said of their pixels: `distill labels show` where pixels are answered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from distill.core.dense import IGNORED
from distill.core.errors import UserError
from distill.core.overlay import background, class_colors, overlay
from distill.core.types import ImageRecord
from distill.data.batches import ImageCache
from distill.data.mask_file import read_mask
from distill.labels.contact import GREY, INK, Line, Tile, save
from distill.labels.map_stat import LabelledMaps
from distill.labels.maps import of_size
from distill.report.wording import percent

__all__ = ["UNSURE", "ShownMap", "choose", "draw"]

UNSURE: Final = 0.8
"""Pixels of less confidence are striped, unless the config trusts from another confidence on."""

_SIDE = 240  # of a photo's longer side in pixels
_SEAM = 4  # pixels between photo and mask
_ALPHA = 0.55
_FEW = 0.01  # share of the pixels that a class must have for an image to be shown as one of that class

_Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ShownMap:
    """An image and what the teacher said of its pixels.

    Args:
        record: the image.
        mask: uint8 [H, W], most probable class of each pixel.
        confidence: uint8 [H, W], 255 is 1.0.
    """

    record: ImageRecord
    mask: _Pixels
    confidence: _Pixels


def choose(labelled: LabelledMaps, count: int, *, name: str | None, lowest: bool, seed: int) -> list[ShownMap]:
    """Some images.

    Args:
        labelled: a store.
        count: images, at most.
        name: only images of which the teacher gave this class at least 1 % of the pixels; None for all.
        lowest: those the teacher is least sure of on average, the least sure first; else drawn at random.
        seed: of the draw.

    Raises:
        UserError: there is no such class, or no image with it.
    """
    store, classes = labelled.store, labelled.manifest.classes
    if name is not None and name not in classes:
        raise UserError(f"--class: found no class {name!r}; known: {', '.join(classes)}")
    if lowest:
        order = np.argsort(store.mean_confidence(), kind="stable")
    else:
        order = np.random.default_rng(seed).permutation(len(store))
    chosen: list[ShownMap] = []
    for place in order.tolist():
        mask, sure = store.hard(place)
        if name is None or (mask == classes.index(name)).mean() >= _FEW:
            chosen.append(ShownMap(labelled.records[place], mask, sure))
        if len(chosen) == count:
            break
    if not chosen:
        raise UserError(f"--class: {name!r} has {_FEW:.0%} of the pixels of none of {len(store)} images")
    return chosen


def draw(
    shown: Sequence[ShownMap],
    path: Path,
    *,
    cache: ImageCache,
    classes: Sequence[str],
    unsure: float = UNSURE,
    columns: int = 3,
) -> None:
    """Write a contact sheet as PNG: each photo beside itself under its mask, with a legend of the classes in sight.

    Args:
        shown: what to draw, in order.
        path: file to write; it appears whole or not at all.
        cache: gives the images.
        classes: names, C of them.
        unsure: pixels of less confidence, 0..1, are striped.
        columns: pairs in a row, at most.
    """
    colors, clear = class_colors(len(classes)), background(classes)
    sizes = [_shrunk(one.record.width, one.record.height) for one in shown]
    seen = np.unique(np.concatenate([np.unique(one.mask) for one in shown])).tolist()
    legend: list[Line] = [(classes[place], tuple(colors[place].tolist())) for place in seen if place != clear]
    legend.append((f"striped: confidence under {unsure:g}", (0, 0, 0)))

    def tiles() -> Iterator[Tile]:
        for one, (width, height) in zip(shown, sizes, strict=True):
            photo = cache.get(one.record).resize((width, height), Image.Resampling.BILINEAR)
            mask, sure = (of_size(pixels, width, height) for pixels in (one.mask, one.confidence))
            laid = overlay(
                np.asarray(photo), mask, colors, _ALPHA, clear=clear, outline=True, unsure=sure < 255 * unsure
            )
            pair = Image.new("RGB", (2 * width + _SEAM, height), (255, 255, 255))
            pair.paste(photo, (0, 0))
            pair.paste(Image.fromarray(laid), (width + _SEAM, 0))
            yield Tile(pair, tuple(_caption(one, classes, unsure)))

    save(
        tiles(),
        path,
        count=len(shown),
        width=2 * max(width for width, _ in sizes) + _SEAM,
        height=max(height for _, height in sizes),
        lines=3,
        columns=columns,
        legend=legend,
    )


def _shrunk(width: int, height: int) -> tuple[int, int]:
    scale = _SIDE / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _caption(one: ShownMap, classes: Sequence[str], unsure: float) -> Iterator[Line]:
    shares = np.bincount(one.mask.reshape(-1), minlength=len(classes)) / one.mask.size
    most = [place for place in np.argsort(-shares, kind="stable")[:3].tolist() if shares[place] >= 0.005]
    yield ", ".join(f"{percent(shares[place], 0)} {classes[place]}" for place in most), INK
    sure = f"confidence {one.confidence.mean() / 255:.2f}"
    yield f"{sure}, {percent((one.confidence < 255 * unsure).mean(), 0)} unsure", GREY
    yield f"{one.record.id[:8]}{_right(one)}", GREY


def _right(one: ShownMap) -> str:
    """How much of the truth was answered, where there is any."""
    path = one.record.mask or one.record.hidden_mask
    if path is None:
        return ""
    truth = read_mask(path)
    known = truth != IGNORED
    said = of_size(one.mask, truth.shape[1], truth.shape[0])
    return f": {percent((said == truth)[known].mean(), 0)} of the pixels right" if known.any() else ""
