"""Images in the rows of Parquet tables: bytes, or the structs {bytes, path} of Hugging Face datasets.

Parquet gives a row group at a time, so a single row costs its whole group. The last used groups stay in memory, 512 MB
of them, which serves reading in order; in random order small groups matter (Hugging Face writes 100 rows to a group).
"""

from __future__ import annotations

import bisect
import contextlib
import json
from collections import OrderedDict
from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from distill.core.errors import DataError
from distill.data.remote import File, is_url, stream

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Row", "rows", "value"]

_CACHE_BYTES = 512_000_000
_LARGEST = 1_000_000_000  # bytes of a row group; it is read at once
_IMAGES = ("image", "img", "jpg", "png")
_LABELS = ("label", "cls", "labels", "class")
_MASKS = ("mask", "annotation", "segmentation")


class Row(NamedTuple):
    """A row of a table.

    Args:
        column: that holds the image.
        mask: column that holds its mask, or empty.
        number: from 0 on, in the whole table.
        name: of the file it was, or empty.
        label: its class, None where there is no such column or value.
        bytes: of an image in its row group, on average, as stored.
    """

    column: str
    mask: str
    number: int
    name: str
    label: str | int | None
    bytes: int


def rows(table: File) -> Iterator[Row]:
    """All rows, without their images; classes by their names, where the table has names, else as they stand there.

    Raises:
        DataError: it is no Parquet, has no column of images, or row groups that do not fit in memory.
    """
    opened = _Table(table.path)  # it may have changed since it was read last
    schema, metadata = opened.schema, opened.metadata
    image = _column(schema, _IMAGES)
    if image is None:
        kinds = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise DataError(f"{table.path} has no column of images: expected `image` as bytes, found {kinds}")
    mask = next((name for name in _MASKS if name in schema.names and _holds_bytes(schema.field(name))), "")
    label = next((name for name in _LABELS if name in schema.names and not _holds_bytes(schema.field(name))), None)
    names = _class_names(schema, label)
    path = f"{image}.path" if _is_struct(schema.field(image)) else None
    wanted = [name for name in (label, path) if name is not None]
    number = 0
    for group in range(metadata.num_row_groups):
        facts = metadata.row_group(group)
        if facts.total_byte_size > _LARGEST:
            raise DataError(
                f"{table.path}: a row group has {facts.total_byte_size} bytes, but one is read at once; write the table"
                " with row_group_size=100"
            )
        found = opened.read(group, wanted)
        labels = found[label].to_pylist() if label else [None] * facts.num_rows
        paths = found[image].to_pylist() if path else [None] * facts.num_rows
        chunks = (facts.column(place) for place in range(facts.num_columns))
        stored = sum(one.total_compressed_size for one in chunks if one.path_in_schema.split(".")[0] == image)
        for one, where in zip(labels, paths, strict=True):
            name = ((where or {}).get("path") or "").replace("\\", "/").rsplit("/", 1)[-1]
            said = names[one] if names is not None and isinstance(one, int) and 0 <= one < len(names) else one
            yield Row(image, mask, number, name, said, stored // max(1, facts.num_rows))
            number += 1


def value(path: str, column: str, row: int) -> bytes:
    """The bytes in a row.

    Raises:
        OSError: there are none in this row.
        DataError: the table cannot be read.
    """
    ends = _table(path).ends
    group = bisect.bisect_right(ends, row)
    if group == len(ends):
        raise DataError(f"{path} has become shorter since it was listed. The same command reads it anew")
    found = _groups.get(path, column, group)[row - (ends[group - 1] if group else 0)].as_py()
    if found is None:
        raise OSError("the row holds no image")
    return bytes(found)


class _Groups:
    """Columns of row groups, kept until they fill 512 MB; the last used stay. Safe to use from several threads."""

    def __init__(self) -> None:
        self._found: OrderedDict[tuple[str, str, int], pa.ChunkedArray] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()
        self._reading: dict[tuple[str, str, int], Lock] = {}

    def get(self, path: str, column: str, group: int) -> pa.ChunkedArray:
        at = path, column, group
        with self._lock:
            if at in self._found:
                self._found.move_to_end(at)
                return self._found[at]
            own = self._reading.setdefault(at, Lock())
        with own:  # others that want the same group wait instead of reading it again
            with self._lock:
                if at in self._found:
                    return self._found[at]
            values = _table(path).column(column, group)
            with self._lock:
                self._found[at] = values
                self._bytes += values.nbytes
                self._reading.pop(at, None)
                while self._bytes > _CACHE_BYTES and len(self._found) > 1:
                    _, old = self._found.popitem(last=False)
                    self._bytes -= old.nbytes
        return values


_groups = _Groups()


class _Table:
    """A table that stays open: reading its footer anew would take 1 ms, as decoding a small photo does."""

    def __init__(self, path: str) -> None:
        import pyarrow.parquet

        self._path, self._lock = path, Lock()
        with _sentences(path):
            self._stack = contextlib.ExitStack()  # its file is closed when the table is forgotten
            source = self._stack.enter_context(stream(path)) if is_url(path) else path
            self._file = pyarrow.parquet.ParquetFile(source)
            self.schema: pa.Schema = self._file.schema_arrow
            self.metadata = self._file.metadata
        groups = range(self.metadata.num_row_groups)
        self.ends = list(accumulate(self.metadata.row_group(group).num_rows for group in groups))

    def read(self, group: int, columns: list[str]) -> pa.Table:
        """Columns of a row group."""
        with _sentences(self._path), self._lock:
            return self._file.read_row_group(group, columns=columns, use_threads=False)

    def column(self, name: str, group: int) -> pa.ChunkedArray:
        """Bytes of a row group."""
        import pyarrow.compute as pc

        struct = _is_struct(self.schema.field(name))
        found = self.read(group, [f"{name}.bytes" if struct else name])[name]
        return pc.struct_field(found, "bytes") if struct else found


@lru_cache(maxsize=64)
def _table(path: str) -> _Table:
    return _Table(path)


@contextlib.contextmanager
def _sentences(path: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is damaged or no Parquet ({error})") from error


def _column(schema: pa.Schema, names: tuple[str, ...]) -> str | None:
    """The column of images: one of the usual names, else the only one that holds bytes."""
    having = [field.name for field in schema if _holds_bytes(field)]
    named = next((name for name in names if name in having), None)
    return named or (having[0] if len(having) == 1 else None)


def _holds_bytes(field: pa.Field) -> bool:
    import pyarrow as pa

    kind = field.type.field("bytes").type if _is_struct(field) else field.type
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_struct(field: pa.Field) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0)


def _class_names(schema: pa.Schema, label: str | None) -> list[str] | None:
    """Of a `ClassLabel` of Hugging Face, which the table's metadata describe."""
    try:
        known = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, ValueError, TypeError):
        return None
    return [str(name) for name in known] if isinstance(known, list) else None
