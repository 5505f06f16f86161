"""What a run folder tells about its student, gathered for `distill doctor`; no model is opened."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from distill.core.dense import IGNORED
from distill.core.errors import RunFolderError
from distill.core.metrics_log import MetricsLog
from distill.core.run import Run
from distill.core.tables import read_table
from distill.core.task import Answers, Interval, Task
from distill.core.types import FloatArray, ImageRecord, Split
from distill.data.manifest import Manifest
from distill.data.mask_file import read_mask
from distill.data.views import ViewPlan
from distill.labels.map_stat import open_maps
from distill.labels.stat import Labelled, open_labels
from distill.labels.trust import at_temperature
from distill.tasks.classification import Classification
from distill.tasks.segmentation import Segmentation

__all__ = ["FEW", "Evidence", "gather"]

FEW = 5  # validation images of a class; of fewer, a recall says nothing
_SAMPLE = 2000  # views looked at; the share of any property is then known to 2 points


@dataclass(frozen=True)
class Evidence:
    """What a run folder tells about its student.

    Args:
        by_pixel: whether pixels are answered; counts by class are then how many images their pixels would fill.
        split: of the comparisons; the validation images where there is no test set.
        images: of that split.
        classes: names, C of them.
        gain: accuracy or mIoU of the student minus that of the control on the same images; None without a control.
        over_control: the teacher minus the control, likewise.
        over_student: the teacher minus the student.
        agreement: share of these images, or of their pixels, that student and teacher call the same.
        labelled: training images with truth.
        unlabelled: training images without, as far as `trust` lets the student learn from them.
        confusion: of the teacher on validation, counts [truth][answer].
        unreached: classes that nothing in `teacher.class_map` leads to.
        pseudo: pseudo-labels of unlabelled images by class.
        known: labelled images by class.
        plan_changes: how the views of the config differ from those of the store.
        views_drawn: stored views that were drawn again.
        views_wrong: those that came out differently.
        crops_agree: share of crops whose stored answer is that to the fixed view; None without crops.
        teacher_size: side in pixels of what the teacher sees.
        student_size: the same of the student.
        losses: of the student's training, by epoch.
        epochs: allowed.
        best_epoch: the one that was kept, counted from 1.
        lr: peak learning rate, and why.
        floor: loss of a student that answers as well as it can be told to; None where the loss has another scale.
        guessing: loss of equal answers to all classes.
    """

    by_pixel: bool
    split: Split
    images: int
    classes: tuple[str, ...]
    gain: Interval | None
    over_control: Interval | None
    over_student: Interval
    agreement: float
    labelled: int
    unlabelled: int
    confusion: tuple[tuple[float, ...], ...]
    unreached: tuple[str, ...]
    pseudo: tuple[float, ...]
    known: tuple[float, ...]
    plan_changes: tuple[str, ...]
    views_drawn: int
    views_wrong: int
    crops_agree: float | None
    teacher_size: int
    student_size: int
    losses: tuple[float, ...]
    epochs: int
    best_epoch: int
    lr: str
    floor: float | None
    guessing: float | None

    @property
    def unlearnt(self) -> float | None:
        """Share of what the answers tell that the student had not learnt in its last epoch: 0 all, 1 nothing."""
        if self.floor is None or self.guessing is None or not self.losses or self.guessing - self.floor < 0.01:
            return None
        return (self.losses[-1] - self.floor) / (self.guessing - self.floor)

    @property
    def mostly_called(self) -> dict[int, int]:
        """Classes that the teacher mostly calls another, and which."""
        called = {}
        for place, row in enumerate(self.confusion):
            most = max(range(len(row)), key=row.__getitem__)
            if sum(row) >= FEW and most != place and row[most] > sum(row) / 2:
                called[place] = most
        return called

    @property
    def distance(self) -> tuple[float, float]:
        """Total variation distance of the shares of pseudo-labels and labels, and what two samples of one pool give."""
        n, m = sum(self.pseudo), sum(self.known)
        pseudo, known = np.array(self.pseudo) / n, np.array(self.known) / m
        pooled = (np.array(self.pseudo) + np.array(self.known)) / (n + m)
        noise = 0.5 * np.sqrt(2 / np.pi * pooled * (1 - pooled) * (1 / n + 1 / m)).sum()
        return float(0.5 * np.abs(pseudo - known).sum()), float(noise)


def gather(run: Run, settings: Mapping[str, Any]) -> Evidence:
    """Read a run whose stages up to `baseline` are finished.

    Args:
        run: its folder.
        settings: as in its `config.yaml`.

    Raises:
        RunFolderError: a stage is not finished, or was finished with other images than a later one.
        StoreError: the label store is damaged or about other images.
    """
    summaries = {name: run.summary(name) for name in ("data", "teacher", "labels", "student", "baseline")}
    by_pixel = settings["task"] == "segmentation"
    found = (_from_maps if by_pixel else _from_labels)(run, settings, summaries)
    task, manifest, trained = found.task, found.manifest, summaries["student"]["training"]
    split: Split = "test" if manifest.of("test", labelled=True) else "validation"

    def answers(stage: str) -> Answers:
        return task.load_answers(run.stage_answers(stage, split))

    teacher, student = answers("teacher"), answers("student")
    control = None if "absent" in summaries["baseline"] else answers("baseline")
    said = [student, teacher] if control is None else [student, teacher, control]
    if any(each.ids != student.ids for each in said):
        raise _stale(run)
    class_map = found.facts["class_map"]
    reached = {*class_map.values(), settings["teacher"]["unmapped"]} if class_map else set(manifest.classes)
    lines = [line for line in MetricsLog(run.root / "metrics.jsonl").read() if line["stage"] == "student"]
    return Evidence(
        by_pixel=by_pixel,
        split=split,
        images=len(student.ids),
        classes=manifest.classes,
        gain=task.difference(student, control) if control is not None else None,
        over_control=task.difference(teacher, control) if control is not None else None,
        over_student=task.difference(teacher, student),
        agreement=task.parity(student, teacher).agreement,
        labelled=len(manifest.of("train", labelled=True)),
        unreached=tuple(name for name in manifest.classes if name not in reached),
        teacher_size=found.facts["teacher"]["image_size"],
        student_size=settings["student"]["image_size"],
        losses=tuple(line["loss"] for line in lines),
        epochs=settings["train"]["epochs"],
        best_epoch=trained["best_epoch"],
        lr=trained["decisions"]["lr"],
        **found.evidence,
    )


class _Store(NamedTuple):
    """What is known by the labels of a run: the keys of Evidence that the two kinds of store tell differently."""

    task: Task
    manifest: Manifest
    facts: dict[str, Any]
    evidence: dict[str, Any]


def _from_labels(run: Run, settings: Mapping[str, Any], summaries: Mapping[str, Any]) -> _Store:
    labelled = open_labels(run)
    store, manifest, records = labelled.store, labelled.manifest, labelled.records
    task, facts = Classification(manifest.classes), store.facts
    weights, temperature = _trusted(labelled, summaries["student"])
    used = Counter(r.label is not None for r, weight in zip(records, weights, strict=True) if weight > 0)
    pseudo: Counter[int] = Counter()
    for number in range(store.shards):
        shard = store.shard(number)
        for image, answer in zip(shard.images, shard.ids[:: store.views, 0].tolist(), strict=True):
            pseudo[answer] += records[store.position(image)].label is None
    labels = Counter(r.label for r in _known(manifest))
    sample = _sample(labelled, ViewPlan(**facts["view_plan"]), weights)
    floor, guessing = _losses(sample, settings["train"], temperature, task)
    evidence = {
        "unlabelled": used[False],
        "confusion": tuple(tuple(row) for row in summaries["teacher"]["scores"]["validation"]["confusion"]),
        "pseudo": tuple(pseudo[place] for place in range(len(manifest.classes))),
        "known": tuple(labels[name] for name in manifest.classes),
        "plan_changes": tuple(_plan_changes(facts["view_plan"], settings)),
        "views_drawn": len(sample.answers),
        "views_wrong": sample.wrong,
        "crops_agree": sample.crops_agree,
        "floor": floor,
        "guessing": guessing,
    }
    return _Store(task, manifest, facts, evidence)


def _from_maps(run: Run, settings: Mapping[str, Any], summaries: Mapping[str, Any]) -> _Store:
    """A map is of the whole image and cut as each view is, so there are no views to compare, and no two plans."""
    _, store, manifest, records = open_maps(run)
    classes = len(manifest.classes)
    asked = [place for place, record in enumerate(records) if record.mask is None]
    score = summaries["teacher"]["scores"]["validation"]
    confusion = np.array(score["confusion"])
    worth = confusion * (score["images"] / max(1, confusion.sum()))
    evidence = {
        "unlabelled": len(asked),
        "confusion": tuple(tuple(row) for row in worth.tolist()),
        "pseudo": _worth((store.hard(place)[0] for place in asked), classes),
        "known": _worth((read_mask(str(record.mask)) for record in _known(manifest)), classes),
        "plan_changes": (),
        "views_drawn": 0,
        "views_wrong": 0,
        "crops_agree": None,
        "floor": None,
        "guessing": None,
    }
    return _Store(Segmentation(manifest.classes), manifest, store.facts, evidence)


def _worth(masks: Iterable[npt.NDArray[np.uint8]], classes: int) -> tuple[float, ...]:
    """How many whole images the pixels of each class would fill."""
    total = np.zeros(classes)
    for mask in masks:
        total += np.bincount(mask[mask != IGNORED], minlength=classes) / max(1, (mask != IGNORED).sum())
    return tuple(total.tolist())


def _known(manifest: Manifest) -> Sequence[ImageRecord]:
    """Images with truth that tell how frequent the classes are."""
    return manifest.of("train", labelled=True) or manifest.of("validation", labelled=True)


def _stale(run: Run) -> RunFolderError:
    return RunFolderError(
        f"{run.root}: its stages were done with different images; `distill run` brings them up to date"
    )


def _trusted(labelled: Labelled, summary: Mapping[str, Any]) -> tuple[FloatArray, float]:
    """How much each image counted, and the temperature its answers were read at."""
    table = read_table(labelled.run.folder("student") / "choice.parquet")
    if table["image"].to_pylist() != [record.id for record in labelled.records]:
        raise _stale(labelled.run)
    calibration = summary["choice"]["calibration"]
    return table["weight"].to_numpy().astype(np.float32), calibration["temperature"] if calibration else 1.0


class _Sample(NamedTuple):
    """Some views that the student learnt from: stored answers, truth (-1 where unknown), weights."""

    answers: FloatArray
    truth: npt.NDArray[np.int64]
    weights: FloatArray
    wrong: int
    crops_agree: float | None


def _sample(labelled: Labelled, plan: ViewPlan, weights: FloatArray) -> _Sample:
    store, classes = labelled.store, labelled.manifest.classes
    rng = np.random.default_rng(0)
    positions = rng.permutation(np.flatnonzero(weights > 0))[:_SAMPLE]
    numbers = rng.integers(0, store.views, len(positions))
    views, answers = store.read(positions, numbers)
    records = [labelled.records[place] for place in positions]
    drawn = [plan.stored(r.id, n, r.width, r.height) for r, n in zip(records, numbers.tolist(), strict=True)]
    crops = numbers >= (2 if plan.mirror else 1)
    _, fixed = store.read(positions, np.zeros_like(numbers))
    alike = (fixed.argmax(axis=1) == answers.argmax(axis=1))[crops]
    places = {name: place for place, name in enumerate(classes)}
    truth = np.array([-1 if r.label is None else places[r.label] for r in records], dtype=np.int64)
    wrong = sum(a != b for a, b in zip(views, drawn, strict=True))
    return _Sample(answers, truth, weights[positions], wrong, float(alike.mean()) if len(alike) else None)


def _losses(
    sample: _Sample, train: Mapping[str, Any], temperature: float, task: Classification
) -> tuple[float | None, float | None]:
    """Least loss that a student can have, and that of one which answers all classes alike.

    With the loss (1 - s) KL(p, q) + s CE(y, q) the best q is the mixture m = (1 - s) p + s y, and the two are
    H(m) - (1 - s) H(p) and log C - (1 - s) H(p); without truth s = 0, and the least is 0.
    """
    if train["loss"] != "kl" or train["temperature"] != 1 or train["mixup"] > 0:
        return None, None
    count = len(task.class_names)
    p, known = at_temperature(sample.answers, temperature).astype(np.float64), sample.truth >= 0
    smoothed = (1 - train["label_smoothing"]) * np.eye(count) + train["label_smoothing"] / count
    share = np.where(known, train["truth_weight"], 0.0)
    mixture = p + share[:, None] * (smoothed[sample.truth] - p)
    rest = (1 - share) * _entropy(p)
    least, guess = _entropy(mixture) - rest, math.log(count) - rest
    return float(np.average(least, weights=sample.weights)), float(np.average(guess, weights=sample.weights))


def _entropy(p: Any) -> Any:
    return -(p * np.log(np.maximum(p, 1e-30))).sum(axis=1)


def _plan_changes(stored: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
    data, train = settings["data"], settings["train"]
    now = {"resize": data["resize"], "min_area": train["min_crop"], "mirror": data["mirror"], "color": train["color"]}
    for name, value in (now | {"seed": settings["seed"]}).items():
        if stored[name] != value:
            yield f"{name} of the views was {stored[name]} for the teacher, is {value}"
