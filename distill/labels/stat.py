"""What a label store holds, in figures: `distill labels stat`."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from distill.core.errors import RunFolderError
from distill.core.intervals import proportion
from distill.core.run import Run
from distill.core.tables import read_table
from distill.core.types import FloatArray, ImageRecord, softmax
from distill.data.manifest import Manifest
from distill.data.rows import Rows
from distill.labels.about import figures_table, images_of, share_of, teacher_lines
from distill.labels.store import LabelStore, Shard
from distill.labels.trust import at_temperature, fit_temperature, precision_coverage
from distill.report.wording import count, decimal, percent, points, printable
from distill.tasks._label_answers import LabelAnswers

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Labelled", "confidence", "describe", "gather", "open_labels", "settings_of"]

_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


class Labelled(NamedTuple):
    """A store of views with the images it is about.

    Args:
        run: their folder.
        store: what the teacher said.
        manifest: all images of the run.
        records: those of the store, in its order.
    """

    run: Run
    store: LabelStore
    manifest: Manifest
    records: Rows[ImageRecord]


def open_labels(run: Run) -> Labelled:
    """Open the store of views of a run.

    Raises:
        RunFolderError: the stage `data` is not finished.
        StoreError: there is no finished store of views, or it is about other images or classes than the run now has.
    """
    run.summary("data")
    store = LabelStore(run.folder("labels"))
    return Labelled(run, store, *images_of(run, store))


def settings_of(run: Run) -> dict[str, Any]:
    """The run's `config.yaml`, every default spelt out, as plain values: nothing it names needs to exist any more.

    Raises:
        RunFolderError: it is missing or damaged.
    """
    import yaml

    path = run.root / "config.yaml"
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RunFolderError(f"{path} cannot be read ({error}); `distill run` writes it") from error
    if not isinstance(settings, dict):
        raise RunFolderError(f"{path} is damaged (expected settings); `distill run` writes it")
    return settings


def confidence(shard: Shard, classes: int) -> FloatArray:
    """Probability of the most probable class of each view as training reads it, scaled to sum one: float32 [N * K]."""
    top = shard.probabilities.astype(np.float32)
    whole = top.sum(axis=1)
    if classes > top.shape[1]:
        whole = whole + shard.tail.astype(np.float32)
    scaled: FloatArray = top[:, 0] / whole
    return scaled


def gather(labelled: Labelled, settings: Mapping[str, Any]) -> dict[str, Any]:
    """All figures, as `--json` prints them; the pseudo-label of an image is the answer to its fixed view.

    Args:
        labelled: a store.
        settings: of the run, as in its `config.yaml`.
    """
    _, store, manifest, records = labelled
    answers, sure, entropy = _fixed_views(store)
    facts = store.facts
    by_class = []
    for place, name in enumerate(manifest.classes):
        own = answers == place
        mean = float(sure[own].mean()) if own.any() else None
        by_class.append({"class": name, "images": int(own.sum()), "share": float(own.mean()), "mean_confidence": mean})
    return {
        "run": str(labelled.run.root),
        "images": store.images,
        "views_an_image": store.views,
        "views": len(store),
        "bytes": store.bytes_on_disk,
        "bytes_a_view": store.bytes_on_disk / len(store),
        "shards": store.shards,
        "teacher": facts["teacher"],
        "precision": facts["precision"],
        "batch_size": facts["batch_size"],
        "view_plan": facts["view_plan"],
        "pseudo_labels": by_class,
        "confidence": {f"{q:g}": float(np.quantile(sure, q)) for q in _QUANTILES},
        "mean_confidence": float(sure.mean()),
        "mean_entropy": float(entropy.mean()),
        "largest_entropy": math.log(store.classes),
        "left_out_by_guard": manifest.counts()["left_out_by_reason"],
        "left_out_by_trust": _left_out_by_trust(labelled.run),
        "validation": _validation(labelled.run, calibrate=bool(settings.get("trust", {}).get("calibrate"))),
        "hidden": _hidden(answers, records, manifest.classes),
    }


def _fixed_views(store: LabelStore) -> tuple[npt.NDArray[np.int64], FloatArray, FloatArray]:
    """Most probable class, its probability and the entropy of the answer to the fixed view of each image."""
    parts = []
    for number in range(store.shards):
        shard = store.said(number, 0)
        parts.append((shard.ids[:, 0], confidence(shard, store.classes), shard.entropy))
    answers, sure, entropy = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return answers, sure, entropy.astype(np.float32)


def _left_out_by_trust(run: Run) -> dict[str, Any] | None:
    """Images that the student did not learn from, by reason and class; None before the student was taught."""
    path = run.folder("student") / "choice.parquet"
    if not path.exists():
        return None
    rows = read_table(path).select(["class", "weight", "reason"]).to_pylist()
    unused = [row for row in rows if row["weight"] == 0]
    # Each reason holds the image's own confidence; without it, equal thresholds are counted together.
    reasons = Counter(re.sub(r"^confidence \S+ below", "confidence below", row["reason"]) for row in unused)
    by_class = Counter(row["class"] for row in unused)
    return {
        "used": len(rows) - len(unused),
        "left_out": len(unused),
        "by_reason": dict(reasons.most_common()),
        "by_class": dict(by_class.most_common()),
    }


def _validation(run: Run, *, calibrate: bool) -> dict[str, Any] | None:
    """What trusting the teacher from some confidence on gives on labelled images; None where it was not scored."""
    path = run.answers("teacher", "validation")
    if not path.exists():
        return None
    said = LabelAnswers.load(path)
    probabilities = softmax(said.logits)
    calibration = fit_temperature(probabilities, said.truth) if calibrate else None
    if calibration is not None:  # `trust` chooses its threshold on calibrated confidences
        probabilities = at_temperature(probabilities, calibration.temperature)
    curve = precision_coverage(probabilities.max(axis=1), probabilities.argmax(axis=1) == said.truth)
    return {
        "images": len(said.ids),
        "calibration": asdict(calibration) if calibration else None,
        "precision_coverage": [asdict(point) for point in curve],
    }


def _hidden(
    answers: npt.NDArray[np.int64], records: Rows[ImageRecord], classes: tuple[str, ...]
) -> dict[str, Any] | None:
    """Share of right pseudo-labels among images whose truth is known but hidden from training."""
    hidden = np.flatnonzero(np.fromiter(records.values("hidden"), bool, len(records))).tolist()
    known = ((classes[answers[place]], records[place].hidden_label) for place in hidden)
    right = [answer == label for answer, label in known if label is not None]
    return {"images": len(right), "accuracy": asdict(proportion(np.array(right)))} if right else None


def describe(document: Mapping[str, Any]) -> Iterator[RenderableType]:
    """The document of `gather` for the terminal."""
    d = document
    lines = [
        ("images", f"{count(d['images'])}, {d['views_an_image']} views each: {count(d['views'])} views"),
        ("bytes a view", f"{d['bytes_a_view']:.1f} ({count(d['bytes'])} bytes, shards: {d['shards']})"),
        *teacher_lines(d),
    ]
    quantiles = ", ".join(f"{percent(float(q), 0)}: {decimal(v)}" for q, v in d["confidence"].items())
    lines.append(("confidence", f"mean {decimal(d['mean_confidence'])}; quantiles {quantiles}"))
    lines.append(("mean entropy", f"{decimal(d['mean_entropy'])} nats; guessing has {decimal(d['largest_entropy'])}"))
    lines += [("left out", f"{count(n)} x {reason}") for reason, n in d["left_out_by_guard"].items()]
    if (trust := d["left_out_by_trust"]) is None:
        lines.append(("left out by trust", "not decided yet: the student is not trained"))
    else:
        lines.append(("left out by trust", f"{count(trust['left_out'])} of {count(trust['used'] + trust['left_out'])}"))
        lines += [("", f"{count(n)} x {reason}") for reason, n in trust["by_reason"].items()]
        lines += [("", f"{count(n)} called {name}") for name, n in trust["by_class"].items()]
    if d["hidden"] is not None:
        lines.append(
            ("right on hidden labels", f"{share_of(d['hidden']['accuracy'])} of {count(d['hidden']['images'])}")
        )
    for name, value in lines:
        yield printable(f"{name}: {value}" if name else f"  {value}")
    yield _histogram(d["pseudo_labels"])
    if d["validation"] is not None:
        yield _curve(d["validation"])


def _histogram(classes: list[dict[str, Any]]) -> RenderableType:
    from rich.text import Text

    table = figures_table("pseudo-labels of the fixed views", "class", "images", "share", "mean confidence")
    for row in classes:
        name = Text(printable(row["class"]))  # Text, not str: brackets in a name would be markup
        table.add_row(name, count(row["images"]), percent(row["share"]), decimal(row["mean_confidence"]))
    histogram: RenderableType = table
    return histogram


def _curve(validation: Mapping[str, Any]) -> RenderableType:
    title = f"the teacher on {count(validation['images'])} labelled validation images, trusted from a confidence on"
    if (calibration := validation["calibration"]) is not None:
        title += f" (calibrated at temperature {decimal(calibration['temperature'])})"
    table = figures_table(title, "confidence", "precision", "95 % interval", "coverage", "images")
    for point in validation["precision_coverage"]:
        between = f"{points(point['low'])} to {points(point['high'])}"
        row = (decimal(point["threshold"]), percent(point["precision"]), between, percent(point["coverage"]))
        table.add_row(*row, count(point["images"]))
    curve: RenderableType = table
    return curve
