"""A file that may be an image of the run, its truth as found beside it, and walking over folders of such files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from distill.core.errors import DataError
from distill.data.opener import archive_of
from distill.data.remote import is_url

__all__ = [
    "LABELMAP",
    "Candidate",
    "MaskError",
    "MaskSource",
    "Origin",
    "candidate",
    "first_of",
    "is_folder",
    "mask_source",
    "printable",
    "visible",
    "walk",
]

Origin = Literal["test", "validation", "labeled", "unlabeled"]

LABELMAP = "labelmap.txt"
"""Names the colours of masks, as CVAT and VOC have it."""

_TOLD = 20


class MaskError(Exception):
    """A mask that cannot be used; the text is the reason, and whoever knows the file names it."""


def first_of(problems: Sequence[str]) -> str:
    """The first 20 of a list of mistakes, each on a line of its own, and how many more there are."""
    more = [f"  and {len(problems) - _TOLD} more"] if len(problems) > _TOLD else []
    return "\n".join([*(f"  {problem}" for problem in problems[:_TOLD]), *more])


@dataclass(frozen=True, slots=True)
class MaskSource:
    """Where the truth by pixel of an image is.

    Args:
        path: absolute path of an image, of a LabelMe JSON, or of a COCO JSON.
        item: `file_name` of the image in a COCO JSON, else empty.
        labelmap: absolute path of the file that names its colours, or empty.
        bytes: size of both files together, -1 where one is missing.
        mtime_ns: time of the later change, nanoseconds.
    """

    path: str
    item: str
    labelmap: str
    bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that may be an image of the run.

    Args:
        path: absolute path, or an address as `distill.data.opener` has them.
        origin: where the config names it.
        label: class by sub-folder or manifest, None if unlabelled.
        hidden: the truth is known but must not be trained on.
        group: from the manifest.
        bytes: size of the file, -1 where it is missing, 0 where it is not known without reading it.
        mtime_ns: time of last change, nanoseconds; of URLs a number that stands for their version.
        reason: why it cannot be used, where that is known without opening it.
        mask: where its truth by pixel is, None if there is none.
    """

    path: str
    origin: Origin
    label: str | None
    hidden: bool
    group: str | None
    bytes: int
    mtime_ns: int
    reason: str = field(default="", compare=False)
    mask: MaskSource | None = None

    @property
    def labelled(self) -> bool:
        """Whether there is truth that may be seen."""
        return not self.hidden and (self.label is not None or self.mask is not None)


def candidate(
    path: str,
    origin: Origin,
    label: str | None = None,
    *,
    mask: MaskSource | None = None,
    hidden: bool = False,
    group: str | None = None,
    reason: str = "",
) -> Candidate:
    """A file as it lies there now. Nobody is asked about one behind a URL: a manifest may have a million of them."""
    size, changed = (0, 0) if is_url(path) else _status(archive_of(path))
    shown, label = printable(path), None if label is None else printable(label)
    if shown != path:  # neither JSON nor a report can hold it
        reason = reason or "its name is not UTF-8: rename it"
    elif mask is not None and printable(mask.path + mask.labelmap) != mask.path + mask.labelmap:
        mask, reason = None, reason or "the name of its mask is not UTF-8: rename it"
    return Candidate(shown, origin, label, hidden, group, size, changed, reason, mask)


def mask_source(path: str, *, item: str = "", root: str | None = None) -> MaskSource:
    """Truth as it lies there now.

    Args:
        path: of the file.
        item: name of the image in it, where it is about many.
        root: folder of masks, in which or beside which a labelmap.txt is looked for; that of the file if left out.
    """
    folder = Path(root or os.path.dirname(path))
    places = [] if path.lower().endswith(".json") else [folder / LABELMAP, folder.parent / LABELMAP]
    labelmap = next((str(place) for place in places if place.is_file()), "")
    both = [_status(archive_of(file)) for file in (path, labelmap) if file]
    size = -1 if any(size < 0 for size, _ in both) else sum(size for size, _ in both)
    return MaskSource(path, item, labelmap, size, max(changed for _, changed in both))


def _status(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:  # missing files are reported with their reason when they are opened
        return -1, 0
    return status.st_size, status.st_mtime_ns


def printable(name: str) -> str:
    """A name as JSON and a report can hold it: bytes that are no UTF-8 are spelt out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def walk(folder: Path) -> Iterator[str]:
    """Files below a folder in sorted order; hidden names skipped, each real folder entered once (no symlink loops)."""
    entered: set[str] = set()
    pending = [str(folder)]
    while pending:
        current = pending.pop()
        real = os.path.realpath(current)
        if real in entered:
            continue
        entered.add(real)
        inside = visible(current)
        yield from (entry.path for entry in inside if not is_folder(entry))
        pending += [entry.path for entry in reversed(inside) if is_folder(entry)]


def visible(folder: str) -> list[os.DirEntry[str]]:
    """What is in a folder, by name, without hidden files.

    Raises:
        DataError: it cannot be listed.
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"cannot list the folder {folder} ({error.strerror})") from error
    return [entry for entry in entries if not entry.name.startswith(".")]


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a symbolic link to itself
        return False
