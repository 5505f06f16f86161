"""Which of the teacher's answers the student learns from, how much each counts, and why the others do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from distill.config import TrustSettings
from distill.core.errors import TeacherError
from distill.core.tables import write_table
from distill.core.types import FloatArray, ImageRecord
from distill.labels.store import LabelStore
from distill.labels.trust import (
    Calibration,
    adaptive_thresholds,
    at_temperature,
    balance_weights,
    fit_temperature,
    threshold_for_precision,
)

__all__ = ["Choice", "choose"]


@dataclass(frozen=True)
class Choice:
    """What `choose` decided.

    Args:
        images: ids, N of them.
        classes: most probable class or truth, int64 [N].
        confidence: of the teacher in its answer to the fixed view, after calibration, float32 [N].
        weights: float32 [N]; 0 leaves an image out.
        reasons: why it was left out; empty where it was not.
        calibration: of the teacher; None where it was not asked for.
        thresholds: least confidence by class, float32 [C].
    """

    images: tuple[str, ...]
    classes: npt.NDArray[np.int64]
    confidence: FloatArray
    weights: FloatArray
    reasons: tuple[str, ...]
    calibration: Calibration | None
    thresholds: FloatArray

    @property
    def temperature(self) -> float:
        """That the stored answers are read at."""
        return self.calibration.temperature if self.calibration else 1.0

    def summary(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Counts for people and reports."""
        left_out = Counter(self.classes[self.weights == 0].tolist())
        return {
            "used": int((self.weights > 0).sum()),
            "left_out": int((self.weights == 0).sum()),
            "left_out_by_class": {class_names[c]: n for c, n in sorted(left_out.items())},
            "thresholds": {name: round(float(t), 4) for name, t in zip(class_names, self.thresholds, strict=True)},
            "calibration": asdict(self.calibration) if self.calibration else None,
        }

    def save(self, path: Path, class_names: Sequence[str]) -> None:
        """Write one row an image as Parquet."""
        import pyarrow as pa

        columns = {
            "image": list(self.images),
            "class": [class_names[c] for c in self.classes],
            "confidence": self.confidence,
            "weight": self.weights,
            "reason": list(self.reasons),
        }
        write_table(pa.table(columns), path)


def choose(
    store: LabelStore,
    records: Sequence[ImageRecord],
    class_names: Sequence[str],
    settings: TrustSettings,
    validation: FloatArray,
    truth: npt.NDArray[np.int64],
) -> Choice:
    """Decide by the teacher's answers to the fixed views; images with truth are always kept.

    Args:
        store: of these images.
        records: all images of the store in its order.
        class_names: C names.
        settings: of the choice.
        validation: float32 [M, C], the teacher's probabilities for labelled validation images.
        truth: int64 [M].

    Raises:
        TeacherError: the wanted precision is not reached at any confidence, or no image of the store is sure enough.
    """
    calibration = fit_temperature(validation, truth) if settings.calibrate else None
    # Rounded as stored answers are: else a sure teacher's 0.9998 is stored as 1.0 and passes a threshold of 0.9999.
    answers, known = store.targets(0), validation.astype(np.float16).astype(np.float32)
    if calibration is not None:
        answers, known = (at_temperature(p, calibration.temperature) for p in (answers, known))
    places = {name: place for place, name in enumerate(class_names)}
    labels = np.array([-1 if r.label is None else places[r.label] for r in records], dtype=np.int64)
    unlabelled = labels < 0
    confidence: FloatArray = answers.max(axis=1)
    classes = np.where(unlabelled, answers.argmax(axis=1), labels)
    thresholds = _thresholds(settings, answers[unlabelled], known, truth, len(class_names))
    low = unlabelled & (confidence < thresholds[classes])
    if low.all():
        raise TeacherError(
            f"trust.keep: none of {len(low)} images is left to learn from: the teacher's largest confidence is"
            f" {confidence.max():.3f}, the least that {settings.keep!r} asks for {thresholds.min():.3f}. `distill"
            " labels stat` shows what can be had at which confidence"
        )
    reasons = [
        f"confidence {confidence[i]:.3f} below {thresholds[classes[i]]:.3f}" if low[i] else "" for i in range(len(low))
    ]
    weights = balance_weights(classes, (~low).astype(np.float32), settings.balance, len(class_names))
    ids = tuple(r.id for r in records)
    return Choice(ids, classes, confidence, weights, tuple(reasons), calibration, thresholds)


def _thresholds(
    settings: TrustSettings, pool: FloatArray, known: FloatArray, truth: npt.NDArray[np.int64], classes: int
) -> FloatArray:
    if settings.keep == "adaptive" and len(pool):
        return adaptive_thresholds(pool)
    if settings.keep == "precision":
        confidence, right = known.max(axis=1), known.argmax(axis=1) == truth
        point = threshold_for_precision(confidence, right, settings.precision)
        if point is None:
            raise TeacherError(
                f"trust.precision: on {len(truth)} validation images no confidence of the teacher reaches a precision"
                f" of {settings.precision:g} (all together: {right.mean():.3f}). `distill labels stat` shows what can"
                " be had at which confidence"
            )
        return np.full(classes, point.threshold, dtype=np.float32)
    return np.zeros(classes, dtype=np.float32)
