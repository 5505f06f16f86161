"""Figures of answers to one set of images, as a document and for the terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from distill import __version__
from distill.core.task import Answers
from distill.golden.subject import Golden
from distill.report.golden import group_rows
from distill.report.wording import NOTHING, between, count, points, printable

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

__all__ = ["describe", "gather"]

_NAMED = 10  # images that the terminal names


def gather(
    golden: Golden,
    said: Mapping[str, Answers],
    *,
    hard: bool = False,
    own: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """All figures.

    Args:
        golden: the images.
        said: answers to all of them, in their order, by the name of who gave them.
        hard: they state no probabilities.
        own: the metric of each on the test images of the run.

    Returns:
        For JSON: `rows` of `name`, `images`, `profile`, `own` and, behind a student, `drop`; `groups` as in
        report.json, None where nothing parts the images.
    """
    task = golden.task
    rows = []
    for name, answers in said.items():
        profile = task.profile(answers)
        if hard:
            profile = profile.without(task.figures_of_confidence)
        lost = task.difference(said["student"], answers) if "student" in said and name != "student" else None
        row = {"name": name, "images": len(answers.ids), "profile": profile.as_dict()}
        rows.append({**row, "drop": asdict(lost) if lost else None, "own": (own or {}).get(name)})
    groups = golden.groups()
    return {
        "format": 1,
        "version": __version__,
        "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "data": golden.source,
        "split": golden.split,
        "images": len(golden.records),
        "metric": task.metric._asdict(),
        "classes": list(golden.manifest.classes),
        "figures": {**task.figures, **task.figures_of_classes},
        "rows": rows,
        "groups": {"predictors": list(said), "rows": group_rows(groups, said, task)} if groups else None,
    }


def describe(document: Mapping[str, Any]) -> Iterator[RenderableType]:
    """The figures, the groups and what was left out, for the terminal; in percent, with 95 % intervals."""
    yield f"{printable(document['data'])}: {count(document['images'])} labelled images"
    yield from _of_one(document) if len(document["rows"]) == 1 else _of_many(document)
    if document["groups"]:
        from rich.text import Text

        narrow = [name.replace("-", "-\n") for name in document["groups"]["predictors"]]
        table = _table("by group, %", narrow)
        for group in document["groups"]["rows"]:
            few = ", few" if group["small"] else ""
            table.add_row(
                Text(f"{printable(group['name'])}\n{group['images']} images{few}"),
                *(_cell(score, "\n") for score in group["scores"]),
            )
        yield table
    yield from map(printable, _notes(document))


def _of_one(document: Mapping[str, Any]) -> Iterator[RenderableType]:
    """All figures with their intervals."""
    (row,), titles = document["rows"], document["figures"]
    table = _table("%", [row["name"]])
    for key, figure in row["profile"]["figures"].items():
        table.add_row(titles[key], _cell(figure))
    if row["own"]:
        table.add_row(f"{document['metric']['title']} on the run's own test images", _cell(row["own"]))
    yield table


def _of_many(document: Mapping[str, Any]) -> Iterator[RenderableType]:
    """The metric with intervals, then the other figures without."""
    from rich.text import Text

    rows, metric = document["rows"], document["metric"]
    table = _table("%", [metric["title"], "on the run's own test images", "lost against the student"])
    for row in rows:
        figures = (row["profile"]["figures"][metric["key"]], row["own"], row["drop"])
        table.add_row(Text(printable(row["name"])), *(_cell(figure) for figure in figures))
    yield table
    others = [key for key in rows[0]["profile"]["figures"] if key != metric["key"]]
    table = _table("%", [document["figures"][key] for key in others])
    for row in rows:
        values = (row["profile"]["figures"][key]["value"] for key in others)
        table.add_row(Text(printable(row["name"])), *map(points, values))
    yield table


def _notes(document: Mapping[str, Any]) -> Iterator[str]:
    leaks = document.get("leaks", ())
    if leaks:
        shows = "image shows" if len(leaks) == 1 else "images show"
        yield f"left out: {len(leaks)} {shows} what a training or validation image of the run shows"
        yield from (f"  {leak['path']} ({leak['split']}: {leak['of']})" for leak in leaks[:_NAMED])
        if len(leaks) > _NAMED:
            yield f"  and {len(leaks) - _NAMED} more"
    for reason, number in document.get("left_out_by_reason", {}).items():
        if not reason.startswith("shows what"):
            yield f"left out: {number} x {reason}"
    if gone := document.get("training_images_gone"):
        yield f"{gone} training images are gone: whether they show the same cannot be said"
    if others := document.get("others"):
        yield f"{others} predictions are about other images"


def _table(title: str, names: list[str]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column(title, no_wrap=True, overflow="ellipsis")
    for name in names:  # Text, not str: brackets in a name would be markup
        table.add_column(Text(printable(name, keep="\n")), justify="right", overflow="fold")
    return table


def _cell(figure: Mapping[str, Any] | None, apart: str = " ") -> Text:
    """The value and the interval, where one is known."""
    from rich.text import Text

    if figure is None or figure["value"] is None:
        return Text(NOTHING)
    bounds = "" if figure["low"] is None else f"{apart}({between(figure)})"
    return Text(f"{points(figure['value'])}{bounds}")
