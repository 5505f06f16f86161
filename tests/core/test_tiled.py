"""Tiles: every pixel is asked about at the teacher's own scale, and what overlaps is blended."""

from __future__ import annotations

from typing import final

import numpy as np
import pytest

from distill.core.errors import TeacherError
from distill.core.tiled import Tiled
from distill.core.types import FloatArray, Images, Predictor, softmax

NAMES = ("dark", "light")


@final
class Bright(Predictor):
    """Answers each cell by how bright it is; a cell is `stride` pixels wide. Remembers what it was shown."""

    def __init__(self, size: int = 32, stride: int = 4, any_size: bool = False) -> None:
        self._size, self._stride, self._any_size = size, stride, any_size
        self.shown: list[tuple[int, ...]] = []
        self.closed = False

    @property
    def class_names(self) -> tuple[str, ...]:
        return NAMES

    @property
    def image_size(self) -> int:
        return self._size

    @property
    def any_size(self) -> bool:
        return self._any_size

    def predict(self, images: Images) -> FloatArray:
        self.shown.append(images.shape)
        count, side = images.shape[:2]
        cells = side // self._stride
        means = images.mean(axis=-1).reshape(count, cells, self._stride, cells, self._stride).mean(axis=(2, 4)) / 255
        return np.log(np.stack([1 - means, means], axis=-1) * 0.98 + 0.01).astype(np.float32)

    def digest(self) -> str:
        return "bright"

    def close(self) -> None:
        self.closed = True


def noise(side: int, count: int = 3) -> Images:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("tiles", "overlap", "side"), [(2, 0.25, 56), (3, 0.5, 64), (2, 0.0, 64), (4, 0.25, 104), (2, 0.5, 48)]
)
def test_a_teacher_that_looks_at_cells_alone_answers_as_it_does_about_the_whole(
    tiles: int, overlap: float, side: int
) -> None:
    teacher = Bright()
    tiled = Tiled(teacher, tiles, overlap)
    assert tiled.image_size == side
    assert (tiled.class_names, tiled.passes, tiled.any_size) == (NAMES, 1, False)
    images = noise(side)
    found = tiled.predict(images)
    assert found.dtype == np.float32
    assert teacher.shown == [(3, 32, 32, 3)] * tiles**2  # never more images at once than it was given
    expected = softmax(Bright(side).predict(images))
    np.testing.assert_allclose(np.exp(found), expected, atol=1e-5)
    np.testing.assert_allclose(np.exp(found).sum(axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize(("stride", "size"), [(11, 33), (3, 33), (33, 33)])
def test_grids_that_do_not_meet_are_scaled_into_place(stride: int, size: int) -> None:
    tiled = Tiled(Bright(size, stride), 2, 0.25)
    assert tiled.image_size == 58
    left_dark = noise(58)
    left_dark[:, :, :29] = 0
    left_dark[:, :, 29:] = 255
    found = softmax(tiled.predict(left_dark))[..., 1]
    assert found.shape[1:] == (round(58 / stride),) * 2
    assert (np.diff(found, axis=2) > -1e-5).all()
    np.testing.assert_allclose(found, np.broadcast_to(found[:, :1], found.shape), atol=1e-5)
    if stride < size:
        np.testing.assert_allclose(found[:, 0, [0, -1]], [[0.01, 0.99]] * 3, atol=1e-5)


def test_overlapping_answers_pass_over_into_each_other() -> None:
    """A teacher that takes no notice of the picture and says of each tile another thing."""

    class Counting(Bright):  # type: ignore[misc]
        def predict(self, images: Images) -> FloatArray:
            super().predict(images)
            share = [0.2, 0.8, 0.2, 0.8][len(self.shown) - 1]
            return np.log(np.broadcast_to(np.float32([1 - share, share]), (len(images), 8, 8, 2)))

    found = softmax(Tiled(Counting(), 2, 0.25).predict(noise(56, 1)))[0, ..., 1]
    assert found.shape == (14, 14)
    np.testing.assert_allclose(found[:, :6], 0.2, atol=1e-5)  # seen by the left tiles alone
    np.testing.assert_allclose(found[:, 6], 0.2 + 0.6 * 0.25, atol=1e-5)  # the middle of the first of two shared cells
    np.testing.assert_allclose(found[:, 7], 0.2 + 0.6 * 0.75, atol=1e-5)
    np.testing.assert_allclose(found[:, 8:], 0.8, atol=1e-5)


@pytest.mark.parametrize("side", [32, 64, 96, 160])
@pytest.mark.parametrize(("tiles", "overlap"), [(2, 0.25), (3, 0.0), (3, 0.5)])
def test_pictures_of_another_size_are_cut_into_larger_or_smaller_tiles(side: int, tiles: int, overlap: float) -> None:
    teacher = Bright(any_size=True)
    tiled = Tiled(teacher, tiles, overlap)
    assert tiled.any_size
    images = noise(side)
    np.testing.assert_allclose(softmax(tiled.predict(images)), softmax(Bright(side).predict(images)), atol=1e-5)
    assert {shape[1] % 32 for shape in teacher.shown} == {0}


def test_batches_are_rendered_at_the_size_of_the_whole() -> None:
    asked = []

    def batches(size: int) -> list[Images]:
        asked.append(size)
        return [noise(size, 3), noise(size, 2)]

    assert Tiled(Bright(), 2, 0.25).predict_all(batches).shape == (5, 14, 14, 2)
    assert asked == [56]


def test_a_teacher_of_images_has_no_tiles() -> None:
    class Whole(Bright):  # type: ignore[misc]
        def predict(self, images: Images) -> FloatArray:
            return super().predict(images).mean(axis=(1, 2))

    with pytest.raises(TeacherError) as caught:
        Tiled(Whole(), 2, 0.25).predict(noise(56))
    assert str(caught.value) == "teacher.tiles: this teacher answers for an image, not for its pixels"


def test_the_digest_counts_tiles_and_overlap() -> None:
    teacher = Bright()
    found = {Tiled(teacher, *how).digest() for how in ((2, 0.25), (3, 0.25), (2, 0.5))}
    assert len(found | {teacher.digest()}) == 4
    Tiled(teacher, 2, 0.25).close()
    assert teacher.closed
