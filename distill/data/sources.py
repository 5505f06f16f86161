"""Finding images: folders by class, flat folders, manifests. Nothing is decoded here."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from distill.config import DataSettings
from distill.core.errors import DataError
from distill.core.types import Split

__all__ = ["Candidate", "find", "walk"]

Origin = Literal["test", "validation", "labeled", "unlabeled"]
_SPLITS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
_SHOWN = {"1", "1.0", "true", "yes"}
_HIDDEN = {"0", "0.0", "false", "no"}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that may be an image of the run.

    Args:
        path: absolute path.
        origin: where the config names it.
        label: class by sub-folder or manifest, None if unlabelled.
        hidden: the label is known but must not be trained on.
        group: from the manifest.
        bytes: size of the file, -1 where it is missing.
        mtime_ns: time of last change, nanoseconds.
        reason: why it cannot be used, where that is known without opening it.
    """

    path: str
    origin: Origin
    label: str | None
    hidden: bool
    group: str | None
    bytes: int
    mtime_ns: int
    reason: str = field(default="", compare=False)


def find(settings: DataSettings) -> list[Candidate]:
    """List every file that the config names, sorted by path within its origin.

    Raises:
        DataError: an empty folder, a folder without class sub-folders where classes are needed, a bad manifest.
    """
    if settings.manifest is not None:
        return _from_manifest(settings.manifest)
    found: list[Candidate] = []
    for origin, folder in (("test", settings.test), ("validation", settings.validation), ("labeled", settings.labeled)):
        if isinstance(folder, Path):
            found += _by_class(folder, origin)  # type: ignore[arg-type]
    folders = settings.unlabeled if isinstance(settings.unlabeled, list) else [settings.unlabeled]
    for folder in folders:
        files = [_candidate(path, "unlabeled", None) for path in walk(folder)]
        if not files:
            raise DataError(f"data.unlabeled: found no file in {folder}")
        found += files
    return found


def _by_class(folder: Path, origin: Origin) -> list[Candidate]:
    inside = _visible(str(folder))
    classes = [entry.name for entry in inside if _is_folder(entry)]
    if not classes:
        loose = sum(1 for _ in walk(folder))
        raise DataError(
            f"data.{origin}: found no sub-folder in {folder} ({loose} files); expected one sub-folder a class,"
            f" such as {folder / 'cat'} and {folder / 'dog'}"
        )
    found = [_candidate(path, origin, name) for name in classes for path in walk(folder / name)]
    if not found:
        raise DataError(f"data.{origin}: found no file in the {len(classes)} class folders of {folder}")
    reason = "lies beside the class folders, not in one"
    return found + [_candidate(entry.path, origin, None, reason=reason) for entry in inside if not _is_folder(entry)]


def _candidate(
    path: str, origin: Origin, label: str | None, *, hidden: bool = False, group: str | None = None, reason: str = ""
) -> Candidate:
    try:
        status = os.stat(path)
        size, changed = status.st_size, status.st_mtime_ns
    except OSError:  # missing files are reported with their reason when they are opened
        size, changed = -1, 0
    printable, label = _printable(path), None if label is None else _printable(label)
    if printable != path:  # neither JSON nor a report can hold it
        reason = reason or "its name is not UTF-8: rename it"
    return Candidate(printable, origin, label, hidden, group, size, changed, reason)


def _printable(name: str) -> str:
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
        visible = _visible(current)
        yield from (entry.path for entry in visible if not _is_folder(entry))
        pending += [entry.path for entry in reversed(visible) if _is_folder(entry)]


def _visible(folder: str) -> list[os.DirEntry[str]]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"cannot list the folder {folder} ({error.strerror})") from error
    return [entry for entry in entries if not entry.name.startswith(".")]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a symbolic link to itself
        return False


def _from_manifest(path: Path) -> list[Candidate]:
    header, rows = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    needed = ["path", "label", "split"]
    missing = [column for column in needed if column not in header]
    if missing:
        raise DataError(
            f"data.manifest: {path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; found:"
            f" {', '.join(header) or 'nothing'}"
        )
    problems: list[str] = []
    found: list[Candidate] = []
    splits: dict[str, dict[Split, str]] = {}  # group -> its splits, each with the first place
    for where, cells in rows:
        if len(cells) != len(header):
            problems.append(f"{where}: {len(cells)} cells, expected {len(header)} ({', '.join(header)})")
            continue
        row = dict(zip(header, (cell.strip() for cell in cells), strict=True))
        split = _SPLITS.get(row["split"].lower())
        label, group = row["label"] or None, row.get("group") or None
        shown = (row.get("labelled") or row.get("labeled") or "1").lower()
        if split is None:
            problems.append(f"{where}: split is {row['split']!r}, expected train, validation or test")
        elif not row["path"] or "\0" in row["path"]:
            problems.append(f"{where}: path is {row['path']!r}, expected a file")
        elif split != "train" and label is None:
            problems.append(f"{where}: an image of {split} needs a label")
        elif shown not in _SHOWN | _HIDDEN:
            problems.append(f"{where}: labelled is {shown!r}, expected 1 or 0")
        else:
            hidden = split == "train" and label is not None and shown in _HIDDEN
            origin: Origin = split if split != "train" else "labeled" if label and not hidden else "unlabeled"
            file = os.path.abspath(path.parent / row["path"])
            found.append(_candidate(file, origin, label, hidden=hidden, group=group))
            if group is not None and split not in (places := splits.setdefault(group, {})):
                places[split] = where
                if len(places) > 1:
                    first, before = next(iter(places.items()))
                    problems.append(f"{where}: group {group!r} is in {split}, but in {first} before ({before})")
    if problems:
        shown_problems = "\n".join(f"  {problem}" for problem in problems[:20])
        more = f"\n  and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise DataError(f"data.manifest: {path} has {len(problems)} bad rows:\n{shown_problems}{more}")
    if not found:
        raise DataError(f"data.manifest: {path} has no rows")
    return found


def _read_csv(path: Path) -> tuple[list[str], Iterable[tuple[str, list[str]]]]:
    """Header and rows with their lines. All cells are text: a class named 01 or NA stays what it is."""
    rows: list[tuple[str, list[str]]] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            before = 0
            for cells in reader:
                if cells:
                    rows.append((f"line {before + 1}", cells))
                before = reader.line_num
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"data.manifest: {path} is neither CSV nor Parquet ({error})") from error
    if not rows:
        raise DataError(f"data.manifest: {path} has no rows")
    return [name.strip() for name in rows[0][1]], rows[1:]


def _read_parquet(path: Path) -> tuple[list[str], Iterable[tuple[str, list[str]]]]:
    """Columns and numbered rows as text; empty for missing values."""
    import pyarrow as pa
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"data.manifest: {path} is not Parquet ({error})") from error
    columns = [[_text(value) for value in column.to_pylist()] for column in table.columns]
    rows = zip(*columns, strict=True)
    return list(table.column_names), ((f"row {number}", list(cells)) for number, cells in enumerate(rows, start=1))


def _text(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value)
