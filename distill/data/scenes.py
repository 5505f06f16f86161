"""Scenes with exact masks, composed of scikit-learn's handwritten digits: the data of `quickstart-segmentation`."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from distill.core.errors import DataError
from distill.core.types import Images

__all__ = ["CLASSES", "SCENES", "write_scenes"]

CLASSES = ("background", "zero", "one")
"""A mask's values are places here."""

SCENES = {"labeled": 80, "validation": 60, "test": 150, "unlabeled": 480}
"""Images of each part."""

_DIGITS = {"labeled": 30, "validation": 20, "test": 40, "unlabeled": 88}  # zeros, and as many ones; none in two parts
_SIDE = 64
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_MARGIN = 2  # empty cells around a digit: the bicubic filter reaches that far

_Floats = npt.NDArray[np.floating]


def write_scenes(folder: Path) -> None:
    """Write scenes of 64x64 pixels: one or two digits, zero or one, bright before a coloured texture.

    The digits are those of the UCI optical recognition of handwritten digits set (Alpaydin & Kaynak 1998, CC BY 4.0),
    8x8 grey. Each is shown in several scenes of one part, smoothly enlarged and turned, where the second may cover some
    of the first. All is drawn with fixed seeds.

    Args:
        folder: gets labeled/, validation/ and test/, each with images/ (RGB) and masks/ (grey, values are places in
            CLASSES) of the same names, and unlabeled/ with images alone, all PNG; appears by rename.

    Raises:
        DataError: scikit-learn has other digits.
    """
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    shuffled = []
    for digit in (0, 1):
        places = np.flatnonzero(digits.target == digit)
        if len(places) < (needed := sum(_DIGITS.values())):
            raise DataError(f"scikit-learn gave {len(places)} images of the digit {digit}, expected at least {needed}")
        shuffled.append(np.random.default_rng(digit).permutation(places))
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    first = 0
    for number, (part, scenes) in enumerate(SCENES.items()):
        last = first + _DIGITS[part]
        glyphs = [digits.images[places[first:last]] / 16 for places in shuffled]
        first = last
        labelled = part != "unlabeled"
        images, masks = temporary / part / ("images" if labelled else ""), temporary / part / "masks"
        images.mkdir(parents=True)
        if labelled:
            masks.mkdir()
        for scene in range(scenes):
            image, mask = _compose(glyphs, np.random.default_rng([number, scene]))
            Image.fromarray(image).save(images / f"{scene:04d}.png")
            if labelled:
                Image.fromarray(mask).save(masks / f"{scene:04d}.png")
    temporary.rename(folder)


def _compose(glyphs: Sequence[_Floats], rng: np.random.Generator) -> tuple[Images, Images]:
    """One scene of digits [class][N, 8, 8] in 0..1: uint8 [64, 64, 3], and its mask, uint8 [64, 64]."""
    picture = _texture(rng)
    mask = np.zeros((_SIDE, _SIDE), np.uint8)
    aside = np.array([rng.choice([-1, 1]) * rng.uniform(11, 17), rng.uniform(-8, 8)])
    for direction in (1, -1)[: rng.integers(1, 3)]:
        kind = int(rng.integers(len(glyphs)))
        glyph = glyphs[kind][rng.integers(len(glyphs[kind]))]
        middle = _SIDE / 2 + direction * aside + rng.uniform(-2, 2, 2)
        opacity = _placed(glyph, middle, cell=rng.uniform(4.3, 5.9), turn=rng.uniform(-0.3, 0.3))
        inside = opacity >= 0.5
        ink = _bright_colour(picture[inside].mean(axis=0), rng) + 0.15 * (_noise(8, rng) - 0.5)
        cover = np.clip(0.5 + 3 * (opacity - 0.5), 0, 1)[..., None]  # the outline is one or two pixels wide
        picture = picture * (1 - cover) + ink * cover
        mask[inside] = kind + 1
    picture = picture + rng.normal(0, 0.02, picture.shape)
    return np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8), mask


def _placed(glyph: _Floats, middle: _Floats, *, cell: float, turn: float) -> _Floats:
    """A digit's opacity in the scene, float32 [64, 64].

    Args:
        glyph: [8, 8], 0..1.
        middle: of the digit in the scene, (x, y) in pixels.
        cell: side of a cell of the digit, in pixels.
        turn: in radians.
    """
    from PIL import Image

    source = Image.fromarray(np.pad(glyph, _MARGIN).astype(np.float32))
    across, down = math.cos(turn) / cell, math.sin(turn) / cell
    x, y = middle
    centre = source.width / 2
    to_cells = (across, down, centre - across * x - down * y, -down, across, centre + down * x - across * y)
    enlarged = source.transform((_SIDE, _SIDE), Image.Transform.AFFINE, to_cells, Image.Resampling.BICUBIC)
    return np.asarray(enlarged)


def _texture(rng: np.random.Generator) -> _Floats:
    """Noise of four octaves, a gradient and stripes, rather dark: float64 [64, 64, 3], about 0..1."""
    picture = np.tile(rng.uniform(0.05, 0.5, 3), (_SIDE, _SIDE, 1))
    for cells, strength in ((2, 0.35), (4, 0.25), (8, 0.17), (16, 0.14)):
        picture += strength * rng.uniform(0.3, 1) * (_noise(cells, rng) - 0.5)
    ramp, stripes = _slope(rng), np.sin(math.pi * rng.uniform(2, 7) * _slope(rng))
    for pattern in (ramp, stripes):
        picture += rng.uniform(-0.14, 0.14, 3) * pattern[..., None]
    return picture


def _slope(rng: np.random.Generator) -> _Floats:
    """A plane that rises in a random direction, by 2 over the scene's side: float64 [64, 64]."""
    place, angle = np.linspace(-1, 1, _SIDE), rng.uniform(0, 2 * math.pi)
    return math.cos(angle) * place[None, :] + math.sin(angle) * place[:, None]


def _noise(cells: int, rng: np.random.Generator) -> _Floats:
    """Random colours of `cells` by `cells` places, smooth between them: float64 [64, 64, 3] in 0..1."""
    from PIL import Image

    colours = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
    smooth = colours.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    return np.asarray(smooth, np.float64) / 255


def _bright_colour(behind: _Floats, rng: np.random.Generator) -> _Floats:
    """The first random colour at least 0.3 brighter than the one behind; the brightest if none is."""
    colours = rng.uniform(0, 1, (64, 3))
    brighter = (colours - behind) @ _LUMA
    found: _Floats = colours[np.minimum(brighter, 0.3).argmax()]
    return found
