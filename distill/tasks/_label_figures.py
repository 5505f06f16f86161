"""Everything that people ask of answers to whole images, beside the score that decisions are made by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from distill.core.intervals import jackknife, proportion
from distill.core.task import Figure, Interval, Profile
from distill.core.types import softmax
from distill.tasks._label_answers import LabelAnswers
from distill.tasks._sums import mean_of_known, over

__all__ = ["FIGURES", "FIGURES_OF_CLASSES", "profile"]

FIGURES: Final = {
    "accuracy": "accuracy",
    "top5": "top-5 accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_precision": "macro precision",
    "macro_f1": "macro F1",
    "roc_auc": "ROC AUC",
    "pr_auc": "PR AUC",
    "calibration_error": "calibration error",
}
FIGURES_OF_CLASSES: Final = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "roc_auc": "ROC AUC",
    "pr_auc": "PR AUC",
}

_BINS = 15  # of confidence; Guo et al. 2017
_Floats = npt.NDArray[np.float64]


def profile(answers: LabelAnswers, class_names: Sequence[str]) -> Profile:
    """All figures of labelled images.

    Means over classes are over those that occur in the truth, of precision and F1 those in truth or answers, as
    scikit-learn has them. ROC AUC and PR AUC (average precision) are of each class against the rest; the calibration
    error is the expected one over 15 bins of equal width (Guo et al. 2017, arXiv 1706.04599). These three have no
    interval.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    probabilities, truth = softmax(answers.logits), answers.truth
    said, count = probabilities.argmax(axis=1), len(class_names)
    right = said == truth
    parts, images = _parts(truth, said, count)
    figures = {
        "accuracy": _figure(proportion(right)),
        "balanced_accuracy": _figure(jackknife(parts, lambda sums: mean_of_known(_recall(sums)), counts=images)),
        "macro_precision": _figure(jackknife(parts, lambda sums: mean_of_known(_precision(sums)), counts=images)),
        "macro_f1": _figure(jackknife(parts, lambda sums: mean_of_known(_f1(sums)), counts=images)),
    }
    if count > 5:
        top = np.argpartition(-answers.logits, 4, axis=1)[:, :5]
        figures["top5"] = _figure(proportion((top == truth[:, None]).any(axis=1)))
    classes: dict[str, dict[str, Figure]] = {}
    for place, name in enumerate(class_names):
        own, called = truth == place, said == place
        classes[name] = {
            "precision": _share(right[called]),
            "recall": _share(right[own]),
            "f1": _of_class(parts, images, place, _f1),
        }
        if own.any() and not own.all():
            scores = probabilities[:, place]
            classes[name]["roc_auc"] = Figure(float(roc_auc_score(own, scores)))
            classes[name]["pr_auc"] = Figure(float(average_precision_score(own, scores)))
    for key in ("roc_auc", "pr_auc"):
        known = [each[key].value for each in classes.values() if key in each]
        figures[key] = Figure(float(np.mean(known)) if known else None)  # type: ignore[arg-type]
    reliability, error = _reliability(probabilities.max(axis=1), right)
    figures["calibration_error"] = Figure(error)
    sizes = dict(zip(class_names, np.bincount(truth, minlength=count).tolist(), strict=True))
    return Profile({key: figures[key] for key in FIGURES if key in figures}, classes, sizes, reliability)


def _parts(truth: npt.NDArray[np.int64], said: npt.NDArray[np.intp], count: int) -> tuple[_Floats, npt.NDArray[Any]]:
    """Pairs of truth and answer that occur, as right, true and answered of each class, [K, 3, C], and how often."""
    cells, images = np.unique(truth * count + said, return_counts=True)
    parts = np.zeros((len(cells), 3, count))
    rows, own, called = np.arange(len(cells)), cells // count, cells % count
    parts[rows, 1, own] = parts[rows, 2, called] = 1
    parts[rows[own == called], 0, own[own == called]] = 1
    return parts, images


def _recall(sums: _Floats) -> _Floats:
    return over(sums[..., 0, :], sums[..., 1, :])


def _precision(sums: _Floats) -> _Floats:
    """Of a class that is never answered 0, as scikit-learn counts it in a mean."""
    found = over(sums[..., 0, :], sums[..., 2, :])
    return np.where(np.isnan(found) & (sums[..., 1, :] > 0), 0.0, found)


def _f1(sums: _Floats) -> _Floats:
    return over(2 * sums[..., 0, :], sums[..., 1, :] + sums[..., 2, :])


def _of_class(parts: _Floats, images: npt.NDArray[Any], place: int, figure: Callable[[_Floats], _Floats]) -> Figure:
    concerned = parts[:, 1:, place].any(axis=1)
    if not concerned.any():
        return Figure(None)
    return _figure(jackknife(parts[concerned], lambda sums: figure(sums)[..., place], counts=images[concerned]))


def _share(hits: npt.NDArray[np.bool_]) -> Figure:
    return _figure(proportion(hits)) if len(hits) else Figure(None)


def _figure(found: Interval) -> Figure:
    return Figure(**asdict(found))


def _reliability(
    confidence: npt.NDArray[np.float32], right: npt.NDArray[np.bool_]
) -> tuple[list[tuple[float, float, float]], float]:
    """Bins that hold answers, and the expected calibration error."""
    place = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    bins = [
        (float(confidence[inside].mean()), float(right[inside].mean()), float(inside.mean()))
        for inside in (place == number for number in range(_BINS))
        if inside.any()
    ]
    return bins, sum(abs(sure - held) * share for sure, held, share in bins)
