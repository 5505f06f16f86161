"""Shares and means where there may be nothing to divide by, of sums over images with any number of axes before."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["mean_of_known", "over"]

_Floats = npt.NDArray[np.float64]


def over(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> _Floats:
    """Counts by counts; NaN where there are none."""
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def mean_of_known(values: _Floats) -> _Floats:
    """Mean over the last axis of what is not NaN; NaN where all is."""
    known = ~np.isnan(values)
    return over(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1))
