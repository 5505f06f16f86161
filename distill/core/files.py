"""Writing so that a reader sees the whole file or none, and hashing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

__all__ = [
    "digest_of",
    "digest_of_rows",
    "read_json",
    "remove_torn",
    "replacing",
    "sha256_of",
    "sha256_of_stream",
    "write_json",
    "write_text",
]

_TORN = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and rename it over `path`.

    A process killed inside the block leaves `path` as it was.

    Raises:
        OSError: the folder is not writable or the disk is full; `path` is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_torn(folder: Path) -> None:
    """Remove what processes killed inside `replacing` left in a folder and below, where nobody writes now."""
    for below, _, names in os.walk(folder):
        for name in names:
            if _TORN.fullmatch(name):
                Path(below, name).unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented, with keys in the given order; NaN is refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON.
    """
    return json.loads(path.read_text(encoding="utf-8"))


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    with path.open("rb") as stream:
        return sha256_of_stream(stream)


def sha256_of_stream(stream: BinaryIO) -> str:
    """The same of what is left of a stream."""
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON-able value in canonical form (sorted keys, no spaces), as 64 hex digits."""
    return hashlib.sha256(_CANONICAL.encode(value).encode()).hexdigest()


def digest_of_rows(rows: Iterable[Any], beside: Mapping[str, Any] | None = None) -> str:
    """`digest_of` the list of all rows, or of `{**beside, "rows": rows}`, of which a thousand at a time are held.

    Args:
        rows: JSON-able values.
        beside: its keys come before `rows` in the alphabet.
    """
    before, after = "[", "]"
    if beside is not None:
        before, after = _CANONICAL.encode({**beside, "rows": []}).rsplit("]", 1)
        after = f"]{after}"
    digest, following, comma = hashlib.sha256(before.encode()), iter(rows), ""
    while block := list(islice(following, 1000)):
        digest.update(f"{comma}{_CANONICAL.encode(block)[1:-1]}".encode())
        comma = ","
    digest.update(after.encode())
    return digest.hexdigest()


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
