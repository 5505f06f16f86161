"""Which images would teach most, and which look like nothing that was seen before."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from distill.core.types import FloatArray

__all__ = ["Space", "most_instructive"]

_NEIGHBOURS = 5
_CHUNK = 512  # rows of distances held at once
_FAR = 99.0  # percentile of the reference's own distances

_Floats = npt.NDArray[np.float64]


class Space:
    """Features as directions: distance is one less the cosine, about the reference's mean.

    Args:
        reference: float32 [N, F].
        new: float32 [M, F].
    """

    def __init__(self, reference: FloatArray, new: FloatArray) -> None:
        centre, scale = reference.mean(axis=0), reference.std(axis=0).mean() + 1e-12
        self._reference, self._new = _directions((reference - centre) / scale), _directions((new - centre) / scale)

    def novelty(self) -> tuple[_Floats, float]:
        """How far each new image lies from its fifth neighbour in the reference (Sun et al. 2022, arXiv 2204.06507).

        Returns:
            Distances 0..2, float64 [M], and the distance that 99 % of the reference's own images stay below.
        """
        own = _neighbour(self._reference, self._reference, _NEIGHBOURS + 1)  # the first is the image itself
        return _neighbour(self._new, self._reference, _NEIGHBOURS), float(np.percentile(own, _FAR))

    def nearest(self) -> _Floats:
        """Distance of each new image from the nearest of the reference, float64 [M]."""
        return _neighbour(self._new, self._reference, 1)

    def from_new(self, place: int) -> _Floats:
        """Distance of each new image from one of them, float64 [M]."""
        distances: _Floats = np.maximum(0.0, 1 - self._new @ self._new[place]).astype(np.float64)
        return distances


def most_instructive(space: Space, hardness: FloatArray, count: int) -> list[int]:
    """Hard images that differ from each other and from what is known, the most instructive first.

    Greedy: the next is the one with the largest product of hardness and distance to the nearest image that is known or
    was chosen before. With equal hardness it is the farthest-first core-set of Sener & Savarese (2018, arXiv
    1708.00489); the product makes it prefer hard images as BADGE does (Ash et al. 2020, arXiv 1906.03671). Copies of
    what was chosen have no distance and come last.

    Args:
        space: of the features.
        hardness: 0 or more, float32 [M].
        count: images, at most.
    """
    distance, left = space.nearest(), np.ones(len(hardness), np.bool_)
    chosen: list[int] = []
    for _ in range(min(count, len(hardness))):
        place = int(np.where(left, hardness * distance, -1.0).argmax())
        chosen.append(place)
        left[place] = False
        distance = np.minimum(distance, space.from_new(place))
    return chosen


def _directions(values: FloatArray) -> FloatArray:
    unit: FloatArray = (values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)).astype(np.float32)
    return unit


def _neighbour(images: FloatArray, others: FloatArray, place: int) -> _Floats:
    """Distance of each image from its n-th nearest among others, counted from 1."""
    place = min(place, len(others))
    parts = []
    for at in range(0, len(images), _CHUNK):
        found = 1 - images[at : at + _CHUNK] @ others.T
        parts.append(np.partition(found, place - 1, axis=1)[:, place - 1])
    distances: _Floats = np.maximum(0.0, np.concatenate(parts)).astype(np.float64)
    return distances
