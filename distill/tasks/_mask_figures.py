"""Figures of masks from counts that are summed over images; all of them, or those that decisions are made by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Final

import numpy as np
import numpy.typing as npt

from distill.core.intervals import jackknife
from distill.core.task import Figure, Profile
from distill.tasks._mask_answers import CONFIDENCE_BINS, MaskAnswers
from distill.tasks._sums import mean_of_known, over

__all__ = ["FIGURES", "FIGURES_OF_CLASSES", "f_scores", "iou", "miou", "profile", "right", "sums_of"]

FIGURES: Final = {
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "boundary_f": "boundary F",
    "calibration_error": "calibration error",
}
FIGURES_OF_CLASSES: Final = {
    "iou": "IoU",
    "precision": "precision",
    "recall": "recall",
    "boundary_f": "boundary F",
}

_Floats = npt.NDArray[np.float64]


def profile(answers: MaskAnswers, class_names: Sequence[str]) -> Profile:
    """All figures of masks: pixels of all images are counted together first, then shares are made.

    The calibration error is the expected one over 32 bins of equal width (Guo et al. 2017, arXiv 1706.04599); each
    pixel is taken at the middle of its bin. It has no interval.
    """
    sums, outlines = sums_of(answers), answers.boundary.astype(np.float64)
    figures = {
        "miou": _figure(sums, miou),
        "pixel_accuracy": _figure(sums, right),
        "boundary_f": _figure(outlines, lambda each: mean_of_known(f_scores(each))),
    }
    reliability, error = _reliability(answers)
    figures["calibration_error"] = Figure(error)

    def of_class(place: int) -> dict[str, Figure]:
        one = np.s_[..., place]
        return {
            "iou": _figure(sums, lambda each: iou(each)[one]),
            "precision": _figure(sums, lambda each: over(each[..., 0, place], each[..., 2, place])),
            "recall": _figure(sums, lambda each: over(each[..., 0, place], each[..., 1, place])),
            "boundary_f": _figure(outlines, lambda each: f_scores(each)[one]),
        }

    classes = {name: of_class(place) for place, name in enumerate(class_names)}
    sizes = dict(zip(class_names, sums[:, 1].sum(axis=0).astype(int).tolist(), strict=True))
    return Profile(figures, classes, sizes, reliability)


def sums_of(answers: MaskAnswers) -> _Floats:
    """By image: right pixels, pixels of the truth and of the answer by class, [N, 3, C]."""
    hits = np.diagonal(answers.counts, axis1=1, axis2=2)
    return np.stack([hits, answers.counts.sum(axis=2), answers.counts.sum(axis=1)], axis=1).astype(np.float64)


def iou(sums: _Floats) -> _Floats:
    """[…, 3, C] to […, C]; NaN where neither truth nor answer has a class."""
    hits, truth, said = np.moveaxis(sums, -2, 0)
    return over(hits, truth + said - hits)


def miou(sums: _Floats) -> _Floats:
    """Mean over the classes that occur, […, 3, C] to […]."""
    return mean_of_known(iou(sums))


def right(sums: _Floats) -> _Floats:
    """Share of right pixels, […, 3, C] to […]; NaN where there are none."""
    return over(sums[..., 0, :].sum(axis=-1), sums[..., 1, :].sum(axis=-1))


def f_scores(boundary: _Floats) -> _Floats:
    """Of sums […, C, 4], as in `MaskAnswers`: NaN where a class has no outline, 0 where only one side has."""
    truth_near, truth, said_near, said = np.moveaxis(boundary, -1, 0)
    recall, precision = (near / np.maximum(of, 1) for near, of in ((truth_near, truth), (said_near, said)))
    f = 2 * precision * recall / np.maximum(precision + recall, np.finfo(np.float64).tiny)
    return np.where(truth + said > 0, f, np.nan)


def _figure(sums: _Floats, figure: Callable[[_Floats], _Floats]) -> Figure:
    if np.isnan(figure(sums.sum(axis=0)[None])[0]):
        return Figure(None)
    return Figure(**asdict(jackknife(sums, figure)))


def _reliability(answers: MaskAnswers) -> tuple[list[tuple[float, float, float]], float]:
    """Bins that hold pixels, and the expected calibration error."""
    wrong, hits = answers.confidence.sum(axis=0).astype(np.float64)
    held, total = wrong + hits, float((wrong + hits).sum())
    bins = [
        ((number + 0.5) / CONFIDENCE_BINS, float(hits[number] / held[number]), float(held[number] / total))
        for number in range(CONFIDENCE_BINS)
        if held[number]
    ]
    return bins, sum(abs(sure - share) * of_all for sure, share, of_all in bins)
