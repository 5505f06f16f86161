"""Which pseudo-labels to trust: how sure the teacher may sound, and how sure it must be.

A teacher's confidence is the largest probability of its answer. Labelled validation photos tell what it is worth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from distill.core.types import FloatArray

__all__ = [
    "Below",
    "Calibration",
    "PixelPoint",
    "Point",
    "adaptive_thresholds",
    "at_temperature",
    "balance_weights",
    "fit_temperature",
    "pixel_coverage",
    "pixel_weights",
    "precision_coverage",
    "threshold_for_precision",
    "trusted_confidence",
]

Below = Literal["ignore", "weigh"]
"""What becomes of pixels under the trusted confidence."""

_Flags = npt.NDArray[np.bool_]
_Floats = npt.NDArray[np.float64]
_Numbers = npt.NDArray[np.int64]

_TEMPERATURES = (0.05, 20.0)
_BINS = 15  # as Guo et al.
_LEAST = 2.0**-24  # smallest step of float16, in which answers are kept: a zero may be anything below
_NORMAL_95 = 1.959964  # two-sided 95 % of the normal distribution
_LEAST_IMAGES = 20  # with fewer, one image more or less moves precision by over 5 %
_LEAST_SHARE = 0.01  # of all pixels: the few surest may all lie in one object of one image


@dataclass(frozen=True)
class Calibration:
    """A fitted temperature and what it changed.

    Args:
        temperature: 0.05..20; above 1 the teacher was too sure of itself, below 1 not sure enough.
        images: labelled images it was fitted on.
        nll_before: mean negative log-likelihood of the truth at temperature 1, in nats.
        nll_after: the same at `temperature`.
        ece_before: expected calibration error at temperature 1, 0..1: by how much confidence and share of right answers
            differ, averaged over images in 15 equal bins of confidence.
        ece_after: the same at `temperature`.
    """

    temperature: float
    images: int
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float


@dataclass(frozen=True)
class Point:
    """What trusting every answer from some confidence on would give.

    Args:
        threshold: least confidence that is trusted.
        precision: share of right answers among the trusted, 0..1.
        low: lower end of its 95 % interval (Wilson 1927).
        high: upper end.
        coverage: share of all images that is trusted, 0..1.
        images: number of images that are trusted.
    """

    threshold: float
    precision: float
    low: float
    high: float
    coverage: float
    images: int


class PixelPoint(NamedTuple):
    """What trusting every pixel from some confidence on would give.

    Args:
        threshold: least confidence that is trusted.
        precision: share of right answers among the trusted, 0..1; pixels of an image go wrong together, so no interval
            is given.
        coverage: share of all pixels that is trusted, 0..1.
    """

    threshold: float
    precision: float
    coverage: float


def fit_temperature(probabilities: FloatArray, truth: _Numbers) -> Calibration:
    """Fit the one number that makes confidences honest (Guo et al. 2017, arXiv 1706.04599).

    It minimises the negative log-likelihood of the truth, which has one minimum in the temperature. A teacher that is
    right on all images would be made ever surer of itself: it gets the lowest temperature, 0.05.

    Args:
        probabilities: float32 [N, C], sum one over C.
        truth: int64 [N], 0..C-1. Images the teacher was not fitted on: on its own it is nearly always right.
    """
    from scipy.optimize import minimize_scalar

    assert len(truth) == len(probabilities) > 0
    known = probabilities.astype(np.float64)
    rows = np.arange(len(truth))
    known[rows, truth] = np.maximum(known[rows, truth], _LEAST)  # one image of probability 0 would decide alone
    log_odds = _log(known) - np.log(known[rows, truth])[:, None]

    def nll(temperature: float) -> float:
        return float(np.logaddexp.reduce(log_odds / temperature, axis=1).mean())

    found = minimize_scalar(lambda log_t: nll(np.exp(log_t)), bounds=np.log(_TEMPERATURES), method="bounded")
    temperature = min((1.0, *_TEMPERATURES, float(np.exp(found.x))), key=nll)  # the search never tries its bounds
    return Calibration(
        temperature=temperature,
        images=len(truth),
        nll_before=nll(1.0),
        nll_after=nll(temperature),
        ece_before=_calibration_error(probabilities, truth),
        ece_after=_calibration_error(at_temperature(probabilities, temperature), truth),
    )


def at_temperature(probabilities: FloatArray, temperature: float) -> FloatArray:
    """Sharpen (temperature below 1) or soften (above 1) answers: p^(1/T), scaled to sum one.

    Equal to dividing the logits by T. Zeros stay zero, and the order of classes stays.

    Args:
        probabilities: float32 [..., C], sum one over C.
        temperature: above 0.

    Returns:
        float32 [..., C].
    """
    assert temperature > 0
    logits = _log(probabilities) / temperature
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    scaled: FloatArray = (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)
    return scaled


def precision_coverage(confidence: FloatArray, right: _Flags) -> list[Point]:
    """How many answers can be had at which precision: the curve from which a threshold is chosen.

    Args:
        confidence: float32 [N], 0..1.
        right: bool [N], whether the teacher's answer was the truth.

    Returns:
        Points at coverages 100 %, 95 %, … 5 %, a little above where several images share a confidence; fewer points
        where these are many, none of no images.
    """
    points: dict[int, Point] = {}
    every = {point.images: point for point in _every_point(confidence, right)}
    if not every:
        return []
    ends = np.array(sorted(every))
    for twentieths in range(20, 0, -1):
        wanted = -(-len(confidence) * twentieths // 20)  # in whole numbers: 0.55 * 100 is over 55
        point = every[int(ends[np.searchsorted(ends, wanted)])]
        points.setdefault(point.images, point)
    return list(points.values())


def threshold_for_precision(confidence: FloatArray, right: _Flags, target: float) -> Point | None:
    """The lowest threshold whose answers, on these images, reach a precision.

    It is the measured share that must reach the target, not the lower end of its interval: to show 0.95 that way takes
    73 images without one mistake, to show 0.99 takes 381, more than many validation sets hold. The price is optimism,
    as the luckiest threshold is taken: asked for 0.95 on 341 images, simulated teachers gave 0.947 on new ones, and one
    in twenty gave less than 0.921 (100 images: 0.940 and 0.886). Read `Point.low` before relying on it.

    Args:
        confidence: float32 [N], 0..1.
        right: bool [N], whether the teacher's answer was the truth.
        target: precision asked for, 0..1.

    Returns:
        The point, or None where no threshold with at least 20 images above it reaches the target. Images of the same
        confidence are trusted together or not at all.
    """
    reached = (p for p in _every_point(confidence, right) if p.images >= _LEAST_IMAGES and p.precision >= target)
    return max(reached, key=lambda point: point.images, default=None)


def adaptive_thresholds(probabilities: FloatArray) -> FloatArray:
    """A threshold for each class, lower where the teacher is less sure (FreeMatch: Wang et al. 2023, arXiv 2205.07246).

    A common threshold starves the classes a teacher finds hard. The common one here is the mean confidence; a class has
    of it the share that its mean probability is of the most probable class's. FreeMatch follows both by moving
    averages, as its teacher is still learning; here all answers are known.

    Args:
        probabilities: float32 [N, C], the teacher's answers to the unlabelled images.

    Returns:
        float32 [C], 0..1.
    """
    answers = probabilities.astype(np.float64)
    means = answers.mean(axis=0)
    thresholds: FloatArray = (answers.max(axis=1).mean() * means / means.max()).astype(np.float32)
    return thresholds


def balance_weights(classes: _Numbers, weights: FloatArray, strength: float, class_count: int) -> FloatArray:
    """Give images of rare classes more weight, so that pseudo-labels do not drown them.

    A weight is multiplied by (mean count of a class / count of its class)^strength, where images of weight 0 do not
    count; then all are scaled so that their sum stays, and with it the size of the loss.

    Args:
        classes: int64 [N], 0..C-1.
        weights: float32 [N], not negative.
        strength: 0 changes nothing; at 1 each class that occurs has the same sum, if weights were equal.
        class_count: C.

    Returns:
        float32 [N].
    """
    before = weights.astype(np.float64)
    counts = np.bincount(classes[before > 0], minlength=class_count)
    factors = np.maximum(counts, 1.0) ** -strength  # the mean count cancels in the scaling
    after = before * factors[classes]
    balanced: FloatArray = (after * (before.sum() / max(after.sum(), np.finfo(np.float64).tiny))).astype(np.float32)
    return balanced


def pixel_weights(confidence: npt.NDArray[np.uint8], min_confidence: float | None, below: Below) -> FloatArray:
    """How much each pixel counts by the teacher's confidence in it.

    Args:
        confidence: uint8 of any shape, 255 is 1.0, as a store of maps gives it.
        min_confidence: pixels of this confidence, 0..1, and above count fully; None lets all count fully.
        below: `ignore` gives the others 0, `weigh` gives them (confidence / min_confidence)^2: at 0.9 a pixel on the
            fence between two classes, 0.5, counts 0.31, where in proportion it would be more than half.

    Returns:
        float32 of the same shape, 0..1.
    """
    least = 0 if min_confidence is None else round(255 * min_confidence)
    steps = np.arange(256)
    under = np.zeros(256) if below == "ignore" else (steps / max(least, 1)) ** 2
    weights: FloatArray = np.where(steps >= least, 1.0, under).astype(np.float32)[confidence]
    return weights


def pixel_coverage(histogram: _Numbers) -> list[PixelPoint]:
    """How many pixels can be had at which precision.

    Args:
        histogram: int64 [2, B], wrong pixels and right ones in B equal bins of confidence over 0..1.

    Returns:
        A point for the lower end of each bin that holds pixels, the lowest first.
    """
    above = histogram[:, ::-1].cumsum(axis=1)[:, ::-1]
    total = above.sum(axis=0)
    bins = histogram.shape[1]
    return [
        PixelPoint(b / bins, float(above[1, b] / total[b]), float(total[b] / total[0]))
        for b in np.flatnonzero(histogram.sum(axis=0)).tolist()
    ]


def trusted_confidence(histogram: _Numbers, precision: float) -> float | None:
    """The smallest confidence from which on, on these pixels, a share `precision` of the answers is right.

    Args:
        histogram: int64 [2, B], wrong pixels and right ones in B equal bins of confidence over 0..1.
        precision: asked for, 0..1.

    Returns:
        The lower end of a bin, 0..1, or None where no confidence that 1 % of the pixels have reaches the precision.
    """
    reached = (p for p in pixel_coverage(histogram) if p.coverage >= _LEAST_SHARE and p.precision >= precision)
    return next((point.threshold for point in reached), None)


def _log(probabilities: npt.NDArray[np.floating]) -> _Floats:
    with np.errstate(divide="ignore"):
        logarithms: _Floats = np.log(probabilities.astype(np.float64))
    return logarithms


def _calibration_error(probabilities: FloatArray, truth: _Numbers) -> float:
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == truth
    bins = np.clip(np.ceil(confidence * _BINS).astype(np.int64) - 1, 0, _BINS - 1)  # (0, 1/15], (1/15, 2/15], …
    gaps = np.bincount(bins, weights=right - confidence, minlength=_BINS)
    return float(np.abs(gaps).sum() / len(truth))


def _every_point(confidence: FloatArray, right: _Flags) -> Iterator[Point]:
    """A point for each confidence that occurs, the highest first."""
    assert len(confidence) == len(right)
    order = np.argsort(-confidence, kind="stable")
    falling, hits = confidence[order], np.cumsum(right[order])
    for last in np.flatnonzero(np.append(falling[1:] != falling[:-1], len(order) > 0)):
        images, precision = int(last) + 1, float(hits[last] / (last + 1))
        low, high = _wilson(precision, images)
        yield Point(float(falling[last]), precision, low, high, images / len(order), images)


def _wilson(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a share of `count` images (Wilson 1927); unlike the usual one it has width also at 0 and 1."""
    square = _NORMAL_95**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = _NORMAL_95 / (1 + square / count) * np.sqrt(share * (1 - share) / count + square / (4 * count**2))
    low, high = float(middle - half), float(middle + half)
    return max(0.0, min(share, low)), min(1.0, max(share, high))  # at 0 and 1 they are equal, but for rounding
