"""Photos made on the spot, as large and as hard to decode as those of a phone scaled down to 512x384."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from distill.core.files import sha256_of
from distill.core.types import ImageRecord, Split

__all__ = ["make_photos"]

CLASSES = ("left", "right")


def make_photos(
    folder: Path, count: int, split: Split = "train", side: tuple[int, int] = (512, 384)
) -> list[ImageRecord]:
    """Write `count` JPEGs of smooth noise (quality 88, about 40 kB each); every second is labelled."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for number in range(count):
        rng = np.random.default_rng([number, len(split)])
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize(
            side, Image.Resampling.BICUBIC
        )
        grain = rng.normal(0, 6, (side[1], side[0], 3))
        path = folder / f"{number:05d}.jpg"
        Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8)).save(path, quality=88)
        records.append(ImageRecord(sha256_of(path), str(path), *side, split, CLASSES[number % 2]))
    return sorted(records, key=lambda record: record.id)
