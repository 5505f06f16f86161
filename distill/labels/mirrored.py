"""Test-time augmentation: a teacher asked twice, the second time in a mirror."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import numpy as np

from distill.core.files import digest_of
from distill.core.types import Batches, FloatArray, Images, Predictor, softmax

__all__ = ["Mirrored"]


@final
class Mirrored(Predictor):
    """Averages the probabilities for each image and its mirror image.

    Args:
        teacher: asked twice.
    """

    def __init__(self, teacher: Predictor) -> None:
        self._teacher = teacher

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._teacher.class_names

    @property
    def image_size(self) -> int:
        return self._teacher.image_size

    def predict(self, images: Images) -> FloatArray:
        return _mean(self._teacher.predict(images), self._teacher.predict(_flip(images)))

    def predict_all(self, batches: Batches) -> FloatArray:
        def flipped(size: int) -> Iterator[Images]:
            return (_flip(images) for images in batches(size))

        return _mean(self._teacher.predict_all(batches), self._teacher.predict_all(flipped))

    @property
    def passes(self) -> int:
        return 2 * self._teacher.passes

    def digest(self) -> str:
        return digest_of({"mirrored": self._teacher.digest()})

    def close(self) -> None:
        self._teacher.close()


def _flip(images: Images) -> Images:
    return np.ascontiguousarray(images[:, :, ::-1])


def _mean(first: FloatArray, second: FloatArray) -> FloatArray:
    mean = (softmax(first) + softmax(second)) / np.float32(2)
    logits: FloatArray = np.log(np.maximum(mean, np.float32(1e-12)))
    return logits
