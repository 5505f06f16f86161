"""Finding images: folders by class, folders with masks, flat folders, manifests. Nothing is decoded here.

A folder may be local or behind a URL. Archives (.tar) and tables (.parquet) are entered like folders, wherever they lie
(`distill.data.archives`).
"""

from __future__ import annotations

import csv
import math
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from distill.config import DataSettings
from distill.core.errors import DataError
from distill.core.files import digest_of_rows
from distill.core.patterns import braces, fitting, is_pattern
from distill.core.types import Split
from distill.data.archives import Archives, found_at, is_archive, why_unread
from distill.data.candidate import (
    Candidate,
    Origin,
    candidate,
    first_of,
    is_folder,
    mask_source,
    visible,
    walk,
)
from distill.data.layouts import find_pairs, layout_of
from distill.data.opener import archive_of
from distill.data.remote import File, about, is_url, listed, normal

__all__ = ["Candidate", "find", "find_test", "has_masks", "listing", "read_columns", "read_csv"]

_SPLITS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "unlabelled": "train",
    "unlabeled": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
_WITHOUT_TRUTH = {"unlabelled", "unlabeled"}
_SHOWN = {"1", "1.0", "true", "yes"}
_HIDDEN = {"0", "0.0", "false", "no"}


def find(settings: DataSettings, task: str = "classification") -> list[Candidate]:
    """List every file that the config names, sorted by path within its origin.

    Args:
        settings: name the sources.
        task: says what truth is: a class an image, or a mask (`segmentation`).

    Raises:
        DataError: an empty folder, a folder without truth where truth is needed, a bad manifest.
    """
    masks = task == "segmentation"
    if settings.manifest is not None:
        return _from_manifest(settings.manifest, masks=masks)
    found: list[Candidate] = []
    archives = Archives(settings.classes, masks=masks)
    labelled: tuple[tuple[Origin, Path | str | float | None], ...] = (
        ("test", settings.test),
        ("validation", settings.validation),
        ("labeled", settings.labeled),
    )
    for origin, source in labelled:
        if source is not None and not isinstance(source, float):
            found += _labelled(source, origin, archives)
    for source in settings.unlabeled if isinstance(settings.unlabeled, list) else [settings.unlabeled]:
        if _is_no_folder(source):
            files = _of_files(source, "unlabeled", archives)
        else:
            files = [c for path in walk(Path(source)) for c in _entered(path, "unlabeled", archives)]
        if not files:
            raise DataError(f"data.unlabeled: found no file in {source}")
        found += files
    return found


def find_test(path: Path, task: str, classes: Sequence[str] | None = None) -> list[Candidate]:
    """Labelled images that no config names, as test images.

    Args:
        path: a folder as `data.test` takes it, or a manifest, of which the rows of the split test count; all of them
            where it has no column `split`.
        task: says what truth is.
        classes: in the order in which archives number them.

    Raises:
        DataError: a folder without truth, a bad manifest, or one without such rows.
    """
    masks = task == "segmentation"
    if path.is_dir():
        return _labelled(path, "test", Archives(classes, masks=masks))
    found = [c for c in _from_manifest(path, masks=masks, otherwise="test") if c.origin == "test"]
    if not found:
        raise DataError(f"data.manifest: {path} has no row whose split is test")
    return found


def has_masks(path: Path) -> bool:
    """Whether the truth of a folder or manifest is masks, not a class an image."""
    return layout_of(path) is not None if path.is_dir() else "mask" in _read(path)[0]


def listing(candidates: Sequence[Candidate]) -> str:
    """Changes when files come, go, change or are named otherwise, as far as that shows without opening them."""
    return digest_of_rows(_listed(c) for c in candidates)


def _listed(c: Candidate) -> list[object]:
    row: list[object] = [c.path, c.origin, c.label, c.hidden, c.group, c.bytes, c.mtime_ns]
    if c.mask is not None:
        row += [c.mask.path, c.mask.item, c.mask.labelmap, c.mask.bytes, c.mask.mtime_ns]
    return row


def read_columns(manifest: Path, names: Sequence[str], key: str = "data.groups") -> dict[str, tuple[str, ...]]:
    """Cells of some columns of a manifest, by the absolute path of the image; empty text for missing values.

    Args:
        manifest: CSV or Parquet.
        names: of the columns.
        key: that names them in the config.

    Raises:
        DataError: it lacks such a column.
    """
    header, rows = _read(manifest)
    missing = [name for name in names if name not in header]
    if missing:
        raise DataError(
            f"{key}: {manifest} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; found:"
            f" {', '.join(header)}"
        )
    path, places = header.index("path"), [header.index(name) for name in names]
    return {
        _address(manifest, cells[path].strip()): tuple(cells[place].strip() for place in places)
        for _, cells in rows
        if len(cells) == len(header)
    }


def read_csv(path: Path, named: str = "data.manifest") -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Header and rows with their lines. All cells are text: a class named 01 or NA stays what it is.

    Args:
        path: of the file.
        named: what errors call it.

    Raises:
        DataError: it is no CSV, or has no rows.
    """
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
        raise DataError(f"{named}: {path} is neither CSV nor Parquet ({error})") from error
    if not rows:
        raise DataError(f"{named}: {path} has no rows")
    return [name.strip() for name in rows[0][1]], rows[1:]


def _labelled(source: Path | str, origin: Origin, archives: Archives) -> list[Candidate]:
    """Images with truth: of an archive or URL, of folders by class, or of folders with masks."""
    if _is_no_folder(source):
        return _of_files(source, origin, archives)
    folder = Path(source)
    if archives.masks and not any(is_archive(entry.name) for entry in visible(str(folder))):
        return find_pairs(folder, origin)
    return _by_class(folder, origin, archives)


def _is_no_folder(source: Path | str) -> bool:
    """Whether it is an archive, a pattern or a URL."""
    name = str(source)
    return isinstance(source, str) or (not source.is_dir() and (is_archive(name) or bool(why_unread(name))))


def _by_class(folder: Path, origin: Origin, archives: Archives) -> list[Candidate]:
    """What is in the sub-folders of classes, and in archives beside them; of masks what is in archives."""
    inside = visible(str(folder))
    folders = [entry.name for entry in inside if is_folder(entry)]
    classes = [] if archives.masks else folders
    within = [entry.path for entry in inside if is_archive(entry.name) and not is_folder(entry)]
    if not classes and not within:
        loose = sum(1 for _ in walk(folder))
        raise DataError(
            f"data.{origin}: found no sub-folder in {folder} ({loose} files); expected one sub-folder a class,"
            f" such as {folder / 'cat'} and {folder / 'dog'}"
        )
    paths = ((name, path) for name in classes for path in walk(folder / name))
    found = [c for name, path in paths for c in _entered(path, origin, archives, name)]
    found += [c for path in within for c in _entered(path, origin, archives)]
    if not found:
        raise DataError(f"data.{origin}: found no file in the {len(classes)} class folders of {folder}")
    rest = [entry.path for entry in inside if not is_folder(entry) and not is_archive(entry.name)]
    rest += [path for name in folders if name not in classes for path in walk(folder / name)]
    reason = f"lies beside the {'class folders' if classes else 'archives'}, not in one"
    return found + [candidate(path, origin, reason=reason) for path in rest]


def _entered(path: str, origin: Origin, archives: Archives, label: str | None = None) -> Iterator[Candidate]:
    """A local file; of an archive what is in it."""
    if is_archive(path) and Path(path).is_file():  # opening a named pipe would wait for ever
        yield from archives.inside(_local(path), origin, label)
    elif archive_of(path) != path:
        yield candidate(path, origin, label, reason="its name looks like an address in an archive: rename it")
    else:
        yield candidate(path, origin, label)


def _of_files(source: Path | str, origin: Origin, archives: Archives) -> list[Candidate]:
    """What is in an archive, in all files that a pattern names, or behind a URL."""
    named = str(source)
    if is_url(named):
        files = [file for url in braces(named) for file in _behind(url)]
        base = normal(re.split(r"[*{]", named)[0].rpartition("/")[0] if is_pattern(named) else named)
    else:
        files = [_local(path) for path in (fitting(named) if isinstance(source, str) else [named])]
        base = re.split(r"[*{]", named)[0].rpartition("/")[0]
    found: list[Candidate] = []
    for file in files:
        inner = file.path.removeprefix(base).lstrip("/") if file.path != base else ""
        folder = inner.split("/")[0] if "/" in inner else None
        if is_archive(file.path):
            found += archives.inside(file, origin, None if is_pattern(named) else folder)
        elif origin == "unlabeled":
            found.append(found_at(file, origin))
        elif archives.masks:
            found.append(found_at(file, origin, reason="masks are looked for in local folders and in archives"))
        elif folder is None:
            found.append(found_at(file, origin, reason="lies beside the class folders, not in one"))
        else:
            found.append(found_at(file, origin, folder))
    if all(c.reason for c in found):
        example = f"; {found[0].path}: {found[0].reason}" if found else ""
        raise DataError(
            f"data.{origin}: none of the {len(found)} files in {source} can be used; expected .tar or .parquet files,"
            f" {'images' if origin == 'unlabeled' else 'or one sub-folder a class'}{example}"
        )
    return found


def _behind(url: str) -> list[File]:
    return [about(url)] if is_archive(url) and "*" not in url else listed(url)


def _local(path: str) -> File:
    try:
        status = os.stat(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path} is no file")
    return File(path, status.st_size, status.st_mtime_ns)


def _from_manifest(path: Path, *, masks: bool, otherwise: str = "") -> list[Candidate]:
    """Images of a manifest; `otherwise` is the split of all of them where it has no such column."""
    header, rows = _read(path)
    truth = "mask" if masks else "label"
    missing = [column for column in ("path", truth, *(() if otherwise else ("split",))) if column not in header]
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
        named = row.get("split", otherwise).lower()
        split, known, group = _SPLITS.get(named), row[truth] or None, row.get("group") or None
        shown = (row.get("labelled") or row.get("labeled") or "1").lower()
        if split is None:
            problems.append(f"{where}: split is {row['split']!r}, expected train, validation or test")
        elif not row["path"] or "\0" in row["path"]:
            problems.append(f"{where}: path is {row['path']!r}, expected a file")
        elif masks and known and "\0" in known:
            problems.append(f"{where}: mask is {known!r}, expected a file")
        elif split != "train" and known is None:
            problems.append(f"{where}: an image of {split} needs a {truth}")
        elif shown not in _SHOWN | _HIDDEN:
            problems.append(f"{where}: labelled is {shown!r}, expected 1 or 0")
        else:
            hidden = split == "train" and known is not None and (shown in _HIDDEN or named in _WITHOUT_TRUTH)
            origin: Origin = split if split != "train" else "labeled" if known and not hidden else "unlabeled"
            file = _address(path, row["path"])
            mask = mask_source(os.path.abspath(path.parent / known)) if masks and known else None
            label = None if masks else known
            found.append(candidate(file, origin, label, mask=mask, hidden=hidden, group=group))
            if group is not None and split not in (places := splits.setdefault(group, {})):
                places[split] = where
                if len(places) > 1:
                    first, before = next(iter(places.items()))
                    problems.append(f"{where}: group {group!r} is in {split}, but in {first} before ({before})")
    if problems:
        raise DataError(f"data.manifest: {path} has {len(problems)} bad rows:\n{first_of(problems)}")
    if not found:
        raise DataError(f"data.manifest: {path} has no rows")
    return found


def _address(manifest: Path, cell: str) -> str:
    """Of an image; relative paths start at the manifest's folder."""
    return cell if is_url(cell) else os.path.abspath(manifest.parent / cell)


def _read(path: Path) -> tuple[list[str], Iterable[tuple[str, list[str]]]]:
    """Header, in which images have the column `path`, and rows with where they are."""
    header, rows = _read_parquet(path) if path.suffix.lower() == ".parquet" else read_csv(path)
    if "path" not in header:
        header = ["path" if column == "image" else column for column in header]
    return header, rows


def _read_parquet(path: Path) -> tuple[list[str], Iterable[tuple[str, list[str]]]]:
    """Columns and numbered rows as text; empty for missing values."""
    import pyarrow as pa
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
        columns = [[_text(value) for value in column.to_pylist()] for column in table.columns]
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"data.manifest: {path} is not Parquet ({error})") from error
    rows = zip(*columns, strict=True)
    return list(table.column_names), ((f"row {number}", list(cells)) for number, cells in enumerate(rows, start=1))


def _text(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value)
