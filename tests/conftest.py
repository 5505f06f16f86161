"""Shared by all tests: small images and a progress that says nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from distill.core.progress import Progress

SaveImage = Callable[..., Path]


@pytest.fixture
def save_image() -> SaveImage:
    """Writes a small noisy image: the same number gives the same pixels, another number others."""

    def save(path: Path, number: int = 0, size: tuple[int, int] = (8, 6)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return save


@pytest.fixture
def progress() -> Progress:
    return Progress(Console(quiet=True))
