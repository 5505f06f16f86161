"""Tests whose false alarms are bounded: rates on simulated data, and statistics against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ks_2samp

from distill.drift.two_sample import Splits, holm


def test_false_alarms_come_as_often_as_they_may() -> None:
    """Of 200 pairs of equal distribution about 20 have p <= 0.1: 8 to 34 with a chance of 0.998."""
    alarms = np.zeros(3)
    for seed in range(200):
        rng = np.random.default_rng(seed)
        splits = Splits(40, 20, seed, permutations=200)
        features = rng.standard_t(3, (60, 4)).astype(np.float32)
        least = min(outcome.p for outcome in splits.distances(features))
        alarms += [splits.mmd(features).p <= 0.1, least <= 0.1, splits.rise(np.abs(features)).p <= 0.1]
    assert all(8 <= count <= 34 for count in alarms), alarms


def test_what_moved_is_seen() -> None:
    rng = np.random.default_rng(0)
    splits = Splits(100, 50)
    moved = np.concatenate([rng.normal(0, 1, (100, 8)), rng.normal(0.8, 1, (50, 8))]).astype(np.float32)
    assert splits.mmd(moved).p == 1 / 2000 and min(outcome.p for outcome in splits.distances(moved)) == 1 / 2000
    wider = np.concatenate([rng.normal(0, 1, (100, 8)), rng.normal(0, 2, (50, 8))]).astype(np.float32)
    assert splits.mmd(wider).p < 0.002
    answers = np.eye(3, dtype=np.float32)[[*[0, 1, 2] * 33, 0, *[0, 1] * 25]]
    assert splits.rise(1 - answers).p == 1 / 2000
    assert splits.rise(answers[:, 2:]).p == 1.0  # the third class came less often, which is no rise


def test_the_distance_is_that_of_kolmogorov_and_smirnov_also_with_ties() -> None:
    rng = np.random.default_rng(1)
    for values in (rng.normal(size=50), rng.integers(0, 4, 50).astype(np.float64), np.ones(50)):
        (found,) = Splits(30, 20, permutations=2).distances(values.astype(np.float32)[:, None])
        assert found.statistic == pytest.approx(ks_2samp(values[:30], values[30:]).statistic, abs=1e-6)


def test_mmd_is_its_definition() -> None:
    x = np.random.default_rng(2).normal(size=(12, 3)).astype(np.float32)
    squared = ((x[:, None] - x[None]) ** 2).sum(axis=2)
    kernel = np.exp(-squared / np.median(squared[np.triu_indices(12, 1)]))
    expected = kernel[7:, 7:].mean() + kernel[:7, :7].mean() - 2 * kernel[:7, 7:].mean()
    assert Splits(7, 5, permutations=2).mmd(x).statistic == pytest.approx(expected, rel=1e-4)


def test_equal_images_are_no_alarm() -> None:
    splits = Splits(30, 20)
    same = np.ones((50, 4), np.float32)
    assert splits.mmd(same).p == splits.rise(same).p == 1.0
    assert [outcome.p for outcome in splits.distances(same)] == [1.0] * 4


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
