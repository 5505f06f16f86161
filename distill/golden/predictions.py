"""Predictions that anybody may have written, read into the answers that everything here is scored by."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePath
from typing import Any, Final, NamedTuple

import numpy as np

from distill.core.errors import DataError
from distill.core.task import Answers
from distill.core.types import FloatArray, ImageRecord
from distill.data.candidate import first_of, walk
from distill.data.mask_file import mask_of_png, read_mask
from distill.data.sources import read_csv
from distill.data.views import fixed_view
from distill.golden.subject import Golden

__all__ = ["Predictions", "read_predictions"]

_IMAGE: Final = ("image", "path", "id")  # columns that may name the image; the first one that is there
_LEAST: Final = 1e-7  # probability of what is said to be impossible
_OFF: Final = 0.05  # by which probabilities may miss a sum of one: a thousand classes, rounded to four digits


class Predictions(NamedTuple):
    """What was read.

    Args:
        answers: to all images, in their order.
        hard: they state no probabilities.
        others: predictions about other images.
    """

    answers: Answers
    hard: bool
    others: int


class _Table(NamedTuple):
    """A file of rows: where each stands, and cells by column; text from CSV, values from Parquet."""

    where: list[str]
    columns: dict[str, list[Any]]


def read_predictions(path: Path, golden: Golden) -> Predictions:
    """Read predictions about labelled images.

    A CSV or Parquet file has an image a row, in the column `image` (`path` and `id` are understood): its SHA-256, its
    path, or the end of its path that no other image has. What is said of it is the column `label`, a class; or a column
    of probabilities for each class; or in Parquet `logits`, a list in the order of the classes. Of pixels it is `mask`:
    the path of an 8-bit grey PNG whose values are places of classes, or in Parquet the PNG itself. A folder of such
    PNGs, named as the images are or by their SHA-256, does as well.

    Args:
        path: of the file or folder.
        golden: the images, in whose classes is answered.

    Raises:
        DataError: it is none of these, has bad rows, which are all named, or lacks images.
    """
    if not path.exists():
        raise DataError(f"{path}: found no file or folder")
    if path.is_dir():
        if not golden.task.by_pixel:
            raise DataError(f"{path} is a folder, but images have classes here; expected a CSV or Parquet file")
        return _masks(path, _files(path), golden, _Images(golden.records, path, stems=True))
    table = _read(path)
    image = next((name for name in _IMAGE if name in table.columns), None)
    if image is None:
        raise DataError(f"{path}: expected the column image; found: {', '.join(table.columns)}")
    cells = ["" if cell is None else str(cell) for cell in table.columns[image]]
    named = list(zip(table.where, cells, strict=True))
    images = _Images(golden.records, path.parent)
    if golden.task.by_pixel:
        if "mask" not in table.columns:
            raise DataError(f"{path}: expected the column mask; found: {', '.join(table.columns)}")
        rows = [(w, n, cell) for (w, n), cell in zip(named, table.columns["mask"], strict=True)]
        return _masks(path, ((w, n, _mask_of(path.parent, cell)) for w, n, cell in rows), golden, images)
    return _classes(path, named, table.columns, golden, images)


def _classes(
    path: Path, named: Sequence[tuple[str, str]], columns: Mapping[str, list[Any]], golden: Golden, images: _Images
) -> Predictions:
    task, records = golden.task, golden.records
    names = list(task.class_names)
    read, hard = _reader(path, columns, names)
    said: dict[str, Any] = {}
    problems: list[str] = []
    places = _places(named, images, problems)
    for number, record in places.items():
        value, wrong = read(number)
        problems += [f"{named[number][0]}{text}" for text in wrong]
        said[record.id] = value
    _refuse(path, problems, records, said)
    in_order = [said[record.id] for record in records]
    if hard:
        answers = task.examine_hard(records, in_order, golden.resize)
    else:
        answers = task.examine(records, np.array(in_order, np.float32), golden.resize)
    return Predictions(answers, hard, images.others)


def _reader(
    path: Path, columns: Mapping[str, list[Any]], names: Sequence[str]
) -> tuple[Callable[[int], tuple[Any, list[str]]], bool]:
    """What a row says, place of a class or logits, with what is wrong with it; and whether it is a class alone.

    Raises:
        DataError: the columns do not say.
    """
    there = [name for name in names if name in columns]
    if "logits" in columns:
        return lambda number: _logits(columns["logits"][number], len(names)), False
    if "label" in columns and not there:
        place = {name: at for at, name in enumerate(names)}

        def label(number: int) -> tuple[Any, list[str]]:
            said = str(columns["label"][number])
            return place.get(said), [] if said in place else [f", label: found {said!r}, expected {_listed(names)}"]

        return label, True
    if "label" in columns:
        raise DataError(f"{path} has the column label and columns of classes ({_listed(there)}): leave out one of both")
    if not there:
        raise DataError(
            f"{path}: expected the column label, or a column of probabilities for each class ({_listed(names)}); found:"
            f" {_listed(list(columns))}"
        )
    if lacking := [name for name in names if name not in columns]:
        raise DataError(f"{path} has no column for the class {_listed(lacking)}; found: {_listed(list(columns))}")
    return lambda number: _probabilities(names, [columns[name][number] for name in names]), False


def _probabilities(names: Sequence[str], cells: Sequence[Any]) -> tuple[FloatArray, list[str]]:
    values = [_number(cell) for cell in cells]
    wrong = [
        f", {name}: found {cell!r}, expected a probability, 0 to 1"
        for name, cell, value in zip(names, cells, values, strict=True)
        if value is None or not 0 <= value <= 1
    ]
    found = np.array([np.nan if value is None else value for value in values])
    if not wrong and abs(found.sum() - 1) > _OFF:
        wrong = [f": the probabilities have the sum {found.sum():.4g}, expected 1"]
    logits: FloatArray = np.log(np.maximum(found, _LEAST)).astype(np.float32)
    return logits, wrong


def _logits(cell: Any, count: int) -> tuple[Any, list[str]]:
    try:
        found = np.asarray(cell, np.float32)
    except (TypeError, ValueError):
        found = np.empty(0, np.float32)
    if found.shape != (count,) or not np.isfinite(found).all():
        return None, [f", logits: found {str(cell)[:60]}, expected a list of {count} numbers"]
    return found, []


def _number(cell: Any) -> float | None:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return None


def _masks(
    path: Path, rows: Iterator[tuple[str, str, Callable[[], Any]]], golden: Golden, images: _Images
) -> Predictions:
    """Masks are looked at one after another, since all of them may not fit into memory."""
    task, records, problems = golden.task, golden.records, list[str]()
    kept = list(rows)
    parts: dict[str, Answers] = {}
    for number, record in _places([(where, name) for where, name, _ in kept], images, problems).items():
        where, _, read = kept[number]
        mask = _checked(read, record, golden)
        if isinstance(mask, str):
            problems.append(f"{where}: {mask}")
        else:
            parts[record.id] = task.examine_hard([record], [mask], golden.resize)
    _refuse(path, problems, records, parts)
    return Predictions(task.joined([parts[record.id] for record in records]), True, images.others)


def _checked(read: Callable[[], Any], record: ImageRecord, golden: Golden) -> Any:
    """A mask, or what is wrong with it."""
    try:
        mask = read()
    except DataError as error:
        return str(error)
    view, classes = fixed_view(record.width, record.height, golden.resize), len(golden.task.class_names)
    sizes = {(record.height, record.width), (view.height, view.width)}
    if mask.shape not in sizes:
        return (
            f"found {mask.shape[1]}x{mask.shape[0]} pixels, expected {record.width}x{record.height}, as the image has"
        )
    if mask.max() >= classes:
        return f"found the value {mask.max()}, expected places of classes, 0 to {classes - 1}"
    return mask


def _files(folder: Path) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    for file in walk(folder):
        if file.lower().endswith(".png"):
            yield (
                file,
                str(PurePath(os.path.relpath(file, folder)).with_suffix("")),
                partial(read_mask, file, stored=False),
            )


def _mask_of(folder: Path, cell: Any) -> Callable[[], Any]:
    if not isinstance(cell, bytes):
        return partial(read_mask, folder / str(cell), stored=False)

    def decode() -> Any:
        try:
            return mask_of_png(cell)
        except Exception as error:  # Pillow's plugins raise nearly anything on damaged bytes
            raise DataError(f"no mask can be read ({error})") from None

    return decode


def _places(named: Sequence[tuple[str, str]], images: _Images, problems: list[str]) -> dict[int, ImageRecord]:
    """Which image each row is about, by its number; adds what is wrong to `problems`."""
    found: dict[int, ImageRecord] = {}
    first: dict[str, str] = {}
    for number, (where, name) in enumerate(named):
        record = images.find(name)
        if isinstance(record, str):
            problems.append(f"{where}: {record}")
        elif record is not None and record.id in first:
            problems.append(f"{where}: a second prediction about {name}, the first is {first[record.id]}")
        elif record is not None:
            first[record.id] = where
            found[number] = record
    return found


def _refuse(path: Path, problems: Sequence[str], records: Sequence[ImageRecord], said: Mapping[str, Any]) -> None:
    """Stop where rows are bad or images lack a prediction.

    Raises:
        DataError: they are or do.
    """
    if problems:
        one = "1 bad prediction" if len(problems) == 1 else f"{len(problems)} bad predictions"
        raise DataError(f"{path} has {one}:\n{first_of(problems)}")
    if lacking := [record.path for record in records if record.id not in said]:
        raise DataError(f"{path} has no prediction about {len(lacking)} of {len(records)} images:\n{first_of(lacking)}")


class _Images:
    """Finds the image that somebody means.

    Args:
        records: the images.
        folder: that relative paths may start in.
        stems: names come without ending.
    """

    def __init__(self, records: Sequence[ImageRecord], folder: Path, *, stems: bool = False) -> None:
        self._folder = folder
        self._ids = {record.id: record for record in records}
        self._named: dict[str, list[tuple[tuple[str, ...], ImageRecord]]] = defaultdict(list)
        for record in records:
            parts = (PurePath(record.path).with_suffix("") if stems else PurePath(record.path)).parts
            self._named[parts[-1]].append((parts, record))
        self.others = 0

    def find(self, name: str) -> ImageRecord | str | None:
        """The image; what is wrong with the name; or None for another image, which is counted."""
        if not name.strip():
            return "names no image"
        if name in self._ids:
            return self._ids[name]
        parts = PurePath(os.path.normpath(name)).parts
        meant = [
            (whole, record)
            for whole, record in self._named.get(parts[-1] if parts else "", ())
            if whole[-len(parts) :] == parts
        ]
        absolute = PurePath(os.path.abspath(self._folder / name)).parts
        exact = [record for whole, record in self._named.get(absolute[-1], ()) if whole == absolute]
        if exact or len(meant) == 1:
            return exact[0] if exact else meant[0][1]
        if not meant:
            self.others += 1
            return None
        return f"{name} may be {_listed([record.path for _, record in meant])}"


def _read(path: Path) -> _Table:
    """Rows of a CSV or Parquet file.

    Raises:
        DataError: it is none, or names a column twice.
    """
    if path.suffix.lower() == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet

        try:
            table = pyarrow.parquet.read_table(path)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} is not Parquet ({error})") from error
        header, cells = table.column_names, [column.to_pylist() for column in table.columns]
        where = [f"row {number}" for number in range(1, table.num_rows + 1)]
    else:
        header, rows = read_csv(path, "predictions")
        if uneven := [f"{at}: {len(row)} cells, expected {len(header)}" for at, row in rows if len(row) != len(header)]:
            raise DataError(f"{path} has {len(uneven)} bad rows:\n{first_of(uneven)}")
        where = [at for at, _ in rows]
        cells = [[row[place].strip() for _, row in rows] for place in range(len(header))]
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise DataError(f"{path} has the column {_listed(twice)} more than once")
    return _Table(where, dict(zip(header, cells, strict=True)))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(names[:20]) + more
