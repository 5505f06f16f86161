"""What an epoch of training shows and what should be answered: truth under fresh views, or stored answers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, final

import numpy as np
import numpy.typing as npt

from distill.core.types import FloatArray, ImageRecord
from distill.data.views import View, ViewPlan, fixed_view
from distill.labels.store import LabelStore
from distill.labels.trust import at_temperature

__all__ = ["Examples", "Lesson", "Places", "PseudoLabelled", "Truth", "mix", "order_of", "smoothed_targets", "turns_of"]

Places = npt.NDArray[np.int64]
"""int64 [N, 2]: place of the image and number of the view."""


class Lesson(NamedTuple):
    """A batch: what is shown and what should be answered.

    Args:
        shown: N images, one view each.
        teacher: float32 [N, C], the teacher's answers; rows sum to one. Of pixels [N, g, g, C], one row a cell of a
            grid over the view; likewise below.
        truth: float32 [N, C], what a person said; rows without truth repeat the teacher's answer.
        truth_share: float32 [N] in 0..1, share of the truth in the loss.
        weight: float32 [N], how much an image (a cell) counts; 0 is ignored.
    """

    shown: list[tuple[ImageRecord, tuple[View]]]
    teacher: FloatArray
    truth: FloatArray
    truth_share: FloatArray
    weight: FloatArray


class Examples(ABC):
    """What an epoch shows, as a function of its number alone: a resumed run sees what an undisturbed one sees."""

    @abstractmethod
    def epoch(self, number: int) -> Places:
        """Images and views in the order of training."""

    @abstractmethod
    def lesson(self, places: Places) -> Lesson:
        """What these places show and should answer."""

    def fixed(self, limit: int) -> Lesson:
        """The fixed view of at most `limit` images, for the linear probe, which answers to pixels do not have."""
        raise NotImplementedError


@final
class Truth(Examples):
    """Labelled images under fresh random views: the fitted teacher and the control learn from these.

    Args:
        records: labelled images.
        class_names: of the data, in the order of the outputs.
        plan: draws the views.
        epoch_size: images an epoch; more than there are images repeats them under other views, so that the control
            takes as many steps as the student.
        label_smoothing: share of the target that is spread evenly (Szegedy et al. 2016, arXiv 1512.00567).
    """

    def __init__(
        self,
        records: Sequence[ImageRecord],
        class_names: Sequence[str],
        plan: ViewPlan,
        *,
        epoch_size: int,
        label_smoothing: float,
    ) -> None:
        self._records, self._plan, self._epoch_size = records, plan, epoch_size
        places = {name: place for place, name in enumerate(class_names)}
        truth = [places[str(record.label)] for record in records]
        self._targets = smoothed_targets(len(class_names), label_smoothing)[truth]

    def epoch(self, number: int) -> Places:
        passes = math.ceil(self._epoch_size / len(self._records))
        parts = []
        for each in range(passes):
            order = order_of(len(self._records), self._plan.seed, number, each)
            parts.append(np.stack([order, np.full(len(order), 2 + number * passes + each)], axis=1))
        return np.concatenate(parts)[: self._epoch_size]

    def lesson(self, places: Places) -> Lesson:
        shown = [(r := self._records[p], (self._plan.random(r.id, v, r.width, r.height),)) for p, v in places.tolist()]
        return self._true(shown, places[:, 0])

    def fixed(self, limit: int) -> Lesson:
        shown = [(r, (fixed_view(r.width, r.height, self._plan.resize),)) for r in self._records[:limit]]
        return self._true(shown, np.arange(len(shown)))

    def _true(self, shown: list[tuple[ImageRecord, tuple[View]]], places: npt.NDArray[np.int64]) -> Lesson:
        targets, ones = self._targets[places], np.ones(len(places), np.float32)
        return Lesson(shown, targets, targets, ones, ones)


@final
class PseudoLabelled(Examples):
    """Images under exactly the views that the teacher answered, each once an epoch, one stored view after another.

    Args:
        records: images of the store that are to be learnt from; one that is there twice shows another view each time.
        store: the teacher's answers.
        class_names: of the data, in the order of the outputs.
        weights: float32 [N], how much each record counts.
        temperature: of the teacher's calibration: stored answers p become p^(1/T), scaled to one.
        truth_weight: share of the truth in the loss of an image that has one.
        label_smoothing: share of that truth that is spread evenly.
        seed: of the order.
        labelled_share: share of an epoch that is images with truth; as many as there are if left out.
        views: how many of each image's stored views are shown; all if left out.
    """

    def __init__(
        self,
        records: Sequence[ImageRecord],
        store: LabelStore,
        class_names: Sequence[str],
        *,
        weights: FloatArray,
        temperature: float,
        truth_weight: float,
        label_smoothing: float,
        seed: int,
        labelled_share: float | None = None,
        views: int | None = None,
    ) -> None:
        self._records, self._store, self._weights = records, store, weights
        self._labelled_share = labelled_share
        self._views = store.views if views is None else views
        self._temperature, self._truth_weight, self._seed = temperature, truth_weight, seed
        self._positions = np.array([store.position(r.id) for r in records], dtype=np.int64)
        # Images take turns out of step, and so do the repetitions of one.
        self._first = np.array([int(r.id[:4], 16) for r in records], dtype=np.int64) + _repetitions(self._positions)
        self._smoothed = smoothed_targets(len(class_names), label_smoothing)
        places = {name: place for place, name in enumerate(class_names)}
        self._truth = np.array([-1 if r.label is None else places[r.label] for r in records], dtype=np.int64)

    def epoch(self, number: int) -> Places:
        rows, turns = turns_of(self._truth >= 0, self._labelled_share, self._seed, number).T
        return np.stack([rows, (turns + self._first[rows]) % self._views], axis=1)

    def lesson(self, places: Places) -> Lesson:
        rows = places[:, 0]
        views, teacher = self._store.read(self._positions[rows], places[:, 1])
        if self._temperature != 1.0:
            teacher = at_temperature(teacher, self._temperature)
        known = self._truth[rows] >= 0
        truth = np.where(known[:, None], self._smoothed[self._truth[rows]], teacher).astype(np.float32)
        share = np.where(known, self._truth_weight, 0.0).astype(np.float32)
        shown = [(self._records[row], (view,)) for row, view in zip(rows.tolist(), views, strict=True)]
        return Lesson(shown, teacher, truth, share, self._weights[rows])

    def fixed(self, limit: int) -> Lesson:
        count = min(limit, len(self._records))
        return self.lesson(np.stack([np.arange(count), np.zeros(count, np.int64)], axis=1))


def mix(count: int, alpha: float, seed: Sequence[int]) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Mixup (Zhang et al. 2018, arXiv 1710.09412) of a batch as numbers: partners and how much of itself each keeps.

    Args:
        count: images in the batch.
        alpha: both parameters of the beta distribution; above 0.
        seed: of the draw, such as (run, epoch, batch).

    Returns:
        int64 [N] places in the batch, and float32 [N] in 0.5..1: the larger share is the image's own, so that its
        weight stays its own.
    """
    rng = np.random.default_rng([*seed, 11])
    share = rng.beta(alpha, alpha, count)
    partners: npt.NDArray[np.int64] = rng.permutation(count)
    return partners, np.maximum(share, 1 - share).astype(np.float32)


def smoothed_targets(classes: int, amount: float) -> FloatArray:
    """Row c is the target of class c, float32 [C, C]."""
    targets: FloatArray = ((1 - amount) * np.eye(classes) + amount / classes).astype(np.float32)
    return targets


def _repetitions(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How often each value has been there before, int64 [N]."""
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]]) if len(values) else np.zeros(0, np.int64)
    times = np.empty(len(values), np.int64)
    times[order] = np.arange(len(values)) - np.repeat(starts, np.diff(np.r_[starts, len(values)]))
    return times


def turns_of(labelled: npt.NDArray[np.bool_], share: float | None, seed: int, epoch: int) -> Places:
    """What an epoch shows of images of which few have truth, as many as there are images.

    With 60 labelled images among 1,704, truth is 4 % of what the student sees. A share gives them a fixed part of every
    epoch, as semi-supervised training does with its labelled batches (Xie et al. 2020, arXiv 1904.12848): they come
    again under other views, and of the others an epoch shows a random part.

    Args:
        labelled: bool [N], which images have truth.
        share: 0..1, part of an epoch that is labelled images; None shows every image once. A share below that of the
            labelled images, or of images that are all alike, shows every image once, too.
        seed: of the order.
        epoch: its number.

    Returns:
        int64 [N, 2]: place of the image, and the number of its turn; no two turns of an image have the same number.
    """
    count, known = len(labelled), int(labelled.sum())
    wanted = 0 if share is None else round(share * count)
    if wanted <= known or known in (0, count):
        return np.stack([order_of(count, seed, epoch, 0), np.full(count, epoch)], axis=1)
    passes = math.ceil(wanted / known)
    places, others = np.flatnonzero(labelled), np.flatnonzero(~labelled)
    parts = [(places[order_of(known, seed, epoch, 1 + each)], epoch * passes + each) for each in range(passes)]
    again = np.concatenate([np.stack([part, np.full(known, turn)], axis=1) for part, turn in parts])[:wanted]
    rest = others[order_of(len(others), seed, epoch, 1 + passes)][: count - wanted]
    shown = np.concatenate([again, np.stack([rest, np.full(len(rest), epoch)], axis=1)])
    return shown[order_of(count, seed, epoch, 0)]


def order_of(count: int, seed: int, epoch: int, number: int) -> npt.NDArray[np.int64]:
    """A random order of `count` things that depends on the other numbers alone, int64 [count]."""
    order: npt.NDArray[np.int64] = np.random.default_rng([seed, epoch, number, 7]).permutation(count)
    return order
