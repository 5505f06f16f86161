"""The two things every stage speaks of: an image with what is known about it, and a predictor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

__all__ = ["SPLITS", "Batches", "FloatArray", "ImageRecord", "Images", "Predictor", "Split", "softmax"]

Images = npt.NDArray[np.uint8]
"""A batch of RGB images: uint8 [N, H, W, 3], 0..255."""

FloatArray = npt.NDArray[np.float32]

Batches = Callable[[int], Iterable[Images]]
"""Renders the same views, batch after batch, at the side in pixels that it is given; may be called again."""

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image of a run.

    Args:
        id: SHA-256 of the file's bytes, 64 hex digits.
        path: absolute path.
        width: pixels after EXIF orientation.
        height: pixels after EXIF orientation.
        split: train, validation or test.
        label: what a person said (truth), or None.
        hidden_label: truth that training must not see; only to check pseudo-labels afterwards.
        group: images of one group never part over splits; None if not grouped.
    """

    id: str
    path: str
    width: int
    height: int
    split: Split
    label: str | None
    hidden_label: str | None = None
    group: str | None = None


class Predictor(ABC):
    """RGB uint8 images in, float32 logits out.

    A predictor owns its normalisation, its framework and its device. Everything that looks at images is one:
    teacher, student, exported file, phone.
    """

    @property
    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """Names of the C outputs, in order."""

    @property
    @abstractmethod
    def image_size(self) -> int:
        """Side in pixels of the square images it takes."""

    @abstractmethod
    def predict(self, images: Images) -> FloatArray:
        """Answer a batch.

        Args:
            images: uint8 [N, image_size, image_size, 3], RGB.

        Returns:
            float32 [N, C] logits (log-probabilities are logits too); softmax over C gives probabilities.
        """

    def predict_all(self, batches: Batches) -> FloatArray:
        """Answer many batches; an ensemble asks one member after another, each at its own size.

        Returns:
            float32 [N, C] logits in the order of the batches.
        """
        return np.concatenate([self.predict(images) for images in batches(self.image_size)])

    @property
    def passes(self) -> int:
        """How often `predict_all` goes through its batches."""
        return 1

    @abstractmethod
    def digest(self) -> str:
        """Hex digits that change when the answers may: weights, classes, size and normalisation count."""

    def close(self) -> None:  # noqa: B027 - nothing to release is the common case
        """Release processes and memory; the predictor cannot be used afterwards."""


def softmax(logits: npt.NDArray[np.floating]) -> FloatArray:
    """Softmax over the last axis, computed in float64, returned as float32."""
    exponents = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    probabilities: FloatArray = (exponents / exponents.sum(axis=-1, keepdims=True)).astype(np.float32)
    return probabilities


def one_hot(labels: Sequence[int], classes: int) -> FloatArray:
    """float32 [N, classes] with a one at each label."""
    encoded: FloatArray = np.eye(classes, dtype=np.float32)[np.asarray(labels, dtype=np.int64)]
    return encoded
