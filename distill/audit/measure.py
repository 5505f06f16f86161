"""Figures of one image: light, colour, sharpness."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["Measures", "measure"]

_SIDE: Final = 256  # short side at which images are looked at: a student sees no more of them
_LONGEST: Final = 4  # times that, so that a panorama takes no more time
_WINDOW: Final = 9  # pixels of the low-pass filter of Crete et al.
_GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)

_Floats = npt.NDArray[np.float32]


class Measures(NamedTuple):
    """What is measured of the pixels, with the image scaled down to a short side of at most 256 pixels.

    Args:
        brightness: mean of luma, 0..1.
        low: 5th percentile of luma, 0..1: the shadows.
        high: 95th percentile of luma, 0..1: the lights.
        contrast: standard deviation of luma, 0..0.5.
        red: mean, 0..1.
        green: mean, 0..1.
        blue: mean, 0..1.
        saturation: mean over pixels of (largest - smallest channel) / largest, 0..1.
        colorfulness: Hasler and Süsstrunk 2003 ("Measuring colourfulness in natural images"), 0 for grey, about 0.3 for
            a colourful photo (their scale is 255 times this one).
        entropy: of the histogram of luma in 256 steps, 0..8 bits: how much there is to see.
        blur: Crete et al. 2007 ("The blur effect: perception and estimation with a new no-reference perceptual blur
            metric"), 0 sharp .. 1 blurred; 1 where nothing varies.
    """

    brightness: float
    low: float
    high: float
    contrast: float
    red: float
    green: float
    blue: float
    saturation: float
    colorfulness: float
    entropy: float
    blur: float


def measure(image: Image.Image) -> Measures:
    """Measure an image, in 8 ms at a short side of 256 pixels.

    Args:
        image: mode RGB, any size.
    """
    width, height = image.size
    scale = min(1.0, _SIDE / min(width, height), math.sqrt(_LONGEST * _SIDE * _SIDE / (width * height)))
    if scale < 1:
        size = max(1, round(scale * width)), max(1, round(scale * height))
        image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)
    pixels = np.asarray(image)
    grey: _Floats = pixels @ _GREY
    counts = np.bincount(np.minimum(np.rint(grey), 255).astype(np.uint8).ravel(), minlength=256)
    shares = counts / grey.size
    below = np.cumsum(shares)
    red, green, blue = (pixels.mean(axis=(0, 1), dtype=np.float64) / 255).tolist()
    return Measures(
        brightness=float(grey.mean()) / 255,
        low=int(np.searchsorted(below, 0.05)) / 255,
        high=min(int(np.searchsorted(below, 0.95)), 255) / 255,
        contrast=float(grey.std()) / 255,
        red=red,
        green=green,
        blue=blue,
        saturation=_saturation(pixels),
        colorfulness=_colorfulness(pixels),
        entropy=float(-(shares[counts > 0] * np.log2(shares[counts > 0])).sum()) + 0.0,
        blur=max(_blur(grey), _blur(grey.T)) if min(grey.shape) > 1 else 1.0,
    )


def _saturation(pixels: npt.NDArray[np.uint8]) -> float:
    largest, smallest = pixels.max(axis=2).astype(np.float32), pixels.min(axis=2)
    return float(((largest - smallest) / np.maximum(largest, 1)).mean())


def _colorfulness(pixels: npt.NDArray[np.uint8]) -> float:
    red, green, blue = (pixels[:, :, channel].astype(np.float32) for channel in range(3))
    first, second = red - green, (red + green) / 2 - blue
    return float(np.hypot(first.std(), second.std()) + 0.3 * np.hypot(first.mean(), second.mean())) / 255


def _blur(grey: _Floats) -> float:
    """How little differences of neighbours down the image shrink when it is blurred once more: 0..1."""
    padded = np.pad(grey, ((_WINDOW // 2 + 1, _WINDOW // 2), (0, 0)), mode="edge")
    sums = np.cumsum(padded, axis=0)
    blurred = (sums[_WINDOW:] - sums[:-_WINDOW]) / _WINDOW
    before, after = np.abs(np.diff(grey, axis=0)), np.abs(np.diff(blurred, axis=0))
    total = float(before.sum())
    return 1.0 if total == 0 else 1.0 - float(np.maximum(before - after, 0).sum()) / total
