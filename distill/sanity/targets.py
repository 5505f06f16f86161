"""What is asked for belongs to what is shown: by name, through crops and flips, for every class."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt
from PIL import Image

from distill.core.dense import IGNORED
from distill.core.overlay import class_colors, overlay
from distill.core.types import FloatArray, ImageRecord
from distill.data.mask_file import read_mask
from distill.data.views import View, render
from distill.examples import Lesson
from distill.labels.maps import MapStore, of_size
from distill.labels.store import LabelStore
from distill.sanity.check import Seen
from distill.sanity.subject import Subject, mixed_answers

__all__ = ["check_classes", "check_targets", "check_truth_and_teacher"]

_AGREE = 0.97  # share of cells away from edges; 1.00 on all data seen so far
_UNSURE = 0.6  # cells that the teacher is less sure of are not compared: between two cells either may win
_UNKNOWN = 254  # value of a painted cell that is not compared
_OFTEN, _OFTEN_BY_PIXEL = 3, 6  # images with a class before it is strange that the teacher never names it
_LOOKED_UP = 64  # stored answers: each takes all views of its image
_ENOUGH, _ENOUGH_MASKS = 30, 4  # labelled images to compare truth and teacher on


def check_targets(subject: Subject) -> Seen:
    """Truth and stored answers of a lesson are those of the images and views that it shows."""
    return _maps(subject) if subject.task.by_pixel else _labels(subject)


def check_classes(subject: Subject) -> Seen:
    """There is an output for each class, and each class that truth or teacher may name is asked for."""
    names, lesson = subject.task.class_names, subject.many
    outputs = subject.network(answering=False).class_names
    expected = f"{len(names)} outputs in the order of the data, and every class of these images among the targets"
    if tuple(outputs) != tuple(names):
        return Seen(False, expected, f"outputs {', '.join(outputs)}; the data have {', '.join(names)}")
    if lesson.truth.shape[-1] != len(names):
        return Seen(False, expected, f"targets of {lesson.truth.shape[-1]} classes")
    known = Counter[int]()
    for record, (view,) in lesson.shown:
        known.update(_truth_of(subject, record, view))
    told = lesson.truth[lesson.truth_share * lesson.weight > 0] if known else lesson.truth[:0]
    asked = set(np.unique(told.reshape(-1, len(names)).argmax(axis=-1)).tolist()) if told.size else set()
    taught = subject.store is None or subject.setting("truth_weight", 1.0) > 0  # else the teacher alone is asked for
    lost = [names[place] for place in sorted(known) if place not in asked] if taught else []
    teacher = lesson.teacher.reshape(-1, len(names)).max(axis=0)
    often = _OFTEN_BY_PIXEL if subject.task.by_pixel else _OFTEN
    never = [
        names[place]
        for place, count in sorted(known.items())
        if subject.store is not None and count >= often and teacher[place] < 1e-3
    ]
    told_of = f"{len(known)} classes in the truth of {len(lesson.shown)} images"
    saw = f"{told_of}, {'all asked for' if taught else 'which the teacher alone answers for'}"
    if lost or never:
        saw = told_of
    if lost:
        saw += f"; truth names but no target asks for {', '.join(lost)}"
    if never:
        saw += f"; the teacher's answers never name {', '.join(never)}"
    figures = {"known": {names[place]: count for place, count in sorted(known.items())}, "lost": lost, "never": never}
    return Seen(not lost and not never, expected, saw, figures)


def check_truth_and_teacher(subject: Subject) -> Seen:
    """On labelled images the teacher says what a person said more often than in shuffled order."""
    expected = "teacher and truth agree more often than truth in shuffled order would, by a standard error"
    lesson = subject.many
    chosen = lesson.truth_share > 0
    if subject.store is None:
        return Seen(None, expected, "it learns from truth alone")
    if subject.task.by_pixel:
        chosen &= (lesson.weight > 0) & (lesson.truth.max(axis=-1) > 0.8)
    truth, teacher = lesson.truth[chosen].argmax(axis=-1), lesson.teacher[chosen].argmax(axis=-1)
    images = int((lesson.truth_share > 0).reshape(len(lesson.shown), -1).any(axis=1).sum())
    if images < (_ENOUGH_MASKS if subject.task.by_pixel else _ENOUGH):
        return Seen(None, expected, f"{images} labelled images among the first {len(lesson.shown)} are too few to tell")
    classes = lesson.truth.shape[-1]
    shares = [np.bincount(of, minlength=classes) / len(of) for of in (truth, teacher)]
    chance, agree = float(shares[0] @ shares[1]), float((truth == teacher).mean())
    error = (chance * (1 - chance) / images) ** 0.5  # cells of an image are no independent samples
    bound = chance + (0.0 if subject.task.by_pixel else error)
    saw = f"{agree:.3f} of {images} labelled images, {chance:.3f} in shuffled order (standard error {error:.3f})"
    holds = agree > bound or chance > 0.98  # one class alone cannot be shuffled
    return Seen(holds, expected, saw, {"agreement": agree, "shuffled": chance, "error": error, "images": images})


def _labels(subject: Subject) -> Seen:
    lesson, names = subject.many, subject.task.class_names
    expected = "each target is the label that its image has, and the stored answer to the view that is shown"
    wrong, labelled, example = 0, 0, ""
    for (record, _), truth, share in zip(lesson.shown, lesson.truth, lesson.truth_share, strict=True):
        if record.label is None or share == 0:
            continue
        labelled, asked = labelled + 1, names[min(int(truth.argmax()), len(names) - 1)]
        if asked != record.label:
            wrong += 1
            example = example or f"{record.path} is {record.label}, but {asked} is asked for"
    compared, foreign = _stored(subject, lesson)
    saw = f"{wrong} of {labelled} labels and {foreign} of {compared} stored answers are of others"
    figures = {"labelled": labelled, "wrong": wrong, "stored": compared, "foreign": foreign}
    return Seen(wrong + foreign == 0, expected, f"{saw}: {example}" if example else saw, figures)


def _stored(subject: Subject, lesson: Lesson) -> tuple[int, int]:
    """How many of the lesson's answers were looked up again by image and view, and how many are not those."""
    store = subject.store
    if not isinstance(store, LabelStore):
        return 0, 0
    foreign = 0
    numbers = np.arange(store.views)
    looked_up = list(zip(lesson.shown, lesson.teacher, strict=True))[:_LOOKED_UP]
    for (record, (view,)), answer in looked_up:
        views, answers = store.read(np.full(store.views, store.position(record.id)), numbers)
        top = int(answer.argmax())  # a temperature keeps the order
        foreign += view not in views or float(answers[views.index(view)].max() - answers[views.index(view)][top]) > 1e-3
    return len(looked_up), foreign


def _maps(subject: Subject) -> Seen:
    """A mask is painted, the painting is cut as a photo is, and compared with the target."""
    lesson, size = subject.many, subject.image_size
    mirrored = sum(view.flip for _, (view,) in lesson.shown)
    right = other = cells = unmarked = 0
    worst: tuple[float, int, npt.NDArray[np.int64]] | None = None
    for number, (record, (view,)) in enumerate(lesson.shown):
        for painted, target, wanted in _painted(subject, record, lesson, number):
            seen = _cells(render(painted, view._replace(brightness=0, contrast=0, saturation=0), size), len(target))
            said = target.argmax(axis=-1)
            if wanted is not None:  # what nobody marked must not count as truth
                unmarked += int(((seen == IGNORED) & (wanted > 0)).sum())
            known = seen < _UNKNOWN
            if not known.any():
                continue
            same = (said == seen)[known]
            right, cells = right + int(same.sum()), cells + same.size
            other += int((said[:, ::-1] == seen)[known].sum())
            if worst is None or same.mean() < worst[0]:
                worst = (float(same.mean()), number, seen)
    expected = f"at least {_AGREE:.0%} of the cells away from edges as in the mask painted and cut like a photo"
    if not cells:
        return Seen(None, expected, "no cell is of one class alone")
    share = right / cells
    saw = f"{share:.1%} of {cells} cells in {len(lesson.shown)} views, {mirrored} of them mirrored"
    if share < _AGREE:
        saw += f"; with the targets mirrored once more {other / cells:.1%}"
    if unmarked:
        saw += f"; {unmarked} cells that nobody marked count as truth"
    figures = {"agree": share, "mirrored_agree": other / cells, "cells": cells, "unmarked": unmarked}
    pictures = {"targets": _side_by_side(subject, lesson, worst[1])} if worst else {}
    return Seen(share >= _AGREE and not unmarked, expected, saw, figures, pictures)


def _painted(
    subject: Subject, record: ImageRecord, lesson: Lesson, number: int
) -> list[tuple[Image.Image, FloatArray, FloatArray | None]]:
    """Masks as grey pictures of the whole image, each with the target made of it and how much of that is truth."""
    made: list[tuple[Image.Image, FloatArray, FloatArray | None]] = []
    if record.mask is not None and lesson.truth_share[number].any():
        counts = lesson.truth_share[number] * lesson.weight[number]
        made.append((_grey(read_mask(record.mask)), lesson.truth[number], counts))
    if isinstance(subject.store, MapStore) and subject.setting("loss") != "hard":
        soft = subject.store.soft(subject.store.position(record.id))
        coarse = soft.argmax(axis=-1).astype(np.uint8)
        alone = soft.max(axis=-1) >= _UNSURE
        for axis in (0, 1):
            for step in (1, -1):
                alone &= coarse == np.roll(coarse, step, axis)
        painted = np.where(alone, coarse, _UNKNOWN).astype(np.uint8)
        made.append((_grey(of_size(painted, record.width, record.height)), lesson.teacher[number], None))
    return made


def _grey(mask: npt.NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(mask).convert("RGB")


def _cells(painted: npt.NDArray[np.uint8], cells: int) -> npt.NDArray[np.int64]:
    """The class of each cell whose pixels all have one value, and those around it, else `_UNKNOWN`; [cells, cells]."""
    from scipy import ndimage

    side = len(painted) // cells
    values = painted[..., 0].astype(np.int64).reshape(cells, side, cells, side)
    lowest, highest = values.min(axis=(1, 3)), values.max(axis=(1, 3))
    lowest, highest = ndimage.minimum_filter(lowest, size=3), ndimage.maximum_filter(highest, size=3)
    return np.where(lowest == highest, lowest, _UNKNOWN)


def _truth_of(subject: Subject, record: ImageRecord, view: View) -> set[int]:
    """Places of the classes that a person named in a view; of masks, those that fill cells."""
    if record.label is not None:
        return {subject.task.class_names.index(record.label)}
    if record.mask is None:
        return set()
    cells = len(subject.many.truth[0])
    plain = view._replace(brightness=0, contrast=0, saturation=0)
    seen = _cells(render(_grey(read_mask(record.mask)), plain, subject.image_size), cells)
    return set(np.unique(seen[seen < _UNKNOWN]).tolist())


def _side_by_side(subject: Subject, lesson: Lesson, number: int) -> npt.NDArray[np.uint8]:
    """A view with what is asked for laid over it."""
    (record, (view,)) = lesson.shown[number]
    picture = render(subject.cache.get(record), view, subject.image_size)
    mask = mixed_answers(lesson)[number].argmax(axis=-1).astype(np.uint8)
    mask[lesson.weight[number] == 0] = IGNORED
    side = len(picture) // len(mask)
    laid = overlay(picture, mask.repeat(side, 0).repeat(side, 1), class_colors(len(subject.task.class_names)))
    return np.concatenate([picture, laid], axis=1)
