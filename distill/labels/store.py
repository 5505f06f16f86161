"""The label store: what the teacher said about each view.

A shard has one row an image: the first 8 bytes of its hash and, for each of its K views, the box in pixels, the flip,
the colour changes, the k most probable classes with fp16 probabilities, the tail mass (probability of all others) and
the entropy. View v of image i is at place `i * K + v`, so it is found without an index. At k = 10 and up to 65,536
classes a view takes 55.1 bytes, an image 8, the frame of a shard 3 kB: under 64 a view whatever K is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, final

import numpy as np
import numpy.typing as npt

from distill.core.errors import StoreError
from distill.core.types import FloatArray
from distill.data.views import View
from distill.labels import shards
from distill.labels.shards import Store, shard_path, values, write_columns

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["LabelStore", "Shard", "finish", "images_a_shard", "write_shard"]

_FORMAT = "2"
_VIEWS_A_SHARD = 4096  # a shard of a teacher at 50 views/s takes 80 s: what a kill may cost


class Shard(NamedTuple):
    """What the teacher said about some images, K views each.

    Args:
        images: 64 hex digits each, N of them.
        views: N * K, image after image.
        ids: integers [N * K, k], most probable class first.
        probabilities: float16 [N * K, k].
        tail: float16 [N * K], probability of all other classes.
        entropy: float16 [N * K], of the whole answer, in nats.
    """

    images: Sequence[str]
    views: Sequence[View]
    ids: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float16]
    tail: npt.NDArray[np.float16]
    entropy: npt.NDArray[np.float16]

    @classmethod
    def of(cls, images: Sequence[str], views: Sequence[View], answers: FloatArray, k: int) -> Shard:
        """Keep the k most probable of float32 [N * K, C] probabilities; equal ones in the order of the classes."""
        ids = np.argsort(-answers, axis=1, kind="stable")[:, :k]
        top = np.take_along_axis(answers, ids, axis=1).astype(np.float16)
        tail = np.maximum(0.0, 1.0 - top.astype(np.float64).sum(axis=1)).astype(np.float16)
        entropy = -(answers * np.log(np.maximum(answers, 1e-30))).sum(axis=1, dtype=np.float64)
        return cls(images, views, ids, top, tail, np.maximum(entropy, 0.0).astype(np.float16))

    def joined(self, other: Shard) -> Shard:
        """What this and another one say, in order of image."""
        images, views = [*self.images, *other.images], [*self.views, *other.views]
        each = len(views) // len(images)
        places = sorted(range(len(images)), key=images.__getitem__)
        rows = (np.array(places)[:, None] * each + np.arange(each)).reshape(-1)

        def both(name: str) -> npt.NDArray[Any]:
            return np.concatenate([getattr(self, name), getattr(other, name)])[rows]

        columns = both("ids"), both("probabilities"), both("tail"), both("entropy")
        return Shard([images[place] for place in places], [views[row] for row in rows], *columns)


def images_a_shard(views: int) -> int:
    """Images in each shard but the last."""
    return max(1, _VIEWS_A_SHARD // views)


def write_shard(path: Path, shard: Shard, classes: int, fingerprint: str) -> None:
    """Write one shard atomically; the same answers give the same bytes."""
    import pyarrow as pa

    count = len(shard.views) // len(shard.images)
    numbers = np.array([v[:4] for v in shard.views])
    colors = np.array([v[5:] for v in shard.views])

    def lists(values: npt.NDArray[Any], dtype: Any, an_image: int) -> pa.Array:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.astype(dtype).reshape(-1)), an_image)

    k = shard.ids.shape[1]
    columns = {
        "box": lists(numbers, np.uint16, count * 4),
        "flip": lists(np.array([v.flip for v in shard.views]), np.bool_, count),
        "color": lists(colors, np.int8, count * 3),
        "ids": lists(shard.ids, np.uint8 if classes <= 256 else np.uint16, count * k),
        "probabilities": lists(shard.probabilities, np.float16, count * k),
        "tail": lists(shard.tail, np.float16, count),
        "entropy": lists(shard.entropy, np.float16, count),
    }
    write_columns(path, shard.images, columns, layout=_FORMAT, fingerprint=fingerprint)


def finish(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write `store.json`, the last file: from now on the folder is a store of views."""
    shards.finish(folder, "views", facts)


@final
class LabelStore(Store):
    """A finished store of views, memory-mapped.

    Args:
        folder: holds the shards and `store.json`.

    Raises:
        StoreError: a shard is missing, damaged or of another labelling, or the store was not finished or holds maps.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "views", _FORMAT, _Columns._fields, ("views", "top_k"))
        self.views, self._k = self.numbers["views"], self.numbers["top_k"]
        for number, batch in enumerate(self._batches):
            each = {name: getattr(batch.schema.field(name).type, "list_size", 0) for name in ("flip", "ids")}
            if each != {"flip": self.views, "ids": self.views * self._k}:
                raise StoreError(
                    f"{folder}: store.json says {self.views} views with {self._k} classes each, which"
                    f" {shard_path(folder, number).name} has not: {self._again}"
                )
        self._a_shard = images_a_shard(self.views)
        self._columns: dict[int, _Columns] = {}

    def __len__(self) -> int:
        return self.images * self.views

    def targets(self, index: int) -> FloatArray:
        """The answers to one view of every image, float32 [N, C], in the order of the store."""
        parts = []
        for number in range(self.shards):
            c, step = self._shard(number), slice(index, None, self.views)
            parts.append(self._dense(c.ids[step], c.probabilities[step], c.tail[step]))
        return np.concatenate(parts)

    def entropy(self, index: int) -> FloatArray:
        """Entropy of the answers to one view of every image in nats, float32 [N]."""
        parts = [self._shard(n).entropy[index :: self.views] for n in range(self.shards)]
        return np.concatenate(parts).astype(np.float32)

    def shard(self, number: int) -> Shard:
        """A shard as it was written, but for the images' names: of these, 16 hex digits are kept."""
        c, first = self._shard(number), number * self._a_shard
        views = [
            View(*(*box, flip, *color))
            for box, flip, color in zip(c.box.tolist(), c.flip.tolist(), c.color.tolist(), strict=True)
        ]
        images = [self.image(first + place) for place in range(len(views) // self.views)]
        return Shard(images, views, c.ids.astype(np.int64), c.probabilities, c.tail, c.entropy)

    def about(self, images: Sequence[str]) -> Shard:
        """All that was said of these images, given by their hashes, in their order.

        Raises:
            StoreError: one is not there.
        """
        found = [self._find(self.position(image), 0) for image in images]
        views = [_view(c, row + index) for c, row in found for index in range(self.views)]
        columns = (
            np.concatenate([getattr(c, name)[row : row + self.views] for c, row in found])
            for name in ("ids", "probabilities", "tail", "entropy")
        )
        ids, *others = columns
        return Shard(images, views, ids.astype(np.int64), *others)

    def said(self, number: int, index: int) -> Shard:
        """What was said in a shard of one view of each image, without the images and views: these cost the most."""
        c, shown = self._shard(number), slice(index, None, self.views)
        return Shard((), (), c.ids[shown].astype(np.int64), c.probabilities[shown], c.tail[shown], c.entropy[shown])

    def read(self, positions: npt.NDArray[np.int64], indices: npt.NDArray[np.int64]) -> tuple[list[View], FloatArray]:
        """Views and answers, float32 [N, C], of N pairs of place and view number: what a training step needs."""
        found = [self._find(int(place), int(index)) for place, index in zip(positions, indices, strict=True)]
        views = [_view(columns, row) for columns, row in found]
        ids, probabilities, tail = (
            np.stack([getattr(columns, name)[row] for columns, row in found])
            for name in ("ids", "probabilities", "tail")
        )
        return views, self._dense(ids, probabilities, tail)

    def _find(self, position: int, index: int) -> tuple[_Columns, int]:
        if not 0 <= index < self.views:
            raise IndexError(f"view {index} of {self.views}")
        number, inside = divmod(position, self._a_shard)
        return self._shard(number), inside * self.views + index

    def _dense(
        self, ids: npt.NDArray[Any], probabilities: npt.NDArray[np.float16], tail: npt.NDArray[np.float16]
    ) -> FloatArray:
        rest = self.classes - ids.shape[1]
        dense = np.zeros((len(ids), self.classes), np.float32)
        if rest:
            dense += tail.astype(np.float32)[:, None] / rest
        np.put_along_axis(dense, ids.astype(np.int64), probabilities.astype(np.float32), axis=1)
        answer: FloatArray = dense / dense.sum(axis=1, keepdims=True)
        return answer

    def _shard(self, number: int) -> _Columns:
        columns = self._columns.get(number)
        if columns is None:
            columns = self._columns[number] = _Columns.of(self.batch(number), self._k)
            if columns.ids.size and (largest := int(columns.ids.max())) >= self.classes:
                raise StoreError(
                    f"{self.folder}: store.json says {self.classes} classes, but {shard_path(self.folder, number).name}"
                    f" names number {largest}: {self._again}"
                )
        return columns


class _Columns(NamedTuple):
    """Columns of one shard, one row a view, as arrays over the mapped file."""

    box: npt.NDArray[np.uint16]
    flip: npt.NDArray[np.bool_]
    color: npt.NDArray[np.int8]
    ids: npt.NDArray[Any]
    probabilities: npt.NDArray[np.float16]
    tail: npt.NDArray[np.float16]
    entropy: npt.NDArray[np.float16]

    @classmethod
    def of(cls, batch: pa.RecordBatch, k: int) -> _Columns:
        shape = {"box": (-1, 4), "color": (-1, 3), "ids": (-1, k), "probabilities": (-1, k)}
        return cls(*(values(batch, name).reshape(shape.get(name, (-1,))) for name in cls._fields))


def _view(columns: _Columns, row: int) -> View:
    left, top, width, height = columns.box[row].tolist()
    brightness, contrast, saturation = columns.color[row].tolist()
    return View(left, top, width, height, bool(columns.flip[row]), brightness, contrast, saturation)
