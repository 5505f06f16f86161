"""Scikit-learn's handwritten digits as image folders: the quickstart's data, real and without a download."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from distill.core.errors import DataError

__all__ = ["DIGITS", "write_digits"]

DIGITS = 1797
_LABELLED_A_CLASS, _VALIDATION_A_CLASS, _TEST_A_CLASS = 10, 20, 40  # the rest, about 1,100, is left unlabelled
_SIDE = 32


def write_digits(folder: Path) -> None:
    """Write the 1,797 digits (8x8 grey, enlarged to 32x32) as PNG.

    The data are the test part of the UCI optical recognition of handwritten digits set (Alpaydin & Kaynak 1998, CC BY
    4.0). The parts are drawn at random with a fixed seed, so all hold the same writers: scores flatter every model.

    Args:
        folder: gets labeled/, validation/, test/ (one sub-folder a digit) and unlabeled/; appears by rename.

    Raises:
        DataError: the images cannot be written.
    """
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    if len(digits.images) != DIGITS:
        raise DataError(f"scikit-learn gave {len(digits.images)} digits, expected {DIGITS}")
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    parts = {
        "labeled": _LABELLED_A_CLASS,
        "validation": _VALIDATION_A_CLASS,
        "test": _TEST_A_CLASS,
        "unlabeled": DIGITS,
    }
    for digit in range(10):
        places = np.flatnonzero(digits.target == digit)
        shuffled = np.random.default_rng(digit).permutation(places).tolist()
        for part, count in parts.items():
            target = temporary / part / ("" if part == "unlabeled" else str(digit))
            target.mkdir(parents=True, exist_ok=True)
            for place in shuffled[:count]:
                pixels = np.round(digits.images[place] * (255 / 16)).astype(np.uint8)
                image = Image.fromarray(pixels).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
                image.save(target / f"{place:04d}.png")
            shuffled = shuffled[count:]
    temporary.rename(folder)
