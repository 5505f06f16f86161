"""Answers from and to files of other tools: `--import` and `--export`."""

from __future__ import annotations

import importlib
import secrets
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from distill.core.errors import DataError
from distill.data.candidate import first_of
from distill.data.corrections import Answer
from distill.data.mask_file import read_mask
from distill.review.formats._found import Finder, Found, mask_of
from distill.review.journal import Journal
from distill.review.subject import Subject

__all__ = ["Format", "export_answers", "import_answers"]

Format = Literal["csv", "label-studio", "cvat", "fiftyone"]

_MODULES = {"csv": "table", "label-studio": "label_studio", "cvat": "cvat", "fiftyone": "fiftyone"}


def export_answers(subject: Subject, said: Mapping[str, Answer], path: Path, kind: Format) -> int:
    """Write the last answer about each image.

    Args:
        subject: the images.
        said: answers by image id.
        path: file, for FiftyOne a new folder.
        kind: of the file.

    Returns:
        How many answers were written.

    Raises:
        UserError: the folder holds something.
        DataError: a mask is damaged.
    """
    written: int = _module(kind).write(subject, said, path)
    return written


def import_answers(subject: Subject, journal: Journal, path: Path, kind: Format, user: str) -> tuple[int, int]:
    """Add what a file says to the journal, all or nothing. What is known already is not said again.

    Args:
        subject: the images.
        journal: gets the answers.
        path: file or folder.
        kind: of the file.
        user: whose answers they are, where the file does not say.

    Returns:
        How many answers were added, and how many were known.

    Raises:
        DataError: it is no such file, or all that is wrong in it.
    """
    try:
        parts = list(_module(kind).read(subject, path, Finder(subject.records)))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as {kind}: {error}") from None
    problems = [part for part in parts if isinstance(part, str)]
    if problems:
        raise DataError(f"{path} has {len(problems)} answers that cannot be taken:\n{first_of(problems)}")
    found = [part for part in parts if isinstance(part, Found)]
    answered = journal.log.truth()
    by_person = {name: journal.log.truth(name) for name in {each.user or user for each in found}}

    def known(each: Found) -> bool:
        own = by_person[each.user or user].get(each.record.id)
        return (own is not None or each.record.id not in answered) and _same(subject, each, own)

    fresh = [each for each in found if not known(each)]
    rows = [_row(journal, each, user) for each in fresh]
    journal.append(rows)
    return len(rows), len(found) - len(rows)


def _same(subject: Subject, found: Found, answer: Answer | None) -> bool:
    """Whether an answer, or where there is none the data, says the same."""
    if answer is not None and answer.action == "reject":
        return False
    if found.mask is None:
        return found.label == (found.record.label if answer is None else answer.label)
    if answer is None:
        before = None if found.record.mask is None else read_mask(found.record.mask)
    else:
        before = mask_of(subject, answer)
    return before is not None and bool((before == found.mask).all())


def _row(journal: Journal, found: Found, user: str) -> dict[str, Any]:
    said = {"label": found.label} if found.mask is None else {"mask": journal.keep_mask(found.mask)}
    action = "label" if found.mask is None else "mask"
    name = (found.user or user)[:40]
    return {"user": name, "key": secrets.token_hex(8), "image": found.record.id, "action": action, **said}


def _module(kind: Format) -> ModuleType:
    return importlib.import_module(f"distill.review.formats.{_MODULES[kind]}")
