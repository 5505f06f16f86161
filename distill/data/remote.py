"""Files behind a URL, by fsspec: listed once, read in the parts that are asked for.

Nothing is copied to disk: an image is one request for its bytes. fsspec finds the package for a protocol (`s3://` needs
s3fs, `gs://` gcsfs, `hf://` huggingface_hub, which comes with `mobile-distill[hf]`), and the package finds the
credentials where its users keep them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from distill.core.errors import DataError
from distill.core.files import digest_of

__all__ = ["File", "about", "is_url", "listed", "normal", "part", "stream"]

_BLOCK = 1 << 20  # read ahead while an archive is gone through: headers lie between images of some 100 kB
_WHAT_VERSION = ("etag", "md5hash", "generation", "lastmodified", "last_modified", "mtime", "updated", "created", "oid")


class File(NamedTuple):
    """A file as it is listed.

    Args:
        path: absolute path, or URL.
        bytes: its size; 0 where the server's list does not tell.
        version: its time of change in nanoseconds; of a URL a number that is another after a change, as far as the list
            tells.
    """

    path: str
    bytes: int
    version: int


def is_url(path: object) -> bool:
    """Whether it is no local file."""
    return isinstance(path, str) and "://" in path


def normal(url: str) -> str:
    """The same URL as files below it are listed with."""
    with _sentences(url):
        system, path = _system(url)
        return str(system.unstrip_protocol(path))


def about(url: str) -> File:
    """One file.

    Raises:
        DataError: it cannot be had.
    """
    with _sentences(url):
        system, path = _system(url)
        return _file(system, path, system.info(path))


def listed(url: str) -> list[File]:
    """All files below a folder, or those that fit a pattern with `*`, sorted; hidden names are left out.

    Raises:
        DataError: it cannot be listed, or there are none.
    """
    with _sentences(url):
        system, path = _system(url)
        found: list[File] = []
        if "*" in path:
            found = [_file(system, name, info) for name, info in system.glob(path, detail=True).items()]
        elif system.isfile(path) and not system.isdir(path):
            found = [_file(system, path, system.info(path))]
        else:
            for _, folders, files in system.walk(path, detail=True, on_error="raise"):
                for name in [name for name in folders if name.startswith(".")]:
                    del folders[name]  # walk does not enter it then
                inside = ((name, info) for name, info in files.items() if not name.startswith("."))
                found += [_file(system, info["name"], info) for _, info in inside if info["type"] == "file"]
        system.invalidate_cache()  # it keeps 1 kB for each file listed
    if not found:
        raise DataError(f"found no file in {url}")
    return sorted(found)


def part(url: str, start: int | None = None, size: int | None = None) -> bytes:
    """The bytes of a file, or so many from a place on.

    Raises:
        FileNotFoundError: it is gone.
        DataError: it cannot be read.
    """
    with _sentences(url, gone=True):
        system, path = _system(url)
        if start is None or size is None:
            return bytes(system.cat_file(path))
        found = bytes(system.cat_file(path, start=start, end=start + size))
    if len(found) != size:
        why = "the server does not give parts of files" if len(found) > size else "the file has become shorter"
        raise DataError(f"{url}: asked for {size} bytes from {start} on, got {len(found)}: {why}")
    return found


@contextlib.contextmanager
def stream(url: str) -> Iterator[BinaryIO]:
    """A file to read and seek in; a block is kept, not the file.

    Raises:
        DataError: it cannot be read.
    """
    with _sentences(url):
        system, path = _system(url)
        with system.open(path, "rb", block_size=_BLOCK, cache_type="readahead") as opened:
            yield opened


def _system(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs
    from fsspec.registry import known_implementations

    try:
        system, path = url_to_fs(url)
    except ImportError as error:
        protocol = url.split("://", 1)[0]
        package = known_implementations[protocol]["class"].split(".", 1)[0].replace("_", "-")
        package = "aiohttp" if package == "fsspec" else package
        raise DataError(f"{url}: {protocol}:// needs another package: pip install {package} ({error})") from error
    except ValueError as error:
        raise DataError(f"{url}: {error}; expected s3://, gs://, hf://, https:// or another of fsspec") from error
    return system, path


def _file(system: Any, path: str, info: dict[str, Any]) -> File:
    version = {key: str(value) for key, value in info.items() if key.lower() in _WHAT_VERSION}
    return File(system.unstrip_protocol(path), int(info.get("size") or 0), int(digest_of(version)[:15], 16))


@contextlib.contextmanager
def _sentences(url: str, *, gone: bool = False) -> Iterator[None]:
    """Turn what packages raise, of whatever kind, into one sentence with the URL."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError:
        if gone:
            raise
        raise DataError(f"found nothing at {url}") from None
    except Exception as error:  # botocore, google.auth and aiohttp have trees of their own
        why = str(error).strip() or "without a reason"
        raise DataError(
            f"{url} cannot be read ({type(error).__name__}: {why}). If it is not public, see that its package finds"
            " your credentials; the same command goes on"
        ) from error
