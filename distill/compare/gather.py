"""Everything that tells runs apart, as one document."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from distill import __version__
from distill.core.errors import RunFolderError, UserError
from distill.core.files import read_json
from distill.core.metrics_log import MetricsLog
from distill.core.run import Run
from distill.core.task import Answers, Task, build_task
from distill.core.types import ImageRecord, Split
from distill.data.manifest import Manifest
from distill.labels.stat import settings_of

__all__ = ["PREDICTORS", "gather"]

PREDICTORS: Final = ("student", "control", "tflite-int8")
"""What is compared, in this order."""

_CURVES: Final = {"student": "student", "baseline": "control"}
_NOT_SETTINGS: Final = {"output"}  # where a run lies tells nothing about it
_NOT_MACHINE: Final = {"command", "seed"}


@dataclass(frozen=True)
class _Opened:
    """A run and what is read of it once."""

    name: str
    run: Run
    settings: dict[str, Any]
    manifest: Manifest
    data: dict[str, Any]
    student: dict[str, Any]


def gather(folders: Sequence[Path]) -> dict[str, Any]:
    """Compare runs; the first is what the others are compared with.

    Args:
        folders: at least two run folders with finished students, of one task with the same classes.

    Raises:
        RunFolderError: a student is not finished.
        UserError: the runs are of different tasks or classes, or have no image with the same truth in common.
    """
    if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
        raise UserError("RUN: expected two or more different run folders")
    runs = [_open(folder, name) for folder, name in zip(folders, _names(folders), strict=True)]
    task = _common_task(runs)
    split, shared, relabelled = _shared_images(runs)
    said = {run.name: _answers(run, task, split, shared) for run in runs}
    first = runs[0].name
    rows = []
    for predictor in PREDICTORS:
        for run in runs:
            answers = said[run.name].get(predictor)
            if answers is None:
                continue
            base = None if run.name == first else said[first].get(predictor)
            rows.append(
                {
                    "run": run.name,
                    "predictor": predictor,
                    "score": asdict(task.main(task.score(answers))),
                    "difference": None if base is None else asdict(task.difference(answers, base)),
                    **_cost(run, predictor),
                }
            )
    return {
        "format": 1,
        "version": __version__,
        "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "runs": [{"name": run.name, "path": str(run.run.root)} for run in runs],
        "task": runs[0].settings["task"],
        "metric": task.metric._asdict(),
        "split": split,
        "images": len(shared),
        "images_of_each": {run.name: len(run.manifest.of(split, labelled=True)) for run in runs},
        "other_truth": relabelled,
        "rows": rows,
        "settings": _differing({run.name: _flat(run.settings, _NOT_SETTINGS) for run in runs}),
        "data": _differing({run.name: _flat(run.data, set()) for run in runs}),
        "environment": _differing({run.name: _flat(_machine(run.run), _NOT_MACHINE) for run in runs}),
        "curves": [
            {"run": run.name, "predictor": _CURVES[line["stage"]], **{k: v for k, v in line.items() if k != "stage"}}
            for run in runs
            for line in MetricsLog(run.run.root / "metrics.jsonl").read()
            if line["stage"] in _CURVES
        ],
    }


def _names(folders: Sequence[Path]) -> list[str]:
    """Of the folders; where two are the same, whole paths."""
    short = [folder.resolve().name for folder in folders]
    return short if len(set(short)) == len(short) else [str(folder) for folder in folders]


def _open(folder: Path, name: str) -> _Opened:
    if not folder.is_dir():
        raise RunFolderError(f"found no run folder {folder}")
    run = Run(folder)
    data, student = run.summary("data"), run.summary("student")
    return _Opened(name, run, settings_of(run), Manifest.load(run.folder("data") / "manifest.parquet"), data, student)


def _common_task(runs: Sequence[_Opened]) -> Task:
    first = runs[0]
    for other in runs[1:]:
        if other.settings["task"] != first.settings["task"]:
            raise UserError(
                f"{first.name} is of the task {first.settings['task']}, {other.name} of {other.settings['task']}:"
                " only runs of one task can be compared"
            )
        if other.manifest.classes != first.manifest.classes:
            raise UserError(
                f"{first.name} answers in the classes {', '.join(first.manifest.classes)}, {other.name} in"
                f" {', '.join(other.manifest.classes)}: only runs with the same classes, in one order, can be compared"
            )
    return build_task(first.settings["task"], first.manifest.classes)


def _shared_images(runs: Sequence[_Opened]) -> tuple[Split, list[str], int]:
    """The split to compare on, the ids of images with the same truth in all runs, and how many have other truth."""
    split: Split = "test" if all(run.manifest.of("test", labelled=True) for run in runs) else "validation"
    truths = [{record.id: _truth(record) for record in run.manifest.of(split, labelled=True)} for run in runs]
    common = sorted(set(truths[0]).intersection(*truths[1:]))
    shared = [image for image in common if all(truth[image] == truths[0][image] for truth in truths[1:])]
    if not shared:
        counts = ", ".join(f"{run.name} has {len(truth)}" for run, truth in zip(runs, truths, strict=True))
        relabelled = f"; {len(common)} are the same but have other truth" if common else ""
        raise UserError(f"the runs have no {split} image in common ({counts}{relabelled}): nothing can be compared")
    return split, shared, len(common) - len(shared)


def _truth(record: ImageRecord) -> tuple[str | None, str | None]:
    """A mask's name follows from its pixels."""
    return record.label, Path(record.mask).name if record.mask else None


def _answers(run: _Opened, task: Task, split: Split, shared: Sequence[str]) -> dict[str, Answers]:
    found = {}
    for predictor in PREDICTORS:
        path = run.run.answers(predictor, split)
        if path.exists():
            answers = task.load_answers(path)
            places = {image: place for place, image in enumerate(answers.ids)}
            if set(shared) <= places.keys():  # else they are of former images: the stage is behind the data
                found[predictor] = answers.take([places[image] for image in shared])
    if "student" not in found:
        raise RunFolderError(
            f"{run.run.root}: its student was scored on other {split} images than it has now; `distill run` goes on"
        )
    return found


def _cost(run: _Opened, predictor: str) -> dict[str, Any]:
    """Bytes and p50 at one thread, None where they were not measured."""
    try:
        if predictor in {"student", "control"}:
            summary = run.student if predictor == "student" else run.run.summary("baseline")
            latency, size = summary["latency"], summary["bytes"]
        else:
            files = read_json(run.run.folder("export") / "files.json")
            size = next(file["bytes"] for file in files if file["name"] == predictor)
            timed = read_json(run.run.folder("benchmark") / "benchmark.json")["rows"]
            latency = [row for row in timed if row["name"] == predictor]
    except (OSError, ValueError, KeyError, StopIteration, RunFolderError):
        latency, size = [], None
    single = next((timing["p50_ms"] for timing in latency or () if timing["threads"] == 1), None)
    return {"bytes": size, "p50_ms": single}


def _machine(run: Run) -> dict[str, Any]:
    try:
        found: dict[str, Any] = read_json(run.root / "environment.json")
    except (OSError, ValueError):
        return {}
    return found


def _flat(values: Mapping[str, Any], without: set[str], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted keys; lists stay as they are."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if not prefix and key in without:
            continue
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, without, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _differing(values: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Keys that are not the same everywhere, with the value of each run; None where a run lacks it."""
    keys = dict.fromkeys(key for own in values.values() for key in own)
    rows = []
    for key in keys:
        found = {name: own.get(key) for name, own in values.items()}
        if len({json.dumps(value, sort_keys=True, default=str) for value in found.values()}) > 1:
            rows.append({"key": key, "values": found})
    return rows
