"""Rows of a table that become objects when they are asked for.

An image record with its strings takes some 700 bytes as objects, 200 as columns; so a run of a million images is held
in 200 MB, and no stage keeps a list of all records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Rows"]

T = TypeVar("T")

_BLOCK = 1024  # rows made at once when all are gone through: 1 us a row, 6 us where each is asked for alone


class Rows(Sequence[T], Generic[T]):
    """Objects of type T over columns; a slice, and a sum of two over one table, are again only places.

    Args:
        table: of few chunks, or looking up a row is slow.
        columns: those that an object is made of.
        make: makes one of the values of these columns.
        places: rows of the table, in order; all if left out.
    """

    def __init__(
        self,
        table: pa.Table,
        columns: Sequence[str],
        make: Callable[..., T],
        places: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self.table = table
        self.places = np.arange(table.num_rows) if places is None else places
        self._names, self._make = tuple(columns), make
        self._columns = [table[name] for name in columns]

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Rows[T]: ...
    def __getitem__(self, index: int | slice) -> T | Rows[T]:
        if isinstance(index, slice):
            return self.at(self.places[index])
        place = int(self.places[index])
        return self._make(*(column[place].as_py() for column in self._columns))

    def __iter__(self) -> Iterator[T]:
        wanted = self.table.select(self._names)
        for first in range(0, len(self.places), _BLOCK):
            block = wanted.take(self.places[first : first + _BLOCK])
            for values in zip(*(column.to_pylist() for column in block.columns), strict=True):
                yield self._make(*values)

    def values(self, column: str) -> Iterator[Any]:
        """What stands in one column of the table, without making objects."""
        for first in range(0, len(self.places), _BLOCK):
            yield from self.table[column].take(self.places[first : first + _BLOCK]).to_pylist()

    def __add__(self, other: Rows[T]) -> Rows[T]:
        if other.table is not self.table:
            raise ValueError("rows of two tables cannot be one sequence")
        return self.at(np.concatenate([self.places, other.places]))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process gets the rows that are shown, not the whole table."""
        own = self.table.select(self._names).take(self.places).combine_chunks()
        return Rows, (own, self._names, self._make)

    def at(self, places: npt.NDArray[np.int64]) -> Rows[T]:
        """Other rows of the same table."""
        return Rows(self.table, self._names, self._make, places)
