"""The mean of several answers about the same images."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from distill.core.dense import scale_map
from distill.core.errors import TeacherError
from distill.core.types import FloatArray

__all__ = ["averaged"]

_SMALLEST = 1e-12


def averaged(answers: Iterable[tuple[float, FloatArray]]) -> FloatArray:
    """The weighted mean of probabilities, as logits. Maps of other grids are scaled to the largest of them.

    Args:
        answers: weight and float32 [N, C] or [N, h, w, C]; the weights sum to one. One is held at a time, and one sum a
            grid.

    Returns:
        float32 logits [N, C], or [N, h, w, C] with the most rows and columns there are.

    Raises:
        TeacherError: some answer an image, others its pixels.
    """
    sums: dict[tuple[int, ...], npt.NDArray[np.floating]] = {}
    for weight, probabilities in answers:
        grid = probabilities.shape[1:-1]
        if any(len(other) != len(grid) for other in sums):
            raise TeacherError("teacher.ensemble: some of its members answer for an image, others for its pixels")
        if grid not in sums:
            # maps are large, and a handful of them loses nothing in float32
            sums[grid] = np.zeros(probabilities.shape, np.float32 if grid else np.float64)
        sums[grid] += weight * probabilities
    if len(sums) > 1:
        rows, columns = (max(sides) for sides in zip(*sums, strict=True))
        mean = sum(scale_map(found.astype(np.float32, copy=False), rows, columns) for found in sums.values())
    else:
        (mean,) = sums.values()
    logits: FloatArray = np.log(np.maximum(mean, _SMALLEST)).astype(np.float32, copy=False)
    return logits
