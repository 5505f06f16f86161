"""Which answers are learnt from, and the reason where they are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from distill.config import TrustSettings
from distill.core.errors import TeacherError
from distill.core.types import FloatArray, ImageRecord
from distill.data.views import View
from distill.labels.choice import Choice, choose
from distill.labels.shards import shard_path
from distill.labels.store import LabelStore, Shard, finish, write_shard
from distill.labels.trust import at_temperature

CLASSES = ("cat", "dog", "owl")
# The first image has truth, and the teacher is wrong about it.
ANSWERS = np.array(
    [[0.9, 0.05, 0.05], [0.9, 0.05, 0.05], [0.6, 0.3, 0.1], [0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.1, 0.45, 0.45]],
    np.float32,
)
LABELS = ["owl", None, None, None, None, None]
# Validation: the 30 surest are right, of the 30 others every second is.
SURE = np.tile(np.float32([0.85, 0.1, 0.05]), (30, 1))
UNSURE = np.tile(np.float32([0.55, 0.25, 0.2]), (30, 1))
VALIDATION: FloatArray = np.concatenate([SURE, UNSURE])
TRUTH = np.array([0] * 30 + [0, 1] * 15)


@pytest.fixture
def store(tmp_path: Path) -> LabelStore:
    ids = [f"{n:016x}" + "0" * 48 for n in range(6)]
    shard = Shard.of(ids, [View(0, 0, 8, 8, False)] * 6, ANSWERS, 3)
    write_shard(shard_path(tmp_path, 0), shard, 3, "same")
    finish(tmp_path, {"fingerprint": "same", "views": 1, "top_k": 3, "classes": 3, "images": 6, "shards": 1})
    return LabelStore(tmp_path)


def chosen(store: LabelStore, **settings: object) -> Choice:
    records = [ImageRecord(f"{n:016x}" + "0" * 48, f"{n}.png", 8, 8, "train", label) for n, label in enumerate(LABELS)]
    return choose(store, records, CLASSES, TrustSettings.model_validate(settings), VALIDATION, TRUTH)


def test_all_are_kept_and_truth_names_the_class(store: LabelStore) -> None:
    found = chosen(store)
    assert found.weights.tolist() == [1] * 6
    assert found.classes.tolist() == [2, 0, 0, 0, 1, 1]
    assert found.temperature == 1
    assert set(found.reasons) == {""}
    assert found.summary(CLASSES)["left_out"] == 0


def test_a_precision_becomes_a_threshold_and_reasons(store: LabelStore, tmp_path: Path) -> None:
    found = chosen(store, keep="precision", precision=0.9)
    # above 0.85: 30 of 30 right; with the others 45 of 60, which is less than 0.9
    assert found.weights.tolist() == [1, 1, 0, 0, 0, 0]
    assert found.reasons[2] == "confidence 0.600 below 0.850"
    assert found.reasons[0] == "", "truth needs no confidence"
    summary = found.summary(CLASSES)
    assert (summary["used"], summary["left_out_by_class"]) == (2, {"cat": 2, "dog": 2})
    found.save(tmp_path / "choice.parquet", CLASSES)
    rows = pyarrow.parquet.read_table(tmp_path / "choice.parquet").to_pylist()
    assert rows[4]["class"] == "dog" and rows[4]["weight"] == 0
    assert rows[4]["reason"] == "confidence 0.800 below 0.850"


def test_a_lower_precision_keeps_all(store: LabelStore) -> None:
    assert chosen(store, keep="precision", precision=0.7).weights.tolist() == [1, 1, 1, 0, 1, 0]  # 0.55 and above


def test_a_precision_out_of_reach_is_an_error(store: LabelStore) -> None:
    from distill.labels import choice

    truth = np.ones(60, np.int64)
    records = [ImageRecord(f"{n:016x}" + "0" * 48, "", 8, 8, "train", None) for n in range(6)]
    with pytest.raises(TeacherError) as caught:
        choice.choose(store, records, CLASSES, TrustSettings(keep="precision", precision=0.99), VALIDATION, truth)
    assert str(caught.value) == (
        "trust.precision: on 60 validation images no confidence of the teacher reaches a precision of 0.99 (all"
        " together: 0.000). `distill labels stat` shows what can be had at which confidence"
    )


def test_nothing_left_to_learn_from_is_an_error(store: LabelStore) -> None:
    from distill.labels import choice

    records = [ImageRecord(f"{n:016x}" + "0" * 48, "", 8, 8, "train", None) for n in range(6)]
    sure = np.tile(np.float32([0.98, 0.01, 0.01]), (60, 1))
    with pytest.raises(TeacherError) as caught:
        choice.choose(store, records, CLASSES, TrustSettings(keep="precision"), sure, np.zeros(60, np.int64))
    assert str(caught.value) == (
        "trust.keep: none of 6 images is left to learn from: the teacher's largest confidence is 0.900, the least that"
        " 'precision' asks for 0.980. `distill labels stat` shows what can be had at which confidence"
    )


def test_adaptive_thresholds_are_lower_for_classes_the_teacher_is_unsure_of(store: LabelStore) -> None:
    found = chosen(store, keep="adaptive")
    pool = ANSWERS[1:].astype(np.float64)
    tau, mean = pool.max(axis=1).mean(), pool.mean(axis=0)
    expected = tau * mean / mean.max()
    np.testing.assert_allclose(found.thresholds, expected, rtol=1e-3)
    assert found.thresholds[2] < found.thresholds[1] < found.thresholds[0]
    keep = [pool[n].max() >= expected[pool[n].argmax()] for n in range(5)]
    assert found.weights.tolist() == [1, *map(float, keep)]
    assert 0 in found.weights


def test_balance_gives_each_class_the_same_sum(store: LabelStore) -> None:
    found = chosen(store, balance=1.0)
    sums = [found.weights[found.classes == c].sum() for c in range(3)]
    assert sums == pytest.approx([2, 2, 2])


def test_calibration_is_applied_before_the_thresholds(store: LabelStore) -> None:
    found = chosen(store, calibrate=True)
    assert found.calibration is not None and found.calibration.images == 60
    assert found.temperature == found.calibration.temperature != 1
    expected = at_temperature(store.targets(0), found.temperature).max(axis=1)
    np.testing.assert_allclose(found.confidence, expected, rtol=1e-6)
    assert found.summary(CLASSES)["calibration"]["nll_after"] <= found.summary(CLASSES)["calibration"]["nll_before"]
