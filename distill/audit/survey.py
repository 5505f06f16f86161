"""One pass over decoded images: what is measured of each, and what is remembered of it to find copies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from distill.audit.measure import Measures, measure
from distill.core.progress import Progress
from distill.core.types import Images
from distill.labels.leaks import SIDE, TRIMS, Fingerprint, Gallery, fingerprint_of, fingerprints

__all__ = ["Near", "Survey"]

_BLOCK = 4096  # photos indexed at a time, 70 MB: bounds memory, whatever their number
_CHUNK = 1024  # photos looked up at a time


class Near(NamedTuple):
    """Two photos that show the same.

    Args:
        first: place of one.
        second: place of the other, larger than `first`.
        distance: bits of 64 in which the hashes differ after turning and trimming.
        turned: one is the other mirrored, or turned by quarters.
    """

    first: int
    second: int
    distance: int
    turned: bool


class Survey:
    """What was seen of the images. Thumbnails (6 KB an image) lie in a file, so memory is that of the figures.

    Args:
        count: number of images.
        folder: where the thumbnails are kept meanwhile.
    """

    def __init__(self, count: int, folder: Path) -> None:
        self._thumbnails: Images = np.memmap(
            folder / "thumbnails", np.uint8, "w+", shape=(max(count, 1), len(TRIMS), SIDE, SIDE, 3)
        )
        self.measures: npt.NDArray[np.float32] = np.full((count, len(Measures._fields)), np.nan, np.float32)

    def look(self, place: int, image: Image.Image) -> None:
        """Measure an image; may be called from several threads."""
        self.measures[place] = measure(image)
        for trim, print_ in enumerate(fingerprints(image)):
            self._thumbnails[place, trim] = print_.thumbnail

    def thumbnails(self, places: Sequence[int]) -> Images:
        """uint8 [N, 32, 32, 3]."""
        return np.asarray(self._thumbnails[np.asarray(places, dtype=np.int64), 0])

    def near(self, places: Sequence[int], progress: Progress) -> Iterator[Near]:
        """All pairs of images that show the same.

        Args:
            places: of images that were looked at, in rising order; of files with the same bytes one.
            progress: told of each image looked up in a block of others.
        """
        blocks = range(0, len(places), _BLOCK)
        with progress.task("comparing images", sum(len(places) - start for start in blocks)) as task:
            for start in blocks:
                block = places[start : start + _BLOCK]
                gallery = Gallery([self._prints(place) for place in block], block)
                for at in range(start, len(places), _CHUNK):
                    chunk = places[at : at + _CHUNK]
                    answers = gallery.alike([self._prints(place) for place in chunk], chunk)
                    for place, alike in zip(chunk, answers, strict=True):
                        for one in alike:
                            other = block[one.member]
                            if other < place:
                                yield Near(other, place, one.distance, one.turned)
                    task.advance(len(chunk))

    def _prints(self, place: int) -> list[Fingerprint]:
        return [fingerprint_of(np.asarray(self._thumbnails[place, trim])) for trim in range(len(TRIMS))]
