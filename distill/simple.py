"""Baselines that hardly learn: what a score is worth shows beside what is had without looking, or without training.

A test set of which nine in ten images are one class gives 90 % to who always says so; a network that scores the same on
black images has learnt the classes' frequencies; and where the features of an untrained network and a line through them
do as well, no training was needed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distill.core.task import Task
from distill.core.types import FloatArray, ImageRecord, Images, Predictor
from distill.data.batches import ImageCache, iterate
from distill.data.mask_file import read_mask
from distill.data.views import Resize, fixed_view
from distill.torch_predictor import Network

__all__ = ["Blind", "Frequencies", "Neighbours"]

_NEIGHBOURS = 5
_BATCH = 32


class Frequencies(Predictor):
    """Answers how frequent the classes are among labelled images, whatever it is shown: the majority class wins.

    Args:
        task: its classes, and whether they are of pixels.
        known: labelled training images.
        size: side of the images that it takes, in pixels.
    """

    def __init__(self, task: Task, known: Sequence[ImageRecord], size: int) -> None:
        self._classes, self._by_pixel, self._size = task.class_names, task.by_pixel, size
        counts = np.zeros(256)
        for record in known:
            if record.mask is not None:
                counts += np.bincount(read_mask(record.mask).reshape(-1), minlength=256)
            else:
                counts[task.class_names.index(str(record.label))] += 1
        shares = counts[: len(task.class_names)] + 1e-6
        self._logits: FloatArray = np.log(shares / shares.sum()).astype(np.float32)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._classes

    @property
    def image_size(self) -> int:
        return self._size

    def predict(self, images: Images) -> FloatArray:
        return np.tile(self._logits, (len(images), 1, 1, 1) if self._by_pixel else (len(images), 1))

    def digest(self) -> str:
        return self._logits.tobytes().hex()


class Blind(Predictor):
    """A trained predictor that is shown black images only: it must be worse than with its eyes open.

    Args:
        predictor: what answers.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._said = predictor.predict(np.zeros((1, predictor.image_size, predictor.image_size, 3), np.uint8))

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._predictor.class_names

    @property
    def image_size(self) -> int:
        return self._predictor.image_size

    def predict(self, images: Images) -> FloatArray:
        return np.repeat(self._said, len(images), axis=0)

    def digest(self) -> str:
        return f"blind {self._predictor.digest()}"


class Neighbours(Predictor):
    """Asks the 5 nearest labelled images, by the cosine of a network's features before its last layer.

    Args:
        network: of images, not of pixels; it is not trained.
        known: labelled training images.
        cache: gives the images.
        resize: shape of the fixed view.
    """

    def __init__(self, network: Network, known: Sequence[ImageRecord], cache: ImageCache, resize: Resize) -> None:
        from sklearn.neighbors import KNeighborsClassifier

        self._network = network.eval()
        shown = [(r, (fixed_view(r.width, r.height, resize),)) for r in known]
        batches = [shown[at : at + _BATCH] for at in range(0, len(shown), _BATCH)]
        features = np.concatenate([self._features(i) for i in iterate(cache, batches, network.image_size, workers=2)])
        labels = [network.class_names.index(str(r.label)) for r in known]
        self._found = KNeighborsClassifier(min(_NEIGHBOURS, len(labels)), metric="cosine").fit(features, labels)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._network.class_names

    @property
    def image_size(self) -> int:
        return self._network.image_size

    def predict(self, images: Images) -> FloatArray:
        shares = np.full((len(images), len(self.class_names)), 1e-6, np.float32)
        shares[:, self._found.classes_] += self._found.predict_proba(self._features(images))
        logits: FloatArray = np.log(shares)
        return logits

    def digest(self) -> str:
        return "neighbours"

    def _features(self, images: Images) -> FloatArray:
        import torch

        with torch.inference_mode():
            device = next(self._network.parameters()).device
            found: FloatArray = self._network.features(torch.from_numpy(images).to(device)).float().cpu().numpy()
        return found
