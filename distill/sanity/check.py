"""A check says what it expects, what it saw, and what usually causes the difference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from distill.sanity.subject import Pictures, Subject

__all__ = ["Check", "Result", "Seen", "Status"]

Status = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class Seen:
    """What a check found.

    Args:
        holds: whether it is as expected; None where the check does not apply.
        expected: one sentence with figures.
        saw: one sentence with figures; why it does not apply where it does not.
        figures: raw numbers, for programs.
        pictures: drawn by the check.
    """

    holds: bool | None
    expected: str
    saw: str
    figures: dict[str, Any] = field(default_factory=dict)
    pictures: Pictures = field(default_factory=dict)


class Check(NamedTuple):
    """One check.

    Args:
        name: a few words.
        look: does it.
        causes: what usually is wrong where it fails, the most frequent first.
        quick: whether it takes well under a second, and so stands before every training.
    """

    name: str
    look: Callable[[Subject], Seen]
    causes: Sequence[str]
    quick: bool


@dataclass(frozen=True)
class Result:
    """A check that was done, as `sanity.json` has it.

    Args:
        name: of the check.
        status: passed, failed, or skipped (it does not apply, or could not be done).
        expected: one sentence.
        saw: one sentence.
        causes: usual causes; empty unless it failed.
        figures: raw numbers.
        pictures: names of files in the folder `sanity` beside the document.
        seconds: it took.
    """

    name: str
    status: Status
    expected: str
    saw: str
    causes: tuple[str, ...]
    figures: dict[str, Any]
    pictures: tuple[str, ...]
    seconds: float
