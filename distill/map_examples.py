"""What an epoch shows of images whose pixels are answered: masks and stored maps, cut as the image is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, final

import numpy as np
import numpy.typing as npt

from distill.core.dense import IGNORED, scale_map
from distill.core.types import FloatArray, ImageRecord
from distill.data.mask_file import read_mask
from distill.data.views import View, ViewPlan, render_mask
from distill.examples import Examples, Lesson, Places, order_of, smoothed_targets, turns_of
from distill.labels.maps import MapStore
from distill.labels.trust import Below, pixel_weights

__all__ = ["Grid", "PseudoMasks", "TruthMasks", "cells_of"]

_RANDOM = 2  # number of the first random view, as in the store of views


class Grid(NamedTuple):
    """What is shown, and in how many cells it is to be answered.

    Args:
        size: side in pixels of what the student is shown.
        cells: cells a side; divides `size`.
    """

    size: int
    cells: int


def cells_of(mask: npt.NDArray[np.uint8], cells: int, classes: int) -> tuple[FloatArray, FloatArray]:
    """Shares of classes in the cells of a mask: a cell that an edge crosses belongs to both sides.

    Args:
        mask: uint8 [S, S], places of classes, 255 ignored; S is a multiple of `cells`.
        cells: cells a side.
        classes: C.

    Returns:
        float32 [cells, cells, C] shares among the pixels that are not ignored (zeros where all are), and float32
        [cells, cells], the share of these pixels.
    """
    side = len(mask) // cells
    rows = np.arange(len(mask)) // side
    known = mask != IGNORED
    place = (rows[:, None] * cells + rows[None, :]) * classes + np.where(known, mask, 0)
    counts = np.bincount(place[known], minlength=cells * cells * classes).reshape(cells, cells, classes)
    total = counts.sum(axis=-1, keepdims=True)
    shares = (counts / np.maximum(total, 1)).astype(np.float32)
    return shares, (total[..., 0] / side**2).astype(np.float32)


@final
class TruthMasks(Examples):
    """Images with masks under fresh random views: the fitted teacher and the control learn from these.

    Args:
        records: images with masks.
        classes: C.
        plan: draws the views.
        grid: of what is shown and answered.
        epoch_size: images an epoch; more than there are images repeats them under other views.
        label_smoothing: share of the target that is spread evenly.
    """

    def __init__(
        self,
        records: Sequence[ImageRecord],
        classes: int,
        plan: ViewPlan,
        grid: Grid,
        *,
        epoch_size: int,
        label_smoothing: float,
    ) -> None:
        self._records, self._plan, self._epoch_size, self._grid = records, plan, epoch_size, grid
        self._smoothed = smoothed_targets(classes, label_smoothing)

    def epoch(self, number: int) -> Places:
        passes = math.ceil(self._epoch_size / len(self._records))
        parts = []
        for each in range(passes):
            order = order_of(len(self._records), self._plan.seed, number, each)
            parts.append(np.stack([order, np.full(len(order), _RANDOM + number * passes + each)], axis=1))
        return np.concatenate(parts)[: self._epoch_size]

    def lesson(self, places: Places) -> Lesson:
        shown = _shown(self._records, places, self._plan)
        cut = [truth_cells(record, view, self._grid, self._smoothed) for record, (view,) in shown]
        targets, known = (np.stack(values) for values in zip(*cut, strict=True))
        return Lesson(shown, targets, targets, np.ones_like(known), known)


@final
class PseudoMasks(Examples):
    """Every training image under fresh random views; the teacher's stored map is cut as the image is.

    Geometry is exact: a crop of the map is what the teacher said of these pixels when it saw the whole image. Colour
    changes are the student's alone.

    Args:
        records: images of the store.
        store: the teacher's answers.
        classes: C.
        plan: draws the views.
        grid: of what is shown and answered.
        hard: take the most probable class of each pixel instead of the soft map.
        min_confidence: pixels that the teacher was less sure of are not trusted; None trusts all.
        below: what becomes of these.
        truth_weight: share of the truth in the target of pixels that have one.
        label_smoothing: share of that truth that is spread evenly.
        labelled_share: share of an epoch that is images with truth; as many as there are if left out.
    """

    def __init__(
        self,
        records: Sequence[ImageRecord],
        store: MapStore,
        classes: int,
        plan: ViewPlan,
        grid: Grid,
        *,
        hard: bool,
        min_confidence: float | None,
        below: Below,
        truth_weight: float,
        label_smoothing: float,
        labelled_share: float | None = None,
    ) -> None:
        self._labelled, self._labelled_share = np.array([r.mask is not None for r in records]), labelled_share
        self._records, self._store, self._plan, self._grid = records, store, plan, grid
        self._hard, self._min_confidence, self._below = hard, min_confidence, below
        self._truth_weight, self._classes = truth_weight, classes
        self._positions = [store.position(record.id) for record in records]
        self._smoothed = smoothed_targets(classes, label_smoothing)

    def epoch(self, number: int) -> Places:
        places, turns = turns_of(self._labelled, self._labelled_share, self._plan.seed, number).T
        return np.stack([places, _RANDOM + turns], axis=1)

    def lesson(self, places: Places) -> Lesson:
        shown = _shown(self._records, places, self._plan)
        rows = [
            self._row(record, view, self._positions[place])
            for (record, (view,)), place in zip(shown, places[:, 0].tolist(), strict=True)
        ]
        teacher, truth, share, weight = (np.stack(values) for values in zip(*rows, strict=True))
        return Lesson(shown, teacher, truth, share, weight)

    def _row(
        self, record: ImageRecord, view: View, place: int
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        cells = self._grid.cells
        weight = np.ones((cells, cells), np.float32)
        if self._hard or self._min_confidence is not None:
            mask, confidence = self._store.hard(place)
            if self._min_confidence is not None:
                pixels = pixel_weights(confidence, self._min_confidence, self._below)
                weight = _cut(pixels[..., None], record, view, cells)[..., 0]
        if self._hard:
            teacher, _ = cells_of(_rendered(mask, record, view, self._grid.size), cells, self._classes)
        else:
            teacher = _cut(self._store.soft(place), record, view, cells)
        if record.mask is None:
            return teacher, teacher, np.zeros_like(weight), weight
        truth, known = truth_cells(record, view, self._grid, self._smoothed)
        # What nobody marked is the teacher's; what a person marked counts, however unsure the teacher was.
        share = np.where(known > 0, self._truth_weight * known, 0.0).astype(np.float32)
        truth = np.where(known[..., None] > 0, truth, teacher)
        return teacher, truth, share, np.maximum(weight, known)


def truth_cells(record: ImageRecord, view: View, grid: Grid, smoothed: FloatArray) -> tuple[FloatArray, FloatArray]:
    """What a person said of a view: float32 [g, g, C] shares of classes, smoothed, and [g, g] how much is known.

    A cell of which nothing is known has equal shares: rows of a lesson sum to one, also where their weight is zero.
    """
    mask = render_mask(read_mask(str(record.mask)), view, grid.size)
    shares, known = cells_of(mask, grid.cells, len(smoothed))
    return np.where(known[..., None] > 0, shares @ smoothed, np.float32(1 / len(smoothed))), known


def _shown(records: Sequence[ImageRecord], places: Places, plan: ViewPlan) -> list[tuple[ImageRecord, tuple[View]]]:
    return [(r := records[p], (plan.random(r.id, v, r.width, r.height),)) for p, v in places.tolist()]


def _cut(values: FloatArray, record: ImageRecord, view: View, cells: int) -> FloatArray:
    """A view's part of a map over the whole image, float32 [cells, cells, C]."""
    right, bottom = view.left + view.width, view.top + view.height
    box = (view.left / record.width, view.top / record.height, right / record.width, bottom / record.height)
    cut = scale_map(values, cells, cells, box)
    return np.ascontiguousarray(cut[:, ::-1]) if view.flip else cut


def _rendered(mask: npt.NDArray[np.uint8], record: ImageRecord, view: View, size: int) -> npt.NDArray[np.uint8]:
    """A view's part of a stored mask, which is smaller than the image where that is very large."""
    if mask.shape == (record.height, record.width):
        return render_mask(mask, view, size)
    across, down = mask.shape[1] / record.width, mask.shape[0] / record.height
    left, top = int(view.left * across), int(view.top * down)
    width, height = max(1, round(view.width * across)), max(1, round(view.height * down))
    return render_mask(mask, view._replace(left=left, top=top, width=width, height=height), size)
