"""The stage that asks the teacher about the pixels of every image and writes the store of maps, shard by shard."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import numpy.typing as npt

from distill.config import LabelSettings
from distill.core.dense import scale_map
from distill.core.errors import TeacherError
from distill.core.types import FloatArray, ImageRecord, Predictor, softmax
from distill.data.batches import ImageCache
from distill.labels import maps
from distill.labels.label import Asking, Labelling, Shown, whole
from distill.labels.maps import Entry, MapStore

__all__ = ["Answer", "MapLabelling", "answer_of"]

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


@final
class MapLabelling(Labelling[list[Entry], MapStore]):
    """Answers to whole images, one a pixel; each is seen squashed to the teacher's size.

    Logits of at most 32 images, or of two batches, are held at once.

    Args:
        teacher: answers pixels in the classes of the data.
        records: in order of id.
        folder: of the store.
        settings: cells a side of the soft maps, and top-k.
        cache: gives the images.
        batch_size: images in one forward pass.
        fingerprint: of all that decides the answers; written into each shard.
        facts: written into the store's manifest.
        earlier: folder of an earlier store.

    Raises:
        TeacherError: there are too many classes.
    """

    kind = "maps"
    decides = ("grid",)
    unit = "images"

    def __init__(
        self,
        teacher: Predictor,
        records: Sequence[ImageRecord],
        folder: Path,
        settings: LabelSettings,
        *,
        cache: ImageCache,
        batch_size: int,
        fingerprint: str,
        facts: Mapping[str, Any],
        earlier: Path | None = None,
    ) -> None:
        classes = len(teacher.class_names)
        if classes > maps.MOST_CLASSES:
            raise TeacherError(f"a store of maps holds at most {maps.MOST_CLASSES} classes, found {classes}")
        self._grid, self._k = settings.grid, maps.kept_classes(settings.top_k, classes)
        self._fingerprint = fingerprint
        super().__init__(
            teacher,
            records,
            folder,
            {**facts, "fingerprint": fingerprint, "grid": self._grid, "top_k": self._k},
            an_image=1,
            images_a_shard=maps.IMAGES_A_SHARD,
            cache=cache,
            batch_size=batch_size,
            earlier=partial(MapStore, earlier) if earlier else None,
        )

    def show(self, record: ImageRecord) -> Shown:
        return whole(record)

    def ask(self, asking: Asking, shown: Sequence[Shown]) -> list[Entry]:
        with ThreadPoolExecutor(_WORKERS, thread_name_prefix="scale") as pool:
            return asking.patiently(lambda: self._answers(asking, shown, pool))

    def write(self, path: Path, known: Sequence[Shown], asked: Sequence[Shown], answers: list[Entry] | None) -> None:
        entries = dict(zip((record.id for record, _ in asked), answers or (), strict=True))
        if self._earlier is not None:
            entries |= {record.id: self._earlier.entry(self._earlier.position(record.id)) for record, _ in known}
        images = sorted(entries)
        maps.write_shard(path, images, [entries[image] for image in images], self._fingerprint)

    def _answers(self, asking: Asking, shown: Sequence[Shown], pool: ThreadPoolExecutor) -> list[Entry]:
        entries: list[Future[Entry]] = []
        for part in _parts(shown, asking.batch_size):
            logits = asking.about(part)
            if logits.ndim != 4:
                raise TeacherError(
                    f"expected a teacher that answers pixels, [images, h, w, {len(self._teacher.class_names)}];"
                    f" found {list(logits.shape)}"
                )
            wait(entries)
            entries += [pool.submit(self._entry, record, each) for (record, _), each in zip(part, logits, strict=True)]
            del logits
        return [each.result() for each in entries]

    def _entry(self, record: ImageRecord, logits: FloatArray) -> Entry:
        return Entry.of(*answer_of(logits, record, self._grid), self._k)


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
