"""What verifying any label store takes: the teacher that filled it, the same images, a sample of whole batches."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from distill.config import RunConfig
from distill.core.errors import DataError, StoreError
from distill.core.files import sha256_of_stream
from distill.core.settings import TeacherSettings
from distill.core.types import Predictor
from distill.data.batches import ImageCache
from distill.data.opener import opened
from distill.labels.label import Shown
from distill.labels.map_stat import LabelledMaps
from distill.labels.shards import precisions
from distill.labels.stat import Labelled
from distill.teaching import as_labeller, build_teacher, choose_precision, load_fitted

__all__ = ["AGAIN", "ALLOWED", "cut_of", "number_of", "same_images", "same_labeller", "sampled"]

ALLOWED: Final = 0.01
"""Largest difference of a probability that passes: other machines and library versions round differently, which in
bfloat16 (8 bits) moves answers by up to about 0.005; another teacher moves them by more."""

AGAIN: Final = "run the same command again to label anew"
"""What helps against a store that is not what it should be."""


def same_labeller(labelled: Labelled | LabelledMaps, config: RunConfig, cache: ImageCache) -> tuple[Predictor, str]:
    """Build the teacher as it filled a store.

    Returns:
        The teacher in the classes of the data, and its precision for people.

    Raises:
        StoreError: it is another one, or would answer in another precision.
    """
    settings, classes = config.teacher, labelled.manifest.classes
    teacher = build_teacher(config, classes)
    load_fitted(teacher, settings, labelled.run.folder("teacher"))
    labeller = as_labeller(teacher, classes, settings)
    _same_teacher(labeller, teacher, labelled, settings)
    return labeller, _same_precision(teacher, labelled, settings, cache)


def sampled(views: int, a_shard: int, batch_size: int, sample: int, seed: int) -> dict[int, list[int]]:
    """Batches to ask about, by shard: as many as hold `sample` views, drawn without repetition.

    Args:
        views: in the store.
        a_shard: views in each shard but the last.
        batch_size: views in each batch of a shard but the last.
        sample: views to ask about, rounded up to whole batches.
        seed: of the draw.
    """
    every = [
        (number, place)
        for number, start in enumerate(range(0, views, a_shard))
        for place in range(-(-min(a_shard, views - start) // batch_size))
    ]
    count = min(len(every), -(-sample // batch_size))
    chosen: dict[int, list[int]] = {}
    for at in np.sort(np.random.default_rng(seed).choice(len(every), count, replace=False)).tolist():
        number, place = every[at]
        chosen.setdefault(number, []).append(place)
    return chosen


def same_images(batches: Sequence[Sequence[Shown]]) -> None:
    """Check that the files are those that were labelled.

    Raises:
        DataError: one has changed or vanished.
    """
    for record in {record.id: record for batch in batches for record, _ in batch}.values():
        try:
            with opened(record.path) as stream:
                same = sha256_of_stream(stream) == record.id
        except OSError:
            same = False
        if not same:
            raise DataError(f"{record.path} changed or vanished since it was labelled; {AGAIN}")


def cut_of(taken_over: int) -> str:
    """How the batches are cut, for people; images of an earlier labelling were asked about beside others."""
    return f"cut otherwise than when {taken_over} of the images were labelled" if taken_over else "cut as when labelled"


def number_of(number: int, name: str, ending: str = "s") -> str:
    """`1 shard`, `2 shards`."""
    return f"{number} {name}{'' if number == 1 else ending}"


def _same_teacher(
    labeller: Predictor, teacher: Predictor, labelled: Labelled | LabelledMaps, settings: TeacherSettings
) -> None:
    store = labelled.store
    then, now = store.facts["teacher"], labeller.digest()
    if now == then["digest"]:
        return
    changed = []
    if labeller.image_size != then["image_size"]:
        changed.append(f"its image size was {then['image_size']}, is {labeller.image_size}")
    if settings.class_map != store.facts["class_map"]:
        changed.append("its class_map has changed")
    for other in ("none", "mirror"):
        if other != settings.test_time_augmentation:
            before = settings.model_copy(update={"test_time_augmentation": other})
            if as_labeller(teacher, labelled.manifest.classes, before).digest() == then["digest"]:
                changed.append(f"test_time_augmentation was {other}, is {settings.test_time_augmentation}")
    what = "; ".join(changed) or "its weights, normalisation, model, tiles or test_time_scales have changed"
    raise StoreError(
        f"the teacher is not the one that filled the store: {what} (digest {then['digest'][:12]} then, {now[:12]} now,"
        f" then called {then['name']}); {AGAIN}"
    )


def _same_precision(
    teacher: Predictor, labelled: Labelled | LabelledMaps, settings: TeacherSettings, cache: ImageCache
) -> str:
    """Let the teacher answer in the recorded precision."""
    recorded = labelled.store.folder / "precision.json"
    with tempfile.TemporaryDirectory() as folder:  # a choice that was not recorded must not be written into the store
        if recorded.exists():
            shutil.copy(recorded, folder)
        precision = choose_precision(teacher, settings, labelled.records, cache, Path(folder))
    then = str(labelled.store.facts["precision"])
    if precisions(precision) != precisions(then):
        raise StoreError(f"the teacher answered in {then}, now it would in {precision}; {AGAIN}")
    return then
