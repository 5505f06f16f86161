"""What is in a tar archive, without unpacking it: names, places and sizes.

A folder packed by `tar` and the shards of WebDataset (github.com/webdataset) are both read: in these, members that have
the same name up to the first dot of its last part belong together, `000017.jpg`, `000017.cls` and `000017.seg.png`.

Nothing is ever written to disk under a member's name. Still, names that lead out of the archive, links and devices are
refused: who packed them did not pack photos. Sizes are believed only as far as the file reaches, and no header makes
Python read more than 1 MB (CVE-2025-8194 and its like are of headers).
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from distill.core.cached import made_once
from distill.core.errors import DataError
from distill.core.files import digest_of
from distill.data.candidate import first_of
from distill.data.remote import File, is_url, stream

__all__ = ["Member", "key", "members"]

_HEADER = 1 << 20  # bytes; a real one has 512, with long names some thousand
_TEXT = 256  # bytes of a class; longer texts are captions
_LARGEST = 1 << 30  # bytes of a member; it is read at once
_TEXTS = (".cls", ".txt")
_FORMAT = 1  # of the kept indexes


class Member(NamedTuple):
    """A file in an archive.

    Args:
        name: as the archive has it, without `./`.
        start: of its bytes in the archive.
        bytes: its size.
        text: what a short .cls or .txt says, else None.
    """

    name: str
    start: int
    bytes: int
    text: str | None


def key(name: str) -> tuple[str, str]:
    """What members of a sample share, and the ending that tells them apart: `a/17.seg.png` is `a/17` and `.seg.png`."""
    folder, _, last = name.rpartition("/")
    stem, dot, ending = last.partition(".")
    return f"{folder}/{stem}", f"{dot}{ending}".lower()


def members(archive: File) -> list[Member]:
    """All files of an archive in their order, hidden ones left out. Of one behind a URL the list is kept.

    Raises:
        DataError: it is no tar, ends too early, or holds what no archive of photos holds.
    """
    if not is_url(archive.path):
        return list(_read(archive))
    import pyarrow as pa
    import pyarrow.parquet

    def write(folder: Path) -> None:
        rows = list(_read(archive))
        columns = zip(*rows, strict=True) if rows else ((),) * len(Member._fields)
        kinds = (pa.string(), pa.int64(), pa.int64(), pa.string())
        arrays = [pa.array(values, kind) for values, kind in zip(columns, kinds, strict=True)]
        pyarrow.parquet.write_table(pa.table(arrays, names=Member._fields), folder / "members.parquet")

    kept = made_once(f"tar-{digest_of([_FORMAT, *archive])[:32]}", write) / "members.parquet"
    return [Member(**row) for row in pyarrow.parquet.read_table(kept).to_pylist()]


def _read(archive: File) -> Iterator[Member]:
    path, refused = archive.path, []
    opening: AbstractContextManager[BinaryIO] = stream(path) if is_url(path) else open(path, "rb")  # noqa: SIM115
    try:
        with opening as source:
            size = source.seek(0, os.SEEK_END)
            source.seek(0)
            tar = tarfile.open(fileobj=_Headers(source), mode="r:")  # type: ignore[call-overload]  # noqa: SIM115
            at = 0
            while (member := tar.next()) is not None:
                tar.members.clear()  # it would keep 1 kB of each
                name = member.name.removeprefix("./")
                if member.size < 0 or member.offset_data <= at or member.offset_data + member.size > size:
                    there = f"says it has {member.size} bytes, {max(0, size - member.offset_data)} are left"
                    raise DataError(f"{path} is truncated or damaged: its member {_shown(name)} {there}")
                at = member.offset_data
                if why := _refused(member):
                    refused.append(f"{_shown(name)}: {why}")
                elif member.isfile() and not any(part.startswith(".") for part in name.split("/")):
                    text = None
                    if name.lower().endswith(_TEXTS) and member.size <= _TEXT:
                        source.seek(member.offset_data)
                        text = source.read(member.size).decode("utf-8", "replace").strip()
                    yield Member(_utf8(name), member.offset_data, member.size, text)
            source.seek(tar.offset)
            end = source.read(tarfile.BLOCKSIZE)
            if len(end) < tarfile.BLOCKSIZE or end.strip(b"\0"):
                what = "has a damaged header" if len(end) == tarfile.BLOCKSIZE else "ends without the mark of its end"
                raise DataError(f"{path} is truncated or damaged: it {what} at byte {tar.offset}; pack it again")
    except (tarfile.TarError, _TooLongError, OSError, ValueError, OverflowError, EOFError) as error:
        raise DataError(f"{path} cannot be read as a tar archive ({error}); compressed ones are not read") from error
    if refused:
        raise DataError(f"{path} is refused for {len(refused)} of its members:\n{first_of(refused)}")


class _TooLongError(Exception):
    """A header that claims to be longer than any is."""


class _Headers:
    """A file of which nothing but headers is read."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self.seek, self.tell = source.seek, source.tell

    def read(self, count: int = -1) -> bytes:
        if not 0 <= count <= _HEADER:
            raise _TooLongError(f"a header of {count} bytes")
        return self._source.read(count)


def _refused(member: tarfile.TarInfo) -> str:
    if member.name.startswith(("/", "\\")) or member.name[1:3] in {":\\", ":/"}:
        return "an absolute path"
    if ".." in member.name.replace("\\", "/").split("/"):
        return "its path leads out of the archive"
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in member.name):
        return "its name has control characters"
    if member.issym() or member.islnk():
        return f"a link (to {_shown(member.linkname)}): pack files, with `tar --dereference --hard-dereference`"
    if not member.isfile() and not member.isdir():
        return "neither file nor folder, but a device or a pipe"
    if member.issparse():
        return "a sparse file: pack it without `--sparse`"
    if member.size > _LARGEST:
        return f"{member.size} bytes: no photo has more than {_LARGEST}"
    return ""


def _shown(name: str) -> str:
    return repr(_utf8(name))


def _utf8(name: str) -> Any:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
