"""Two samples: do they come from one distribution? Exact at any size, whatever the distribution is.

Every test is a permutation test (Fisher 1935): under the null hypothesis all ways to split the images into two samples
of these sizes are equally likely, so the share of random splits whose statistic is at least as large bounds the chance
of a false alarm. All tests see the same splits. Several tests together are held by Holm's method (1979), which bounds
the chance of any false alarm whatever they have to do with each other.

It holds for images that are independent of each other. Frames of one film and bursts of one scene are not: they are
more alike than two independent photos, and a permutation test then says, rightly, that the scenes are others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from distill.core.types import FloatArray

__all__ = ["PERMUTATIONS", "Outcome", "Splits", "holm"]

PERMUTATIONS = 2000
"""Splits that are drawn, the true one among them: the smallest p-value is 0.0005. Five tests at 1 % need 0.002."""

_Floats = npt.NDArray[np.float64]


class Outcome(NamedTuple):
    """Outcome of one test.

    Args:
        statistic: of the true split; larger is farther apart.
        p: share of splits with a statistic at least as large, the true one counted; 1/2000..1.
    """

    statistic: float
    p: float


class Splits:
    """Random splits of N + M images, the true one first.

    Args:
        reference: N, images of the reference, which come first in all arrays.
        new: M, new images.
        seed: of the draw.
        permutations: how many splits, the true one counted.
    """

    def __init__(self, reference: int, new: int, seed: int = 0, permutations: int = PERMUTATIONS) -> None:
        self._new, self._reference = new, reference
        rng = np.random.default_rng(seed)
        places = rng.permuted(np.tile(np.arange(reference + new), (permutations - 1, 1)), axis=1)[:, :new]
        self._is_new = np.zeros((permutations, reference + new), np.float32)
        np.put_along_axis(self._is_new[1:], places, 1.0, axis=1)
        self._is_new[0, reference:] = 1.0

    def mmd(self, features: FloatArray) -> Outcome:
        """Maximum mean discrepancy with a Gaussian kernel (Gretton et al. 2012, JMLR 13), biased estimate, squared.

        The kernel's width is the median distance of two images, over both samples, so it is the same for all splits.

        Args:
            features: float32 [N + M, F].
        """
        kernel = _gaussian(features)
        # With weights 1/M at new and -1/N at reference images the statistic is w' K w.
        weights = self._is_new / self._new - (1 - self._is_new) / self._reference
        return _result(((weights @ kernel) * weights).sum(axis=1, dtype=np.float64))

    def distances(self, values: FloatArray) -> list[Outcome]:
        """Largest distance of two distribution functions (Kolmogorov-Smirnov), of several numbers an image.

        The p-values hold for all numbers together: a split counts against each where the largest of its distances does
        (Westfall & Young 1993), so whatever the numbers have to do with each other costs nothing.

        Args:
            values: float32 [N + M, S].
        """
        found = np.stack([self._distance(column) for column in values.T])
        return [Outcome(float(own[0]), _share(found.max(axis=0), float(own[0]))) for own in found]

    def rise(self, values: FloatArray) -> Outcome:
        """Largest rise of a mean from reference to new images, in standard deviations, of several numbers an image.

        Args:
            values: float32 [N + M, S].
        """
        spread = values.std(axis=0)
        weights = self._is_new / self._new - (1 - self._is_new) / self._reference
        rises = weights @ (values[:, spread > 0] / spread[spread > 0])
        return _result(rises.max(axis=1, initial=0.0))

    def _distance(self, values: FloatArray) -> FloatArray:
        order = np.argsort(values, kind="stable")
        last = np.append(np.diff(values[order]) > 0, True)  # equal values count together
        new = self._is_new[:, order].cumsum(axis=1, dtype=np.float32)[:, last]
        seen = np.arange(1, len(values) + 1, dtype=np.float32)[last]
        found: FloatArray = np.abs(new / self._new - (seen - new) / self._reference).max(axis=1)
        return found


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted by Holm (1979): those at most alpha are alarms, any of them false with chance alpha at most."""
    order = np.argsort(p_values, kind="stable")
    adjusted, largest = [1.0] * len(p_values), 0.0
    for place, number in enumerate(order.tolist()):
        largest = max(largest, (len(p_values) - place) * p_values[number])
        adjusted[number] = min(1.0, largest)
    return adjusted


def _gaussian(features: FloatArray) -> FloatArray:
    """exp(-d^2 / median d^2), float32 [N, N]."""
    x = features.astype(np.float64)
    x -= x.mean(axis=0)
    squares = (x**2).sum(axis=1)
    squared = np.maximum(squares[:, None] + squares[None, :] - 2 * x @ x.T, 0)
    width = float(np.median(squared[np.triu_indices(len(x), 1)]))
    kernel: FloatArray = np.exp(-squared / max(width, 1e-12)).astype(np.float32)
    return kernel


def _result(statistics: npt.NDArray[np.floating]) -> Outcome:
    true = float(statistics[0])
    return Outcome(true, _share(statistics, true))


def _share(statistics: npt.NDArray[np.floating], true: float) -> float:
    """Of splits at least as far apart; rounding must not tell one from another with an equal statistic."""
    return float((statistics >= true - max(1e-6 * abs(true), 1e-9)).mean())
