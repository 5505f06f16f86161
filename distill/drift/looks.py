"""What is seen of an image: its plain statistics, what the student makes of it, and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from distill.core.dense import scale_map
from distill.core.progress import Progress
from distill.core.types import Batches, FloatArray, ImageRecord, Images, Predictor, softmax
from distill.data.batches import ImageCache, iterate
from distill.data.views import Resize, View, fixed_view
from distill.torch_predictor import Network, TorchPredictor

__all__ = ["STATISTICS", "Disagreement", "Looks", "look", "statistics_of"]

STATISTICS: Final = ("brightness", "contrast", "sharpness", "saturation", "warmth")
"""Columns of `statistics_of`."""

_BATCH = 32
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


@dataclass(frozen=True)
class Disagreement:
    """Where a teacher says something else than the student.

    Args:
        same: share of equal answers, float32 [N]; of one label an image 0 or 1.
        distance: total variation between both answers, 0..1, float32 [N]; mean over cells where pixels are answered.
        shares: of the teacher's answers by class, float32 [N, C].
    """

    same: FloatArray
    distance: FloatArray
    shares: FloatArray


@dataclass(frozen=True)
class Looks:
    """What is seen of N images.

    Args:
        statistics: float32 [N, 5], see `statistics_of`.
        features: what the last layer is given, mean over places, float32 [N, F]; None where the student, brought from
            elsewhere, has no such layer.
        confidence: largest probability, mean over cells, float32 [N].
        uncertainty: entropy of the answer over that of a guess, mean over cells, 0..1, float32 [N].
        probabilities: of the classes, mean over cells, float32 [N, C].
        shares: of the student's answers by class, float32 [N, C]; of one label an image a one and zeros.
        teacher: None where it was not asked.
    """

    statistics: FloatArray
    features: FloatArray | None
    confidence: FloatArray
    uncertainty: FloatArray
    probabilities: FloatArray
    shares: FloatArray
    teacher: Disagreement | None = None


def look(
    network: Network,
    records: Sequence[ImageRecord],
    cache: ImageCache,
    resize: Resize,
    progress: Progress,
    *,
    teacher: Predictor | None = None,
    chunk: int = _BATCH,
) -> Looks:
    """Show the fixed views of images to a student, and to its teacher where one is given.

    Args:
        network: the student.
        records: N images.
        cache: gives them.
        resize: shape of the fixed view.
        progress: told of each batch.
        teacher: answers in the student's classes.
        chunk: images whose answers by the teacher are held at once.
    """
    student = TorchPredictor(network)
    parts: list[dict[str, Any]] = []
    with _Features(network) as features, progress.task("looking", len(records)) as bar:
        for at in range(0, len(records), chunk):
            shown = [(r, (fixed_view(r.width, r.height, resize),)) for r in records[at : at + chunk]]
            batches = [shown[start : start + _BATCH] for start in range(0, len(shown), _BATCH)]
            probabilities = []
            for images in iterate(cache, batches, network.image_size, workers=2):
                said = softmax(student.predict(images))
                parts.append({"statistics": statistics_of(images), **_of_answers(said), **features.taken()})
                probabilities.append(said)
                bar.advance(len(images))
            if teacher is not None:
                said = softmax(teacher.predict_all(_rendering(cache, batches)))
                parts.append(_compared(said, np.concatenate(probabilities)))
    keys = dict.fromkeys(key for part in parts for key in part)
    joined: dict[str, Any] = {key: np.concatenate([part[key] for part in parts if key in part]) for key in keys}
    disagreement = [joined.pop(f"teacher_{key}", None) for key in ("same", "distance", "shares")]
    found = Disagreement(*disagreement) if teacher is not None else None
    return Looks(**{"features": None, **joined}, teacher=found)


def statistics_of(images: Images) -> FloatArray:
    """Plain statistics of what a network is shown.

    Brightness: mean luma, 0..1. Contrast: its standard deviation. Sharpness: decimal logarithm of the variance of its
    Laplacian over its own variance (Pech-Pacheco et al. 2000, ICPR, here not moved by contrast). Saturation: mean
    distance of the largest from the smallest channel, 0..1. Warmth: mean of red less blue, -1..1.

    Args:
        images: uint8 [N, H, W, 3].

    Returns:
        float32 [N, 5].
    """
    pixels = images.astype(np.float32) / 255
    luma = pixels @ _LUMA
    variance = luma.var(axis=(1, 2), dtype=np.float64)
    middle = luma[:, 1:-1, 1:-1]
    laplacian = luma[:, :-2, 1:-1] + luma[:, 2:, 1:-1] + luma[:, 1:-1, :-2] + luma[:, 1:-1, 2:] - 4 * middle
    # an even picture has neither edges nor contrast: a variance of a thousandth of a grey level is none
    sharpness = np.log10((laplacian.var(axis=(1, 2), dtype=np.float64) + 1e-8) / (variance + 1e-8))
    columns = (
        luma.mean(axis=(1, 2)),
        np.sqrt(variance),
        sharpness,
        (pixels.max(axis=3) - pixels.min(axis=3)).mean(axis=(1, 2)),
        (pixels[..., 0] - pixels[..., 2]).mean(axis=(1, 2)),
    )
    return np.stack([np.asarray(column, np.float32) for column in columns], axis=1)


class _Features:
    """Keeps what the last layer of a network is given, without a second forward pass."""

    def __init__(self, network: Network) -> None:
        self._taken: list[torch.Tensor] = []
        has = hasattr(network.backbone, "get_classifier")  # a network brought from elsewhere has none
        layer: nn.Module | None = network.classifier() if has else None
        self._handle = layer.register_forward_pre_hook(self._keep) if layer is not None else None

    def __enter__(self) -> _Features:
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle is not None:
            self._handle.remove()

    def taken(self) -> dict[str, FloatArray]:
        """Of the last batch, mean over places."""
        if self._handle is None:
            return {}
        maps = self._taken.pop().float()
        return {"features": (maps.mean(dim=(2, 3)) if maps.ndim == 4 else maps).cpu().numpy().copy()}

    def _keep(self, _: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        self._taken = [given[0].detach()]


def _rendering(cache: ImageCache, batches: Sequence[Sequence[tuple[ImageRecord, tuple[View]]]]) -> Batches:
    return lambda size: iterate(cache, batches, size, workers=2)


def _of_answers(probabilities: FloatArray) -> dict[str, FloatArray]:
    """Of float32 [N, C] or [N, h, w, C]."""
    cells = _cells(probabilities)
    entropy = -(cells * np.log(np.maximum(cells, 1e-12))).sum(axis=2)
    return {
        "confidence": cells.max(axis=2).mean(axis=1),
        "uncertainty": entropy.mean(axis=1) / np.float32(np.log(cells.shape[2])),
        "probabilities": cells.mean(axis=1),
        "shares": _shares(cells),
    }


def _compared(teacher: FloatArray, student: FloatArray) -> dict[str, FloatArray]:
    """Both on the student's grid."""
    if teacher.ndim == 4:
        teacher = scale_map(teacher, student.shape[1], student.shape[2])
    said, answered = _cells(teacher), _cells(student)
    same: npt.NDArray[np.bool_] = said.argmax(axis=2) == answered.argmax(axis=2)
    return {
        "teacher_same": same.mean(axis=1, dtype=np.float32),
        "teacher_distance": np.abs(said - answered).sum(axis=2).mean(axis=1) / 2,
        "teacher_shares": _shares(said),
    }


def _cells(probabilities: FloatArray) -> FloatArray:
    """float32 [N, cells, C]; a label an image is one cell."""
    return probabilities.reshape(len(probabilities), -1, probabilities.shape[-1])


def _shares(cells: FloatArray) -> FloatArray:
    classes = cells.shape[2]
    said = cells.argmax(axis=2)
    shares: FloatArray = np.stack([np.bincount(row, minlength=classes) / len(row) for row in said]).astype(np.float32)
    return shares
