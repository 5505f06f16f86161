"""The stage that asks the teacher about the pixels of every image and writes the store of maps, shard by shard."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from distill.config import LabelSettings
from distill.core.dense import scale_map
from distill.core.errors import TeacherError
from distill.core.progress import Progress
from distill.core.types import FloatArray, ImageRecord, Predictor, softmax
from distill.data.batches import ImageCache
from distill.data.views import View
from distill.labels import maps
from distill.labels.label import Asking, Shown, fill
from distill.labels.maps import Entry

__all__ = ["Answer", "answer_of", "label_maps", "whole"]

_PLAN = "plan.json"
_HELD = (
    16  # images whose logits wait to be scaled, and as many that are asked about meanwhile; a batch, if that is more
)
_WORKERS = 2  # threads that scale: 384x256 pixels of 21 classes take 30 ms, 1024x683 0.2 s
_TILE = 64  # pixels a side that are scaled at once: 8 times as fast as the whole of 1024x768
_LEAST = -80.0  # of a logit below its cell's largest one; e^-80 is nothing, and minus infinity cannot be scaled


class Answer(NamedTuple):
    """What a teacher says about an image.

    Args:
        soft: float32 [G, G, C], probabilities in the cells of a grid over the whole image.
        mask: uint8 [H, W], most probable class of each pixel.
        confidence: float32 [H, W], its probability.
    """

    soft: FloatArray
    mask: npt.NDArray[np.uint8]
    confidence: FloatArray


def label_maps(
    teacher: Predictor,
    records: Sequence[ImageRecord],
    folder: Path,
    settings: LabelSettings,
    *,
    cache: ImageCache,
    batch_size: int,
    fingerprint: str,
    facts: Mapping[str, Any],
    progress: Progress,
) -> None:
    """Ask the teacher about every record, seen whole and squashed to the teacher's size; shards that exist are kept.

    A shard's batches begin at its first image, so a labelling that was killed ends with the same bytes as one that was
    not. Where memory runs out the shard is asked anew with half the batch, which stays. Logits of at most 32 images, or
    of two batches, are held at once.

    Args:
        teacher: answers pixels in the classes of the data.
        records: in order of id.
        folder: of the store.
        settings: cells a side of the soft maps, and top-k.
        cache: gives the images.
        batch_size: images in one forward pass.
        fingerprint: of all that decides the answers; written into each shard.
        facts: written into the store's manifest.
        progress: told of each batch.

    Raises:
        TeacherError: the teacher does not answer pixels, gives NaN, or does not fit in memory even for one image; or
            there are too many classes.
    """
    classes = len(teacher.class_names)
    if classes > maps.MOST_CLASSES:
        raise TeacherError(f"a store of maps holds at most {maps.MOST_CLASSES} classes, found {classes}")
    k = maps.kept_classes(settings.top_k, classes)

    def entry(record: ImageRecord, logits: FloatArray) -> Entry:
        return Entry.of(*answer_of(logits, record, settings.grid), k)

    def write(path: Path, shown: Sequence[Shown], entries: Sequence[Entry]) -> None:
        maps.write_shard(path, [record.id for record, _ in shown], entries, fingerprint)

    with (
        progress.task("labelling", len(records) * teacher.passes) as task,
        ThreadPoolExecutor(_WORKERS, thread_name_prefix="scale") as pool,
    ):
        asking = Asking(teacher, cache, folder / _PLAN, batch_size, task)

        def answers(shown: Sequence[Shown]) -> list[Entry]:
            entries: list[Future[Entry]] = []
            for part in _parts(shown, asking.batch_size):
                logits = asking.about(part)
                if logits.ndim != 4:
                    raise TeacherError(
                        f"expected a teacher that answers pixels, [images, h, w, {classes}]; found {list(logits.shape)}"
                    )
                wait(entries)
                entries += [pool.submit(entry, record, each) for (record, _), each in zip(part, logits, strict=True)]
                del logits
            return [each.result() for each in entries]

        def ask(shown: Sequence[Shown]) -> list[Entry]:
            return asking.patiently(lambda: answers(shown))

        shards = fill(folder, records, maps.IMAGES_A_SHARD, whole, ask, write, asking)
    maps.finish(
        folder,
        {
            **facts,
            "fingerprint": fingerprint,
            "grid": settings.grid,
            "top_k": k,
            "classes": classes,
            "class_names": list(teacher.class_names),
            "images": len(records),
            "shards": shards,
            "batch_size": asking.batch_size,
        },
    )


def whole(record: ImageRecord) -> Shown:
    """The whole image, as it is shown to the teacher."""
    return record, (View(0, 0, record.width, record.height, False),)


def answer_of(logits: FloatArray, record: ImageRecord, grid: int) -> Answer:
    """A teacher's logits about an image as a soft map and a mask of the image's stored size.

    The soft map is made of probabilities, since a cell's is the mean over its area; the mask of logits, as an app
    enlarges them.

    Args:
        logits: float32 [h, w, C].
        record: its image.
        grid: cells a side of the soft map.

    Raises:
        TeacherError: a logit is NaN or infinite.
    """
    lower = logits - logits.max(axis=-1, keepdims=True)
    if np.isnan(lower).any():
        raise TeacherError(f"{record.path}: the teacher's answer has values that are no numbers, expected logits")
    np.maximum(lower, np.float32(_LEAST), out=lower)
    width, height = maps.stored_size(record.width, record.height)
    mask, confidence = np.empty((height, width), np.uint8), np.empty((height, width), np.float32)
    for rows, columns in _tiles(height, width):
        scaled = np.moveaxis(_cut(lower, rows, columns, height, width), -1, 0).copy()  # classes first: 1.5 times faster
        mask[rows, columns] = scaled.argmax(axis=0)
        scaled -= scaled.max(axis=0)
        confidence[rows, columns] = 1 / np.exp(scaled, out=scaled).sum(axis=0)
    return Answer(scale_map(softmax(lower), grid, grid), mask, confidence)


def _parts(shown: Sequence[Shown], batch_size: int) -> Iterator[Sequence[Shown]]:
    """Whole batches of `_HELD` images or less, and at least one."""
    step = max(1, _HELD // batch_size) * batch_size
    return (shown[at : at + step] for at in range(0, len(shown), step))


def _tiles(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    for top in range(0, height, _TILE):
        for left in range(0, width, _TILE):
            yield slice(top, min(top + _TILE, height)), slice(left, min(left + _TILE, width))


def _cut(values: FloatArray, rows: slice, columns: slice, height: int, width: int) -> FloatArray:
    """A tile of `scale_map(values, height, width)`, made of the cells that it takes from alone."""
    down, top, bottom = _span(values.shape[0], rows, height)
    across, left, right = _span(values.shape[1], columns, width)
    return scale_map(
        values[down, across], rows.stop - rows.start, columns.stop - columns.start, (left, top, right, bottom)
    )


def _span(cells: int, part: slice, wanted: int) -> tuple[slice, float, float]:
    """The cells of a line that a part of its `wanted` pixels takes from, and where the part lies among them."""
    step = cells / wanted
    margin = math.ceil(max(1.0, step)) + 1
    first, last = max(0, int(part.start * step) - margin), min(cells, math.ceil(part.stop * step) + margin)
    return slice(first, last), (part.start * step - first) / (last - first), (part.stop * step - first) / (last - first)
