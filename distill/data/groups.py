"""Groups of a golden set: night photos, thin objects, one device. A good whole hides the part that fails."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from distill.config import DataSettings
from distill.core.errors import DataError
from distill.core.types import ImageRecord
from distill.data.archives import is_archive
from distill.data.opener import archive_of
from distill.data.sources import read_columns

__all__ = ["BY_FOLDER", "SMALL", "find_groups"]

BY_FOLDER = "folder"
"""Names the sub-folder an image lies in as its group."""

SMALL = 30
"""A group of fewer images is marked: its interval is wide, and of masks too narrow (`benchmarks/intervals.py`)."""


def find_groups(settings: DataSettings, records: Sequence[ImageRecord]) -> dict[str, list[int]]:
    """Groups by name, each with the places of its images in `records`.

    An image is in one group a column, named `column=value`, or in that of its sub-folder, named like it: `night` of
    `test/cat/night/1.jpg`, of `test/images/night/1.jpg` or of the member `cat/night/1.jpg` of an archive. Images
    without a value or sub-folder are in none.

    Args:
        settings: `groups` names the columns.
        records: images of a run.

    Raises:
        DataError: the manifest lacks such a column, or there is none and `groups` names one.
    """
    if not settings.groups:
        return {}
    found: dict[str, list[int]] = defaultdict(list)
    columns = [name for name in settings.groups if name != BY_FOLDER]
    if columns and settings.manifest is None:
        raise DataError(
            f"data.groups: found {', '.join(columns)}, columns of a manifest, but there is no data.manifest; expected"
            f" {BY_FOLDER}, for sub-folders"
        )
    known = read_columns(settings.manifest, columns) if columns and settings.manifest is not None else {}
    named = (settings.test, settings.validation, settings.labeled)
    bases = [_base(source) for source in named if isinstance(source, (Path, str))]
    for place, record in enumerate(records):
        for column, value in zip(columns, known.get(record.path, ()), strict=False):
            if value:
                found[f"{column}={value}"].append(place)
        if BY_FOLDER in settings.groups and (folder := _sub_folder(record.path, bases)):
            found[folder].append(place)
    return dict(sorted(found.items()))


def _base(source: Path | str) -> str:
    """The folder of a source; of archives and patterns that in which they lie."""
    whole = str(source)
    fixed = whole if isinstance(source, Path) else re.split(r"[*?\[{]", whole)[0]
    return fixed.rpartition("/")[0] if fixed != whole or is_archive(fixed) else fixed.rstrip("/")


def _sub_folder(address: str, bases: Sequence[str]) -> str:
    """Folders between that of the class, or `images`, and the file; empty if it lies in no folder of truth."""
    archive = archive_of(address)
    inner = address[len(archive) :].partition("/")[2]
    path = f"{archive.rpartition('/')[0]}/{inner}" if archive != address else address  # an archive is no folder
    base = next((base for base in bases if path.startswith(f"{base}/")), None)
    return "" if base is None else "/".join(path[len(base) + 1 :].split("/")[1:-1])
