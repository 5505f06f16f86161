"""What right means for one label an image, against numbers made by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from distill.core.errors import TeacherError
from distill.core.task import Interval
from distill.tasks.classification import Classification, Config, LabelAnswers, LabelScore, build

NAMES = ("cat", "dog", "owl")


@pytest.fixture
def task() -> Classification:
    return build(Config(), NAMES)


def logits_of(answers: list[int], height: float = 2.0) -> np.ndarray:
    logits = np.zeros((len(answers), 3), dtype=np.float32)
    logits[np.arange(len(answers)), answers] = height
    return logits


def score_of(task: Classification, logits: np.ndarray, truth: np.ndarray) -> LabelScore:
    return task.score(answers_of(logits, truth))


def answers_of(logits: np.ndarray, truth: np.ndarray) -> LabelAnswers:
    return LabelAnswers(tuple(f"{n:064x}" for n in range(len(truth))), logits, truth)


def difference(task: Classification, first: np.ndarray, second: np.ndarray, truth: np.ndarray) -> Interval:
    return task.difference(answers_of(first, truth), answers_of(second, truth))


def test_truth_is_the_place_among_the_classes(task: Classification) -> None:
    truth = task.truth(["owl", "cat", "owl"])
    assert truth.dtype == np.int64
    assert truth.tolist() == [2, 0, 2]


def test_score_by_hand(task: Classification) -> None:
    truth = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    score = score_of(task, logits_of([0, 0, 0, 1, 1, 0, 1, 2]), truth)
    assert score.images == 8
    assert score.accuracy.value == 5 / 8
    assert score.recall == {"cat": 3 / 4, "dog": 1 / 2, "owl": 1 / 2}
    assert score.balanced_accuracy == pytest.approx((3 / 4 + 1 / 2 + 1 / 2) / 3)
    assert score.confusion == [[3, 1, 0], [1, 1, 0], [0, 1, 1]]
    # F1 = 2 TP / (2 TP + FP + FN): cat 6/8, dog 2/5, owl 2/3
    assert score.macro_f1 == pytest.approx((6 / 8 + 2 / 5 + 2 / 3) / 3)
    right, wrong = -math.log(math.e**2 / (math.e**2 + 2)), -math.log(1 / (math.e**2 + 2))
    assert score.nll == pytest.approx((5 * right + 3 * wrong) / 8, rel=1e-6)


def test_a_class_without_images_has_no_recall(task: Classification) -> None:
    score = score_of(task, logits_of([0, 2]), np.array([0, 0]))
    assert score.recall == {"cat": 0.5}
    assert score.balanced_accuracy == 0.5
    assert score.macro_f1 == pytest.approx((2 / 3 + 0) / 2)  # owl was answered, so it counts; dog does not


def test_everything_right_and_everything_wrong(task: Classification) -> None:
    truth = np.array([0, 1, 2, 1])
    right = score_of(task, logits_of([0, 1, 2, 1]), truth)
    assert (right.accuracy.value, right.accuracy.high) == (1, 1)
    assert 0.4 < right.accuracy.low < 0.6  # four images do not tell more
    assert (right.balanced_accuracy, right.macro_f1) == (1, 1)
    wrong = score_of(task, logits_of([1, 2, 0, 0]), truth)
    assert (wrong.accuracy.value, wrong.accuracy.low, wrong.macro_f1) == (0, 0, 0)


def test_a_single_image_of_a_single_class(task: Classification) -> None:
    assert score_of(task, logits_of([1]), np.array([1])).accuracy.value == 1


def test_surely_wrong_is_costly_but_finite(task: Classification) -> None:
    score = score_of(task, logits_of([0], height=1e4), np.array([1]))
    assert score.nll == pytest.approx(-math.log(1e-12))


def test_a_score_can_be_written_as_json(task: Classification) -> None:
    score = score_of(task, logits_of([0, 1, 1]), np.array([0, 1, 2]))
    again = json.loads(json.dumps(score.as_dict(), allow_nan=False))
    assert again["accuracy"]["value"] == pytest.approx(2 / 3)
    assert again["confusion"] == [[1, 0, 0], [0, 1, 0], [0, 1, 0]]


def test_the_paired_difference(task: Classification) -> None:
    truth = np.zeros(100, dtype=np.int64)
    first = logits_of([0] * 80 + [1] * 20)
    second = logits_of([0] * 70 + [1] * 30)
    found = difference(task, first, second, truth)
    assert found.value == pytest.approx(0.10)
    # 10 images differ, all in favour of the first: paired, that is clear of zero; unpaired it would not be
    assert 0.03 < found.low <= 0.06
    assert 0.14 <= found.high < 0.18
    back = difference(task, second, first, truth)
    assert back.value == -found.value


def test_equal_answers_differ_by_nothing_as_far_as_the_images_tell(task: Classification) -> None:
    same = logits_of([0, 1, 2, 0] * 100)
    found = difference(task, same, same * 3, np.zeros(400, np.int64))
    assert found.value == 0
    assert -0.01 < found.low < 0 < found.high < 0.01


def test_an_answer_of_pixels_is_no_answer_to_whole_images() -> None:
    with pytest.raises(TeacherError, match=r"answers are \[1, 2, 2, 3\], of pixels; expected \[N, C\], of images"):
        build(Config(), ("a", "b", "c")).examine([], np.zeros((1, 2, 2, 3), np.float32), "squash")
