"""The lines of the comparison: teacher, control and student, then the files, each with the same keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from distill.core.task import Metric, Score

__all__ = ["class_scores", "file_row", "person_row", "phone_rows", "simple_row", "trained_row", "validated"]

_UNKNOWN: Final = dict.fromkeys(
    ("bytes", "parameters", "score", "images", "latency", "agreement", "max_difference", "drop", "partitions")
)
_PIXELS: Final = {"pixel_accuracy": "pixel accuracy", "boundary_f": "boundary F"}
_ON_PHONE: Final = (
    "name", "runtime", "way", "cores", "threads", "p50_ms", "p90_ms", "p99_ms", "mean_ms", "load_ms", "peak_memory_mb",
    "remarks",
)  # fmt: skip
_TIMES: Final = ("threads", "p50_ms", "p90_ms", "p99_ms", "load_ms", "peak_memory_mb")


def validated(score: Mapping[str, Any], metric: Metric) -> dict[str, Any]:
    """How the teacher did on validation, where guessing is what it must beat."""
    found = _named(score, {"balanced_accuracy": "balanced over classes", **_PIXELS})
    if "recall" in score:
        found["guessing gives"] = 1 / len(score["recall"])
    return {"score": score[metric.key], "details": found}


def class_scores(scores: Mapping[str, Mapping[str, Any]], classes: Sequence[str]) -> dict[str, Any] | None:
    """IoU and boundary F of each class by predictor, and its share of all pixels; None where labels are answered.

    Args:
        scores: of one split by the name of the predictor, all of the same images.
        classes: in the order of the answer.

    Returns:
        `predictors`, `figures` and `rows` of `name`, `share` and `scores`: a list a figure of a value a predictor,
        0..1 or None. A figure that is None everywhere is left out.
    """
    first = next(iter(scores.values()))
    if "iou" not in first:
        return None
    known = {
        title: key
        for title, key in {"IoU": "iou", "boundary F": "boundary_f_by_class"}.items()
        if any(v is not None for s in scores.values() for v in s[key].values())
    }
    pixels = [sum(counts) for counts in first["confusion"]]
    rows = [
        {
            "name": name,
            "share": own / max(sum(pixels), 1),
            "scores": [[score[key][name] for score in scores.values()] for key in known.values()],
        }
        for name, own in zip(classes, pixels, strict=True)
    ]
    return {"predictors": list(scores), "figures": list(known), "rows": rows}


def trained_row(name: str, summary: Mapping[str, Any], split: str, metric: Metric) -> dict[str, Any]:
    """Teacher, control or student, from the summary of its stage."""
    if "absent" in summary:
        return _missing(name, "absent", summary["absent"])
    return {
        **_UNKNOWN,
        "name": name,
        "detail": summary["detail"],
        "bytes": summary["bytes"],
        "parameters": summary["parameters"],
        **_scored(summary["scores"][split], metric),
        "latency": summary["latency"],
        "runtime": "PyTorch" if summary["parameters"] else "Python",
        "status": "ok",
        "reason": "",
    }


def simple_row(name: str, summary: Mapping[str, Any], split: str, metric: Metric) -> dict[str, Any]:
    """A baseline that hardly learns, from what its stage says of it."""
    row: dict[str, Any] = {**_UNKNOWN, "name": name, "detail": summary["detail"], "runtime": "baseline"}
    row |= _scored(summary["scores"][split], metric)
    return {**row, "status": "ok", "reason": ""}


def person_row(detail: str, score: Score, metric: Metric) -> dict[str, Any]:
    """How far a second person agrees with the truth; of the images that this person was asked about."""
    row: dict[str, Any] = {**_UNKNOWN, "name": "second annotator", "detail": detail, "runtime": "person"}
    return {**row, **_scored(score.as_dict(), metric), "status": "ok", "reason": ""}


def file_row(file: Mapping[str, Any], timed: Sequence[Mapping[str, Any]], split: str, metric: Metric) -> dict[str, Any]:
    """An exported file, from its manifest and the rows of the benchmark."""
    if file["status"] == "rejected":
        return _missing(file["name"], "rejected", file["reason"])
    score = file["scores"][split]
    return {
        **_UNKNOWN,
        "name": file["name"],
        "detail": file["file"] + (f", outside partitions: {', '.join(file['outside'])}" if file["outside"] else ""),
        "bytes": file["bytes"],
        **_scored(score, metric),
        "latency": [{key: row[key] for key in _TIMES} for row in timed if row["name"] == file["name"]] or None,
        "runtime": file["runtime"],
        "partitions": file["partitions"],
        "agreement": score["agreement"],
        "max_difference": score["max_difference"],
        "drop": score["drop"],
        "status": "ok",
        "reason": "",
    }


def phone_rows(timed: Mapping[str, Any], files: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """What was measured on a phone of these very files; None where nothing was.

    Args:
        timed: the document of `distill bench --device adb`.
        files: the run's, as `export/files.json` has them.

    Returns:
        `device` in words, and `rows`.
    """
    known = {file["sha256"] for file in files if file["status"] == "ok"}
    rows = [{key: row[key] for key in _ON_PHONE} for row in timed["rows"] if row["sha256"] in known]
    if not rows:
        return None
    device = timed["device"]
    words = [device["model"], f"Android {device['android']}", device["soc"], f"{device['cores']} cores"]
    return {"device": ", ".join(filter(None, words)), "rows": rows}


def _scored(score: Mapping[str, Any], metric: Metric) -> dict[str, Any]:
    found = _named(score, {"macro_f1": "macro F1", **_PIXELS})
    return {"score": score[metric.key], "details": found, "images": score["images"]}


def _named(score: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, float | None]:
    """What a score says beside its metric, 0..1, by the name that people know it by."""
    found = {name: score[key] for key, name in names.items() if key in score}
    return {name: value["value"] if isinstance(value, Mapping) else value for name, value in found.items()}


def _missing(name: str, status: str, reason: str) -> dict[str, Any]:
    row: dict[str, Any] = {**_UNKNOWN, "name": name, "detail": "", "details": {}, "runtime": ""}
    return {**row, "status": status, "reason": reason}
