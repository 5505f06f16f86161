"""What every label store is on disk: Arrow files that appear by rename or not at all, and a `store.json` written last.

A shard has one row an image, the first 8 bytes of its hash in front. In its schema it carries the fingerprint of the
labelling and a checksum of its columns. The checksum is compared when a shard is first read, not when the store is
opened: a million views are opened in 0.05 s.
"""

from __future__ import annotations

import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from distill.core.errors import StoreError
from distill.core.files import read_json, replacing, write_json

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "PLAN",
    "REVISION",
    "Kind",
    "Store",
    "blobs",
    "complete",
    "facts_of",
    "finish",
    "kind_of",
    "planned",
    "precisions",
    "shard_path",
    "values",
    "write_columns",
]

REVISION = 3
"""Raised when the same teacher would come to other answers, so that what is stored is asked anew."""

Kind = Literal["views", "maps"]
"""Answers to views, one an image; or answers to whole images, one a pixel."""

PLAN = "plan.json"
"""What `store.json` will say, there from the first shard on."""

_MANIFEST = "store.json"


def shard_path(folder: Path, number: int) -> Path:
    """File of a shard."""
    return folder / f"shard-{number:05d}.arrow"


def write_columns(
    path: Path, images: Sequence[str], columns: Mapping[str, pa.Array], *, layout: str, fingerprint: str
) -> None:
    """Write one shard atomically; the same columns give the same bytes.

    Args:
        path: of the shard.
        images: 64 hex digits each, N of them.
        columns: N rows each, without nulls: lists of one length, or binary.
        layout: number of the columns' form; a reader of another form refuses the shard.
        fingerprint: of all that decides the answers.
    """
    import pyarrow as pa

    table = pa.table({"image": pa.array([bytes.fromhex(image[:16]) for image in images], pa.binary(8)), **columns})
    table = table.replace_schema_metadata(
        {"format": layout, "fingerprint": fingerprint, "checksum": _checksum(table.combine_chunks().to_batches()[0])}
    )
    with (
        replacing(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table, max_chunksize=len(images))


def finish(folder: Path, kind: Kind, facts: Mapping[str, Any]) -> None:
    """Write `store.json`, the last file: from now on the folder is a store."""
    write_json(folder / _MANIFEST, {"kind": kind, **facts})


def complete(folder: Path) -> bool:
    """Write `store.json` where the plan and all of its shards are there, whoever wrote them; whether that is so."""
    shards = planned(folder)
    if shards is None or not all(shard_path(folder, number).exists() for number in range(shards)):
        return False
    plan = read_json(folder / PLAN)
    finish(folder, plan.pop("kind"), plan)
    return True


def planned(folder: Path) -> int | None:
    """Number of shards by the plan; None where there is no plan."""
    try:
        return int(read_json(folder / PLAN)["shards"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def precisions(said: str) -> str:
    """What `store.json` says of the precision, without why it was chosen, which another machine would measure anew."""
    return re.sub(r" \([^)]*\)", "", said)


def kind_of(folder: Path) -> Kind:
    """What a finished store holds.

    Raises:
        StoreError: it was not finished.
    """
    facts = facts_of(folder)
    return "maps" if facts.get("kind") == "maps" else "views"  # stores older than maps do not say


class Store(ABC):
    """A finished store, memory-mapped.

    Args:
        folder: holds the shards and `store.json`.
        kind: what it must hold.
        layout: the form that its shards must have.
        columns: their names, but for `image`.
        numbers: keys of `store.json` that must be whole numbers.

    Raises:
        StoreError: a shard is missing, damaged or of another labelling, or the store was not finished or is of another
            kind.
    """

    def __init__(self, folder: Path, kind: Kind, layout: str, columns: Sequence[str], numbers: Sequence[str]) -> None:
        self.facts = facts_of(folder)
        self.folder = folder
        if (found := kind_of(folder)) != kind:
            raise StoreError(f"{folder} is a label store of {found}, expected one of {kind}: {self._again}")
        try:
            self.numbers = {key: int(self.facts[key]) for key in ("images", "shards", "classes", *numbers)}
            fingerprint = str(self.facts["fingerprint"])
        except (ValueError, KeyError, TypeError) as error:
            raise _unfinished(folder, error) from error
        self.images, self.shards, self.classes = (self.numbers[key] for key in ("images", "shards", "classes"))
        wanted = {"format": layout, "fingerprint": fingerprint}
        self._batches = [self._open(shard_path(folder, n), wanted, columns) for n in range(self.shards)]
        there = sum(batch.num_rows for batch in self._batches)
        if there != self.images:
            raise StoreError(f"{folder}: found {there} images, expected {self.images}: {self._again}")
        self._checked: set[int] = set()
        # Images are stored in order of their hash, so a binary search over 8 bytes an image finds one.
        parts = [values(batch, "image") for batch in self._batches]
        self._ids = np.concatenate([*parts, np.zeros(0, np.uint64)]).astype(np.uint64)

    @abstractmethod
    def __len__(self) -> int:
        """Number of answers."""

    @property
    def bytes_on_disk(self) -> int:
        """Of all shards."""
        return sum(shard_path(self.folder, number).stat().st_size for number in range(self.shards))

    def position(self, image: str) -> int:
        """Place of an image, given by at least 16 hex digits of its hash, in the order of the store.

        Raises:
            StoreError: it is not there.
        """
        place = self._place(image)
        if place is None:
            raise StoreError(f"the label store holds nothing about image {image[:16]}: it is stale")
        return place

    def __contains__(self, image: str) -> bool:
        """Whether it holds an image, given by at least 16 hex digits of its hash."""
        return self._place(image) is not None

    def image(self, position: int) -> str:
        """First 16 hex digits of the hash of the image at a place."""
        return f"{int(self._ids[position]):016x}"

    def is_about(self, images: Iterable[str]) -> bool:
        """Whether it holds these images, given by their hashes, in this order, and no others."""
        return np.array_equal(self._ids, np.fromiter((int(image[:16], 16) for image in images), np.uint64))

    def check(self) -> None:
        """Read every shard and compare its checksum.

        Raises:
            StoreError: names the damaged shard.
        """
        for number in range(self.shards):
            self.batch(number)

    def batch(self, number: int) -> pa.RecordBatch:
        """The columns of a shard, proven at the first touch.

        Raises:
            StoreError: it is damaged.
        """
        batch = self._batches[number]
        if number not in self._checked:
            if batch.schema.metadata.get(b"checksum") != _checksum(batch).encode():
                path = shard_path(self.folder, number)
                raise StoreError(f"{path} is damaged (its checksum does not match): {self._again}")
            self._checked.add(number)
        return batch

    @property
    def _again(self) -> str:
        return f"delete the folder {self.folder} and run the same command again"

    def _place(self, image: str) -> int | None:
        wanted = np.uint64(int(image[:16], 16))
        place = int(np.searchsorted(self._ids, wanted))
        return place if place < len(self._ids) and self._ids[place] == wanted else None

    def _open(self, path: Path, wanted: Mapping[str, str], columns: Sequence[str]) -> pa.RecordBatch:
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
        if any(facts.get(key.encode()) != value.encode() for key, value in wanted.items()):
            raise StoreError(f"{path} belongs to another labelling: {self._again}")
        if set(names) != {"image", *columns}:
            raise StoreError(f"{path} is damaged (it has the columns {', '.join(names)}): {self._again}")
        return batch


def values(batch: pa.RecordBatch, name: str) -> npt.NDArray[Any]:
    """Values of a column in one dimension; over the mapped file, but for flags, which Arrow keeps as bits."""
    import pyarrow as pa

    column = batch[name]
    if name == "image":
        return np.frombuffer(column.buffers()[-1], dtype=">u8", offset=column.offset * 8, count=len(column))
    flat = column.flatten() if pa.types.is_fixed_size_list(column.type) else column
    found: npt.NDArray[Any] = flat.to_numpy(zero_copy_only=not pa.types.is_boolean(flat.type))
    return found


def blobs(batch: pa.RecordBatch, name: str) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
    """A column of binary values over the mapped file: value n is `data[starts[n] : starts[n + 1]]`.

    Returns:
        starts, int32 [N + 1], and data, uint8.
    """
    column = batch[name]
    _, starts, data = column.buffers()
    offsets = np.frombuffer(starts, dtype=np.int32, offset=column.offset * 4, count=len(column) + 1)
    return offsets, np.frombuffer(data, dtype=np.uint8)


def _checksum(batch: pa.RecordBatch) -> str:
    """CRC-32 over the values of all columns: it finds damage, not malice; 1 GB/s."""
    import pyarrow as pa

    crc = 0
    for name in batch.schema.names:
        if pa.types.is_binary(batch[name].type):
            starts, data = blobs(batch, name)
            parts: tuple[npt.NDArray[Any], ...] = (starts, data[starts[0] : starts[-1]])
        else:
            parts = (np.ascontiguousarray(values(batch, name)),)
        for part in parts:
            crc = zlib.crc32(part.data.cast("B"), crc)
    return f"{crc:08x}"


def facts_of(folder: Path) -> dict[str, Any]:
    """What `store.json` says: who was asked, and how.

    Raises:
        StoreError: the store was not finished.
    """
    try:
        facts = read_json(folder / _MANIFEST)
    except (OSError, ValueError) as error:
        raise _unfinished(folder, error) from error
    if not isinstance(facts, dict):
        raise _unfinished(folder, "no object")
    return facts


def _unfinished(folder: Path, why: object) -> StoreError:
    return StoreError(f"{folder}: no finished label store ({why}); `distill run` makes it")
