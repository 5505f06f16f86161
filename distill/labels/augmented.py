"""Test-time augmentation: a teacher asked several times, in a mirror and at other sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import final

import numpy as np

from distill.core.averaging import averaged
from distill.core.errors import TeacherError
from distill.core.files import digest_of
from distill.core.pixels import resized, side_at
from distill.core.types import Batches, FloatArray, Images, Predictor, softmax

__all__ = ["Augmented"]


@final
class Augmented(Predictor):
    """Averages the probabilities for each image at several sizes, and for its mirror images.

    Maps of a mirror image are turned back; maps of other sizes are scaled to the largest grid. `predict_all` has the
    views rendered at each size; `predict` scales the pixels that it is given.

    Args:
        teacher: asked again and again.
        mirror: also ask about mirror images.
        scales: multiples of the teacher's size, each rounded to a side of a multiple of 32 pixels.

    Raises:
        TeacherError: other scales than 1 for a teacher of a fixed size.
    """

    def __init__(self, teacher: Predictor, *, mirror: bool, scales: Sequence[float]) -> None:
        if not teacher.any_size and any(scale != 1 for scale in scales):
            raise TeacherError(
                f"teacher.test_time_scales: found {list(scales)}, but this teacher takes squares of"
                f" {teacher.image_size} px alone, expected [1.0]"
            )
        self._teacher, self._mirror, self._scales = teacher, mirror, tuple(scales)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._teacher.class_names

    @property
    def image_size(self) -> int:
        return self._teacher.image_size

    def predict(self, images: Images) -> FloatArray:
        def ask(scale: float, mirrored: bool) -> FloatArray:
            shown = resized(images, side_at(images.shape[1], scale))
            return self._teacher.predict(_flip(shown) if mirrored else shown)

        return self._mean(ask)

    def predict_all(self, batches: Batches) -> FloatArray:
        def ask(scale: float, mirrored: bool) -> FloatArray:
            def shown(size: int) -> Iterator[Images]:
                return (_flip(images) if mirrored else images for images in batches(side_at(size, scale)))

            return self._teacher.predict_all(shown)

        return self._mean(ask)

    @property
    def passes(self) -> int:
        return len(self._scales) * (2 if self._mirror else 1) * self._teacher.passes

    def digest(self) -> str:
        return digest_of({"teacher": self._teacher.digest(), "mirror": self._mirror, "scales": self._scales})

    def close(self) -> None:
        self._teacher.close()

    def _mean(self, ask: Callable[[float, bool], FloatArray]) -> FloatArray:
        ways = [
            (scale, mirrored) for scale in self._scales for mirrored in ([False, True] if self._mirror else [False])
        ]
        return averaged((1 / len(ways), _turned(ask(*way), way[1])) for way in ways)


def _flip(images: Images) -> Images:
    return np.ascontiguousarray(images[:, :, ::-1])


def _turned(logits: FloatArray, mirrored: bool) -> FloatArray:
    """Probabilities; those of pixels turned back where they were seen in a mirror."""
    probabilities = softmax(logits)
    return probabilities[:, :, ::-1] if mirrored and probabilities.ndim == 4 else probabilities
