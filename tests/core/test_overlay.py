"""Masks over images: whose colour, how strong, and what stays clear."""

from __future__ import annotations

import numpy as np
import pytest

from distill.core.dense import IGNORED
from distill.core.overlay import IGNORED_COLOR, background, class_colors, overlay

GREY = np.full((6, 8, 3), 100, np.uint8)
HALVES = np.repeat(np.array([[0, 0, 0, 0, 1, 1, 1, 1]], np.uint8), 6, axis=0)
COLORS = np.array([[0, 0, 0], [200, 40, 0]], np.uint8)


def test_a_class_keeps_its_colour_and_no_two_of_24_are_alike() -> None:
    many = class_colors(255)
    assert many.shape == (255, 3) and many.dtype == np.uint8
    for count in (1, 2, 21, 24, 25, 60):
        np.testing.assert_array_equal(class_colors(count), many[:count])
    apart = np.abs(many[:24, None].astype(int) - many[None, :24]).sum(axis=2)
    assert apart[~np.eye(24, dtype=bool)].min() >= 60
    assert (np.abs(many[:24].astype(int) - IGNORED_COLOR).sum(axis=1) >= 60).all()
    assert len(np.unique(many[:47], axis=0)) == 47
    assert class_colors(0).shape == (0, 3)


def test_colours_are_mixed_in_the_asked_share() -> None:
    found = overlay(GREY, HALVES, COLORS, 0.25)
    assert found.dtype == np.uint8
    assert (found[:, :4] == 75).all()
    assert (found[:, 4:] == [125, 85, 75]).all()
    assert (GREY == 100).all()


def test_the_clear_class_stays_as_it_is() -> None:
    found = overlay(GREY, HALVES, COLORS, clear=0)
    np.testing.assert_array_equal(found[:, :4], GREY[:, :4])
    assert (found[:, 4:] == [150, 70, 50]).all()
    assert background(["background", "person"]) == background(["Background"]) == 0
    assert background(["sky", "background"]) is background([]) is None


def test_outlines_have_the_full_colour_and_are_not_drawn_into_the_clear_class() -> None:
    found = overlay(GREY, HALVES, COLORS, clear=0, outline=True)
    assert (found[:, 4] == [200, 40, 0]).all()
    assert (found[:, 5:] == [150, 70, 50]).all()
    np.testing.assert_array_equal(found[:, :4], GREY[:, :4])
    down = overlay(np.full((8, 6, 3), 100, np.uint8), HALVES.T, COLORS, outline=True)
    assert (down[4] == [200, 40, 0]).all() and (down[3] == 0).all() and (down[2] == 50).all()


def test_ignored_pixels_are_cream_and_unsure_ones_striped() -> None:
    mask = HALVES.copy()
    mask[0, 0] = IGNORED
    assert (overlay(GREY, mask, COLORS, 1.0)[0, 0] == IGNORED_COLOR).all()
    unsure = np.zeros((6, 8), np.bool_)
    unsure[:, 4:] = True
    found = overlay(GREY, HALVES, COLORS, clear=0, unsure=unsure)
    striped = (found == 0).all(axis=2)
    assert (striped.sum(axis=0) == [0, 0, 0, 0, 1, 1, 1, 1]).all()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"an image of \(6, 8\) pixels cannot have a mask of \(8, 6\)"):
        overlay(GREY, HALVES.T, COLORS)
    with pytest.raises(ValueError, match="the mask holds class 1, there are 1 colours"):
        overlay(GREY, HALVES, COLORS[:1])
