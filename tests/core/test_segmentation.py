"""What right means for a class for each pixel: against torchmetrics, plain loops and numbers made by hand."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import ndimage
from torchmetrics.classification import MulticlassJaccardIndex
from torchmetrics.functional.classification import multiclass_accuracy

from distill.core.dense import IGNORED, scale_map
from distill.core.errors import DataError, RunFolderError, TeacherError, UserError
from distill.core.types import ImageRecord, softmax
from distill.data.mask_file import png_of_mask
from distill.tasks import _mask_answers
from distill.tasks.segmentation import Config, MaskAnswers, MaskScore, Segmentation, build

NAMES = ("background", "cup", "cat")

Mask = npt.NDArray[np.uint8]
Record = Callable[..., ImageRecord]


@pytest.fixture
def task() -> Segmentation:
    return build(Config(), NAMES)


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """An image with this truth, given as rows or an array."""
    made = iter(range(10_000))

    def make(truth: Any, **changes: Any) -> ImageRecord:
        mask = np.array(truth, dtype=np.uint8)
        number = next(made)
        path = tmp_path / f"{number}.png"
        path.write_bytes(png_of_mask(mask))
        height, width = mask.shape
        values = {"id": f"{number:064x}", "path": f"{number}.jpg", "width": width, "height": height, "mask": str(path)}
        return ImageRecord(**{**values, "split": "test", "label": None, **changes})

    return make


def logits_of(said: Any, height: float = 2.0, classes: int = 3) -> npt.NDArray[np.float32]:
    """float32 [1, h, w, C], the answered class `height` above the others."""
    return (height * np.eye(classes)[np.array(said)][None]).astype(np.float32)


def answers_of(task: Segmentation, record: Record, *pairs: tuple[Any, Any]) -> MaskAnswers:
    """About images given as truth and answer."""
    return task.joined([task.examine([record(truth)], logits_of(said), "squash") for truth, said in pairs])


def score_of(task: Segmentation, record: Record, *pairs: tuple[Any, Any]) -> MaskScore:
    return task.score(answers_of(task, record, *pairs))


def blobs(seed: int, shape: tuple[int, int] = (24, 30), classes: int = 3, ignored: float = 0.0) -> Mask:
    """Patches of classes with smooth outlines, some of it ignored."""
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.normal(size=shape), 2.5) for _ in range(classes)]
    mask = np.argmax(fields, axis=0).astype(np.uint8)
    hidden = ndimage.gaussian_filter(rng.normal(size=shape), 2.5)
    mask[hidden > np.quantile(hidden, 1 - ignored)] = IGNORED
    return mask


# --- IoU and accuracy ---


def test_a_score_by_hand(task: Segmentation, record: Record) -> None:
    score = score_of(task, record, ([[0, 0, 1, 255]], [[0, 1, 1, 2]]), ([[0, 0, 0, 0]], [[0, 0, 0, 1]]))
    assert score.images == 2
    assert score.confusion == [[4, 2, 0], [0, 1, 0], [0, 0, 0]]
    # background: 4 right, 6 in the truth, 4 answered; cup: 1, 1 and 3; the cat is only answered where nobody judges
    assert score.iou == {"background": 4 / 6, "cup": 1 / 3, "cat": None}
    assert score.miou.value == pytest.approx((4 / 6 + 1 / 3) / 2)
    assert score.pixel_accuracy.value == 5 / 7
    right, wrong = -math.log(math.e**2 / (math.e**2 + 2)), -math.log(1 / (math.e**2 + 2))
    assert score.nll == pytest.approx((5 * right + 2 * wrong) / 7, rel=1e-6)


def test_a_class_that_is_only_answered_counts_and_one_that_is_nowhere_does_not(
    task: Segmentation, record: Record
) -> None:
    score = score_of(task, record, ([[0, 0, 0, 0]], [[0, 0, 2, 0]]))
    assert score.iou == {"background": 0.75, "cup": None, "cat": 0.0}
    assert score.miou.value == pytest.approx(0.75 / 2)


def test_a_mask_is_judged_as_sure_answers_are(task: Segmentation, record: Record) -> None:
    rng = np.random.default_rng(4)
    truth, said = rng.integers(0, 3, (2, 24, 30)).astype(np.uint8)
    truth[:2] = IGNORED
    image = record(truth)
    hard, sure = task.examine_hard([image], [said], "squash"), task.examine([image], logits_of(said, 50.0), "squash")
    assert np.array_equal(hard.counts, sure.counts) and np.array_equal(hard.boundary, sure.boundary)
    assert np.array_equal(hard.mask(0), said)
    half_said = np.where(np.arange(30) < 15, said, IGNORED).astype(np.uint8)
    half_truth = np.where(np.arange(30) < 15, truth, IGNORED).astype(np.uint8)
    open_, judged = (
        task.examine_hard([image], [half_said], "squash"),
        task.examine([record(half_truth)], logits_of(said), "squash"),
    )
    assert np.array_equal(open_.counts, judged.counts)
    square = task.examine_hard([image], [said], "center_crop")
    assert np.array_equal(square.counts, task.examine_hard([image], [said[:, 3:27]], "center_crop").counts)


def test_everything_right_and_everything_wrong(task: Segmentation, record: Record) -> None:
    truth = blobs(0, (16, 16))
    right = score_of(task, record, (truth, truth))
    assert (right.miou.value, right.miou.high, right.pixel_accuracy.value) == (1, 1, 1)
    assert right.boundary_f == 1
    wrong = score_of(task, record, (truth, (truth + 1) % 3))
    assert (wrong.miou.value, wrong.miou.low, wrong.pixel_accuracy.value) == (0, 0, 0)


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_figures_are_those_of_torchmetrics(record: Record, classes: int) -> None:
    """On random answers of their own grid; one class is not in the truth, and of six another is nowhere."""
    task = build(Config(), [str(c) for c in range(classes)])
    rng = np.random.default_rng(classes)
    truths = [blobs(seed, classes=max(2, classes - 2), ignored=0.2) for seed in range(5)]
    logits = rng.normal(size=(5, 7, 9, classes)).astype(np.float32)
    if classes == 6:
        logits[..., -1] = -10
    found = task.score(task.examine([record(truth) for truth in truths], logits, "squash"))

    enlarged = scale_map(logits, 24, 30)
    said, truth = torch.from_numpy(enlarged.argmax(axis=-1)), torch.from_numpy(np.stack(truths)).long()
    assert found.miou.value == pytest.approx(
        MulticlassJaccardIndex(classes, average="macro", ignore_index=IGNORED)(said, truth).item(), abs=1e-6
    )
    by_class = MulticlassJaccardIndex(classes, average="none", ignore_index=IGNORED)(said, truth).tolist()
    assert [value or 0.0 for value in found.iou.values()] == pytest.approx(by_class, abs=1e-6)
    assert [value is None for value in found.iou.values()] == [classes == 6 and c == 5 for c in range(classes)]
    accuracy = multiclass_accuracy(said, truth, classes, average="micro", ignore_index=IGNORED).item()
    assert found.pixel_accuracy.value == pytest.approx(accuracy, abs=1e-6)
    nll = torch.nn.functional.cross_entropy(
        torch.from_numpy(enlarged).movedim(-1, 1), truth, ignore_index=IGNORED
    ).item()
    assert found.nll == pytest.approx(nll, rel=1e-4)


def test_pixels_of_all_images_are_counted_together(task: Segmentation, record: Record) -> None:
    small, large = ([[1, 0]], [[0, 0]]), ([[1] * 9 + [0]], [[1] * 9 + [0]])
    score = score_of(task, record, small, large)
    assert score.iou["cup"] == 9 / 10  # and not (0 + 1) / 2
    assert score.iou["background"] == 2 / 3


def test_surely_wrong_is_costly_but_finite(task: Segmentation, record: Record) -> None:
    score = task.score(task.examine([record([[1, 1]])], logits_of([[0, 0]], height=1e4), "squash"))
    assert score.nll == pytest.approx(-math.log(1e-12))


def test_a_set_that_nobody_judges_is_refused(task: Segmentation, record: Record) -> None:
    with pytest.raises(DataError, match="no pixel to score on: all of 2 masks are ignored"):
        score_of(task, record, ([[255, 255]], [[0, 1]]), ([[255]], [[0]]))


def test_an_image_that_nobody_judges_changes_nothing(task: Segmentation, record: Record) -> None:
    pair = ([[0, 1, 1]], [[0, 1, 0]])
    alone, beside = score_of(task, record, pair), score_of(task, record, pair, ([[255, 255]], [[0, 2]]))
    assert (beside.miou, beside.nll, beside.iou) == (alone.miou, alone.nll, alone.iou)


def test_a_score_can_be_written_as_json(task: Segmentation, record: Record) -> None:
    score = score_of(task, record, ([[0, 1]], [[0, 0]]))
    again = json.loads(json.dumps(score.as_dict(), allow_nan=False))
    assert again["miou"] == {"value": 0.25, "low": 0.0, "high": 1.0}  # one image
    assert again["iou"] == {"background": 0.5, "cup": 0.0, "cat": None}
    assert task.main(score).value == again[task.metric.key]["value"]
    assert task.metric.title == "mIoU"


# --- what is compared with what ---


def test_only_the_centred_square_is_judged_where_only_that_was_shown(task: Segmentation, record: Record) -> None:
    truth = [[2, 0, 1, 2], [2, 1, 1, 2]]
    found = task.examine([record(truth)], logits_of([[0, 1], [1, 1]]), "center_crop")
    assert found.counts[0].tolist() == [[1, 0, 0], [0, 3, 0], [0, 0, 0]]
    assert found.mask(0).tolist() == [[0, 1], [1, 1]]
    upright = task.examine([record(np.array(truth).T)], logits_of([[0, 1], [1, 1]]), "center_crop")
    assert upright.counts.tolist() == found.counts.tolist()
    assert task.examine([record(truth)], logits_of([[0, 1], [1, 1]]), "squash").counts.sum() == 8


def test_an_answer_to_whole_images_is_no_answer_of_pixels(task: Segmentation, record: Record) -> None:
    with pytest.raises(TeacherError, match=r"answers are \[1, 3\], of images; expected maps \[N, h, w, C\], of pixels"):
        task.examine([record([[0]])], np.zeros((1, 3), np.float32), "squash")


def test_a_coarse_answer_is_enlarged_before_it_is_decided(task: Segmentation, record: Record) -> None:
    """Logits, not classes: 4 against 1 moves the border between two cells to where the enlarged ones meet."""
    logits = np.zeros((1, 1, 2, 3), np.float32)
    logits[0, 0, 0, 0], logits[0, 0, 1, 1] = 4, 1
    mask = task.examine([record(np.zeros((2, 20)))], logits, "squash").mask(0)
    assert mask.tolist() == [[0] * 13 + [1] * 7] * 2  # 4 (1 - x) = x at x = 0.8 between centres 5 and 15: 13
    by_class = task.examine([record(np.zeros((2, 20)))], logits_of([[0, 1]]), "squash").mask(0)
    assert by_class.tolist() == [[0] * 10 + [1] * 10] * 2


def test_a_class_map_at_full_size_is_taken_as_it_is(task: Segmentation, record: Record) -> None:
    said = blobs(3)
    assert np.array_equal(task.examine([record(blobs(4))], logits_of(said, 1.0), "squash").mask(0), said)


def test_log_probabilities_are_as_good_as_logits(task: Segmentation, record: Record) -> None:
    logits = np.random.default_rng(0).normal(size=(1, 5, 6, 3)).astype(np.float32)
    shifted = logits + np.arange(30, dtype=np.float32).reshape(1, 5, 6, 1)
    image = record(blobs(1))
    first = task.examine([image], logits, "squash")
    for same in (np.log(softmax(logits)), shifted):
        again = task.examine([image], same, "squash")
        assert task.parity(first, again).agreement == 1
        assert again.nll == pytest.approx(first.nll, rel=1e-5)


def test_of_equal_logits_the_first_class_is_the_answer(task: Segmentation, record: Record) -> None:
    logits = np.array([0, 1, 1], np.float32).reshape(1, 1, 1, 3)
    assert task.examine([record([[0, 0]])], logits, "squash").mask(0).tolist() == [[1, 1]]


def test_a_large_image_is_read_in_bands(task: Segmentation, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = np.random.default_rng(0).normal(size=(1, 6, 5, 3)).astype(np.float32)
    image = record(blobs(0, (50, 40), ignored=0.1))
    whole = task.examine([image], logits, "squash")
    monkeypatch.setattr(_mask_answers, "_BAND", 3 * 40 * 7)  # seven rows at once
    banded = task.examine([image], logits, "squash")
    assert np.array_equal(banded.mask(0), whole.mask(0))
    assert np.array_equal(banded.counts, whole.counts)
    assert np.array_equal(banded.boundary, whole.boundary)
    assert np.array_equal(banded.confidence, whole.confidence)
    assert banded.nll == pytest.approx(whole.nll)


def test_confidence_is_counted_right_and_wrong(task: Segmentation, record: Record) -> None:
    logits = np.log(np.array([[[0.7, 0.2, 0.1], [0.05, 0.5, 0.45], [0.998, 0.001, 0.001], [0.9, 0.1, 1e-9]]]))
    found = task.examine([record([[0, 2, 0, 255]])], logits[None].astype(np.float32), "squash")
    wrong, right = (
        dict(zip(*np.unique(np.repeat(range(32), row), return_counts=True), strict=True)) for row in found.confidence[0]
    )
    assert wrong == {16: 1}  # 0.5 is where bin 16 begins
    assert right == {22: 1, 31: 1}  # 0.7 is in 22/32..23/32
    certain = task.examine([record([[1]])], logits_of([[1]], 1e4), "squash")
    assert certain.confidence[0, 1, 31] == 1


def test_classes_that_occur_are_told(task: Segmentation, record: Record) -> None:
    assert task.classes_in([record([[0, 255]]), record([[2, 2]]), record([[1]], mask=None)]) == {"background", "cat"}


# --- what is refused ---


def test_a_mask_of_another_size_is_refused(task: Segmentation, record: Record) -> None:
    image = record([[0, 1]], height=3)
    expected = re.escape(f"{image.mask}: found 2x1 pixels, expected 2x3, as 0.jpg has")
    with pytest.raises(DataError, match=expected):
        task.examine([image], logits_of([[0]]), "squash")


def test_a_mask_with_unknown_classes_is_refused(task: Segmentation, record: Record) -> None:
    image = record([[0, 7]])
    with pytest.raises(DataError, match=re.escape(f"{image.mask}: found the value 7, expected 0 to 2 or 255")):
        task.examine([image], logits_of([[0]]), "squash")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_answer_of_no_numbers_is_refused(task: Segmentation, record: Record, value: float) -> None:
    logits = logits_of([[0, 1]])
    logits[0, 0, 1, 2] = value
    with pytest.raises(UserError, match=r"0\.jpg: the answer has values that are no finite numbers"):
        task.examine([record([[0, 1]])], logits, "squash")


# --- boundary F-score ---


def outline(mask: Mask, truth: Mask, place: int) -> npt.NDArray[np.bool_]:
    """Pixels of a class that have a neighbour of another, one by one."""
    shown = np.where(truth == IGNORED, IGNORED, mask)
    edge = np.zeros(mask.shape, bool)
    for y, x in zip(*np.nonzero(shown == place), strict=True):
        for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            inside = 0 <= v < mask.shape[0] and 0 <= u < mask.shape[1]
            edge[y, x] |= inside and shown[v, u] not in (place, IGNORED)
    return edge


@pytest.mark.parametrize("ignored", [0.0, 0.2])
def test_boundary_sums_are_those_of_a_distance_transform(task: Segmentation, record: Record, ignored: float) -> None:
    truth, said = blobs(0, (150, 260), ignored=ignored), blobs(0, (150, 260))
    said = np.roll(said, (1, 2), axis=(0, 1))
    found = task.examine([record(truth)], logits_of(said), "squash").boundary[0]
    reach = 0.0075 * math.hypot(150, 260)
    assert 2 < reach < 3
    for place in range(3):
        of_truth, of_answer = outline(truth, truth, place), outline(said, truth, place)
        expected = []
        for one, other in ((of_truth, of_answer), (of_answer, of_truth)):
            near = ndimage.distance_transform_edt(~other) <= reach
            expected += [(one & near).sum(), one.sum()]
        assert found[place].tolist() == expected
        assert 0 < expected[0] < expected[1]


def square(side: int, left: int = 100) -> Mask:
    mask = np.zeros((side, side), np.uint8)
    mask[100:300, left : left + 200] = 1
    return mask


def test_an_outline_moved_within_the_tolerance_is_right(task: Segmentation, record: Record) -> None:
    """0.75 % of the diagonal is 4.03 pixels of 380x380, and 4.94 of 466x466."""
    assert score_of(task, record, (square(380), square(380, left=104))).boundary_f == 1
    score = score_of(task, record, (square(466), square(466, left=105)))
    # Of 796 pixels of the square's outline the 200 on the left and 200 on the right are 5 apart; at the corners some
    # are still near a horizontal edge of the other.
    assert score.boundary_f_by_class["cup"] == pytest.approx(1 - 2 * 192 / 796, abs=0.01)
    assert score.boundary_f_by_class["cat"] is None
    assert score.boundary_f is not None
    assert score.boundary_f < score.miou.value  # a shifted outline is worse than it looks to IoU


def test_boundary_f_by_hand(task: Segmentation, record: Record) -> None:
    """Within no more than its own pixel (0.75 % of a small diagonal), outlines pooled over two images."""
    missed = ([[0, 1, 1, 0, 0]], [[0, 0, 1, 0, 0]])
    found = ([[0, 0, 0, 1, 0]], [[0, 0, 0, 1, 0]])
    score = score_of(task, record, missed, found)
    # cup: truth has outlines at 1, 2 and 3, the answer at 2 and 3, all right: recall 2/3, precision 1.
    # background: truth at 0, 3 | 2, 4, answer at 1, 3 | 2, 4: recall 3/4, precision 3/4.
    assert score.boundary_f_by_class == {
        "background": pytest.approx(3 / 4),
        "cup": pytest.approx(2 * (2 / 3) / (5 / 3)),
        "cat": None,
    }
    assert score.boundary_f == pytest.approx((3 / 4 + 4 / 5) / 2)


def test_an_outline_that_only_one_side_has_is_wrong(task: Segmentation, record: Record) -> None:
    score = score_of(task, record, ([[0, 0, 0]], [[0, 0, 2]]))
    assert score.boundary_f_by_class == {"background": 0.0, "cup": None, "cat": 0.0}


def test_without_any_outline_there_is_no_boundary_f(task: Segmentation, record: Record) -> None:
    score = score_of(task, record, ([[1, 1]], [[1, 1]]))
    assert score.boundary_f is None
    assert score.miou.value == 1


def test_what_is_ignored_has_no_outline(task: Segmentation, record: Record) -> None:
    """A seam between two classes: the answer may part them anywhere in it."""
    truth = [[0, 0, 255, 255, 1, 1]]
    answers = answers_of(task, record, (truth, [[0, 0, 0, 2, 1, 1]]))
    assert answers.boundary.sum() == 0
    assert task.score(answers).boundary_f is None
    strayed = answers_of(task, record, (truth, [[0, 1, 1, 1, 1, 1]]))
    assert strayed.boundary[0].tolist() == [[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]]


# --- intervals ---


def random_answers(task: Segmentation, record: Record, images: int, noise: float = 1.0, seed: int = 0) -> MaskAnswers:
    """Answers right up to some noise, which differs from image to image."""
    rng = np.random.default_rng(seed)
    truths = [blobs(number, (8, 8)) for number in range(images)]
    logits = np.concatenate([logits_of(truth) for truth in truths])
    logits += noise * rng.uniform(0, 3, (images, 1, 1, 1)) * rng.normal(size=logits.shape)
    images = [record(truth, id=f"{number:064x}") for number, truth in enumerate(truths)]
    return task.examine(images, logits.astype(np.float32), "squash")


def plain_miou(counts: npt.NDArray[np.int64]) -> float:
    right = counts.diagonal()
    union = counts.sum(axis=0) + counts.sum(axis=1) - right
    return float((right[union > 0] / union[union > 0]).mean())


def test_figures_of_all_images_together_have_intervals(task: Segmentation, record: Record) -> None:
    answers = random_answers(task, record, 40)
    score = task.score(answers)
    assert score.miou.value == pytest.approx(plain_miou(answers.counts.sum(axis=0)))
    for found in (score.miou, score.pixel_accuracy):
        assert 0 < found.low < found.value < found.high < 1
        # Four times the images, half the width.
        wider = task.score(random_answers(task, record, 10))
    assert 1.4 < (wider.miou.high - wider.miou.low) / (score.miou.high - score.miou.low) < 3.5
    assert task.score(answers) == score


def test_a_class_of_one_image_is_left_out_with_it(task: Segmentation, record: Record) -> None:
    """Three images of background alone, one with a cup: without the cup's image mIoU is background's alone, 1."""
    pairs = [([[0, 0, 0, 0]], [[0, 0, 0, 0]])] * 3 + [([[0, 0, 0, 1]], [[0, 0, 0, 0]])]
    score = score_of(task, record, *pairs)
    assert score.miou.value == pytest.approx((15 / 16) / 2)
    assert score.miou.high > 0.95  # whether a class counts hangs on one image, so next to nothing is known


def test_the_paired_difference(task: Segmentation, record: Record) -> None:
    first, second = (random_answers(task, record, 60, noise) for noise in (0.8, 1.0))
    found = task.difference(first, second)
    assert found.value == pytest.approx(task.score(first).miou.value - task.score(second).miou.value)
    # The same noise scaled: paired, the difference is clear of zero; the two intervals overlap.
    assert 0 < found.low < found.value < found.high
    assert task.score(first).miou.low < task.score(second).miou.high
    back = task.difference(second, first)
    assert (back.value, back.low, back.high) == pytest.approx((-found.value, -found.high, -found.low))
    same = task.difference(first, first)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_answers_about_other_images_are_not_compared(task: Segmentation, record: Record) -> None:
    first, second = (answers_of(task, record, ([[0, 1]], [[0, 1]])) for _ in range(2))
    for compare in (task.difference, task.parity):
        with pytest.raises(ValueError, match="about other images"):
            compare(first, second)


# --- alike, and no better than chance ---


def test_parity_is_the_share_of_equal_pixels(task: Segmentation, record: Record) -> None:
    images = [record([[0, 255, 1, 1]]), record([[0, 0]])]

    def said(*masks: Any) -> MaskAnswers:
        return task.joined([task.examine([i], logits_of(m), "squash") for i, m in zip(images, masks, strict=True)])

    found = task.parity(said([[0, 1, 1, 1]], [[2, 2]]), said([[0, 2, 1, 1]], [[2, 1]]))
    assert found == (4 / 6, None)  # the ignored pixel counts too: it is not about right and wrong


def test_an_answer_that_does_not_look_is_chance(task: Segmentation, record: Record) -> None:
    truths = [blobs(number, (8, 8)) // 2 for number in range(30)]  # classes 0 and 1, more of 0
    constant = score_of(task, record, *[(truth, np.zeros((8, 8), int)) for truth in truths])
    share = np.mean(np.stack(truths) == 0)
    assert share > 0.6
    assert constant.miou.value == pytest.approx(share / 2)
    odds = share / (1 - share) + (1 - share) / share
    assert task.no_better_than_chance(constant) == (
        f"mIoU {share / 2:.3f} (95 % interval from {constant.miou.low:.3f}) on 30 validation images of 2 classes,"
        f" guessing gives {odds / (odds + 1) / 2:.3f}"
    )
    inverted = score_of(task, record, *[(truth, 1 - truth) for truth in truths])
    assert task.no_better_than_chance(inverted) is not None


def test_no_other_guessing_is_better_than_the_best(task: Segmentation, record: Record) -> None:
    truth = np.repeat([0, 1, 2], [700, 250, 50])[None]
    told = str(task.no_better_than_chance(score_of(task, record, (truth, np.zeros_like(truth)))))
    best = float(told.rpartition(" ")[2])

    def expected(said: npt.NDArray[np.float64], p: npt.NDArray[np.float64]) -> Any:
        return (p * said / (p + said - p * said)).mean(axis=-1)

    found = expected(np.random.default_rng(0).dirichlet([1, 1, 1], 20_000), np.array([0.7, 0.25, 0.05])).max()
    assert best - 0.001 < found <= best + 0.0005  # it is told in three digits


def test_an_answer_that_knows_something_is_none(task: Segmentation, record: Record) -> None:
    assert task.no_better_than_chance(task.score(random_answers(task, record, 20))) is None
    guesses = task.score(random_answers(task, record, 20, noise=1e3))
    told = task.no_better_than_chance(guesses)
    assert told is not None
    assert told.endswith("of 3 classes, guessing gives 0.201")  # 0.2 if they were equally frequent
    assert guesses.miou.value > 0.15  # where the most frequent class everywhere has 0.11


def test_masks_of_one_class_tell_nothing(task: Segmentation, record: Record) -> None:
    told = task.no_better_than_chance(score_of(task, record, ([[1, 1]], [[1, 1]])))
    assert told is not None
    assert told.endswith(
        "on 1 validation images whose masks have 'cup' alone, which an answer without looking gets right too"
    )


# --- files ---


def test_answers_come_back_from_their_file(task: Segmentation, record: Record, tmp_path: Path) -> None:
    answers = random_answers(task, record, 5)
    path = tmp_path / "predictions" / "teacher.parquet"
    answers.save(path)
    again = task.load_answers(path)
    assert (again.ids, again.masks) == (answers.ids, answers.masks)
    for name in ("counts", "boundary", "nll", "confidence"):
        one, other = getattr(again, name), getattr(answers, name)
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)
    assert task.score(again) == task.score(answers)
    assert [file.name for file in path.parent.iterdir()] == ["teacher.parquet"]


def test_groups_of_images_are_joined(task: Segmentation, record: Record) -> None:
    answers = random_answers(task, record, 5)
    images = [record(blobs(number, (8, 8))) for number in range(3)]
    parts = [task.examine([image], logits_of(blobs(9, (8, 8))), "squash") for image in images]
    joined = task.joined([answers, *parts])
    assert joined.ids == (*answers.ids, *(image.id for image in images))
    assert task.score(joined).confusion == (answers.counts.sum(axis=0) + sum(p.counts[0] for p in parts)).tolist()
    assert np.array_equal(joined.mask(7), blobs(9, (8, 8)))


def test_answers_in_other_classes_are_refused(task: Segmentation, record: Record, tmp_path: Path) -> None:
    path = tmp_path / "teacher.parquet"
    random_answers(task, record, 2).save(path)
    with pytest.raises(RunFolderError, match=re.escape(f"{path}: expected answers by pixel in 4 classes")):
        build(Config(), [*NAMES, "dog"]).load_answers(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("nothing", " is missing"),
        ("no Parquet", " is damaged"),
        ("other columns", ": expected answers by pixel in 3 classes"),
    ],
)
def test_a_file_of_something_else_is_refused(task: Segmentation, tmp_path: Path, content: str, said: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    path = tmp_path / "teacher.parquet"
    if content == "no Parquet":
        path.write_text(content)
    elif content == "other columns":
        pyarrow.parquet.write_table(pa.table({"image": ["a"], "counts": [3]}), path)
    with pytest.raises(RunFolderError, match=re.escape(f"{path}{said}")):
        task.load_answers(path)
