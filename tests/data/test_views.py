"""Views: drawn from numbers alone, inside the image, rendered to the pixel."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from distill.data.views import Resize, View, ViewPlan, fixed_view, render, render_mask

ID = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4
SIZES = [
    (1, 1),
    (1, 2),
    (2, 1),
    (1, 1009),
    (1009, 1),
    (7, 5),
    (13, 13),
    (97, 89),
    (640, 480),
    (20_000, 300),
    (3, 65_536),
]
RESIZES: list[Resize] = ["center_crop", "squash"]


def plan(
    resize: Resize = "center_crop", seed: int = 0, min_area: float = 0.4, mirror: bool = True, color: float = 0.0
) -> ViewPlan:
    return ViewPlan(resize, min_area, mirror, color, seed)


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_the_fixed_view_is_the_largest_centred_square_or_all() -> None:
    assert fixed_view(640, 480, "center_crop") == View(80, 0, 480, 480, False)
    assert fixed_view(480, 641, "center_crop") == View(0, 80, 480, 480, False)
    assert fixed_view(5, 5, "center_crop") == View(0, 0, 5, 5, False)
    assert fixed_view(640, 480, "squash") == View(0, 0, 640, 480, False)


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_every_view_lies_inside_the_image(width: int, height: int, resize: Resize) -> None:
    for min_area in (0.01, 0.4, 1.0):
        for index in range(200):
            view = plan(resize, 3, min_area, color=1.0).stored(ID, index, width, height)
            assert view.width >= 1
            assert view.height >= 1
            assert 0 <= view.left <= width - view.width
            assert 0 <= view.top <= height - view.height
            assert all(isinstance(number, int) for number in view[:4])
            assert isinstance(view.flip, bool)


def test_the_first_views_are_the_fixed_one_and_its_mirror_image() -> None:
    fixed = fixed_view(64, 48, "center_crop")
    views = [plan().stored(ID, i, 64, 48) for i in range(4)]
    assert views[0] == fixed
    assert views[1] == fixed._replace(flip=True)
    assert views[2] == plan().random(ID, 2, 64, 48)
    assert len(set(views)) == 4


def test_without_mirroring_no_view_is_mirrored() -> None:
    views = [plan("squash", mirror=False).stored(ID, i, 64, 48) for i in range(50)]
    assert not any(view.flip for view in views)
    assert views[0] == fixed_view(64, 48, "squash")
    assert views[1] == plan("squash", mirror=False).random(ID, 1, 64, 48)
    mirrored = [plan("squash").stored(ID, i, 64, 48) for i in range(2, 50)]
    assert [view[:4] for view in mirrored] == [view[:4] for view in views[2:]]


def test_another_process_draws_the_same_views() -> None:
    program = (
        "import json\n"
        "from distill.data.views import ViewPlan\n"
        "plan = ViewPlan('center_crop', 0.3, True, 0.4, 7)\n"
        f"views = [plan.random({ID!r}, i, 1013, 769) for i in range(20)]\n"
        "print(json.dumps(views))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    here = [plan(seed=7, min_area=0.3, color=0.4).random(ID, i, 1013, 769) for i in range(20)]
    assert json.loads(done.stdout) == [list(view) for view in here]


def test_the_views_of_today_are_the_views_of_tomorrow() -> None:
    """Stored labels belong to these numbers: where they change, every store is stale and the format must say so."""
    drawn = [tuple(plan(color=0.3).random(ID, i, 640, 480)) for i in (2, 3, 99)]
    assert drawn == [
        (55, 143, 387, 299, False, -22, -25, 23),
        (63, 16, 455, 391, False, 29, -9, -11),
        (53, 13, 504, 451, True, 0, -26, 14),
    ]


def test_every_number_of_the_draw_counts() -> None:
    base = plan(seed=1).random(ID, 5, 640, 480)
    assert plan(seed=1).random(ID, 5, 640, 480) == base
    assert plan(seed=1).random(OTHER, 5, 640, 480) != base
    assert plan(seed=1).random(ID, 6, 640, 480) != base
    assert plan(seed=2).random(ID, 5, 640, 480) != base
    assert plan(seed=5).random(ID, 1, 640, 480) != base  # seed and index do not mix


@pytest.mark.parametrize("resize", RESIZES)
def test_area_shape_place_and_flip_are_spread_as_promised(resize: Resize) -> None:
    width, height, min_area = 4000, 3000, 0.25
    views = [plan(resize, min_area=min_area).random(ID, i, width, height) for i in range(4000)]
    whole = fixed_view(width, height, resize)
    areas = np.array([v.width * v.height for v in views]) / (whole.width * whole.height)
    ratios = np.array([(v.width / v.height) / (whole.width / whole.height) for v in views])
    clipped = np.array([v.width == width or v.height == height for v in views])
    free = ~clipped
    assert areas[free].min() >= min_area * 0.99
    assert areas.max() <= 1.001
    assert ratios[free].min() >= 3 / 4 * 0.99
    assert ratios[free].max() <= 4 / 3 * 1.01
    # uniform in [0.25, 1]: mean 0.625, standard error 0.0034; a scale drawn uniform instead would give 0.58
    assert abs(areas.mean() - 0.625) < 0.02
    assert abs(np.log(ratios[free]).mean()) < 0.02
    assert abs(np.mean([v.flip for v in views]) - 0.5) < 0.04
    left = np.array([v.left / max(1, width - v.width) for v in views])
    assert abs(left[free].mean() - 0.5) < 0.03
    assert np.histogram(left[free], bins=4, range=(0, 1))[0].min() > 0.2 * free.sum()


def test_a_full_area_keeps_the_image_nearly_whole() -> None:
    for index in range(100):
        view = plan(min_area=1.0).random(ID, index, 100, 100)
        assert view.width * view.height >= 0.86 * 100 * 100  # only the aspect ratio is left to cut: sqrt(3/4)


# Rendering


@pytest.mark.parametrize(("width", "height"), [(64, 48), (48, 64), (8, 8), (1, 1), (500, 3)])
def test_the_whole_image_is_what_pillow_makes_of_it(width: int, height: int) -> None:
    image = picture(width, height)
    rows = image.resize((32, height), Image.Resampling.BILINEAR)
    expected = np.asarray(rows.resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(render(image, View(0, 0, width, height, False), 32), expected)


@pytest.mark.parametrize(("width", "height", "top", "side"), [(31, 97, 0, 31), (61, 997, 468, 61), (99, 341, 280, 61)])
def test_tall_images_are_scaled_across_first_whichever_pillow_it_is(
    width: int, height: int, top: int, side: int
) -> None:
    # Pillow 13 alone goes down first here, and answers otherwise.
    image = picture(width, height)
    across = image.resize((32, height), Image.Resampling.BILINEAR, box=(0, 0, side, height))
    expected = np.asarray(across.resize((32, 32), Image.Resampling.BILINEAR, box=(0, top, 32, top + side)))
    np.testing.assert_array_equal(render(image, View(0, top, side, side, False), 32), expected)


def test_a_box_of_the_right_size_is_the_plain_crop() -> None:
    image = picture(131, 97)
    for left, top in ((0, 0), (10, 20), (99, 65)):
        expected = np.asarray(image.crop((left, top, left + 32, top + 32)))
        np.testing.assert_array_equal(render(image, View(left, top, 32, 32, False), 32), expected)


@pytest.mark.parametrize(("side", "size"), [(64, 32), (75, 32), (33, 32), (90, 16), (48, 24)])
def test_inside_its_outer_ring_a_view_is_the_plain_pillow_crop(side: int, size: int) -> None:
    image = picture(131, 97)
    cut = image.crop((5, 3, 5 + side, 3 + side)).resize((size, size), Image.Resampling.BILINEAR)
    found = render(image, View(5, 3, side, side, False), size)
    np.testing.assert_array_equal(found[1:-1, 1:-1], np.asarray(cut)[1:-1, 1:-1])


def triangle(source: int, begin: int, length: int, size: int) -> npt.NDArray[np.float64]:
    """Weights [size, source] of a triangle filter as wide as the reduction, cut off at the image, not at the box."""
    scale = length / size
    support = max(scale, 1.0)
    weights = np.zeros((size, source))
    for place in range(size):
        centre = begin + (place + 0.5) * scale
        distance = np.abs(np.arange(source) + 0.5 - centre) / support
        weights[place] = np.clip(1 - distance, 0, None)
    normalised: npt.NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return normalised


@pytest.mark.parametrize("view", [View(5, 3, 60, 40, False), View(0, 0, 131, 97, False), View(40, 30, 9, 9, False)])
def test_render_against_the_formula(view: View) -> None:
    image = picture(131, 97)
    across = triangle(131, view.left, view.width, 24)
    down = triangle(97, view.top, view.height, 24)
    expected = np.einsum("yi,xj,ijc->yxc", down, across, np.asarray(image).astype(np.float64))
    # two passes, each rounded to 8 bits: half a level each, and a little for Pillow's fixed-point weights
    assert np.abs(render(image, view, 24) - expected).max() <= 1.1


def test_flip_mirrors_exactly() -> None:
    image = picture(60, 50)
    view = View(3, 4, 40, 30, False)
    plain, mirrored = render(image, view, 16), render(image, view._replace(flip=True), 16)
    np.testing.assert_array_equal(mirrored, plain[:, ::-1])
    assert mirrored.flags.c_contiguous
    assert not np.array_equal(mirrored, plain)


def test_a_view_is_replayed_from_its_numbers() -> None:
    image = picture(640, 480)
    view = plan(seed=0).random(ID, 9, 640, 480)
    replayed = View(*json.loads(json.dumps(view)))
    np.testing.assert_array_equal(render(image, replayed, 64), render(image, view, 64))


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 300), (20_000, 3)])
def test_extreme_shapes_are_rendered(width: int, height: int) -> None:
    image = picture(width, height)
    for index in range(10):
        view = plan().stored(ID, index, width, height)
        found = render(image, view, 32)
        assert found.shape == (32, 32, 3)
        assert found.dtype == np.uint8


def test_one_pixel_fills_the_square() -> None:
    assert (render(Image.new("RGB", (1, 1), (9, 8, 7)), View(0, 0, 1, 1, False), 5) == [9, 8, 7]).all()


def test_the_mean_colour_stays() -> None:
    image = picture(200, 200)
    found = render(image, View(0, 0, 200, 200, False), 50).mean()
    assert math.isclose(found, np.asarray(image).mean(), abs_tol=1)


# Colours


def test_colour_changes_stay_within_their_limit_and_are_spread() -> None:
    views = [plan(color=0.3).random(ID, i, 640, 480) for i in range(2000)]
    changes = np.array([view[5:] for view in views])
    assert np.abs(changes).max() == 30
    assert (np.abs(changes.mean(axis=0)) < 2).all()
    assert (np.abs(np.corrcoef(changes.T) - np.eye(3)) < 0.1).all()
    assert [view[:5] for view in views] == [plan().random(ID, i, 640, 480)[:5] for i in range(2000)]


@pytest.mark.parametrize(
    "change", [(40, 0, 0), (-40, 0, 0), (0, 50, 0), (0, -100, 0), (0, 0, 80), (0, 0, -100), (20, -30, 40)]
)
def test_colours_against_the_formula(change: tuple[int, int, int]) -> None:
    image = picture(40, 30)
    plain = render(image, View(2, 3, 30, 20, False), 24).astype(np.float64)
    b, c, s = (1 + n / 100 for n in change)
    luma = np.array([0.299, 0.587, 0.114])
    changed = b * (s * plain + (1 - s) * (plain @ luma)[..., None])
    mean = b * (plain @ luma).mean()
    expected = np.clip(c * (changed - mean) + mean, 0, 255)
    found = render(image, View(2, 3, 30, 20, False, *change), 24)
    assert (
        np.abs(found - expected).max() <= 1.1
    )  # Pillow rounds each pixel's grey before the mean is taken, then once more


def test_no_change_leaves_every_pixel() -> None:
    image = picture(40, 30)
    for flip in (False, True):
        view = View(2, 3, 30, 20, flip)
        np.testing.assert_array_equal(render(image, view, 24), render(image, View(*view[:5], 0, 0, 0), 24))


def test_a_view_says_what_it_is() -> None:
    assert str(View(10, 0, 340, 256, True, 7, 0, -3)) == "340x256+10+0 mirrored, brightness +7 %, saturation -3 %"
    assert str(View(0, 0, 8, 8, False)) == "8x8+0+0"


# Masks


def sampled(mask: npt.NDArray[np.uint8], view: View, size: int) -> npt.NDArray[np.uint8]:
    """What lies under the centre of each pixel, in exact fractions."""
    expected = np.zeros((size, size), np.uint8)
    for row in range(size):
        for column in range(size):
            y = view.top + Fraction(2 * row + 1, 2 * size) * view.height
            x = view.left + Fraction(2 * column + 1, 2 * size) * view.width
            expected[row, column] = mask[math.floor(y), math.floor(x)]
    return expected[:, ::-1] if view.flip else expected


@pytest.mark.parametrize("size", [1, 7, 24, 33])
@pytest.mark.parametrize("resize", RESIZES)
def test_each_pixel_of_a_mask_is_what_lies_under_its_centre(resize: Resize, size: int) -> None:
    mask = np.random.default_rng(5).integers(0, 256, (53, 38), dtype=np.uint8)
    for index in range(40):
        view = plan(resize, min_area=0.05, color=0.5).stored(ID, index, 38, 53)
        found = render_mask(mask, view, size)
        assert found.dtype == np.uint8
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, sampled(mask, view, size))


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 300), (20_000, 3), (65_535, 2)])
def test_masks_of_extreme_shapes_are_cut(width: int, height: int) -> None:
    mask = np.arange(width * height, dtype=np.uint32).reshape(height, width).astype(np.uint8)
    for index in range(4):
        view = plan(min_area=0.01).stored(ID, index, width, height)
        np.testing.assert_array_equal(render_mask(mask, view, 16), sampled(mask, view, 16))


def test_a_mask_of_the_right_size_is_the_plain_crop() -> None:
    mask = np.random.default_rng(0).integers(0, 9, (40, 50), dtype=np.uint8)
    np.testing.assert_array_equal(render_mask(mask, View(9, 4, 32, 32, False), 32), mask[4:36, 9:41])
    np.testing.assert_array_equal(render_mask(mask, View(9, 4, 32, 32, True), 32), mask[4:36, 9:41][:, ::-1])


def test_image_and_mask_are_cut_alike() -> None:
    """An image whose colour is its mask: both say the same where the filter sees one class only, and the place of an
    edge is the same on average, flipped or not. Half a pixel of difference between both would be seen as 0.5."""
    size, shifts = 32, []
    for index in range(300):
        rng = np.random.default_rng(index)
        width, height, edge = (int(n) for n in rng.integers(40, 200, 3))
        mask = np.zeros((height, width), np.uint8)
        mask[:, : edge % width] = 1
        image = Image.fromarray(np.repeat(mask[:, :, None] * 255, 3, axis=2))
        view = plan(min_area=0.3).random(ID, index, width, height)
        shown, cut = render(image, view, size)[..., 0], render_mask(mask, view, size)
        assert (cut[shown == 255] == 1).all()
        assert (cut[shown == 0] == 0).all()
        if 0 < cut.sum() < size * size:
            left = 1 - 2 * view.flip  # which side of the edge the class lies on
            shifts.append(left * (cut.sum() - shown.sum(dtype=np.float64) / 255) / size)
    assert len(shifts) > 100
    assert abs(np.mean(shifts)) < 0.05
    assert np.abs(shifts).max() <= 0.6
