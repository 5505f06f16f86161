"""Intervals against published figures, and against the truth where that is known."""

from __future__ import annotations

from itertools import starmap

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import xlogy

from distill.core.intervals import jackknife, paired_difference, proportion
from distill.core.task import Interval

Bools = npt.NDArray[np.bool_]


def hits(number: int, of: int) -> Bools:
    return np.arange(of) < number


def pairs(both: int, first: int, second: int, neither: int) -> tuple[Bools, Bools]:
    cells = [(True, True)] * both + [(True, False)] * first + [(False, True)] * second + [(False, False)] * neither
    one, other = zip(*cells, strict=True)
    return np.array(one), np.array(other)


def bounds(found: Interval) -> list[float]:
    return [round(found.low, 4), round(found.high, 4)]


@pytest.mark.parametrize(
    ("number", "of", "expected"),
    [(81, 263, [0.2553, 0.3662]), (15, 148, [0.0624, 0.1605]), (0, 20, [0.0, 0.1611]), (1, 29, [0.0061, 0.1718])],
)
def test_a_share_as_published(number: int, of: int, expected: list[float]) -> None:
    """Table I of Newcombe 1998 (Statistics in Medicine 17:857), method 3."""
    found = proportion(hits(number, of))
    assert found.value == number / of
    assert bounds(found) == expected


@pytest.mark.parametrize("cells", [(36, 12, 2, 0), (300, 9, 3, 88), (53, 1, 0, 0), (10, 0, 30, 60)])
def test_a_paired_difference_inverts_the_score_test(cells: tuple[int, int, int, int]) -> None:
    """At a bound the likelihood, maximised with the difference held there, is 1.96 standard errors from the data."""
    both, first, second, neither = cells
    images, rest = sum(cells), both + neither

    def distance(difference: float) -> float:
        lowest, highest = max(0.0, -difference), (1 - difference) / 2
        share = minimize_scalar(
            lambda x: -(xlogy(first, x + difference) + xlogy(second, x) + xlogy(rest, 1 - 2 * x - difference)),
            bounds=(lowest, highest),
            method="bounded",
            options={"xatol": 1e-13},
        ).x
        error = np.sqrt(images * (2 * share + difference - difference**2))
        return float((first - second - images * difference) / error)

    found = paired_difference(*pairs(*cells))
    assert found.value == pytest.approx((first - second) / images)
    assert distance(found.low) == pytest.approx(1.96, abs=1e-3)
    assert distance(found.high) == pytest.approx(-1.96, abs=1e-3)
    back = paired_difference(*reversed(pairs(*cells)))
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))


def test_files_that_never_disagree_may_do_so_elsewhere() -> None:
    found = paired_difference(*pairs(54, 0, 0, 346))
    assert found.value == 0
    assert (found.low, found.high) == pytest.approx((-3.8415 / 403.8415, 3.8415 / 403.8415), rel=1e-4)


def test_all_against_nothing() -> None:
    found = paired_difference(hits(10, 10), hits(0, 10))
    assert found.value == 1
    assert 0.4 < found.low < 1
    assert found.high == pytest.approx(1)


@pytest.mark.parametrize("of", [proportion, lambda none: paired_difference(none, none)])
def test_nothing_to_score(of: object) -> None:
    with pytest.raises(ValueError, match="no images to score"):
        of(np.array([], dtype=bool))


def ratio(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(sums[..., 1] > 0, sums[..., 0] / np.maximum(sums[..., 1], 1e-9), np.nan)


def test_the_jackknife_of_a_mean_is_students_t() -> None:
    values = np.random.default_rng(0).normal(0.1, 0.05, 30)
    found = jackknife(np.stack([values, np.ones(30)], axis=1), ratio, lowest=-1.0)
    reach = 2.0452296 * values.std(ddof=1) / np.sqrt(30)
    assert (found.low, found.high) == pytest.approx((values.mean() - reach, values.mean() + reach))


def test_a_share_stays_within_its_scale() -> None:
    wide = jackknife(np.array([[9.9, 10.0], [10.0, 10.0], [2.0, 10.0]]), ratio)
    assert 0 < wide.low < wide.value < wide.high < 1
    perfect = jackknife(np.full((5, 2), 3.0), ratio)
    assert (perfect.low, perfect.value, perfect.high) == (1, 1, 1)
    nothing_known = jackknife(np.array([[1.0, 2.0], [0.0, 0.0]]), ratio)
    assert (nothing_known.low, nothing_known.value, nothing_known.high) == (0, 0.5, 1)


def test_intervals_hold_the_truth_about_95_times_in_100() -> None:
    """400 experiments have a standard error of 0.011, so an interval of 90 % or 99 % would fail here."""
    rng = np.random.default_rng(0)
    experiments = 400

    def share() -> bool:
        found = proportion(rng.random(100) < 0.95)
        return found.low <= 0.95 <= found.high

    def difference() -> bool:
        u = rng.random(300)
        found = paired_difference(u > 0.05, (u < 0.9) & (u > 0.02))  # 0.95 - 0.88
        return found.low <= 0.07 <= found.high

    def sums() -> bool:
        union = rng.gamma(2, 1, 60)
        found = jackknife(np.stack([union * rng.beta(8, 2, 60), union], axis=1), ratio)
        return found.low <= 0.8 <= found.high

    for experiment in (share, difference, sums):
        held = sum(starmap(experiment, [()] * experiments)) / experiments
        assert 0.92 <= held <= 0.98
