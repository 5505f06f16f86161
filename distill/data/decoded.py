"""Training images decoded once: made smaller by whole factors, as uint8 in one file that is mapped into memory.

A photo of 12 megapixels takes a tenth of a second to decode, and a small student learns from ten images in that time.
Reduced as far as its smallest crop allows, it takes some hundred kilobytes, and a view is cut from it in milliseconds.
"""

from __future__ import annotations

import math
import os
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np
from PIL import Image

from distill.core.errors import UserError
from distill.core.files import digest_of, read_json, write_json
from distill.core.types import ImageRecord, Images
from distill.data.batches import ImageCache
from distill.data.views import View, render

__all__ = ["DecodedImages"]

_MARK, _PIXELS, _WRITTEN = "decoded.json", "pixels", "written"
_IS_WRITTEN = 1 << 32  # above the 32 bits of the checksum
_SPARE = 100_000_000  # bytes of the disk that are left for checkpoints


@final
class DecodedImages:
    """Gives views of images that are decoded at most once; safe to use from several threads and processes.

    Each image is reduced (the mean of squares of k x k pixels) by the largest k that leaves its smallest crop at least
    as large as what is shown, so views are some rounding steps from those of the file itself. An image is written when
    it is first asked for. One whose checksum is wrong is decoded anew.

    Args:
        records: images that may be asked for.
        folder: holds them; what it has of other images or for another size is deleted.
        cache: reads the files.
        size: side in pixels of what is shown.
        min_crop: smallest share of an image's area that a view keeps.

    Raises:
        UserError: the disk has no room for all.
    """

    def __init__(
        self, records: Sequence[ImageRecord], folder: Path, cache: ImageCache, *, size: int, min_crop: float
    ) -> None:
        self._cache = cache
        records = sorted({r.id: r for r in records}.values(), key=lambda r: r.id)
        self._ids = np.array([_number(r) for r in records], np.uint64)
        sides = np.array([(r.width, r.height) for r in records], np.int64).reshape(-1, 2)
        # the narrowest crop has the side of sqrt(min_crop) of the image's times sqrt(3) / 2: see ViewPlan.random
        narrowest = sides.min(axis=1) * math.sqrt(0.75 * min_crop)
        self._factors = np.maximum(1, (narrowest / size).astype(np.int64))
        self._sides = -(-sides // self._factors[:, None])
        self._ends = np.cumsum(3 * self._sides.prod(axis=1))
        self.bytes = int(self._ends[-1])
        self.folder = folder
        mark = {"digest": digest_of({"format": 1, "ids": [r.id for r in records], "sides": self._sides.tolist()})}
        if not _has(folder, mark):
            self._make(mark)
        self._file = os.open(folder / _PIXELS, os.O_RDWR)
        self._marks = os.open(folder / _WRITTEN, os.O_RDWR)
        self._pixels = np.memmap(folder / _PIXELS, np.uint8, "r")
        self._written = np.memmap(folder / _WRITTEN, np.uint64, "r")

    def close(self) -> None:
        """Let go of the files."""
        os.close(self._file)
        os.close(self._marks)

    def cut(self, record: ImageRecord, views: Sequence[View], size: int) -> list[Images]:
        """Views of one image as squares, uint8 [size, size, 3] each.

        Raises:
            DataError: the file vanished or changed since the stage `data` read it.
        """
        place = int(np.searchsorted(self._ids, np.uint64(_number(record))))
        image = self._read(place) or self._decode(record, place)
        return [render(image, view, size, int(self._factors[place])) for view in views]

    def _read(self, place: int) -> Image.Image | None:
        written, (width, height) = int(self._written[place]), self._sides[place].tolist()
        end = int(self._ends[place])
        pixels = self._pixels[end - 3 * width * height : end]
        if written != _IS_WRITTEN | zlib.crc32(pixels.data):
            return None
        return Image.frombuffer("RGB", (width, height), pixels, "raw", "RGB", 0, 1)

    def _decode(self, record: ImageRecord, place: int) -> Image.Image:
        image = self._cache.decode(record).reduce(int(self._factors[place]))
        pixels = image.tobytes()
        os.pwrite(self._file, pixels, int(self._ends[place]) - len(pixels))
        os.pwrite(self._marks, np.uint64(_IS_WRITTEN | zlib.crc32(pixels)).tobytes(), 8 * place)
        return image

    def _make(self, mark: dict[str, str]) -> None:
        """Files of the full size: a disk that fills up later would end the process when it reads what it has mapped."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        wanted, free = self.bytes + 8 * len(self._ids) + _SPARE, shutil.disk_usage(self.folder).free
        if wanted > free:
            raise UserError(
                f"data.cache: disk takes {wanted / 1e9:.1f} GB in {self.folder}, which has {free / 1e9:.1f} GB free:"
                " choose another `output`, or data.cache: memory"
            )
        for name, length in ((_PIXELS, self.bytes), (_WRITTEN, 8 * len(self._ids))):
            with (self.folder / name).open("wb") as stream:
                os.posix_fallocate(stream.fileno(), 0, length)
        write_json(self.folder / _MARK, mark)


def _number(record: ImageRecord) -> int:
    """The first 64 bits of its hash."""
    return int(record.id[:16], 16)


def _has(folder: Path, mark: dict[str, str]) -> bool:
    try:
        found: bool = read_json(folder / _MARK) == mark
    except (OSError, ValueError):
        return False
    return found
