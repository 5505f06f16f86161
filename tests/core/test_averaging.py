"""The mean of several answers, also of maps on different grids."""

from __future__ import annotations

import numpy as np
import pytest

from distill.core.averaging import averaged
from distill.core.dense import scale_map
from distill.core.errors import TeacherError
from distill.core.types import FloatArray, softmax


def some(*shape: int, seed: int = 0) -> FloatArray:
    return softmax(np.random.default_rng(seed).normal(size=(*shape, 3)))


def test_answers_for_images() -> None:
    first, second = some(4), some(4, seed=1)
    found = averaged([(0.25, first), (0.75, second)])
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.exp(found), 0.25 * first + 0.75 * second, rtol=1e-6)


def test_maps_of_one_grid_are_averaged_cell_by_cell() -> None:
    first, second = some(2, 5, 7), some(2, 5, 7, seed=1)
    found = averaged([(0.5, first), (0.5, second)])
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.exp(found), (first + second) / 2, rtol=1e-5)


def test_maps_of_other_grids_are_scaled_to_the_most_rows_and_columns() -> None:
    wide, high, small = some(2, 4, 9), some(2, 8, 3, seed=1), some(2, 2, 2, seed=2)
    found = np.exp(averaged([(0.5, wide), (0.25, high), (0.25, small)]))
    assert found.shape == (2, 8, 9, 3)
    expected = sum(
        share * scale_map(maps, 8, 9) for share, maps in zip((0.5, 0.25, 0.25), (wide, high, small), strict=True)
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-5)


def test_answers_are_asked_for_one_after_another() -> None:
    held = 0

    def answers() -> object:
        nonlocal held
        for number in range(3):
            held += 1
            yield 1 / 3, some(2, 3, 3, seed=number)

    assert averaged(answers()).shape == (2, 3, 3, 3)  # type: ignore[arg-type]
    assert held == 3


def test_what_is_impossible_is_a_finite_logit() -> None:
    assert np.isfinite(averaged([(1.0, np.array([[0.0, 1.0]], np.float32))])).all()


def test_images_and_pixels_do_not_mix() -> None:
    with pytest.raises(TeacherError) as caught:
        averaged([(0.5, some(4)), (0.5, some(4, 2, 2))])
    assert str(caught.value) == "teacher.ensemble: some of its members answer for an image, others for its pixels"
