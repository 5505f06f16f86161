"""A teacher of pixels that looks at a large picture tile by tile."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, final

import numpy as np

from distill.core.dense import scale_map
from distill.core.errors import TeacherError
from distill.core.files import digest_of
from distill.core.types import FloatArray, Images, Predictor, softmax

__all__ = ["Tiled"]

_STEP = 32  # tiles of a scaled picture have a side that every network takes


@final
class Tiled(Predictor):
    """Cuts a square into overlapping tiles, asks about each and blends the maps, with linear ramps where they overlap.

    The square is larger than what the teacher takes, so that the teacher sees details at its own scale. One forward
    pass answers one tile of all images of a batch: memory is that of a batch and of its map.

    Args:
        teacher: answers each pixel of a tile.
        tiles: on a side; at least 2.
        overlap: share of a tile's side that it has in common with its neighbour, 0..0.5.

    Raises:
        TeacherError: while predicting, the teacher answers for an image, not for its pixels.
    """

    def __init__(self, teacher: Predictor, tiles: int, overlap: float) -> None:
        self._teacher, self._tiles, self._overlap = teacher, tiles, overlap

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._teacher.class_names

    @property
    def image_size(self) -> int:
        return round(self._teacher.image_size * (self._tiles - (self._tiles - 1) * self._overlap))

    @property
    def any_size(self) -> bool:
        return self._teacher.any_size

    def predict(self, images: Images) -> FloatArray:
        side = images.shape[1]
        tile = self._tile_of(side)
        starts = [round(number * (side - tile) / (self._tiles - 1)) for number in range(self._tiles)]
        blended: FloatArray | None = None
        for i, top in enumerate(starts):
            for j, left in enumerate(starts):
                shown = np.ascontiguousarray(images[:, top : top + tile, left : left + tile])
                probabilities = softmax(self._teacher.predict(shown))
                if probabilities.ndim != 4:
                    raise TeacherError("teacher.tiles: this teacher answers for an image, not for its pixels")
                count, rows, columns, classes = probabilities.shape
                high, down = _places(tuple(starts), tile, side, rows)
                wide, across = _places(tuple(starts), tile, side, columns)
                if blended is None:
                    blended = np.zeros((count, high, wide, classes), np.float32)
                y, x = down[i], across[j]
                placed = scale_map(
                    probabilities, y.stop - y.start, x.stop - x.start, (x.share[0], y.share[0], x.share[1], y.share[1])
                )
                ramp = y.weights[:, None, None] * x.weights[None, :, None]
                blended[:, y.start : y.stop, x.start : x.stop] += placed * ramp
        assert blended is not None
        logits: FloatArray = np.log(np.maximum(blended, np.float32(1e-12)))
        return logits

    def digest(self) -> str:
        return digest_of({"tiles": self._tiles, "overlap": self._overlap, "teacher": self._teacher.digest()})

    def close(self) -> None:
        self._teacher.close()

    def _tile_of(self, side: int) -> int:
        """Side of a tile of a picture that may be larger or smaller than usual."""
        own, usual = self._teacher.image_size, self.image_size
        return own if side == usual else min(side, -(-own * side // (usual * _STEP)) * _STEP)


class _Place(NamedTuple):
    """Where a tile's cells go, along one axis.

    Args:
        start: first cell of the whole that has its centre in the tile.
        stop: the cell behind the last.
        share: where these cells begin and end, as shares of the tile.
        weights: float32, of each of these cells; those of all tiles sum to one.
    """

    start: int
    stop: int
    share: tuple[float, float]
    weights: FloatArray


@lru_cache(maxsize=64)
def _places(starts: tuple[int, ...], tile: int, side: int, cells: int) -> tuple[int, tuple[_Place, ...]]:
    """Cells along the whole side, and the place of each tile.

    Args:
        starts: first pixel of each tile.
        tile: its side in pixels.
        side: of the whole, in pixels.
        cells: of a tile's answer along this axis.
    """
    whole = round(side * cells / tile)
    pixels = side / whole  # a cell
    centres = (np.arange(whole) + 0.5) * pixels
    ramps = np.zeros((len(starts), whole))
    for number, start in enumerate(starts):
        rise, fall = np.ones(whole), np.ones(whole)
        if number > 0 and (shared := starts[number - 1] + tile - start) > 0:
            rise = np.clip((centres - start) / shared, 0, 1)
        if number < len(starts) - 1 and (shared := start + tile - starts[number + 1]) > 0:
            fall = np.clip((start + tile - centres) / shared, 0, 1)
        inside = (centres >= start) & (centres < start + tile)
        ramps[number] = np.where(inside, np.maximum(rise * fall, 1e-6), 0)
    ramps /= ramps.sum(axis=0)
    places = []
    for start, ramp in zip(starts, ramps, strict=True):
        covered = np.flatnonzero(ramp)
        first, stop = int(covered[0]), int(covered[-1]) + 1
        share = ((first * pixels - start) / tile, (stop * pixels - start) / tile)
        places.append(_Place(first, stop, share, ramp[first:stop].astype(np.float32)))
    return whole, tuple(places)
