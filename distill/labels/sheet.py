"""A picture of what the student is shown and what the teacher said of it: `distill labels show`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from distill.core.errors import UserError
from distill.core.types import FloatArray, ImageRecord
from distill.data.batches import ImageCache
from distill.data.views import View, render
from distill.labels.contact import GREY, INK, RED, Line, Tile, save
from distill.labels.stat import Labelled, confidence
from distill.report.wording import percent

__all__ = ["Shown", "choose", "draw"]

_SIDE = 192  # of a drawn view in pixels


@dataclass(frozen=True)
class Shown:
    """A view and what the teacher said of it.

    Args:
        record: its image.
        number: of the view.
        view: its numbers, as stored.
        said: up to three class names with probabilities, most probable first.
    """

    record: ImageRecord
    number: int
    view: View
    said: tuple[tuple[str, float], ...]


def choose(labelled: Labelled, count: int, *, name: str | None, lowest: bool, seed: int) -> list[Shown]:
    """One view each of some images.

    Args:
        labelled: a store.
        count: images, at most.
        name: only views whose most probable class this is; None for all.
        lowest: those the teacher is least sure of, the least sure first; else drawn at random.
        seed: of the draw.

    Raises:
        UserError: there is no such class, or the teacher never answered it.
    """
    store, classes = labelled.store, labelled.manifest.classes
    if name is not None and name not in classes:
        raise UserError(f"--class: found no class {name!r}; known: {', '.join(classes)}")
    answers, sure = _answers(labelled)
    wanted = np.ones(len(sure), np.bool_) if name is None else answers == classes.index(name)
    places = np.flatnonzero(wanted)
    if not len(places):
        raise UserError(f"--class: {name!r} is not the most probable class of any of {len(store)} views")
    order = np.argsort(sure[places], kind="stable") if lowest else np.random.default_rng(seed).permutation(len(places))
    chosen: dict[int, int] = {}
    for place in places[order].tolist():
        chosen.setdefault(place // store.views, place % store.views)
        if len(chosen) == count:
            break
    images, numbers = (np.array(values, dtype=np.int64) for values in (list(chosen), list(chosen.values())))
    views, probabilities = store.read(images, numbers)
    shown = zip(chosen.items(), views, probabilities, strict=True)
    return [Shown(labelled.records[image], n, view, _top(classes, p)) for (image, n), view, p in shown]


def draw(
    shown: Sequence[Shown], path: Path, *, cache: ImageCache, image_size: int, classes: Sequence[str], columns: int = 6
) -> None:
    """Write a contact sheet as PNG.

    Args:
        shown: what to draw, in order.
        path: file to write; it appears whole or not at all.
        cache: gives the images.
        image_size: side in pixels at which the student sees them.
        classes: an image's truth is written below it where its label is one of these.
        columns: views in a row, at most.
    """
    tiles = (
        Tile(_enlarged(render(cache.get(one.record), one.view, image_size)), tuple(_caption(one, classes)))
        for one in shown
    )
    save(tiles, path, count=len(shown), width=_SIDE, height=_SIDE, lines=5, columns=columns)


def _answers(labelled: Labelled) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Most probable class of every view and its probability, image after image."""
    store = labelled.store
    shards = (store.shard(number) for number in range(store.shards))
    parts = [(shard.ids[:, 0], confidence(shard, store.classes)) for shard in shards]
    return np.concatenate([ids for ids, _ in parts]), np.concatenate([sure for _, sure in parts])


def _top(classes: Sequence[str], probabilities: FloatArray) -> tuple[tuple[str, float], ...]:
    best = np.argsort(-probabilities, kind="stable")[:3]
    return tuple((classes[i], float(probabilities[i])) for i in best)


def _caption(one: Shown, classes: Sequence[str]) -> Iterator[Line]:
    for name, probability in one.said:
        yield f"{percent(probability, 0)}  {name}", INK
    truth = one.record.label or one.record.hidden_label
    if truth in classes:
        yield f"truth: {truth}", GREY if truth == one.said[0][0] else RED
    yield f"{one.record.id[:8]} view {one.number}", GREY


def _enlarged(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    """Whole pixels where the student sees less than is drawn, so that one sees how little that is."""
    image = Image.fromarray(pixels)
    if image.width > _SIDE:
        return image.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    side = _SIDE // image.width * image.width
    return image.resize((side, side), Image.Resampling.NEAREST)
