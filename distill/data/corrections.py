"""What people answered in `distill review`, as its journal keeps it, and the truth that follows from it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from distill.config import RunConfig
from distill.core.dense import IGNORED
from distill.core.errors import DataError
from distill.core.files import digest_of
from distill.data.mask_file import read_mask

__all__ = ["FOLDER", "JOURNAL", "MASKS", "Action", "Answer", "Corrections", "Log", "read_journal"]

FOLDER = "review"
"""In a run folder: the journal and its masks."""

JOURNAL = "journal.jsonl"
"""Lines of JSON: `{"n": 0, "classes": […]}` says which classes the lines behind it mean, `{"n": 1, "user": …,
"image": …, "action": …}` is an answer, `{"n": 2, "user": …, "undo": 1}` takes one back. `n` counts the lines."""

MASKS = "masks"
"""Folder beside the journal: `<key>.png`, grey, of the upright image's size, values are places in the classes."""

Action = Literal["label", "mask", "reject", "skip"]
"""It is of this class; these are its classes by pixel; it is of no class and no use; I cannot say."""

_Mask = npt.NDArray[np.uint8]
_ID = re.compile("[0-9a-f]{64}")
_FIRST = b'{"n": 0, '  # of the first line


@dataclass(frozen=True, slots=True)
class Answer:
    """What a person said about an image.

    Args:
        number: of its line.
        time: seconds since 1970, UTC.
        user: who said so.
        key: by which the page knows it; a key that came twice is one answer.
        image: id, 64 hex digits.
        action: what was said.
        label: class, of a label.
        mask: name of its file without ending, of a mask.
        classes: that the values of the mask are places in.
        confirmed: it is what was suggested.
    """

    number: int
    time: float
    user: str
    key: str
    image: str
    action: Action
    label: str
    mask: str
    classes: tuple[str, ...]
    confirmed: bool


@dataclass
class Log:
    """A journal that was read.

    Args:
        answers: by the number of their line, in order; those that were taken back too.
        undone: numbers of the answers that were taken back.
        keys: of all lines that have one, with the number of the line.
        classes: that were reviewed last.
        lines: how many there are.
        end: bytes of all whole lines.
        torn: bytes behind them, which a kill or a power cut left: nobody was told that these were saved.
    """

    answers: dict[int, Answer] = field(default_factory=dict)
    undone: set[int] = field(default_factory=set)
    keys: dict[str, int] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    lines: int = 0
    end: int = 0
    torn: int = 0

    def take(self, row: Mapping[str, Any]) -> None:
        """Follow one line.

        Raises:
            ValueError, KeyError, TypeError: it is no line of a journal at this place.
        """
        if row["n"] != self.lines:
            raise ValueError(f"n is {row['n']}, expected {self.lines}")
        if "undo" in row:
            if row["undo"] not in self.answers:
                raise ValueError(f"it takes back line {row['undo']}, which is no answer")
            self.undone.add(row["undo"])
        elif "image" in row:
            self.answers[self.lines] = self._answer(row)
        elif "classes" in row:
            self.classes = tuple(str(name) for name in row["classes"])
        else:
            raise ValueError("it is no answer")
        if "key" in row:
            self.keys[str(row["key"])] = self.lines
        self.lines += 1

    def _answer(self, row: Mapping[str, Any]) -> Answer:
        action, label, mask = row["action"], row.get("label", ""), row.get("mask", "")
        known = (
            action in get_args(Action) and (action != "label" or label) and (action != "mask" or _ID.fullmatch(mask))
        )
        if not known or not _ID.fullmatch(row["image"]):
            raise ValueError("it is no answer")
        confirmed = bool(row.get("confirmed"))
        user, key = str(row["user"]), str(row["key"])
        return Answer(
            self.lines, float(row["time"]), user, key, row["image"], action, label, mask, self.classes, confirmed
        )

    def standing(self, user: str | None = None) -> list[Answer]:
        """Answers that were not taken back, in order; of one person if one is named."""
        return [a for n, a in self.answers.items() if n not in self.undone and user in (None, a.user)]

    def truth(self, user: str | None = None) -> dict[str, Answer]:
        """The last answer about each image by its id; "I cannot say" leaves what was said before."""
        return {answer.image: answer for answer in self.standing(user) if answer.action != "skip"}


def read_journal(path: Path) -> Log:
    """Read a journal; what a kill left behind its last whole line is counted and passed over.

    Raises:
        DataError: it cannot be read, or a line before the last is damaged.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    log = Log()
    mistake = ""
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):  # what follows the last newline is torn
        try:
            row = json.loads(line)
            if mistake and isinstance(row, dict) and "n" in row:
                raise DataError(f"{path}, line {mistake}; the lines behind it are whole: restore the file from a copy")
            if not mistake:
                log.take(row)
                log.end += len(line) + 1
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            mistake = mistake or f"{number}: damaged ({error})"
    log.torn = len(content) - log.end
    if log.torn and not log.lines and not content.startswith(_FIRST[: len(content)]):
        raise DataError(f"{path} is no journal of `distill review`")
    return log


@dataclass(frozen=True)
class Corrections:
    """The last answer about each image.

    Args:
        folder: of the journal.
        answers: by image id.
    """

    folder: Path
    answers: Mapping[str, Answer]

    @classmethod
    def read(cls, journal: Path) -> Corrections:
        """What a journal says; nothing where there is none.

        Raises:
            DataError: it is damaged.
        """
        return cls(journal.parent, read_journal(journal).truth() if journal.exists() else {})

    @classmethod
    def of_run(cls, config: RunConfig) -> Corrections:
        """Those of a run: in the journal that its config names, else in its own.

        Raises:
            DataError: it is damaged.
        """
        return cls.read(config.data.corrections or config.output / FOLDER / JOURNAL)

    def digest(self) -> str:
        """Changes when the truth does, whoever said so; empty where nothing was said."""
        rows = [
            [a.image, a.action, a.label, a.mask, a.classes if a.mask else ()]
            for a in sorted(self.answers.values(), key=lambda a: a.image)
        ]
        return digest_of(rows) if rows else ""

    def mask(self, answer: Answer, classes: Sequence[str]) -> _Mask:
        """The mask of an answer with places in these classes, uint8 [H, W]; 255 is ignored.

        Raises:
            DataError: it is missing or damaged, or has a class that is not among them.
        """
        path = self.folder / MASKS / f"{answer.mask}.png"
        mask = read_mask(path)
        places = {name: place for place, name in enumerate(classes)}
        table = np.full(256, -1, np.int16)
        table[IGNORED] = IGNORED
        table[: len(answer.classes)] = [places.get(name, -1) for name in answer.classes]
        known = table[mask]
        if (known < 0).any():
            value = int(mask[known < 0][0])
            name = repr(answer.classes[value]) if value < len(answer.classes) else f"the value {value}"
            raise DataError(f"{path}: has {name}, but the classes are {', '.join(classes)}")
        found: _Mask = known.astype(np.uint8)
        return found
