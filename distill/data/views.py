"""A view is one crop and flip of an image as explicit numbers, so that teacher and student see the same thing."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["Resize", "View", "fixed_view", "random_view", "render", "stored_view"]

Resize = Literal["center_crop", "squash"]


class View(NamedTuple):
    """A box in whole pixels of the upright image, and whether it is mirrored."""

    left: int
    top: int
    width: int
    height: int
    flip: bool


def fixed_view(width: int, height: int, resize: Resize) -> View:
    """The view that validation, test and the app use: the largest centred square, or the whole image."""
    if resize == "squash":
        return View(0, 0, width, height, False)
    side = min(width, height)
    return View((width - side) // 2, (height - side) // 2, side, side, False)


def random_view(
    image_id: str,
    index: int,
    width: int,
    height: int,
    resize: Resize,
    *,
    seed: int,
    min_area: float,
    mirror: bool = True,
) -> View:
    """A random resized crop (Szegedy et al. 2015, arXiv 1409.4842) drawn from (seed, image, index) alone.

    The area is uniform in [min_area, 1] of the fixed view's area, the aspect ratio log-uniform within 3/4 to 4/3 of the
    fixed view's; half are mirrored.

    Args:
        image_id: hex digits; the same image gives the same view on every machine.
        index: number of the view.
        width: of the image, in pixels.
        height: of the image, in pixels.
        resize: decides the shape that a crop has.
        seed: of the run.
        min_area: smallest share of the area, in (0, 1].
        mirror: whether half of the views are mirrored.
    """
    rng = np.random.Generator(np.random.PCG64([seed, index, int(image_id[:16], 16)]))
    area, ratio, x, y, mirrored = rng.random(5)
    whole = fixed_view(width, height, resize)
    scale = math.sqrt(min_area + (1.0 - min_area) * area)
    stretch = math.exp((ratio - 0.5) * math.log(4 / 3))  # sqrt of a ratio in [3/4, 4/3]
    crop_width = max(1, min(width, round(whole.width * scale * stretch)))
    crop_height = max(1, min(height, round(whole.height * scale / stretch)))
    left = int(x * (width - crop_width + 1))
    top = int(y * (height - crop_height + 1))
    return View(left, top, crop_width, crop_height, mirror and bool(mirrored < 0.5))


def stored_view(
    image_id: str,
    index: int,
    width: int,
    height: int,
    resize: Resize,
    *,
    seed: int,
    min_area: float,
    mirror: bool = True,
) -> View:
    """View `index` of the label store: 0 the fixed view, 1 its mirror image (if `mirror`), then random crops."""
    if index >= (2 if mirror else 1):
        return random_view(image_id, index, width, height, resize, seed=seed, min_area=min_area, mirror=mirror)
    return fixed_view(width, height, resize)._replace(flip=index == 1)


def render(image: Image.Image, view: View, size: int) -> npt.NDArray[np.uint8]:
    """Cut the view out of an RGB image and scale it to a square.

    Pillow's bilinear filter with antialiasing (its support grows with the reduction, in 8-bit fixed point). In the
    outer ring of the square it also sees pixels just outside the box, where the image has some; elsewhere the answer
    is that of cutting first and scaling then.

    Returns:
        uint8 [size, size, 3].
    """
    box = (view.left, view.top, view.left + view.width, view.top + view.height)
    pixels: npt.NDArray[np.uint8] = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))
    return np.ascontiguousarray(pixels[:, ::-1]) if view.flip else pixels
