"""Names of many files in one: `shards/{000..099}.tar`, `shards/*.tar`."""

from __future__ import annotations

import glob
import re
from itertools import product

__all__ = ["braces", "fitting", "is_pattern"]

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)", re.ASCII)
_MOST = 1_000_000  # names; more are a slip


def is_pattern(text: str) -> bool:
    """Whether it may stand for several files."""
    return "*" in text or bool(_BRACES.search(text))


def braces(pattern: str) -> list[str]:
    """What a shell makes of braces: `{000..099}` counts, with the zeros that are written, `{a,b}` lists.

    Raises:
        ValueError: more than a million names.
    """
    parts = _BRACES.split(pattern)
    choices = [[part] if place % 2 == 0 else _choices(part) for place, part in enumerate(parts)]
    count = 1
    for choice in choices:
        count *= len(choice)
    if count > _MOST:
        raise ValueError(f"{pattern} names {count} files, expected at most {_MOST}")
    return ["".join(chosen) for chosen in product(*choices)]


def fitting(pattern: str) -> list[str]:
    """The local files that a pattern names, sorted where it has `*`; those without may be missing."""
    names: list[str] = []
    for name in braces(pattern):
        names += sorted(glob.glob(name, recursive=True)) if "*" in name else [name]  # noqa: PTH207
    return names


def _choices(inside: str) -> list[str]:
    if counted := _RANGE.fullmatch(inside):
        first, last = counted.groups()
        low, high = int(first), int(last)
        if abs(high - low) >= _MOST:
            raise ValueError(f"{{{inside}}} names more than {_MOST} files")
        width = max(len(first), len(last)) if "0" in {first[0], last[0]} else 0
        step = 1 if low <= high else -1
        return [f"{number:0{width}d}" for number in range(low, high + step, step)]
    return inside.split(",") if "," in inside else [f"{{{inside}}}"]
