"""The label store: what the teacher said about each view, in Arrow files that appear by rename or not at all.

A shard has one row an image: the first 8 bytes of its hash and, for each of its K views, the box in pixels, the flip,
the colour changes, the k most probable classes with fp16 probabilities, the tail mass (probability of all others) and
the entropy. View v of image i is at place `i * K + v`, so it is found without an index. At k = 10 and up to 65,536
classes a view takes 55.1 bytes, an image 8, the frame of a shard 3 kB: under 64 a view whatever K is.

Each shard carries, in its schema, the fingerprint of the labelling and a checksum of its columns. The checksum is
compared when a shard is first read, not when the store is opened: a million views are opened in 0.05 s.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from distill.core.errors import StoreError
from distill.core.files import read_json, replacing, write_json
from distill.core.types import FloatArray
from distill.data.views import View

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["LabelStore", "Shard", "finish", "images_a_shard", "shard_path", "write_shard"]

_FORMAT = "2"
_MANIFEST = "store.json"
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


def images_a_shard(views: int) -> int:
    """Images in each shard but the last."""
    return max(1, _VIEWS_A_SHARD // views)


def shard_path(folder: Path, number: int) -> Path:
    """File of a shard."""
    return folder / f"shard-{number:05d}.arrow"


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
        "image": pa.array([bytes.fromhex(image[:16]) for image in shard.images], pa.binary(8)),
        "box": lists(numbers, np.uint16, count * 4),
        "flip": lists(np.array([v.flip for v in shard.views]), np.bool_, count),
        "color": lists(colors, np.int8, count * 3),
        "ids": lists(shard.ids, np.uint8 if classes <= 256 else np.uint16, count * k),
        "probabilities": lists(shard.probabilities, np.float16, count * k),
        "tail": lists(shard.tail, np.float16, count),
        "entropy": lists(shard.entropy, np.float16, count),
    }
    table = pa.table(columns)
    table = table.replace_schema_metadata(
        {"format": _FORMAT, "fingerprint": fingerprint, "checksum": _checksum(table.combine_chunks().to_batches()[0])}
    )
    with (
        replacing(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table, max_chunksize=len(shard.images))


def finish(folder: Path, facts: dict[str, Any]) -> None:
    """Write `store.json`, the last file: from now on the folder is a store."""
    write_json(folder / _MANIFEST, facts)


class LabelStore:
    """A finished store, memory-mapped.

    Args:
        folder: holds the shards and `store.json`.

    Raises:
        StoreError: a shard is missing, damaged or of another labelling, or the store was not finished.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self.facts: dict[str, Any] = read_json(folder / _MANIFEST)
            keys = ("classes", "views", "top_k", "images", "shards")
            self.classes, self.views, self._k, self.images, shards = (int(self.facts[key]) for key in keys)
            self._fingerprint = str(self.facts["fingerprint"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{folder}: no finished label store ({error}); `distill run` makes it") from error
        self.folder = folder
        self._again = f"delete the folder {folder} and run the same command again"
        self._batches = [self._open(shard_path(folder, number)) for number in range(shards)]
        found = sum(batch.num_rows for batch in self._batches)
        if found != self.images:
            raise StoreError(f"{folder}: found {found} images, expected {self.images}: {self._again}")
        self._a_shard = images_a_shard(self.views)
        self._columns: dict[int, _Columns] = {}
        # Images are stored in order of their hash, so a binary search over 8 bytes an image finds one.
        self._ids = np.concatenate([_values(batch, "image") for batch in self._batches]).astype(np.uint64)

    def __len__(self) -> int:
        return self.images * self.views

    @property
    def bytes_on_disk(self) -> int:
        """Of all shards."""
        return sum(shard_path(self.folder, n).stat().st_size for n in range(len(self._batches)))

    def position(self, image: str) -> int:
        """Place of an image, given by at least 16 hex digits of its hash, in the order of the store.

        Raises:
            StoreError: it is not there.
        """
        wanted = np.uint64(int(image[:16], 16))
        place = int(np.searchsorted(self._ids, wanted))
        if place == len(self._ids) or self._ids[place] != wanted:
            raise StoreError(f"the label store holds nothing about image {image[:16]}: it is stale")
        return place

    def image(self, position: int) -> str:
        """First 16 hex digits of the hash of the image at a place."""
        return f"{int(self._ids[position]):016x}"

    def targets(self, index: int) -> FloatArray:
        """The answers to one view of every image, float32 [N, C], in the order of the store."""
        parts = []
        for number in range(len(self._batches)):
            c, step = self._shard(number), slice(index, None, self.views)
            parts.append(self._dense(c.ids[step], c.probabilities[step], c.tail[step]))
        return np.concatenate(parts)

    def entropy(self, index: int) -> FloatArray:
        """Entropy of the answers to one view of every image in nats, float32 [N]."""
        parts = [self._shard(n).entropy[index :: self.views] for n in range(len(self._batches))]
        return np.concatenate(parts).astype(np.float32)

    @property
    def shards(self) -> int:
        """Number of shards; all but the last hold `images_a_shard` images."""
        return len(self._batches)

    def shard(self, number: int) -> Shard:
        """A shard as it was written, but for the images' names: of these, 16 hex digits are kept."""
        c, first = self._shard(number), number * self._a_shard
        views = [
            View(*(*box, flip, *color))
            for box, flip, color in zip(c.box.tolist(), c.flip.tolist(), c.color.tolist(), strict=True)
        ]
        images = [self.image(first + place) for place in range(len(views) // self.views)]
        return Shard(images, views, c.ids.astype(np.int64), c.probabilities, c.tail, c.entropy)

    def check(self) -> None:
        """Read every shard and compare its checksum.

        Raises:
            StoreError: names the damaged shard.
        """
        for number in range(len(self._batches)):
            self._shard(number)

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

    def read(self, positions: npt.NDArray[np.int64], indices: npt.NDArray[np.int64]) -> tuple[list[View], FloatArray]:
        """Views and answers, float32 [N, C], of N pairs of place and view number: what a training step needs."""
        found = [self._find(int(place), int(index)) for place, index in zip(positions, indices, strict=True)]
        views = [_view(columns, row) for columns, row in found]
        ids, probabilities, tail = (
            np.stack([getattr(columns, name)[row] for columns, row in found])
            for name in ("ids", "probabilities", "tail")
        )
        return views, self._dense(ids, probabilities, tail)

    def _open(self, path: Path) -> pa.RecordBatch:
        import pyarrow as pa

        try:
            with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
                batch = reader.get_batch(0)
                batch.validate()  # of damaged lengths Arrow would abort the process
                names = batch.schema.names
        except FileNotFoundError as error:
            raise StoreError(f"{path} is missing: {self._again}") from error
        except (OSError, ValueError, pa.ArrowException) as error:
            raise StoreError(f"{path} is damaged ({error}): {self._again}") from error
        facts = batch.schema.metadata or {}
        if facts.get(b"fingerprint") != self._fingerprint.encode() or facts.get(b"format") != _FORMAT.encode():
            raise StoreError(f"{path} belongs to another labelling: {self._again}")
        if set(names) != {"image", *_Columns._fields}:
            raise StoreError(f"{path} is damaged (it has the columns {', '.join(names)}): {self._again}")
        return batch

    def _shard(self, number: int) -> _Columns:
        columns = self._columns.get(number)
        if columns is None:
            batch = self._batches[number]
            if batch.schema.metadata.get(b"checksum") != _checksum(batch).encode():
                path = shard_path(self.folder, number)
                raise StoreError(f"{path} is damaged (its checksum does not match): {self._again}")
            columns = self._columns[number] = _Columns.of(batch, self._k)
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
        return cls(*(_values(batch, name).reshape(shape.get(name, (-1,))) for name in cls._fields))


def _view(columns: _Columns, row: int) -> View:
    left, top, width, height = columns.box[row].tolist()
    brightness, contrast, saturation = columns.color[row].tolist()
    return View(left, top, width, height, bool(columns.flip[row]), brightness, contrast, saturation)


def _checksum(batch: pa.RecordBatch) -> str:
    """CRC-32 over the values of all columns: it finds damage, not malice; 1 GB/s."""
    crc = 0
    for name in batch.schema.names:
        crc = zlib.crc32(np.ascontiguousarray(_values(batch, name)).data.cast("B"), crc)
    return f"{crc:08x}"


def _values(batch: pa.RecordBatch, name: str) -> npt.NDArray[Any]:
    """Values of a column in one dimension; over the mapped file, but for the flips, which Arrow keeps as bits."""
    column = batch[name]
    if name == "image":
        return np.frombuffer(column.buffers()[-1], dtype=">u8", offset=column.offset * 8, count=len(column))
    values: npt.NDArray[Any] = column.flatten().to_numpy(zero_copy_only=name != "flip")
    return values
