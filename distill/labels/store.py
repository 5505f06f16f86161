"""The label store: what the teacher said about each view, in Arrow files that appear by rename or not at all.

A view takes one row: image (first 8 bytes of its hash), view number, box in pixels, flip, the k most probable classes
with fp16 probabilities, and the tail mass, the probability of all others. Row `image_position * views + view` is found
without an index.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from distill.core.errors import StoreError
from distill.core.files import read_json, replacing, write_json
from distill.core.types import FloatArray
from distill.data.views import View

__all__ = ["IMAGES_A_SHARD", "LabelStore", "Row", "shard_path", "write_shard"]

IMAGES_A_SHARD = 256
_MANIFEST = "store.json"


class Row(NamedTuple):
    """What the teacher said about one view.

    Args:
        image: 64 hex digits.
        number: of the view.
        view: what was shown.
        ids: uint16 [k], most probable first.
        probabilities: float16 [k].
        tail: probability of all other classes.
    """

    image: str
    number: int
    view: View
    ids: npt.NDArray[np.uint16]
    probabilities: npt.NDArray[np.float16]
    tail: float


def shard_path(folder: Path, number: int) -> Path:
    """File of a shard."""
    return folder / f"shard-{number:05d}.arrow"


def write_shard(path: Path, rows: Sequence[Row]) -> None:
    """Write one shard atomically; the same rows give the same bytes."""
    import pyarrow as pa

    k = len(rows[0].ids)
    columns: dict[str, Any] = {
        "image": pa.array([bytes.fromhex(r.image[:16]) for r in rows], pa.binary(8)),
        "view": pa.array([r.number for r in rows], pa.uint16()),
        "box": pa.FixedSizeListArray.from_arrays(
            pa.array([n for r in rows for n in r.view[:4]], pa.uint16() if _fits(rows) else pa.uint32()), 4
        ),
        "flip": pa.array([r.view.flip for r in rows], pa.bool_()),
        "ids": pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate([r.ids for r in rows]), pa.uint16()), k),
        "probabilities": pa.FixedSizeListArray.from_arrays(
            pa.array(np.concatenate([r.probabilities for r in rows]), pa.float16()), k
        ),
        "tail": pa.array(np.array([r.tail for r in rows], np.float16), pa.float16()),
    }
    table = pa.table(columns)
    with (
        replacing(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table, max_chunksize=len(rows))


def _fits(rows: Sequence[Row]) -> bool:
    return max(max(r.view[:4]) for r in rows) < 1 << 16


class LabelStore:
    """A finished store, memory-mapped.

    Args:
        folder: holds the shards and `store.json`.

    Raises:
        StoreError: a shard is missing or damaged, or the store was not finished.
    """

    def __init__(self, folder: Path) -> None:
        import pyarrow as pa

        try:
            self.facts: dict[str, Any] = read_json(folder / _MANIFEST)
            numbers = [int(self.facts[key]) for key in ("classes", "views", "top_k", "rows", "shards")]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{folder}: no finished label store ({error}); `distill run` makes it") from error
        self.classes, self.views, top_k, expected, shards = numbers
        tables, again = [], f"delete the folder {folder} and run the same command again"
        for number in range(shards):
            path = shard_path(folder, number)
            try:
                found = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            except FileNotFoundError as error:
                raise StoreError(f"{path} is missing: {again}") from error
            except (OSError, pa.ArrowException) as error:
                raise StoreError(f"{path} is damaged ({error}): {again}") from error
            box = found["box"].cast(pa.list_(pa.uint32(), 4))  # shards without huge images have it in 16 bits
            tables.append(found.set_column(found.schema.get_field_index("box"), "box", box))
        table = pa.concat_tables(tables)
        if table.num_rows != expected:
            raise StoreError(f"{folder}: found {table.num_rows} rows, expected {expected}: {again}")
        self._image = table["image"]
        k = min(top_k, self.classes)
        self._ids = _flat(table["ids"], np.uint16).reshape(-1, k)
        self._probabilities = _flat(table["probabilities"], np.float16).reshape(-1, k)
        self._tail = table["tail"].to_numpy().astype(np.float32)
        self._box = _flat(table["box"], np.uint32).reshape(-1, 4)
        self._flip = table["flip"].to_numpy()
        self.position = {
            value.as_py().hex(): row // self.views for row, value in enumerate(self._image) if row % self.views == 0
        }

    def __len__(self) -> int:
        return len(self._tail)

    def view(self, image: str, index: int) -> View:
        """What the teacher was shown."""
        row = self._row(image, index)
        left, top, width, height = (int(n) for n in self._box[row])
        return View(left, top, width, height, bool(self._flip[row]))

    def target(self, image: str, index: int) -> FloatArray:
        """The teacher's answer as float32 [C], sum one; the tail mass is spread evenly over the other classes."""
        row = self._row(image, index)
        ids, probabilities = self._ids[row], self._probabilities[row].astype(np.float32)
        rest = self.classes - len(ids)
        dense = np.full(self.classes, self._tail[row] / rest if rest else 0.0, dtype=np.float32)
        dense[ids] = probabilities
        total: np.float32 = dense.sum()
        target: FloatArray = dense / total
        return target

    def _row(self, image: str, index: int) -> int:
        try:
            row: int = self.position[image[:16]] * self.views + index
        except KeyError:
            raise StoreError(f"the label store holds nothing about image {image[:16]}: it is stale") from None
        return row


def finish(folder: Path, facts: dict[str, Any]) -> None:
    """Write `store.json`, the last file: from now on the folder is a store."""
    write_json(folder / _MANIFEST, facts)


def _flat(column: Any, dtype: Any) -> npt.NDArray[Any]:
    """Values of a fixed-size-list column as one numpy array."""
    return np.concatenate([chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]).astype(dtype)
