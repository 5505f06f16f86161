"""Test-time augmentation of teachers of images and of pixels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import numpy as np
import pytest
from PIL import Image

from distill.core.dense import scale_map
from distill.core.ensemble import Ensemble, Member
from distill.core.errors import TeacherError
from distill.core.settings import TeacherSettings
from distill.core.types import FloatArray, Images, Predictor, softmax
from distill.labels.augmented import Augmented
from distill.teaching import as_labeller, forward_passes

NAMES = ("dark", "light")


@final
class Leaning(Predictor):
    """Answers each cell of 8 pixels by its brightness, and leans to `light` the more the further right it lies."""

    def __init__(self, any_size: bool = True) -> None:
        self._any_size, self.closed = any_size, False

    @property
    def class_names(self) -> tuple[str, ...]:
        return NAMES

    @property
    def image_size(self) -> int:
        return 64

    @property
    def any_size(self) -> bool:
        return self._any_size

    def predict(self, images: Images) -> FloatArray:
        count, side = images.shape[:2]
        means = images.mean(axis=-1).reshape(count, side // 8, 8, side // 8, 8).mean(axis=(2, 4)) / 255
        light = means * 4 + np.linspace(0, 2, side // 8)
        return np.stack([np.zeros_like(light), light], axis=-1).astype(np.float32)

    def digest(self) -> str:
        return "leaning"

    def close(self) -> None:
        self.closed = True


PHOTOS = np.random.default_rng(0).integers(0, 256, (5, 128, 128, 3), dtype=np.uint8)


def photos(size: int) -> Images:
    return np.stack([np.asarray(Image.fromarray(i).resize((size, size), Image.Resampling.BILINEAR)) for i in PHOTOS])


def batches(size: int) -> Iterator[Images]:
    yield photos(size)[:3]
    yield photos(size)[3:]


def said(size: int, mirrored: bool = False) -> FloatArray:
    shown = photos(size)
    answer = softmax(Leaning().predict(shown[:, :, ::-1] if mirrored else shown))
    return answer[:, :, ::-1] if mirrored else answer


def test_the_map_of_a_mirror_image_is_turned_back() -> None:
    teacher = Augmented(Leaning(), mirror=True, scales=[1.0])
    expected = (said(64) + said(64, mirrored=True)) / 2
    np.testing.assert_allclose(softmax(teacher.predict_all(batches)), expected, atol=1e-6)
    np.testing.assert_allclose(softmax(teacher.predict(photos(64))), expected, atol=1e-6)
    assert np.abs(expected - said(64)).max() > 0.04
    assert (teacher.passes, teacher.image_size, teacher.class_names) == (2, 64, NAMES)


def test_views_are_rendered_at_each_scale_and_maps_scaled_to_the_largest_grid() -> None:
    asked = []

    def counted(size: int) -> Iterator[Images]:
        asked.append(size)
        return batches(size)

    teacher = Augmented(Leaning(), mirror=True, scales=[0.5, 1.0, 1.4])
    found = teacher.predict_all(counted)
    assert asked == [32, 32, 64, 64, 96, 96]  # 1.4 of 64 is 89.6
    maps = [said(size, mirrored) for size in (32, 64, 96) for mirrored in (False, True)]
    expected = np.mean([scale_map(np.ascontiguousarray(m), 12, 12) for m in maps], axis=0)
    assert found.shape == (5, 12, 12, 2)
    np.testing.assert_allclose(softmax(found), expected, atol=1e-6)
    assert teacher.passes == 6


def test_one_batch_is_scaled_as_pixels() -> None:
    teacher = Augmented(Leaning(), mirror=False, scales=[0.5, 1.0])
    given = photos(64)
    half = np.stack([np.asarray(Image.fromarray(i).resize((32, 32), Image.Resampling.BILINEAR)) for i in given])
    expected = (scale_map(softmax(Leaning().predict(half)), 8, 8) + said(64)) / 2
    np.testing.assert_allclose(softmax(teacher.predict(given)), expected, atol=1e-6)


def test_other_sizes_need_a_teacher_that_takes_them() -> None:
    Augmented(Leaning(any_size=False), mirror=True, scales=[1.0])
    with pytest.raises(TeacherError) as caught:
        Augmented(Leaning(any_size=False), mirror=False, scales=[0.75, 1.0])
    assert str(caught.value) == (
        "teacher.test_time_scales: found [0.75, 1.0], but this teacher takes squares of 64 px alone, expected [1.0]"
    )


def test_the_digest_counts_how_it_is_asked() -> None:
    teacher = Leaning()
    ways = [(True, [1.0]), (False, [0.5, 1.0]), (True, [0.5, 1.0]), (True, [0.5, 1.5])]
    found = {Augmented(teacher, mirror=mirror, scales=scales).digest() for mirror, scales in ways}
    assert len(found | {teacher.digest()}) == 5
    Augmented(teacher, mirror=True, scales=[1.0]).close()
    assert teacher.closed


def test_the_settings_decide() -> None:
    teacher = Leaning()
    assert as_labeller(teacher, NAMES, TeacherSettings()) is teacher
    assert as_labeller(teacher, NAMES, TeacherSettings(test_time_augmentation="mirror")).passes == 2
    scaled = TeacherSettings(test_time_scales=[0.5, 1, 2], test_time_augmentation="mirror")
    assert as_labeller(teacher, NAMES, scaled).passes == 6
    tiled = as_labeller(teacher, NAMES, TeacherSettings(tiles=2, tile_overlap=0.5))
    assert (tiled.image_size, tiled.predict_all(batches).shape) == (96, (5, 12, 12, 2))
    swapped = TeacherSettings(tiles=2, test_time_scales=[1, 2], class_map={"dark": "light", "light": "dark"})
    found = as_labeller(teacher, NAMES, swapped)
    assert (found.image_size, found.passes) == (112, 2)
    answer = softmax(found.predict_all(batches))
    assert answer.shape == (5, 28, 28, 2)
    assert answer[..., 0].mean() > 0.8  # what leans to `light` is called `dark`


def test_what_a_view_takes() -> None:
    teacher = Leaning()
    assert forward_passes(teacher, TeacherSettings()) == [1]
    much = TeacherSettings(tiles=3, test_time_scales=[0.5, 1, 2], test_time_augmentation="mirror")
    assert forward_passes(teacher, much) == [9 * 2 * 5.25]
    members = [Member(TeacherSettings(tiles=tiles), Leaning, 1.0) for tiles in (1, 2)]
    both = Ensemble(members, NAMES, in_turn=False)
    assert forward_passes(both, TeacherSettings(test_time_augmentation="mirror")) == [2, 8]
    assert both.any_size and both.sizes == (64, 112)


def test_an_ensemble_is_scaled_member_by_member() -> None:
    members = [Member(TeacherSettings(tiles=tiles), Leaning, 1.0) for tiles in (1, 2)]
    both, asked = Ensemble(members, NAMES, in_turn=False), []

    def counted(size: int) -> list[Images]:
        asked.append(size)
        return [photos(size)]

    found = Augmented(both, mirror=False, scales=[0.5, 1.0]).predict_all(counted)
    assert asked == [32, 64, 64, 112]  # half of 112 is 56, and 64 the multiple of 32 next to it
    assert found.shape == (5, 14, 14, 2)
    assert both.predict(photos(64)).shape == (5, 8, 8, 2)


def test_a_scale_is_said_once() -> None:
    with pytest.raises(ValueError, match="expected each scale once"):
        TeacherSettings(test_time_scales=[1, 1.0])
