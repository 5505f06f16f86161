"""Which classes come more or less often than they did, where each class looks as it looked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from distill.core.types import FloatArray

__all__ = ["ClassShare", "class_shares"]

_RESAMPLES = 500
_MOST_CLASSES = 200  # more cannot be told apart by a few hundred images
_LEFT_OUT = 0.25  # of its former share, at most: fewer than that is called left out

_Floats = npt.NDArray[np.float64]


class ClassShare(NamedTuple):
    """A class then and now, as shares 0..1 of images or of pixels.

    Args:
        name: of the class.
        before: estimate and 95 % interval in the reference.
        now: the same in the new images.
        change: `left out`, `rarer`, `more frequent`, or empty where the intervals leave it open.
    """

    name: str
    before: tuple[float, float, float]
    now: tuple[float, float, float]
    change: str


def class_shares(
    names: Sequence[str],
    confusion: Sequence[Sequence[int]],
    reference: FloatArray,
    new: FloatArray,
    *,
    by_image: bool,
    seed: int = 0,
) -> list[ClassShare] | None:
    """Black-box shift estimation (Lipton, Wang, Smola 2018, ICML): undo the student's confusions.

    The shares of its answers are those of the classes, mixed by its confusion matrix; the mixture is taken apart by
    least squares over shares that are none negative. This is right where only the shares moved and each class still
    looks as it did; a new class is divided among the old ones. Intervals are percentile bootstrap over images, of the
    confusion matrix too where it counts images.

    Args:
        names: C classes.
        confusion: [truth][answer] counts on held-out images.
        reference: shares of answers, float32 [N, C], of the reference.
        new: the same of the new images, float32 [M, C].
        by_image: the confusion matrix counts images, not pixels.
        seed: of the bootstrap.

    Returns:
        One row a class; None where a class has no truth, or the student does not tell classes apart well enough.
    """
    counts = np.array(confusion, dtype=np.float64)
    if len(names) > _MOST_CLASSES or not (counts.sum(axis=1) > 0).all():
        return None
    mixing = (counts / counts.sum(axis=1, keepdims=True)).T
    if np.linalg.cond(mixing) > 1e3:
        return None
    rng = np.random.default_rng(seed)
    # one image's worth of the reference in every draw: a class that was never answered may still be there
    prior = reference.mean(axis=0, dtype=np.float64)
    drawn_before, drawn_now = np.empty((_RESAMPLES, len(names))), np.empty((_RESAMPLES, len(names)))
    for number in range(_RESAMPLES):
        mix = mixing
        if by_image:
            rows = [rng.multinomial(int(row.sum()), row / row.sum()) / row.sum() for row in counts]
            mix = np.array(rows).T
        drawn_before[number] = _unmixed(mix, reference[rng.integers(0, len(reference), len(reference))].mean(axis=0))
        drawn = new[rng.integers(0, len(new), len(new))].sum(axis=0, dtype=np.float64)
        drawn_now[number] = _unmixed(mix, (drawn + prior) / (len(new) + 1))
    before, now = _unmixed(mixing, prior), _unmixed(mixing, new.mean(axis=0, dtype=np.float64))
    rows_before, rows_now = _intervals(before, drawn_before), _intervals(now, drawn_now)
    return [
        ClassShare(name, was, is_, _change(was, is_))
        for name, was, is_ in zip(names, rows_before, rows_now, strict=True)
    ]


def _unmixed(mixing: _Floats, answers: npt.NDArray[Any]) -> _Floats:
    from scipy.optimize import nnls

    found: _Floats = nnls(mixing, answers.astype(np.float64))[0]
    return found / max(float(found.sum()), 1e-12)


def _intervals(values: _Floats, drawn: _Floats) -> list[tuple[float, float, float]]:
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return [(float(v), float(a), float(b)) for v, a, b in zip(values, low, high, strict=True)]


def _change(before: tuple[float, float, float], now: tuple[float, float, float]) -> str:
    if now[2] < _LEFT_OUT * before[0]:
        return "left out"
    if now[2] < before[1]:
        return "rarer"
    return "more frequent" if now[1] > before[2] else ""
