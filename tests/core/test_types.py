"""Softmax and one-hot."""

from __future__ import annotations

import numpy as np

from distill.core.types import one_hot, softmax


def test_softmax_against_hand_made_numbers() -> None:
    logits = np.log(np.array([[1, 2, 5], [1, 1, 2]], dtype=np.float32))
    np.testing.assert_allclose(softmax(logits), [[0.125, 0.25, 0.625], [0.25, 0.25, 0.5]], rtol=1e-6)


def test_softmax_survives_large_logits() -> None:
    found = softmax(np.array([[1e30, -1e30], [1000, 999]], dtype=np.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[1, 0], [0.7310586, 0.2689414]], rtol=1e-6)


def test_softmax_sums_to_one_over_many_classes() -> None:
    logits = np.random.default_rng(0).normal(0, 5, (4, 21841)).astype(np.float32)
    np.testing.assert_allclose(softmax(logits).sum(axis=1, dtype=np.float64), 1, atol=1e-5)


def test_one_hot() -> None:
    found = one_hot([2, 0], 3)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[0, 0, 1], [1, 0, 0]])
