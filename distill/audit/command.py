"""`distill audit`: look at images once, write three files, answer questions about them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from distill.audit.columns import COLUMNS
from distill.audit.document import Document
from distill.audit.inspect import fingerprint_of, inspect
from distill.audit.page import render
from distill.audit.subject import Subject
from distill.audit.where import columns_of, filtered
from distill.core.errors import UserError
from distill.core.files import read_json, replacing, write_json, write_text
from distill.core.progress import Progress
from distill.report.wording import printable

__all__ = ["Audited", "audit", "describe", "listed"]

_JSON, _PARQUET, _HTML = "audit.json", "audit.parquet", "audit.html"
_TOLD = 20  # images of an error that the terminal names


class Audited(NamedTuple):
    """A finished audit.

    Args:
        document: what was found.
        folder: where its files lie.
    """

    document: Document
    folder: Path

    def table(self) -> Any:
        """Every file with its columns, as a pyarrow table."""
        import pyarrow.parquet

        return pyarrow.parquet.read_table(self.folder / _PARQUET)


def audit(subject: Subject, folder: Path, progress: Progress) -> Audited:
    """Look at all images, or take what an earlier audit of the same files found.

    Args:
        subject: what is audited.
        folder: gets audit.json, audit.parquet and audit.html.
        progress: told of each image.

    Raises:
        DataError: folders without images, a bad manifest, masks that cannot be used.
        UserError: the folder cannot be written.
    """
    candidates = subject.candidates()
    known = _known(folder)
    if known is not None and known.fingerprint == fingerprint_of(subject, candidates):
        return Audited(known, folder)
    try:  # before anybody waits
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out: cannot write to {folder} ({error.strerror}); expected a folder") from error
    import pyarrow.parquet

    found = inspect(subject, candidates, progress)
    (folder / _JSON).unlink(missing_ok=True)  # it is written last, and says that the others are whole
    with replacing(folder / _PARQUET) as temporary:
        pyarrow.parquet.write_table(found.table, temporary)
    write_text(folder / _HTML, render(found.document, found.pictures, found.samples))
    write_json(folder / _JSON, found.document.model_dump(mode="json"))
    return Audited(found.document, folder)


def _known(folder: Path) -> Document | None:
    try:
        document = Document.model_validate(read_json(folder / _JSON))
    except (OSError, ValueError):
        return None
    return document if all((folder / name).is_file() for name in (_PARQUET, _HTML)) else None


def describe(audited: Audited) -> Iterator[str]:
    """Lines for the terminal."""
    document = audited.document
    splits = ", ".join(f"{facts.images} {name}" for name, facts in document.splits.items()) or "no image can be used"
    yield f"{document.name}: {document.files} files; {splits}"
    for finding in document.findings:
        yield f"{finding.level}: {finding.title}: {finding.count}"
        if finding.level == "error":
            pairs = [f"{p.first.path} ({p.first.split}), {p.second.path} ({p.second.split})" for p in finding.pairs]
            told = [*pairs, *(image.path for image in finding.images), *finding.classes]
            yield from (f"  {printable(text)}" for text in told[:_TOLD])
            if finding.count > _TOLD:
                yield f"  and {finding.count - _TOLD} more"
    if not document.findings:
        yield "nothing was found"
    yield f"page: {audited.folder / _HTML}"


def listed(audited: Audited, where: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows for which an expression holds, and lines that show them: the path, then the columns that it names.

    Raises:
        UserError: it is no expression, or names no column.
    """
    table = audited.table()
    rows: list[dict[str, Any]] = filtered(table, where).to_pylist()
    columns = [name for name in columns_of(where, tuple(COLUMNS)) if name != "path"]
    cells = ([row["path"], *(_shown(row[name]) for name in columns)] for row in rows)
    return rows, ["\t".join(map(printable, each)) for each in cells]


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value) if isinstance(value, dict) else str(value)
