"""Gathering: everything the run folder knows, as one document. Drawing it is `page.py`'s."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distill import __version__
from distill.config import Gates, RunConfig
from distill.core.files import read_json, write_json, write_text
from distill.core.metrics_log import MetricsLog
from distill.core.run import Run
from distill.core.types import Split, softmax
from distill.data.decode import DecodeError, decode
from distill.data.manifest import Manifest
from distill.data.views import fixed_view, render
from distill.evaluate import Answers
from distill.report.page import render as render_page
from distill.tasks.classification import Classification

__all__ = ["write_report"]

_MISTAKES = 12
_MISTAKE_PIXELS = 160


def write_report(run: Run, config: RunConfig) -> dict[str, Any]:
    """Write report.json and report.html of a run whose other stages are finished.

    Returns:
        The document, as written to report.json.
    """
    manifest = Manifest.load(run.folder("data") / "manifest.parquet")
    task = Classification(manifest.classes)
    split: Split = "test" if manifest.of("test", labelled=True) else "validation"
    summaries = {name: run.summary(name) for name in ("data", "teacher", "labels", "student", "baseline")}
    files = read_json(run.folder("export") / "files.json")
    timed = read_json(run.folder("benchmark") / "benchmark.json")
    pictures: dict[str, bytes] = {}
    trained = _trainings(summaries)
    main = next((f for f in files if f["name"] == "tflite-int8" and f["status"] == "ok"), None)
    best = main["name"] if main else "student"
    student = Answers.load(run.folder("student") / "predictions" / f"{split}.parquet")
    shown = Answers.load(run.folder("export") / "predictions" / f"{best}.{split}.parquet") if main else student
    control = run.folder("baseline") / "predictions" / f"{split}.parquet"
    gain = task.difference(student.logits, Answers.load(control).logits, student.truth) if control.exists() else None
    document: dict[str, Any] = {
        "format": 1,
        "run": run.root.name,
        "version": __version__,
        "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "task": config.task,
        "classes": list(manifest.classes),
        "split": split,
        "notes": list(_notes(config, split, summaries, shown)),
        "rows": [
            *(_torch_row(name, summaries[stage], split) for name, stage in _STAGE_OF.items()),
            *(_file_row(file, timed["rows"], split) for file in files),
        ],
        "gain": asdict(gain) if gain else None,
        "gates": list(_gates(config.gates, main, split)),
        "data": {k: v for k, v in summaries["data"].items() if not k.endswith("digest")},
        "labels": summaries["labels"],
        "teacher_validation": {
            **{key: summaries["teacher"]["scores"]["validation"][key] for key in ("accuracy", "balanced_accuracy")},
            "chance": 1 / len(manifest.classes),
        },
        "curves": [line for line in MetricsLog(run.root / "metrics.jsonl").read() if line["stage"] in trained],
        "confusion": {"name": best, "counts": task.score(shown.logits, shown.truth).confusion},
        "fed": _fed(run, pictures),
        "mistakes": list(_mistakes(manifest, config, shown, pictures)),
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
    write_json(run.root / "report.json", document)
    write_text(run.root / "report.html", render_page(document, pictures))
    return document


def _trainings(summaries: dict[str, dict[str, Any]]) -> set[str]:
    """Names of the trainings that count; the log also holds those of an ensemble's former members."""
    names = {stage for stage, summary in summaries.items() if "training" in summary}
    fit = summaries["teacher"]["fit"]
    if fit:
        names |= {f"teacher {member}" for member in fit["members"]} if "members" in fit else {"teacher"}
    return names


_STAGE_OF = {"teacher": "teacher", "control": "baseline", "student": "student"}


def _torch_row(name: str, summary: dict[str, Any], split: str) -> dict[str, Any]:
    empty = {"agreement": None, "max_difference": None, "drop": None, "partitions": None}
    if "absent" in summary:
        unknown = dict.fromkeys(("bytes", "parameters", "accuracy", "macro_f1", "images", "latency"))
        return {
            "name": name,
            "detail": "",
            **unknown,
            **empty,
            "runtime": "",
            "status": "absent",
            "reason": summary["absent"],
        }
    score = summary["scores"][split]
    return {
        "name": name,
        "detail": summary["detail"],
        "bytes": summary["bytes"],
        "parameters": summary["parameters"],
        "accuracy": score["accuracy"],
        "macro_f1": score["macro_f1"],
        "images": score["images"],
        "latency": summary["latency"],
        "runtime": "PyTorch" if summary["parameters"] else "Python",
        **empty,
        "status": "ok",
        "reason": "",
    }


def _file_row(file: dict[str, Any], timed: list[dict[str, Any]], split: str) -> dict[str, Any]:
    if file["status"] == "rejected":
        unknown = dict.fromkeys(("bytes", "parameters", "accuracy", "macro_f1", "images", "latency"))
        unknown |= dict.fromkeys(("agreement", "max_difference", "drop", "partitions"))
        return {
            "name": file["name"],
            "detail": "",
            **unknown,
            "runtime": "",
            "status": "rejected",
            "reason": file["reason"],
        }
    score = file["scores"][split]
    keys = ("threads", "p50_ms", "p90_ms", "p99_ms", "load_ms", "peak_memory_mb")
    latency = [{key: row[key] for key in keys} for row in timed if row["name"] == file["name"]]
    return {
        "name": file["name"],
        "detail": file["file"],
        "bytes": file["bytes"],
        "parameters": None,
        "accuracy": score["accuracy"],
        "macro_f1": score["macro_f1"],
        "images": score["images"],
        "latency": latency or None,
        "runtime": file["runtime"],
        "partitions": file["partitions"],
        "agreement": score["agreement"],
        "max_difference": score["max_difference"],
        "drop": score["drop"],
        "status": "ok",
        "reason": "",
    }


def _gates(gates: Gates, file: dict[str, Any] | None, split: str) -> Iterator[dict[str, Any]]:
    """Each promise with what was found; without an int8 file none of them holds."""
    found: dict[str, float | None] = dict.fromkeys(type(gates).model_fields)
    if file is not None:
        score = file["scores"][split]
        found = {
            "max_size_mb": file["bytes"] / 1e6,
            "min_test_accuracy": score["accuracy"]["value"] if split == "test" else None,
            "max_int8_drop": score["drop"]["value"] if split == "test" else None,
            "max_partitions": file["partitions"],
        }
    for name, value in found.items():
        limit = getattr(gates, name)
        if limit is None:
            continue
        holds = value is not None and (value >= limit if name.startswith("min_") else value <= limit)
        yield {"name": name, "limit": float(limit), "found": value, "holds": holds}


def _notes(config: RunConfig, split: str, summaries: dict[str, Any], shown: Answers) -> Iterator[str]:
    if config.data.demo or "images/unlabeled" in str(config.data.unlabeled):
        yield "This is a demonstration: it shows how the tool works. Digits of 8x8 pixels are far easier than photos."
    if split == "validation":
        yield "There is no test set: scores are on the validation images that also chose the epoch, so they flatter."
    if len(shown.ids) < 200:
        yield f"Only {len(shown.ids)} labelled images were scored: the intervals are wide."
    teacher, student = (summaries[name]["scores"][split]["accuracy"]["value"] for name in ("teacher", "student"))
    if student > teacher:
        yield "The student beats its teacher: a better teacher would probably help further."
    if "absent" in summaries["baseline"]:
        yield f"{summaries['baseline']['absent']}: whether distillation helped cannot be said."


def _fed(run: Run, pictures: dict[str, bytes]) -> list[dict[str, Any]]:
    folder = run.folder("student") / "fed"
    captions: list[dict[str, Any]] = read_json(folder / "fed.json")
    for caption in captions:
        pictures[caption["picture"]] = (folder / f"{caption['picture']}.png").read_bytes()
    return captions


def _mistakes(
    manifest: Manifest, config: RunConfig, answers: Answers, pictures: dict[str, bytes]
) -> Iterator[dict[str, Any]]:
    """Wrong answers, the most confident first."""
    from PIL import Image

    probabilities = softmax(answers.logits)
    said, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = [i for i in (-confidence).argsort(kind="stable") if said[i] != answers.truth[i]]
    records = {record.id: record for record in manifest.records}
    for number, place in enumerate(wrong[:_MISTAKES]):
        record = records[answers.ids[place]]
        try:
            image = decode(record.path, config.data.max_megapixels)
        except DecodeError:  # gone since it was scored; the mistake is still worth a line
            continue
        seen = render(image, fixed_view(record.width, record.height, config.data.resize), _MISTAKE_PIXELS)
        buffer = io.BytesIO()
        Image.fromarray(seen).save(buffer, format="JPEG", quality=85)
        pictures[f"mistake-{number}"] = buffer.getvalue()
        yield {
            "picture": f"mistake-{number}",
            "path": _short(record.path),
            "truth": manifest.classes[answers.truth[place]],
            "answer": manifest.classes[said[place]],
            "confidence": float(confidence[place]),
        }


def _short(path: str) -> str:
    return str(Path(*Path(path).parts[-3:]))


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """Nested environment facts as one level of text."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= value
        else:
            flat[key] = " ".join(map(str, value)) if isinstance(value, list) else value
    return flat
