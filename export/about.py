"""What an exported file says of itself, whatever its format: the same words in its metadata and in its manifest."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from export.graph import Output

__all__ = ["LABELS_FILE", "MEAN", "STD", "About", "Taught"]

LABELS_FILE: Final = "labels.txt"
"""The list of labels that can be unzipped from a TFLite file: one a line, UTF-8, in the order of the answers."""

MEAN: Final = 127.5
STD: Final = 127.5
"""Every student sees (x - 127.5) / 127.5 of bytes x; files take the bytes and see to that themselves."""

_SHOWN = 20  # more labels than these make no sentence


@dataclass(frozen=True)
class Taught:
    """By whom a student was taught.

    Args:
        name: as the config names the teacher; of an ensemble its members' names.
        license: as the card of its weights states it; None where no card is known or it says nothing.
        digest: hex digits that change when its answers may.
    """

    name: str
    license: str | None
    digest: str


@dataclass(frozen=True)
class About:
    """What a reader needs to know to use a file.

    Args:
        name: of the student's architecture, with the side of its input.
        dense: whether pixels are answered, not images.
        task: name of the task.
        labels: C names, in the order of the answers.
        output: what it answers.
        version: of the model: hex digits of the weights it was made from.
        teacher: of the student; None where that is not known.
    """

    name: str
    dense: bool
    task: str
    labels: tuple[str, ...]
    output: Output
    version: str
    teacher: Taught | None = None

    @property
    def description(self) -> str:
        """One or two sentences for people."""
        count = len(self.labels)
        shown = f": {', '.join(map(_one_line, self.labels))}." if count <= _SHOWN else "."
        what = f"Says which of {count} classes {'each pixel' if self.dense else 'an image'} shows{shown}"
        if self.teacher is None:
            return what
        said = self.teacher.license
        return f"{what} Taught by {self.teacher.name}{f' (licence of its weights: {said})' if said else ''}."

    @property
    def input_description(self) -> str:
        return f"RGB image as bytes 0 to 255. Not normalised: the file does that itself, (x - {MEAN}) / {STD}."

    @property
    def output_description(self) -> str:
        whose = "each cell of a grid over the image" if self.dense else "the image"
        what = f"Place of the class of {whose}" if self.output == "class_map" else f"{self.output.title()} for {whose}"
        return f"{what}, classes in the order of {LABELS_FILE}."

    @property
    def lines(self) -> str:
        """The text of `labels.txt`. A line break in a label would shift all that follow: it becomes a space."""
        return "".join(f"{_one_line(label)}\n" for label in self.labels)

    def properties(self) -> dict[str, str]:
        """The same as strings by name, for formats whose metadata is such a list; what is no text is JSON."""
        said = {
            "description": self.description,
            "task": self.task,
            "labels": json.dumps(self.labels, ensure_ascii=False),
            "input": self.input_description,
            "output": self.output_description.replace(LABELS_FILE, "`labels`"),
            "normalization": json.dumps({"mean": MEAN, "std": STD, "by": "file"}),
            "version": self.version,
        }
        if self.teacher is not None:
            known = {key: value for key, value in asdict(self.teacher).items() if value is not None}
            said["teacher"] = json.dumps(known, ensure_ascii=False)
        return said


def _one_line(label: str) -> str:
    """All that `str.splitlines` breaks at as spaces."""
    return re.sub(r"[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+", " ", label)
