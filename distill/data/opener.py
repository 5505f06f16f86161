"""The one place that finds the bytes of an image: in a file, in a tar archive, in a Parquet table, behind a URL.

An image has one address, which the manifest keeps as its path and which all that is needed to read it again stands in:

    /photos/cat/1.jpg                       a file
    s3://bucket/photos/cat/1.jpg            a file behind a URL
    /shards/000.tar!1536+20480/cat/1.jpg    20,480 bytes from byte 1,536 on, the member cat/1.jpg
    /table.parquet!image:17/cat.jpg         row 17 of the column `image`; its name, where it has one, comes last

Archives may be behind URLs as well. A member is one read of its bytes; a row costs its row group, of which the last
used stay in memory.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from distill.core.errors import DataError
from distill.data import parquet_rows
from distill.data.remote import is_url, part

__all__ = ["NotAFileError", "archive_of", "is_there", "opened"]

_MEMBER = re.compile(
    r"(?P<archive>.+?\.tar)!(?P<start>\d+)\+(?P<size>\d+)(?:/.*)?", re.ASCII | re.DOTALL | re.IGNORECASE
)
_ROW = re.compile(
    r"(?P<table>.+?\.parquet)!(?P<column>[^!/]+):(?P<row>\d+)(?:/.*)?", re.ASCII | re.DOTALL | re.IGNORECASE
)


class NotAFileError(OSError):
    """A folder, a named pipe or a device."""


def archive_of(address: str) -> str:
    """The archive or table in which an image is; the address itself of a file."""
    found = _MEMBER.fullmatch(address) or _ROW.fullmatch(address)
    return found[1] if found else address


def is_there(address: str) -> bool:
    """Whether the file or archive of an image still is; of URLs it is taken for granted."""
    file = archive_of(address)
    return is_url(file) or Path(file).is_file()


@contextlib.contextmanager
def opened(address: str) -> Iterator[BinaryIO]:
    """The bytes at an address, to read and seek in.

    Raises:
        OSError: they cannot be read; `NotAFileError` where there is something else than a file.
        DataError: a server does not answer, or a table cannot be read any more: other images will not fare better.
    """
    if member := _MEMBER.fullmatch(address):
        yield BytesIO(_bytes(member["archive"], int(member["start"]), int(member["size"])))
    elif row := _ROW.fullmatch(address):
        yield BytesIO(parquet_rows.value(row["table"], row["column"], int(row["row"])))
    elif is_url(address):
        yield BytesIO(part(address))
    else:
        if not stat.S_ISREG(os.stat(address).st_mode):  # opening a named pipe would wait for ever
            raise NotAFileError("not a file")
        with open(address, "rb") as stream:
            yield stream


def _bytes(archive: str, start: int, size: int) -> bytes:
    if is_url(archive):
        return part(archive, start, size)
    if start + size > os.stat(archive).st_size:
        raise DataError(f"{archive} has become shorter since it was listed. The same command reads it anew")
    with open(archive, "rb") as stream:
        stream.seek(start)
        return stream.read(size)
