"""Confidences: made honest, measured against truth, and turned into thresholds and weights."""

from __future__ import annotations

import math

import numpy as np
import pytest

from distill.core.types import FloatArray, softmax
from distill.labels.trust import (
    Point,
    adaptive_thresholds,
    at_temperature,
    balance_weights,
    fit_temperature,
    pixel_coverage,
    pixel_weights,
    precision_coverage,
    threshold_for_precision,
    trusted_confidence,
)


def floats(*values: object) -> FloatArray:
    return np.array(values, dtype=np.float32)


def answers(images: int, classes: int, spread: float = 2.0, seed: int = 0) -> FloatArray:
    return softmax(np.random.default_rng(seed).normal(0, spread, (images, classes)))


def drawn(probabilities: FloatArray, seed: int = 1) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """A truth for each image as its probabilities say."""
    u = np.random.default_rng(seed).random((len(probabilities), 1))
    return (np.cumsum(probabilities, axis=1) < u).sum(axis=1).clip(max=probabilities.shape[1] - 1)


def nll(probabilities: FloatArray, truth: np.ndarray, temperature: float) -> float:
    total = 0.0
    for row, label in zip(probabilities.tolist(), truth.tolist(), strict=True):
        total -= math.log(row[label] ** (1 / temperature) / sum(p ** (1 / temperature) for p in row))
    return total / len(truth)


def test_a_temperature_worked_out_by_hand() -> None:
    """Square roots of 0.64, 0.32 and 0.04 are as 0.8, 0.566, 0.2; squares as 0.4096, 0.1024, 0.0016."""
    probabilities = floats(0.64, 0.32, 0.04)
    np.testing.assert_allclose(at_temperature(probabilities, 2), floats(0.51096, 0.36130, 0.12774), atol=1e-5)
    np.testing.assert_allclose(at_temperature(probabilities, 0.5), floats(0.79751, 0.19938, 0.00312), atol=1e-5)


def test_temperature_divides_the_logits() -> None:
    logits = np.random.default_rng(0).normal(0, 5, (4, 3, 7))
    found = at_temperature(softmax(logits), 2.5)
    assert (found.shape, found.dtype) == ((4, 3, 7), np.float32)
    np.testing.assert_allclose(found, softmax(logits / 2.5), rtol=2e-5)


def test_temperature_one_changes_nothing() -> None:
    probabilities = answers(50, 6)
    np.testing.assert_allclose(at_temperature(probabilities, 1), probabilities, rtol=1e-6)


@pytest.mark.parametrize("temperature", [0.05, 1, 20])
def test_zeros_stay_zero_and_nothing_vanishes(temperature: float) -> None:
    found = at_temperature(floats([0, 0.75, 0.25], [0, 1, 0], [1e-30, 1e-30, 2e-30]), temperature)
    assert (found[0, 0], found[1, 0], found[1, 2]) == (0, 0, 0)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
    assert found[0, 2] > 0  # 0.25^20 is 1e-12
    assert found[2].argmax() == 2  # 1e-30^20 is below the smallest float64


@pytest.mark.parametrize("true_temperature", [0.4, 1.0, 3.0])
def test_the_temperature_that_made_the_answers_dishonest_is_found(true_temperature: float) -> None:
    honest = answers(4000, 5)
    truth = drawn(honest)
    found = fit_temperature(at_temperature(honest, 1 / true_temperature), truth)
    assert found.temperature == pytest.approx(true_temperature, rel=0.06)  # 4,000 draws leave 2 %
    assert found.images == 4000
    assert found.ece_after < 0.03
    if true_temperature != 1:
        assert found.ece_before > 0.05 + found.ece_after


def test_likelihoods_are_those_of_a_plain_loop_and_no_neighbour_is_better() -> None:
    probabilities = answers(200, 4, spread=3)
    truth = drawn(answers(200, 4, spread=1))
    found = fit_temperature(probabilities, truth)
    assert found.nll_before == pytest.approx(nll(probabilities, truth, 1), rel=1e-6)
    assert found.nll_after == pytest.approx(nll(probabilities, truth, found.temperature), rel=1e-6)
    for factor in (0.25, 0.5, 0.9, 1.1, 2, 4):
        assert nll(probabilities, truth, found.temperature * factor) > found.nll_after


def test_calibration_error_worked_out_by_hand() -> None:
    """Bin (0.6, 0.667]: 2 images of 0.65, 1 right, gap 0.3; bin (0.867, 0.933]: 0.875 and 0.925, both wrong, gap 1.8;
    bin (0.933, 1]: 1.0, right, gap 0. Together 2.1 of 5."""
    sure = [0.65, 0.65, 0.875, 0.925, 1.0]
    probabilities = floats(*([p, 1 - p] for p in sure))
    assert fit_temperature(probabilities, np.array([0, 1, 1, 1, 0])).ece_before == pytest.approx(2.1 / 5, abs=1e-6)


def test_a_teacher_that_is_always_right_gets_the_lowest_temperature() -> None:
    probabilities = answers(100, 3)
    found = fit_temperature(probabilities, probabilities.argmax(axis=1))
    assert found.temperature == 0.05
    assert found.nll_after < found.nll_before


def test_a_teacher_that_knows_nothing_gets_the_highest_temperature() -> None:
    probabilities = floats([0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9])
    found = fit_temperature(probabilities, np.array([1, 1, 0, 0]))
    assert found.temperature == 20


def test_an_uninformative_answer_keeps_its_temperature() -> None:
    found = fit_temperature(np.full((10, 4), 0.25, dtype=np.float32), np.arange(10) % 4)
    assert found.temperature == 1
    assert found.nll_before == found.nll_after == pytest.approx(math.log(4))


def test_one_truth_of_probability_zero_does_not_decide_alone() -> None:
    """Infinitely unlikely otherwise; counted as 2^-24, the smallest step of float16."""
    honest = answers(2000, 3)
    truth = drawn(honest)
    before = fit_temperature(honest, truth)
    honest[0], truth[0] = [1, 0, 0], 1
    after = fit_temperature(honest, truth)
    assert after.nll_before == pytest.approx(before.nll_before, abs=17 / 2000)
    assert after.temperature == pytest.approx(before.temperature, rel=0.03)
    assert np.isfinite(after.ece_after)


def test_points_of_twenty_images_by_hand() -> None:
    """Confidences 0.05, 0.10, … 1.00; the three least sure answers are wrong, and that at 0.50."""
    confidence = floats(*(k / 20 for k in range(1, 21)))
    right = confidence > 0.16
    right[9] = False
    points = precision_coverage(confidence, right)
    assert [p.images for p in points] == list(range(20, 0, -1))
    assert [p.coverage for p in points] == [k / 20 for k in range(20, 0, -1)]
    assert points[0].precision == 16 / 20 and points[10].precision == 1 and points[11].images == 9
    assert points[0].threshold == pytest.approx(0.05) and points[-1].threshold == 1
    assert (confidence >= points[7].threshold).sum() == points[7].images == 13


@pytest.mark.parametrize(("images", "last"), [(100, [15, 10, 5]), (341, [52, 35, 18]), (7, [3, 2, 1])])
def test_coverages_are_rounded_up(images: int, last: list[int]) -> None:
    confidence = floats(*np.linspace(0.1, 1, images))
    points = precision_coverage(confidence, np.ones(images, dtype=np.bool_))
    assert [p.images for p in points][-3:] == last
    if images == 100:
        assert [p.images for p in points] == list(range(100, 0, -5))


def test_intervals_are_those_of_wilson() -> None:
    """The ends of the interval are the shares from which the observed one is 1.96 standard errors away."""
    confidence = floats(*(k / 50 for k in range(1, 51)))
    right = np.arange(50) % 5 != 0
    for p in precision_coverage(confidence, right):
        for end in (p.low, p.high):
            error = math.sqrt(end * (1 - end) / p.images)
            assert abs(p.precision - end) == pytest.approx(1.959964 * error, rel=1e-6, abs=1e-7)
        assert 0 <= p.low <= p.precision <= p.high <= 1 and p.low < p.high


def test_no_interval_leaves_zero_to_one() -> None:
    for count in range(1, 400):
        for right in (True, False):
            (point,) = precision_coverage(np.full(count, 0.5, np.float32), np.full(count, right))
            assert 0 <= point.low <= point.precision <= point.high <= 1


def test_images_of_one_confidence_are_never_parted() -> None:
    confidence = floats(*[0.9] * 6, *[0.5] * 4)
    right = np.array([True] * 3 + [False] * 3 + [True] * 4)
    shuffled = np.random.default_rng(0).permutation(10)
    for order in (np.arange(10), shuffled):
        points = precision_coverage(confidence[order], right[order])
        assert [(p.images, p.precision) for p in points] == [(10, 0.7), (6, 0.5)]
    assert [p.images for p in precision_coverage(floats(0.3), np.array([True]))] == [1]
    assert precision_coverage(floats(), np.array([], dtype=np.bool_)) == []


def test_the_lowest_threshold_that_reaches_the_target() -> None:
    """Of the 40 most sure answers all are right, of the next 40 every second, of the last 40 none: 0.8 is reached last
    by 54 of 67 (0.806); 55 of 69 is 0.797."""
    confidence = floats(*np.linspace(1, 0.1, 120))
    right = np.array([True] * 40 + [True, False] * 20 + [False] * 40)
    found = threshold_for_precision(confidence, right, 0.8)
    assert isinstance(found, Point)
    assert (found.images, found.precision, found.coverage) == (67, 54 / 67, 67 / 120)
    assert found.threshold == confidence[66]
    assert (confidence >= found.threshold).sum() == 67


def test_a_dip_on_the_way_does_not_end_the_search() -> None:
    confidence = floats(*np.linspace(1, 0.1, 100))
    right = np.ones(100, dtype=np.bool_)
    right[:3] = False  # sure and wrong: 0.85 at 20 images, 0.9 from 30 on, 0.97 at the end
    found = threshold_for_precision(confidence, right, 0.9)
    assert found is not None and found.images == 100


def test_fewer_than_twenty_images_prove_nothing() -> None:
    confidence = floats(*np.linspace(1, 0.1, 40))
    right = np.arange(40) < 19
    assert threshold_for_precision(confidence, right, 0.96) is None
    found = threshold_for_precision(confidence, right, 0.95)
    assert found is not None and found.images == 20
    assert threshold_for_precision(confidence[:19], right[:19], 0.5) is None
    assert threshold_for_precision(confidence[:0], right[:0], 0.5) is None


def test_a_tie_at_the_threshold_is_trusted_whole_or_not_at_all() -> None:
    """30 right answers at 0.9; at 0.8 first 10 right, then 10 wrong: cut in the middle they would give 40 of 40."""
    confidence = floats(*[0.9] * 30, *[0.8] * 20)
    right = np.array([True] * 40 + [False] * 10)
    found = threshold_for_precision(confidence, right, 0.95)
    assert found is not None and (found.images, found.threshold) == (30, np.float32(0.9))
    found = threshold_for_precision(confidence, right, 0.8)
    assert found is not None and (found.images, found.threshold) == (50, np.float32(0.8))


def test_thresholds_of_classes_by_hand() -> None:
    """Confidences 0.8, 0.6, 0.6: tau 2/3. Mean probabilities 0.5, 0.3, 0.2: shares 1, 0.6, 0.4."""
    found = adaptive_thresholds(floats([0.8, 0.1, 0.1], [0.1, 0.6, 0.3], [0.6, 0.2, 0.2]))
    np.testing.assert_allclose(found, [2 / 3, 0.4, 2 / 3 * 0.4], rtol=1e-6)
    assert found.dtype == np.float32


def test_balance_by_hand() -> None:
    """Counts 3 and 1, strength 1: factors 1/3 and 1, sums 1 and 1, scaled by 4/2."""
    found = balance_weights(np.array([0, 0, 0, 2]), np.ones(4, dtype=np.float32), 1, 4)
    np.testing.assert_allclose(found, [2 / 3, 2 / 3, 2 / 3, 2], rtol=1e-6)
    half = balance_weights(np.array([0, 0, 0, 0, 1]), np.ones(5, dtype=np.float32), 0.5, 2)
    np.testing.assert_allclose(half[4] / half[0], 2, rtol=1e-6)  # (4 / 1)^0.5
    assert half.sum() == pytest.approx(5)


def test_balance_keeps_the_sum_and_ratios_within_a_class() -> None:
    rng = np.random.default_rng(0)
    classes, weights = rng.integers(0, 5, 200), rng.random(200).astype(np.float32)
    found = balance_weights(classes, weights, 0.7, 9)
    assert found.dtype == np.float32
    assert found.sum() == pytest.approx(weights.sum(), rel=1e-5)
    for c in range(5):
        ratio = found[classes == c] / weights[classes == c]
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)
    np.testing.assert_allclose(balance_weights(classes, weights, 0, 9), weights, rtol=1e-6)
    np.testing.assert_allclose(balance_weights(classes, weights, 0.7, 5), found)


def test_images_without_weight_do_not_count() -> None:
    classes = np.array([0, 0, 0, 1, 2])
    found = balance_weights(classes, floats(1, 0, 0, 1, 0), 1, 3)
    np.testing.assert_allclose(found, [1, 0, 0, 1, 0])
    np.testing.assert_array_equal(balance_weights(classes, np.zeros(5, dtype=np.float32), 1, 3), np.zeros(5))


def test_pixels_under_the_trusted_confidence_count_nothing_or_less() -> None:
    confidence = np.array([[0, 102, 203], [204, 230, 255]], np.uint8)
    assert pixel_weights(confidence, None, "ignore").tolist() == [[1, 1, 1], [1, 1, 1]]
    found = pixel_weights(confidence, 0.8, "ignore")
    assert found.dtype == np.float32 and found.tolist() == [[0, 0, 0], [1, 1, 1]]
    weighed = pixel_weights(confidence, 0.8, "weigh")
    np.testing.assert_allclose(weighed, [[0, 0.25, (203 / 204) ** 2], [1, 1, 1]], rtol=1e-6)
    assert pixel_weights(confidence, 1.0, "ignore").tolist() == [[0, 0, 0], [0, 0, 1]]
    assert pixel_weights(confidence, 0.0, "weigh").tolist() == [[1, 1, 1], [1, 1, 1]]


def test_a_stored_confidence_at_the_threshold_is_trusted() -> None:
    """Both are rounded alike, whatever the threshold is."""
    for least in np.linspace(0, 1, 997):
        stored = np.array([round(float(least) * 255)], np.uint8)
        assert pixel_weights(stored, float(least), "ignore").tolist() == [1]


def histogram(**bins: tuple[int, int]) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Wrong and right pixels by number of the bin."""
    counts = np.zeros((2, 32), np.int64)
    for name, pair in bins.items():
        counts[:, int(name[1:])] = pair
    return counts


def test_points_of_pixels_by_hand() -> None:
    points = pixel_coverage(histogram(b16=(60, 40), b24=(20, 80), b31=(10, 190)))
    assert [p.threshold for p in points] == [16 / 32, 24 / 32, 31 / 32]
    assert [p.precision for p in points] == [310 / 400, 270 / 300, 190 / 200]
    assert [p.coverage for p in points] == [1, 0.75, 0.5]
    assert pixel_coverage(histogram()) == []


def test_the_smallest_confidence_that_reaches_the_precision() -> None:
    counts = histogram(b16=(60, 40), b24=(20, 80), b31=(10, 190))
    assert trusted_confidence(counts, 0.7) == 16 / 32
    assert trusted_confidence(counts, 0.9) == 24 / 32
    assert trusted_confidence(counts, 0.901) == 31 / 32
    assert trusted_confidence(counts, 0.96) is None
    assert trusted_confidence(histogram(), 0.1) is None


def test_a_few_sure_pixels_prove_nothing() -> None:
    assert trusted_confidence(histogram(b20=(500, 500), b31=(0, 10)), 0.9) is None
    assert trusted_confidence(histogram(b20=(500, 500), b31=(0, 11)), 0.9) == 31 / 32
