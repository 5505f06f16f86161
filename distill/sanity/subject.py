"""What is checked: a student as it is built, what it is to learn from, and how."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from distill import train
from distill.core.settings import TrainSettings
from distill.core.task import Task
from distill.core.types import FloatArray, ImageRecord, Images
from distill.data.batches import ImageCache, iterate
from distill.data.views import Resize
from distill.examples import Examples, Lesson
from distill.labels.maps import MapStore
from distill.labels.shards import kind_of
from distill.labels.store import LabelStore
from distill.losses import LessonLoss, Targets
from distill.torch_predictor import Network

__all__ = ["Pictures", "Subject", "hardened", "mixed_answers", "pure_cells", "store_in", "without_dropout"]

Pictures = dict[str, Images]
"""Pictures of a check by file name without ending, uint8 [H, W, 3]."""

_IMAGES = 8  # in a lesson that is looked at closely
_ROWS = 1024  # in one of which only the answers are read: a store gives them in milliseconds
_MAPS = 12  # where answers are maps each image of a lesson costs a decoded mask


@dataclass(frozen=True)
class Subject:
    """A training before its first step.

    Args:
        student: as it was built, before its first step; copies of it are looked at.
        examples: what it learns from.
        loss: what it minimises.
        task: says what is right.
        settings: of the training.
        validation: labelled images, for the linear probe.
        cache: gives the images.
        resize: shape of the fixed view.
        seed: of the run.
        store: the teacher's answers; None where it learns from truth alone.
        device: where networks run.
    """

    student: Network
    examples: Examples
    loss: LessonLoss
    task: Task
    settings: TrainSettings
    validation: Sequence[ImageRecord]
    cache: ImageCache
    resize: Resize
    seed: int
    store: LabelStore | MapStore | None = None
    device: str = "cpu"

    @cached_property
    def plan(self) -> train.Plan:
        """What the `auto` settings become."""
        return train.decide(self.settings, self.student)

    @cached_property
    def image_size(self) -> int:
        """Side in pixels of what the student is shown."""
        size: int = self.student.image_size
        return size

    @cached_property
    def lesson(self) -> Lesson:
        """The first images of the first epoch."""
        return self.examples.lesson(self.examples.epoch(0)[:_IMAGES])

    @cached_property
    def pixels(self) -> Images:
        """What that lesson shows, uint8 [N, S, S, 3], by the way that training takes."""
        return self.shown(self.lesson)

    @cached_property
    def many(self) -> Lesson:
        """More of the first epoch, for checks that look at answers alone."""
        return self.examples.lesson(self.examples.epoch(0)[: _MAPS if self.task.by_pixel else _ROWS])

    def shown(self, lesson: Lesson) -> Images:
        """What a lesson shows, uint8 [N, S, S, 3]."""
        return next(iterate(self.cache, [lesson.shown], self.image_size, workers=1))

    def network(self, *, answering: bool) -> Network:
        """A copy of the student on the device.

        Args:
            answering: with a last layer of random weights, so that its answers tell images apart; otherwise as built.
        """
        torch.manual_seed(self.seed)
        network: Network = copy.deepcopy(self.student).to(self.device)
        if answering:
            classifier = network.classifier()
            nn.init.normal_(classifier.weight, std=classifier.weight[0].numel() ** -0.5)
            if classifier.bias is not None:
                nn.init.zeros_(classifier.bias)
        return network

    @cached_property
    def begun(self) -> Network:
        """The student as its first step finds it; a linear probe is fitted once."""
        network = self.network(answering=False)
        train.begin(network, self.plan, self.examples, self.validation, cache=self.cache, resize=self.resize)
        return network

    def batch(self, lesson: Lesson) -> tuple[torch.Tensor, Targets]:
        """A lesson on the device as the training has it."""
        made = train.Batch.of(lesson, self.shown(lesson), torch.device(self.device))
        return made.images, Targets(*made[1:])

    def setting(self, name: str, default: Any = None) -> Any:
        """A setting that only a student's training has."""
        return getattr(self.settings, name, default)


def store_in(folder: Path) -> LabelStore | MapStore:
    """The teacher's answers in a finished folder of the stage `labels`."""
    return MapStore(folder) if kind_of(folder) == "maps" else LabelStore(folder)


def mixed_answers(lesson: Lesson) -> FloatArray:
    """What a lesson asks for, float32 [N, C] or [N, g, g, C]: the teacher's answer and the truth by its share."""
    mixed: FloatArray = lesson.teacher + (lesson.truth - lesson.teacher) * lesson.truth_share[..., None]
    return mixed


def hardened(lesson: Lesson) -> Lesson:
    """The same lesson asking for its most probable classes alone: all losses can then come down to zero."""
    answers = mixed_answers(lesson)
    sure = np.eye(answers.shape[-1], dtype=np.float32)[answers.argmax(axis=-1)]
    return lesson._replace(teacher=sure, truth=sure)


def pure_cells(lesson: Lesson, reach: int = 2) -> Lesson:
    """A lesson of maps without the cells near an edge, which a coarse grid of answers cannot follow.

    Args:
        lesson: hardened.
        reach: cells to each side that have to be of one class.
    """
    from scipy import ndimage

    classes = lesson.truth.argmax(axis=-1)
    window = (1, 2 * reach + 1, 2 * reach + 1)
    lowest, highest = (look(classes, size=window) for look in (ndimage.minimum_filter, ndimage.maximum_filter))
    return lesson._replace(weight=np.where(lowest == highest, lesson.weight, 0).astype(np.float32))


def without_dropout(network: Network) -> None:
    """Switch dropout off: a handful of images cannot be learnt to zero with it."""
    for module in network.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) or type(module).__name__ == "DropPath":
            module.eval()
