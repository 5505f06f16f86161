"""How the golden set's groups and classes did, and whether the promises about them hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from distill.config import Promise, RunConfig
from distill.core.errors import DataError
from distill.core.task import Answers, Figure, Profile, Task
from distill.core.types import ImageRecord
from distill.data.groups import SMALL, find_groups

__all__ = ["check_promises", "group_rows", "kept_promises"]


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
