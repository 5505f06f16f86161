"""A mask laid over its image, in colours that stay with the classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from distill.core.dense import IGNORED

__all__ = ["IGNORED_COLOR", "background", "class_colors", "overlay"]

IGNORED_COLOR: Final = (224, 224, 192)
"""Of pixels that nobody is judged by: the cream of PASCAL VOC's borders."""

# Class 0 is black, as in PASCAL VOC, class 1 crimson. Each further one is, of all colours in steps of 15 with a
# lightness of 40 to 85, that farthest in CIELAB from those before it, from IGNORED_COLOR and from white. The nearest
# two of the first nine are 55 apart, of all 24 34; a difference of 2 is just seen.
_COLORS: Final = (
    (0, 0, 0), (225, 30, 60), (120, 15, 255), (0, 240, 0), (0, 120, 225), (255, 180, 0), (255, 45, 195), (0, 120, 30),
    (135, 90, 30), (150, 75, 120), (0, 120, 135), (0, 240, 180), (180, 225, 75), (135, 60, 195), (255, 165, 255),
    (255, 150, 135), (255, 105, 0), (0, 225, 255), (165, 165, 210), (240, 0, 255), (255, 90, 150), (210, 180, 90),
    (105, 135, 90), (45, 195, 60),
)  # fmt: skip
_DARKER: Final = 0.75  # each time that the colours are gone through
_STRIPES: Final = 6  # pixels from one stripe to the next

_Pixels = npt.NDArray[np.uint8]


def class_colors(count: int) -> _Pixels:
    """A colour for each of `count` classes, uint8 [count, 3]; a class keeps its colour whatever `count` is.

    Class 0 is black. The next 23 are easily told apart; those behind them are the same in darker shades.
    """
    first, others = np.array(_COLORS[:1], np.float64), np.array(_COLORS[1:], np.float64)
    shades = [others * _DARKER**times for times in range(-(-count // len(others)))]
    colors: _Pixels = np.rint(np.concatenate([first, *shades])[:count]).astype(np.uint8)
    return colors


def background(class_names: Sequence[str]) -> int | None:
    """The class that overlays leave clear: class 0 where it is named `background`, else none."""
    return 0 if class_names and class_names[0].lower() == "background" else None


def overlay(
    image: _Pixels,
    mask: _Pixels,
    colors: _Pixels,
    alpha: float = 0.5,
    *,
    clear: int | None = None,
    outline: bool = False,
    unsure: npt.NDArray[np.bool_] | None = None,
) -> _Pixels:
    """Tint an image by the classes of its pixels.

    Args:
        image: uint8 [H, W, 3].
        mask: uint8 [H, W], places of classes; ignored pixels are tinted cream.
        colors: uint8 [C, 3].
        alpha: share of the colour in the tinted pixels, 0..1.
        clear: a class whose pixels stay as they are.
        outline: draw pixels next to another class in the full colour of their own.
        unsure: bool [H, W], pixels that get black stripes.

    Returns:
        uint8 [H, W, 3].

    Raises:
        ValueError: image and mask differ in size, or the mask holds a class without a colour.
    """
    if image.shape[:2] != mask.shape:
        raise ValueError(f"an image of {image.shape[:2]} pixels cannot have a mask of {mask.shape}")
    painted = mask != IGNORED
    if painted.any() and (largest := int(mask[painted].max())) >= len(colors):
        raise ValueError(f"the mask holds class {largest}, there are {len(colors)} colours")
    table = np.zeros((256, 3), np.float32)
    table[: len(colors)] = colors
    table[IGNORED] = IGNORED_COLOR
    shares = np.full(256, alpha, np.float32)
    if clear is not None:
        shares[clear] = 0.0
    share = shares[mask]
    if outline:
        share = np.where(_edges(mask) & (share > 0), np.float32(1), share)
    tinted = image + (table[mask] - image) * share[:, :, None]
    if unsure is not None:
        across, down = np.arange(mask.shape[1]), np.arange(mask.shape[0])
        tinted[unsure & ((across[None, :] + down[:, None]) % _STRIPES == 0)] = 0.0
    picture: _Pixels = np.rint(tinted).astype(np.uint8)
    return picture


def _edges(mask: _Pixels) -> npt.NDArray[np.bool_]:
    """Pixels with a neighbour of another class above, below, left or right."""
    edges = np.zeros(mask.shape, np.bool_)
    down, across = mask[1:] != mask[:-1], mask[:, 1:] != mask[:, :-1]
    edges[1:] |= down
    edges[:-1] |= down
    edges[:, 1:] |= across
    edges[:, :-1] |= across
    return edges
