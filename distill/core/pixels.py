"""Square batches of pixels at another side."""

from __future__ import annotations

import numpy as np

from distill.core.types import Images

__all__ = ["resized", "side_at"]

_STEP = 32  # what most networks halve their input down by, so that no row of pixels is cut off


def side_at(side: int, scale: float) -> int:
    """A side in pixels times a scale, as a multiple of 32; at scale 1 the side itself."""
    return side if scale == 1 else max(_STEP, round(side * scale / _STEP) * _STEP)


def resized(images: Images, side: int) -> Images:
    """uint8 [N, S, S, 3] scaled to another side as `render` scales: bilinear, filtered where it shrinks."""
    if images.shape[1:3] == (side, side):
        return images
    from PIL import Image

    scaled = [Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR) for image in images]
    return np.stack([np.asarray(image) for image in scaled])
