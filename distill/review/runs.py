"""Masks as runs, the form in which they travel between the server and the page, and in which other tools keep them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from distill.core.dense import IGNORED

__all__ = ["filled", "lengths_of", "mask_of_runs", "runs_of"]

_Mask = npt.NDArray[np.uint8]


def lengths_of(flat: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Values of stretches of equal ones in a line, and how long each stretch is."""
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    return flat[starts], np.diff(np.append(starts, len(flat)))


def runs_of(mask: _Mask) -> list[int]:
    """A mask, uint8 [H, W], row by row as value, length, value, length and so on."""
    values, lengths = lengths_of(mask.ravel())
    return [int(number) for number in np.stack([values, lengths], axis=1).ravel()]


def mask_of_runs(runs: Any, width: int, height: int, classes: int) -> _Mask:
    """The mask, uint8 [H, W], that `runs_of` made runs of.

    Args:
        runs: as they came from elsewhere.
        width: of the mask.
        height: of the mask.
        classes: so many there are; values are places of them, or 255.

    Raises:
        ValueError: they are no runs of such a mask.
    """
    if not isinstance(runs, list) or len(runs) % 2 or len(runs) > 2 * width * height:
        raise ValueError("a mask has pairs of a value and a length")
    if not all(type(number) is int and 0 <= number <= max(IGNORED, width * height) for number in runs):
        raise ValueError("a mask has whole numbers, lengths none larger than its pixels")
    pairs = np.array(runs, np.int64).reshape(-1, 2)
    if int(pairs[:, 1].sum()) != width * height:
        raise ValueError(f"a mask has {int(pairs[:, 1].sum())} pixels, expected {width}x{height}")
    if not all(value < classes or value == IGNORED for value in np.unique(pairs[:, 0]).tolist()):
        raise ValueError(f"a mask has a value that is none of {classes} classes")
    return np.repeat(pairs[:, 0].astype(np.uint8), pairs[:, 1]).reshape(height, width)


def filled(lengths: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """A line of stretches outside and inside in turn, the first outside."""
    return np.repeat(np.arange(len(lengths)) % 2 == 1, np.asarray(lengths, np.int64))
