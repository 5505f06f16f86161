"""One label an image: accuracy, macro F1, recall by class, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from distill.core.settings import Settings
from distill.core.types import FloatArray, softmax

__all__ = ["Classification", "Config", "Interval", "Score", "build"]

_RESAMPLES = 2000


class Config(Settings):
    """Classification has no settings of its own."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % percentile bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Score:
    """How a predictor did on labelled images.

    Args:
        images: how many.
        accuracy: share of right answers, 0..1.
        balanced_accuracy: mean recall over the classes that occur.
        macro_f1: mean F1 over the classes that occur in truth or answers.
        nll: mean -log p(truth), natural logarithm.
        recall: by class name; classes without images are absent.
        confusion: [truth][answer] counts in the order of the classes.
    """

    images: int
    accuracy: Interval
    balanced_accuracy: float
    macro_f1: float
    nll: float
    recall: dict[str, float]
    confusion: list[list[int]]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@final
class Classification:
    """What "right" means for one label an image."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = tuple(class_names)

    def truth(self, labels: Sequence[str | None]) -> npt.NDArray[np.int64]:
        """Class indices, int64 [N]."""
        place = {name: index for index, name in enumerate(self.class_names)}
        return np.array([place[str(label)] for label in labels], dtype=np.int64)

    def score(self, logits: FloatArray, truth: npt.NDArray[np.int64]) -> Score:
        """Score answers.

        Args:
            logits: float32 [N, C].
            truth: int64 [N], class indices.
        """
        from sklearn.metrics import confusion_matrix, f1_score

        answers = logits.argmax(axis=1)
        right = answers == truth
        counts = confusion_matrix(truth, answers, labels=range(len(self.class_names)))
        present = counts.sum(axis=1) > 0
        recall = counts.diagonal()[present] / counts.sum(axis=1)[present]
        probabilities = softmax(logits)
        return Score(
            images=len(truth),
            accuracy=bootstrap_mean(right),
            balanced_accuracy=float(recall.mean()),
            macro_f1=float(f1_score(truth, answers, average="macro", zero_division=0)),
            nll=float(-np.log(np.maximum(probabilities[np.arange(len(truth)), truth], 1e-12)).mean()),
            recall=dict(zip(np.array(self.class_names)[present].tolist(), recall.tolist(), strict=True)),
            confusion=counts.tolist(),
        )

    def difference(self, first: FloatArray, second: FloatArray, truth: npt.NDArray[np.int64]) -> Interval:
        """Accuracy of `first` minus that of `second` on the same images, with its paired interval."""
        a, b = first.argmax(axis=1) == truth, second.argmax(axis=1) == truth
        return bootstrap_mean(a.astype(np.int64) - b.astype(np.int64))


def bootstrap_mean(values: npt.NDArray[Any], seed: int = 0) -> Interval:
    """Mean of [N] values with a 95 % percentile bootstrap interval over images (Efron 1979), 2,000 resamples.

    Values take few levels (right and wrong; -1, 0, 1 for pairs), so a resample is one multinomial draw of their counts.
    """
    if len(values) == 0:
        raise ValueError("no images to score")
    levels, counts = np.unique(values.astype(np.float64), return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(values), counts / len(values), size=_RESAMPLES)
    means = draws @ levels / len(values)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high))


def build(config: Config, class_names: Sequence[str]) -> Classification:
    """The task for these classes."""
    return Classification(class_names)
