"""Tables as Parquet that says when it is damaged: each page has a checksum, and so have the names and the metadata.

Files without checksums, of older versions and other programs, are read as they are.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from distill.core.errors import RunFolderError
from distill.core.files import replacing

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["read_table", "write_table"]

_CHECKSUM = b"checksum"


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table atomically."""
    import pyarrow.parquet

    facts = {**(table.schema.metadata or {}), _CHECKSUM: _checksum(table)}
    with replacing(path) as temporary:
        pyarrow.parquet.write_table(table.replace_schema_metadata(facts), temporary, write_page_checksum=True)


def read_table(path: Path) -> pa.Table:
    """Read what `write_table` wrote.

    Raises:
        RunFolderError: it is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet

    again = f"delete the folder {path.parent} and run the same command again"
    try:
        table = pyarrow.parquet.read_table(path, page_checksum_verification=True)
        table.validate(full=True)  # Arrow would abort the process, or read what lies behind, where lengths are wrong
    except FileNotFoundError as error:
        raise RunFolderError(f"{path} is missing: {again}") from error
    except (OSError, ValueError, pa.ArrowException) as error:
        raise RunFolderError(f"{path} is damaged ({str(error).splitlines()[0]}): {again}") from error
    written = (table.schema.metadata or {}).get(_CHECKSUM)
    if written is not None and written != _checksum(table):
        raise RunFolderError(f"{path} is damaged (its checksum does not match): {again}")
    return table


def _checksum(table: pa.Table) -> bytes:
    """CRC-32 over all that the pages' own checksums leave out."""
    facts = {key: value for key, value in (table.schema.metadata or {}).items() if key != _CHECKSUM}
    said = [table.num_rows, [(field.name, field.type.id) for field in table.schema], sorted(facts.items())]
    return b"%08x" % zlib.crc32(repr(said).encode())
