"""How sure a figure is: percentile bootstrap over images."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from distill.core.task import Interval

__all__ = ["RESAMPLES", "bootstrap_mean"]

RESAMPLES = 2000
"""Enough for the ends of a 95 % interval to stray by about 3 % of its width."""


def bootstrap_mean(values: npt.NDArray[Any], seed: int = 0) -> Interval:
    """Mean of [N] values with a 95 % percentile bootstrap interval over images (Efron 1979), 2,000 resamples.

    Values take few levels (right and wrong; -1, 0, 1 for pairs), so a resample is one multinomial draw of their counts.
    """
    if len(values) == 0:
        raise ValueError("no images to score")
    levels, counts = np.unique(values.astype(np.float64), return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(values), counts / len(values), size=RESAMPLES)
    means = draws @ levels / len(values)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high))
