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
        mask: absolute path of its truth by pixel, or None: a grey PNG of the image's upright size that the stage `data`
            wrote; values are places of classes, 255 is ignored.
        hidden_mask: the same, hidden from training.
    """

    id: str
    path: str
    width: int
    height: int
    split: Split
    label: str | None
    hidden_label: str | None = None
    group: str | None = None
    mask: str | None = None
    hidden_mask: str | None = None

    @property
    def labelled(self) -> bool:
        """Whether there is truth to learn from or to be judged by."""
        return self.label is not None or self.mask is not None


class Predictor(ABC):
    """RGB uint8 images in, float32 logits out, the classes along the last axis.

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

    @property
    def any_size(self) -> bool:
        """Whether `predict` also takes squares of other sides, in multiples of 32 pixels."""
        return False

    @property
    def license(self) -> str | None:
        """Of its weights, as the card that came with them states it; None where no card is known or it says nothing."""
        return None

    @abstractmethod
    def predict(self, images: Images) -> FloatArray:
        """Answer a batch.

        Args:
            images: uint8 [N, image_size, image_size, 3], RGB.

        Returns:
            float32 [N, C] logits (log-probabilities are logits too); softmax over the last axis gives probabilities.
            A predictor of pixels answers [N, h, w, C], one row a cell of a grid over the image; h and w are its own.
        """

    def predict_all(self, batches: Batches) -> FloatArray:
        """Answer many batches; an ensemble asks one member after another, each at its own size.

        Returns:
            float32 [N, C] or [N, h, w, C] logits in the order of the batches.
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
