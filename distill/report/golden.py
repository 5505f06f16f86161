"""How the golden set's groups and classes did, and whether the promises about them hold."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from distill.config import DataSettings, Promise, RunConfig
from distill.core.errors import DataError
from distill.core.progress import Progress
from distill.core.task import Answers, Figure, Profile, Task
from distill.core.types import ImageRecord
from distill.data.candidate import first_of, mask_source
from distill.data.groups import SMALL, find_groups
from distill.data.mask_file import read_mask
from distill.data.masks import Wanted, write_masks
from distill.data.sources import read_columns

__all__ = ["check_promises", "group_rows", "kept_promises", "second_opinion"]


def check_promises(config: RunConfig, records: Sequence[ImageRecord], task: Task) -> None:
    """Make sure that groups and classes which are named exist, before anything is trained.

    Args:
        config: of the run.
        records: its test images.
        task: with the run's classes.

    Raises:
        DataError: one does not.
    """
    groups = find_groups(config.data, records)
    for promise in config.gates.promises:
        if promise.of is not None and promise.of not in task.class_names:
            raise DataError(f"gates.promises: found the class {promise.of}, expected {_listed(task.class_names)}")
        if promise.group is not None and promise.group not in groups:
            known = _listed(list(groups)) if groups else "none: data.groups names what they are made of"
            raise DataError(f"gates.promises: found the group {promise.group}, the test images have {known}")


def second_opinion(data: DataSettings, records: Sequence[ImageRecord], task: Task) -> Answers | None:
    """What a second person said of labelled images, by the column that `data.second` names.

    Args:
        data: of the run.
        records: images with truth; those that the column leaves empty are left out.
        task: with the run's classes.

    Returns:
        Answers without probabilities; None where `data.second` names no column.

    Raises:
        DataError: there is no such column, it is empty, or has classes or masks that cannot be used.
    """
    if data.second is None:
        return None
    if data.manifest is None:
        raise DataError(f"data.second: found {data.second}, a column of a manifest, but there is no data.manifest")
    cells = read_columns(data.manifest, [data.second], "data.second")
    said = [(record, cells.get(record.path, ("",))[0]) for record in records]
    asked, found = [record for record, cell in said if cell], [cell for _, cell in said if cell]
    if not asked:
        raise DataError(f"data.second: {data.manifest} says nothing about {len(records)} test images in {data.second}")
    if task.by_pixel:
        return _second_masks(data, asked, [data.manifest.parent / cell for cell in found], task)
    wrong = [f"{r.path}: {cell!r}" for r, cell in zip(asked, found, strict=True) if cell not in task.class_names]
    if wrong:
        raise DataError(
            f"data.second: cells of {data.second} are none of {_listed(task.class_names)}:\n{first_of(wrong)}"
        )
    return task.examine_hard(asked, [task.class_names.index(cell) for cell in found], data.resize)


def _second_masks(data: DataSettings, records: Sequence[ImageRecord], files: Sequence[Path], task: Task) -> Answers:
    """Read as those of the truth are."""
    settings = data.model_copy(update={"classes": list(task.class_names)})
    wanted = [
        Wanted(mask_source(os.path.abspath(file)), record.path, record.width, record.height)
        for record, file in zip(records, files, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        try:
            _, written = write_masks(wanted, settings, Path(folder), Progress(Console(quiet=True)))
        except DataError as error:
            raise DataError(f"data.second: {error}") from None
        parts = [
            task.examine_hard([record], [read_mask(Path(folder) / f"{mask.key}.png")], data.resize)
            for record, mask in zip(records, written, strict=True)
        ]
    return task.joined(parts)


def group_rows(groups: Mapping[str, Sequence[int]], said: Mapping[str, Answers], task: Task) -> list[dict[str, Any]]:
    """The metric of each predictor on each group, and what the last of them lost against the student there.

    Args:
        groups: places of the images by name of the group.
        said: answers by name of the predictor, all about the same images.
        task: says what is right.

    Returns:
        Rows of `name`, `images`, `small`, `scores` (a list, in the order of `said`) and `drop`, an interval or None.
    """
    rows = []
    for name, places in groups.items():
        parts = {key: answers.take(places) for key, answers in said.items()}
        last = list(parts)[-1]
        lost = "student" in parts and last != "student"
        drop = task.difference(parts["student"], parts[last]) if lost else None
        scores = [asdict(task.main(task.score(part))) for part in parts.values()]
        row = {"name": name, "images": len(places), "small": len(places) < SMALL, "scores": scores}
        rows.append({**row, "drop": asdict(drop) if drop else None})
    return rows


def kept_promises(
    promises: Sequence[Promise], answers: Answers | None, groups: Mapping[str, Sequence[int]], task: Task
) -> Iterator[dict[str, Any]]:
    """Each promise with what was found; without answers on test images none of them holds.

    Args:
        promises: as the config has them.
        answers: of the int8 file to the test images.
        groups: places of the images by name of the group.
        task: says what is right.

    Returns:
        Gates of `name`, `limit`, `found`, `holds`, `relation` and `detail`.
    """
    profiles: dict[str | None, Profile] = {}
    for promise in promises:
        figure, images = Figure(None), 0
        if answers is not None:
            places = range(len(answers.ids)) if promise.group is None else groups.get(promise.group, ())
            images = len(places)
            if places and promise.group not in profiles:
                profiles[promise.group] = task.profile(answers.take(list(places)))
            if places:
                profile = profiles[promise.group]
                known = profile.classes[promise.of] if promise.of is not None else profile.figures
                figure = known.get(promise.metric, figure)
        least = promise.at_least is not None
        found = figure.value if not promise.sure else figure.low if least else figure.high
        end = f"at the {'lower' if least else 'upper'} end of the 95 % interval, " if promise.sure else ""
        titles = task.figures if promise.of is None else task.figures_of_classes
        yield {
            "name": promise.subject(titles[promise.metric]),
            "limit": promise.bound,
            "found": found,
            "holds": found is not None and (found >= promise.bound if least else found <= promise.bound),
            "relation": "at least" if least else "at most",
            "detail": f"{end}n = {images}",
        }


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(names[:20]) + more
