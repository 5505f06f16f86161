"""Tables of a flatbuffer by the numbers of their fields: what is needed of a schema, without code generated from it."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from flatbuffers import Builder
    from flatbuffers.table import Table

__all__ = [
    "Byte",
    "Uint32",
    "blob",
    "child",
    "floats",
    "number",
    "numbers",
    "place_of",
    "places",
    "root_of",
    "string",
    "table",
    "tables",
    "vector",
]


class Byte(NamedTuple):
    """A number of 8 bits, an enumeration's for example."""

    value: int


class Uint32(NamedTuple):
    """A number of 32 bits."""

    value: int


def table(builder: Builder, fields: Mapping[int, int | Byte | Uint32]) -> int:
    """Write a table: numbers, and offsets (`int`) of what was written before it, by number of the field."""
    builder.StartObject(max(fields, default=-1) + 1)
    for slot, value in fields.items():
        if isinstance(value, Byte):
            builder.PrependUint8Slot(slot, value.value, 0)
        elif isinstance(value, Uint32):
            builder.PrependUint32Slot(slot, value.value, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(slot, value, 0)
    return int(builder.EndObject())


def vector(builder: Builder, made: Sequence[int]) -> int:
    """Write a vector of tables that were written before it."""
    builder.StartVector(4, len(made), 4)
    for each in reversed(made):
        builder.PrependUOffsetTRelative(each)
    return int(builder.EndVector())


def floats(builder: Builder, *values: float) -> int:
    """Write a vector of float32."""
    builder.StartVector(4, len(values), 4)
    for value in reversed(values):
        builder.PrependFloat32(value)
    return int(builder.EndVector())


def blob(builder: Builder, data: bytes) -> int:
    """Write bytes aligned to 16, as the schemas ask of whatever holds a flatbuffer of its own."""
    builder.StartVector(1, len(data), 16)
    for byte in reversed(data):
        builder.PrependByte(byte)
    return int(builder.EndVector())


def root_of(data: bytes | bytearray) -> Table:
    """The root table of a flatbuffer."""
    from flatbuffers.table import Table

    return Table(data, struct.unpack_from("<I", data)[0])


def place_of(read: Table, slot: int) -> int | None:
    """Where a field of a table stands; None if it was left out."""
    offset = read.Offset(4 + 2 * slot)
    return read.Pos + offset if offset else None


def child(read: Table, slot: int) -> Table | None:
    """The table that a field points at."""
    from flatbuffers.table import Table

    place = place_of(read, slot)
    return None if place is None else Table(read.Bytes, read.Indirect(place))


def tables(read: Table, slot: int) -> list[Table]:
    """The tables that a field lists; none if it was left out."""
    from flatbuffers.table import Table

    return [Table(read.Bytes, read.Indirect(place)) for place in places(read, slot)]


def places(read: Table, slot: int, size: int = 4) -> list[int]:
    """Where the elements of a field's vector stand, each of `size` bytes; none if it was left out."""
    offset = read.Offset(4 + 2 * slot)
    if not offset:
        return []
    start = read.Vector(offset)
    return [start + size * number for number in range(read.VectorLen(offset))]


def number(read: Table, slot: int, kind: str) -> int:
    """A field that holds a whole number, `kind` as `struct` names it; 0 if it was left out."""
    place = place_of(read, slot)
    return 0 if place is None else int(struct.unpack_from(f"<{kind}", read.Bytes, place)[0])


def numbers(read: Table, slot: int, kind: str) -> list[Any]:
    """A field's vector of numbers, `kind` as `struct` names it; empty if it was left out."""
    return [struct.unpack_from(f"<{kind}", read.Bytes, place)[0] for place in places(read, slot, struct.calcsize(kind))]


def string(read: Table, slot: int) -> str:
    """A field that holds text; empty if it was left out."""
    place = place_of(read, slot)
    return "" if place is None else bytes(read.String(place)).decode()
