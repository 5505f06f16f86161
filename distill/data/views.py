"""A view is one crop, flip and colour change of an image as explicit numbers: teacher and student see the same."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["LARGEST_SIDE", "Resize", "View", "ViewPlan", "fixed_view", "render", "render_mask"]

Resize = Literal["center_crop", "squash"]

LARGEST_SIDE = 65_535
"""Pixels; a stored view has 16 bits for each number of its box."""

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow's "L"


class View(NamedTuple):
    """A box in whole pixels of the upright image, whether it is mirrored, and colour changes in percent.

    Args:
        left: 0..65535.
        top: 0..65535.
        width: 1..65535.
        height: 1..65535.
        flip: mirrored left to right, after cutting.
        brightness: -100..100; every value times 1 + brightness/100.
        contrast: -100..100; distances from the view's mean grey times 1 + contrast/100.
        saturation: -100..100; distances from each pixel's own grey times 1 + saturation/100.

    As text: `340x256+10+0 mirrored, brightness +7 %`.
    """

    left: int
    top: int
    width: int
    height: int
    flip: bool
    brightness: int = 0
    contrast: int = 0
    saturation: int = 0

    def __str__(self) -> str:
        colors = [f", {name} {value:+d} %" for name, value in zip(self._fields[5:], self[5:], strict=True) if value]
        box = f"{self.width}x{self.height}+{self.left}+{self.top}"
        return f"{box}{' mirrored' if self.flip else ''}{''.join(colors)}"


def fixed_view(width: int, height: int, resize: Resize) -> View:
    """The view that validation, test and the app use: the largest centred square, or the whole image."""
    if resize == "squash":
        return View(0, 0, width, height, False)
    side = min(width, height)
    return View((width - side) // 2, (height - side) // 2, side, side, False)


@dataclass(frozen=True)
class ViewPlan:
    """How views are drawn from (seed, image, index) alone.

    Args:
        resize: shape of the fixed view.
        min_area: smallest share of the fixed view's area that a crop keeps, in (0, 1].
        mirror: whether half of the views are mirrored.
        color: largest change of brightness, contrast and saturation, in 0..1.
        seed: of the run.
    """

    resize: Resize
    min_area: float
    mirror: bool
    color: float
    seed: int

    def random(self, image_id: str, index: int, width: int, height: int) -> View:
        """A random resized crop (Szegedy et al. 2015, arXiv 1409.4842) with colour changes.

        The area is uniform in [min_area, 1] of the fixed view's area, the aspect ratio log-uniform within 3/4 to 4/3 of
        the fixed view's; half are mirrored; each colour change is uniform in [-color, color].

        Args:
            image_id: hex digits; the same image gives the same view on every machine.
            index: number of the view.
            width: of the image, in pixels.
            height: of the image, in pixels.
        """
        rng = np.random.Generator(np.random.PCG64([self.seed, index, int(image_id[:16], 16)]))
        area, ratio, x, y, mirrored, *colors = rng.random(8)
        whole = fixed_view(width, height, self.resize)
        scale = math.sqrt(self.min_area + (1.0 - self.min_area) * area)
        stretch = math.exp((ratio - 0.5) * math.log(4 / 3))  # sqrt of a ratio in [3/4, 4/3]
        crop_width = max(1, min(width, round(whole.width * scale * stretch)))
        crop_height = max(1, min(height, round(whole.height * scale / stretch)))
        left = int(x * (width - crop_width + 1))
        top = int(y * (height - crop_height + 1))
        flip = self.mirror and bool(mirrored < 0.5)
        changes = (round((2 * c - 1) * 100 * self.color) for c in colors)
        return View(left, top, crop_width, crop_height, flip, *changes)

    def stored(self, image_id: str, index: int, width: int, height: int) -> View:
        """View `index` of the label store: 0 the fixed view, 1 its mirror image (if `mirror`), then random ones."""
        if index >= (2 if self.mirror else 1):
            return self.random(image_id, index, width, height)
        return fixed_view(width, height, self.resize)._replace(flip=index == 1)


def render(image: Image.Image, view: View, size: int, reduced: int = 1) -> npt.NDArray[np.uint8]:
    """Cut the view out of an RGB image, scale it to a square, change its colours.

    Pillow's bilinear filter with antialiasing (its support grows with the reduction, in 8-bit fixed point). In the
    outer ring of the square it also sees pixels just outside the box, where the image has some; elsewhere the answer
    is that of cutting first and scaling then. The colour changes are one affine map of the three channels, rounded and
    clipped once.

    Rows are scaled first, then columns, and both are rounded. Pillow did so before 13, which begins with the columns of
    tall images (a tenth to a half of their values differ by one step then), so each direction is a call of its own
    here. That takes 5 % longer than one call on crops of 512x384 pixels.

    Args:
        image: RGB; where it was made smaller first, the view is still in pixels of the upright image.
        view: what is shown.
        size: side of the answer in pixels.
        reduced: by how much it was made smaller.

    Returns:
        uint8 [size, size, 3].
    """
    # Across first, then down. Left to itself Pillow up to 12 does that too, but Pillow 13 goes down first where
    # image.height - size > 2 (image.width - size), and up to a fifth of the values then differ by one.
    left, top, width, height = (length / reduced for length in view[:4])
    reach = math.ceil(max(1.0, height / size))
    first, end = max(0, math.floor(top) - reach), min(image.height, math.ceil(top + height) + reach)
    lines = image.resize((size, end - first), Image.Resampling.BILINEAR, box=(left, first, left + width, end))
    cut = lines.resize((size, size), Image.Resampling.BILINEAR, box=(0, top - first, size, top - first + height))
    if view.brightness or view.contrast or view.saturation:
        cut = _recolour(cut, view)
    pixels: npt.NDArray[np.uint8] = np.asarray(cut)
    return np.ascontiguousarray(pixels[:, ::-1]) if view.flip else pixels


def render_mask(mask: npt.NDArray[np.uint8], view: View, size: int) -> npt.NDArray[np.uint8]:
    """Cut the view out of a mask: each pixel takes the class that lies under its centre.

    Where a centre falls between two pixels, as it does everywhere when a side is halved, the right or lower one counts.
    Whole numbers decide that; Pillow's nearest filter adds up rounded steps and may take either.

    Args:
        mask: uint8 [H, W] of the upright image's size.
        view: its colour changes play no part.
        size: side of the answer in pixels.

    Returns:
        uint8 [size, size].
    """
    centres = 2 * np.arange(size) + 1  # in halves of the answer's pixels
    rows = view.top + centres * view.height // (2 * size)
    columns = view.left + centres * view.width // (2 * size)
    return mask[rows[:, None], columns[None, ::-1] if view.flip else columns[None, :]]


def _recolour(cut: Image.Image, view: View) -> Image.Image:
    """Brightness b, contrast c, saturation s: y = c (b (s x + (1 - s) L(x)) - m) + m, with m the mean of L(b x)."""
    bright, contrast, saturation = (1 + change / 100 for change in view[5:])
    # The sum of the histogram is a whole number, so the mean is the same on every machine.
    grey = cut.convert("L").histogram()
    mean = bright * sum(value * count for value, count in enumerate(grey)) / (cut.width * cut.height)
    matrix = bright * contrast * (saturation * np.eye(3) + (1 - saturation) * _LUMA[None, :])
    offset = (1 - contrast) * mean
    rows = [float(v) for row in matrix for v in (*row, offset)]
    return cut.convert("RGB", tuple(rows))
