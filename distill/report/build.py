"""Gathering: everything the run folder knows, as one document. Drawing it is `page.py`'s."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from distill import __version__
from distill.config import Gates, RunConfig
from distill.core.files import read_json, write_json, write_text
from distill.core.metrics_log import MetricsLog
from distill.core.run import MADE_BY, Run
from distill.core.task import Answers, Metric, build_task
from distill.core.types import Split
from distill.data.groups import find_groups
from distill.data.manifest import Manifest
from distill.report import extras
from distill.report.card import render as render_card
from distill.report.golden import group_rows, kept_promises, second_opinion
from distill.report.labels import draw_disagreements, draw_mistakes
from distill.report.masks import draw_masks
from distill.report.page import render as render_page
from distill.report.pictures import copy_of, fitting
from distill.report.rows import class_scores, file_row, person_row, phone_rows, simple_row, trained_row, validated
from distill.tasks._mask_answers import MaskAnswers
from distill.tasks.classification import LabelAnswers

__all__ = ["write_report"]

_MODEL = ("file", "sha256", "image_size", "resize", "output", "teacher")
"""What the card says of the file, from its manifest."""


def write_report(run: Run, config: RunConfig) -> dict[str, Any]:
    """Write report.json, report.html and the model card report.md of a run whose other stages are finished.

    Returns:
        The document, as written to report.json.
    """
    manifest = Manifest.load(run.folder("data") / "manifest.parquet")
    task = build_task(config.task, manifest.classes)
    metric = task.metric
    split: Split = "test" if manifest.of("test", labelled=True) else "validation"
    summaries = {name: run.summary(name) for name in ("data", "teacher", "labels", "student", "baseline")}
    files = read_json(run.folder("export") / "files.json")
    timed = read_json(run.folder("benchmark") / "benchmark.json")
    on_phone = run.folder("benchmark") / "benchmark-adb.json"
    pictures: dict[str, bytes] = {}
    trained = _trainings(summaries)
    main = next((f for f in files if f["name"] == "tflite-int8" and f["status"] == "ok"), None)
    best = main["name"] if main else "student"
    said = {name: task.load_answers(path) for name in (*MADE_BY, best) if (path := run.answers(name, split)).exists()}
    scores = {name: summaries[stage]["scores"][split] for name, stage in MADE_BY.items() if name in said}
    scores |= {best: main["scores"][split]} if main else {}
    groups = find_groups(config.data, manifest.of(split, labelled=True))
    second = second_opinion(config.data, manifest.of(split, labelled=True), task)
    gain = task.difference(said["student"], said["control"]) if "control" in said else None
    seen = {
        "fed": _fed(run, pictures),
        **_examples(manifest, config, said, best, pictures),
        "masks": _masks(manifest, config, split, said, pictures),
    }
    added = {
        "strip": extras.learnt(run, summaries["student"]["training"].get("best_epoch"), pictures),
        "perturbation": extras.perturbed(run, pictures),
        "looking": extras.looked_at(run, pictures),
        "audit": extras.audited(run, config.data.max_megapixels, pictures),
        "sanity": extras.checked(run),
    }
    document: dict[str, Any] = {
        "format": 3,
        "run": run.root.name,
        "folder": str(run.root),
        "version": __version__,
        "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "task": config.task,
        "metric": metric._asdict(),
        "classes": list(manifest.classes),
        "split": split,
        "notes": [*_notes(run, config, split, summaries, metric), *extras.notes(added)],
        "rows": [
            *(
                simple_row(name, summary, split, metric)
                for stage in ("baseline", "student")
                for name, summary in summaries[stage]["simple"].items()
            ),
            *([person_row(f"column {config.data.second}", task.score(second), metric)] if second else ()),
            *(trained_row(name, summaries[stage], split, metric) for name, stage in MADE_BY.items()),
            *(file_row(file, timed["rows"], split, metric) for file in files),
        ],
        "phone": phone_rows(read_json(on_phone), files) if on_phone.exists() else None,
        "gain": asdict(gain) if gain else None,
        "gates": [
            *_gates(config.gates, main, split, metric),
            *kept_promises(config.gates.promises, said[best] if main and split == "test" else None, groups, task),
        ],
        "profile": {"name": best, **task.profile(said[best]).as_dict()},
        "figures": {**task.figures, **task.figures_of_classes},
        "groups": {"predictors": list(said), "rows": group_rows(groups, said, task)} if groups else None,
        "int8": main.get("ladder") if main else None,
        "model": {key: main.get(key) for key in _MODEL} if main else None,
        "data": {k: v for k, v in summaries["data"].items() if not k.endswith("digest")},
        "labels": summaries["labels"],
        "teacher_validation": validated(summaries["teacher"]["scores"]["validation"], metric),
        "curves": [line for line in MetricsLog(run.root / "metrics.jsonl").read() if line["stage"] in trained],
        "confusion": {"name": best, "counts": scores[best]["confusion"]},
        "class_scores": class_scores(scores, manifest.classes),
        **seen,
        **added,
        "decisions": {
            stage: (summary.get("training") or summary["fit"])["decisions"]
            for stage, summary in summaries.items()
            if summary.get("training") or summary.get("fit")
        },
        "stages": [
            {"stage": name, "seconds": read_json(run.folder(name) / "stage.json")["seconds"]}
            for name in (*summaries, "export", "benchmark")
        ],
        "config": (run.root / "config.yaml").read_text(encoding="utf-8"),
        "environment": _flat(read_json(run.root / "environment.json")),
    }
    write_text(run.root / "report.html", render_page(document, fitting(pictures)))
    write_text(run.root / "report.md", render_card(document))
    write_json(run.root / "report.json", document)  # last: it says that the others are of now
    return document


def _trainings(summaries: dict[str, dict[str, Any]]) -> set[str]:
    """Names of the trainings that count; the log also holds those of an ensemble's former members."""
    names = {stage for stage, summary in summaries.items() if "training" in summary}
    fit = summaries["teacher"]["fit"]
    if fit:
        names |= {f"teacher {member}" for member in fit["members"]} if "members" in fit else {"teacher"}
    return names


def _gates(gates: Gates, file: dict[str, Any] | None, split: str, metric: Metric) -> Iterator[dict[str, Any]]:
    """Each promise with what was found; without an int8 file none of them holds, nor does one in another metric."""
    found: dict[str, float | None] = {}
    if file is not None:
        score = file["scores"][split]
        found = {
            "max_size_mb": file["bytes"] / 1e6,
            f"min_test_{metric.key}": score[metric.key]["value"] if split == "test" else None,
            "max_int8_drop": score["drop"]["value"] if split == "test" else None,
            "max_partitions": file["partitions"],
        }
    for name in type(gates).model_fields:
        limit, value = getattr(gates, name), found.get(name)
        if limit is None or name == "promises":
            continue
        least = name.startswith("min_")
        yield {
            "name": name,
            "limit": float(limit),
            "found": value,
            "holds": value is not None and (value >= limit if least else value <= limit),
            "relation": "at least" if least else "at most",
            "detail": "",
        }


def _notes(run: Run, config: RunConfig, split: str, summaries: dict[str, Any], metric: Metric) -> Iterator[str]:
    if config.data.unlabeled == run.root.resolve() / "images" / "unlabeled":  # images that the run wrote itself
        yield "This is a demonstration: it shows how the tool works. Digits of 8x8 pixels are far easier than photos."
    if split == "validation":
        yield "There is no test set: scores are on the validation images that also chose the epoch, so they flatter."
    teacher, student = (summaries[name]["scores"][split] for name in ("teacher", "student"))
    if student["images"] < 200:
        yield f"Only {student['images']} labelled images were scored: the intervals are wide."
    if student[metric.key]["value"] > teacher[metric.key]["value"]:
        yield "The student beats its teacher: a better teacher would probably help further."
    reached = student[metric.key]["value"]
    for name, simple in (summaries["baseline"]["simple"] | summaries["student"]["simple"]).items():
        if simple["scores"][split][metric.key]["value"] >= reached:
            yield f"The student is no better than {name}: what did training bring?"
    if "absent" in summaries["baseline"]:
        yield f"{summaries['baseline']['absent']}: whether distillation helped cannot be said."


def _fed(run: Run, pictures: dict[str, bytes]) -> list[dict[str, Any]]:
    folder = run.folder("student") / "fed"
    captions: list[dict[str, Any]] = read_json(folder / "fed.json")
    for caption in captions:
        drawn = copy_of(folder / f"{caption['picture']}.png")
        if drawn is not None:
            pictures[caption["picture"]] = drawn
    return captions


def _examples(
    manifest: Manifest, config: RunConfig, said: Mapping[str, Answers], best: str, pictures: dict[str, bytes]
) -> dict[str, Any]:
    """Mistakes and disagreements; nothing of both where pixels are answered."""
    shown = {name: a for name, a in said.items() if isinstance(a, LabelAnswers) and name != "control"}
    if not shown:
        return {"mistakes": [], "disagreements": None}
    records = {record.id: record for record in manifest.records}
    how = (config.data.resize, config.data.max_megapixels, pictures)
    return {
        "mistakes": draw_mistakes(records, manifest.classes, shown[best], *how),
        "disagreements": draw_disagreements(records, manifest.classes, shown, *how),
    }


def _masks(
    manifest: Manifest, config: RunConfig, split: Split, said: Mapping[str, Answers], pictures: dict[str, bytes]
) -> dict[str, Any] | None:
    """What teacher, student and int8 file made of some images; None where labels are answered."""
    shown = {name: a for name, a in said.items() if isinstance(a, MaskAnswers) and name != "control"}
    if not shown:
        return None
    records = manifest.of(split, labelled=True)
    return draw_masks(records, manifest.classes, shown, config.data.resize, config.data.max_megapixels, pictures)


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """Nested environment facts as one level of text."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= value
        else:
            flat[key] = " ".join(map(str, value)) if isinstance(value, list) else value
    return flat
