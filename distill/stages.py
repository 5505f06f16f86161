"""What each stage does.

Order, fingerprints and going on after an interruption are the pipeline's. Torch is imported only inside the stages that
need it, so that a finished run answers at once.
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distill import __version__
from distill.config import RunConfig
from distill.core import plugins
from distill.core.ensemble import Ensemble
from distill.core.errors import DistillError, TeacherError, UserError
from distill.core.files import read_json, replacing, write_json
from distill.core.metrics_log import MetricsLog
from distill.core.progress import Progress
from distill.core.run import Run
from distill.core.settings import FitSettings, Settings, TeacherSettings, TrainSettings
from distill.core.types import ImageRecord, Predictor, softmax
from distill.data import sources
from distill.data.batches import ImageCache
from distill.data.manifest import Manifest, check, scan
from distill.data.views import ViewPlan
from distill.labels.leaks import find_leaks
from distill.tasks.classification import Classification, Score
from distill.teaching import as_labeller, build_teacher, choose_precision, load_fitted, networks, of_each

if TYPE_CHECKING:
    from distill.examples import Examples
    from distill.losses import DistillationLoss
    from distill.torch_predictor import Network
    from distill.train import Trained

__all__ = ["Work", "baseline", "benchmark", "data", "export", "labels", "report", "student", "teacher"]

MANIFEST = "manifest.parquet"
_FED = 8  # pictures of what the network is fed


@dataclass(frozen=True)
class Work:
    """What every stage is given.

    Args:
        config: of the run.
        run: its folder.
        progress: told of long work.
    """

    config: RunConfig
    run: Run
    progress: Progress

    def manifest(self) -> Manifest:
        """The images, as the stage `data` left them."""
        return Manifest.load(self.run.folder("data") / MANIFEST)

    def task(self, manifest: Manifest) -> Classification:
        """What right means."""
        module = plugins.load("tasks", self.config.task)
        task: Classification = module.build(module.Config(), manifest.classes)
        return task

    def view_plan(self, settings: TrainSettings) -> ViewPlan:
        """How random views are drawn."""
        data = self.config.data
        return ViewPlan(data.resize, settings.min_crop, data.mirror, settings.color, self.config.seed)

    def cache(self) -> ImageCache:
        """Decoded images."""
        return ImageCache(self.config.data.max_megapixels)


def data(work: Work, candidates: Sequence[sources.Candidate], known: Manifest | None) -> dict[str, Any]:
    """Read every image; say which split it is in or why it was left out."""
    manifest = scan(candidates, work.config.data, known, work.progress)
    held_out = manifest.of("validation") + manifest.of("test")
    leaks = find_leaks(manifest.of("train"), held_out, work.cache(), work.progress)
    manifest = manifest.without({leak.image: f"shows what a {leak.split} image shows: {leak.of}" for leak in leaks})
    check(manifest)  # all of a pool may be copies
    manifest.save(work.run.folder("data") / MANIFEST)
    return {**manifest.counts(), "digest": manifest.digest(), "truth_digest": manifest.digest(truth_only=True)}


def teacher(work: Work) -> dict[str, Any]:
    """Fit the teacher where asked, then score it, and stop if it knows no more than chance."""
    settings, manifest, cache = work.config.teacher, work.manifest(), work.cache()
    task = work.task(manifest)
    predictor = build_teacher(work.config, manifest.classes)
    fits: dict[str, dict[str, Any]] = {}
    for name, network, part in networks(predictor, settings):
        assert part.fit is not None
        fits[name] = _fit(_under_seed(work, len(fits)), network, part.fit, name, manifest, cache)
        del network  # an ensemble may hold one at a time
    if fits:  # training leaves networks on the CPU, and an ensemble may have let go of them
        del predictor
        predictor = build_teacher(work.config, manifest.classes)
        load_fitted(predictor, settings, work.run.folder("teacher"))
    scores = _score(work, as_labeller(predictor, manifest.classes, settings), "teacher", manifest, task, cache)
    _stop_at_chance(scores["validation"], task)
    return {
        "detail": f"{_name(settings)}, {_pixels(predictor)} px",
        "fit": _fit_summary(fits),
        **_size_and_time(predictor),
        "scores": {split: score.as_dict() for split, score in scores.items()},
    }


def _fit(
    work: Work, network: Network, settings: FitSettings, name: str, manifest: Manifest, cache: ImageCache
) -> dict[str, Any]:
    """Fine-tune a teacher's network on the labelled images."""
    from distill.examples import Truth
    from distill.losses import build_loss

    known = manifest.of("train", labelled=True)
    if not known:
        raise TeacherError("teacher.fit needs labelled training images: give data.labeled")
    plan, smoothing = work.view_plan(settings), settings.label_smoothing
    examples = Truth(known, work.task(manifest), plan, epoch_size=len(known), label_smoothing=smoothing)
    loss = build_loss("kl", 1.0)  # of truth alone it is cross-entropy
    return asdict(_train(work, network, examples, settings, loss, "teacher", manifest, cache, part=name))


def _under_seed(work: Work, number: int) -> Work:
    """Members of an ensemble see other crops in another order, or equal ones would learn to give equal answers."""
    return replace(work, config=work.config.model_copy(update={"seed": work.config.seed + number}))


def _fit_summary(fits: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """How the fit ended; of an ensemble how each member's did, with all decisions in one list."""
    if not fits or "" in fits:
        return fits.get("")
    decisions = {f"{name} {key}": value for name, fit in fits.items() for key, value in fit["decisions"].items()}
    return {"members": fits, "decisions": decisions}


def labels(work: Work, fingerprint: str) -> dict[str, Any]:
    """Ask the teacher about every view of every training image, once."""
    from distill.labels.label import label
    from distill.labels.store import LabelStore

    config, manifest, folder, cache = work.config, work.manifest(), work.run.folder("labels"), work.cache()
    records, settings = manifest.of("train"), config.teacher
    predictor = build_teacher(config, manifest.classes)
    load_fitted(predictor, settings, work.run.folder("teacher"))
    precision = choose_precision(predictor, settings, records, cache, folder)
    labeller = as_labeller(predictor, manifest.classes, settings)
    plan = work.view_plan(config.train)
    label(
        labeller,
        records,
        folder,
        config.labels,
        cache=cache,
        plan=plan,
        batch_size=settings.batch_size,
        fingerprint=fingerprint,
        facts={
            "teacher": {"name": _name(settings), "digest": labeller.digest(), "image_size": labeller.image_size},
            "class_map": settings.class_map,
            "precision": precision,
            "view_plan": asdict(plan),
            "version": __version__,
        },
        progress=work.progress,
    )
    store = LabelStore(folder)
    fixed = store.targets(0)
    answers = [manifest.classes[i] for i in fixed.argmax(axis=1)]
    hidden = [a == r.hidden_label for a, r in zip(answers, records, strict=True) if r.hidden_label is not None]
    return {
        "images": len(records),
        "views": store.views,
        "precision": precision,
        "bytes_a_view": round(store.bytes_on_disk / len(store), 1),
        "mean_confidence": float(fixed.max(axis=1).mean()),
        "by_class": dict(sorted(Counter(answers).items())),
        "hidden_accuracy": float(np.mean(hidden)) if hidden else None,
    }


def student(work: Work) -> dict[str, Any]:
    """Teach the student what the store says."""
    from distill.evaluate import Answers
    from distill.examples import PseudoLabelled
    from distill.labels.choice import choose
    from distill.labels.store import LabelStore
    from distill.losses import build_loss

    manifest, cache, config = work.manifest(), work.cache(), work.config
    store, records = LabelStore(work.run.folder("labels")), manifest.of("train")
    task = work.task(manifest)
    said = Answers.load(work.run.folder("teacher") / "predictions" / "validation.parquet")
    choice = choose(store, records, manifest.classes, config.trust, softmax(said.logits), said.truth)
    choice.save(work.run.folder("student") / "choice.parquet", manifest.classes)
    used = choice.weights > 0
    examples = PseudoLabelled(
        [r for r, use in zip(records, used, strict=True) if use],
        store,
        task,
        weights=choice.weights[used],
        temperature=choice.temperature,
        truth_weight=config.train.truth_weight,
        label_smoothing=config.train.label_smoothing,
        seed=config.seed,
    )
    network = _build(work, config.student, manifest)
    loss = build_loss(config.train.loss, config.train.temperature)
    summary = _learn(work, network, examples, loss, "student", manifest, task, cache)
    _draw_what_is_fed(network, examples, manifest.classes, work.run.folder("student") / "fed", cache)
    return {**summary, "choice": choice.summary(manifest.classes)}


def baseline(work: Work) -> dict[str, Any]:
    """Train the control: the same student, as many steps, on the labelled images alone."""
    from distill.examples import Truth
    from distill.losses import build_loss

    manifest, cache, config = work.manifest(), work.cache(), work.config
    known = manifest.of("train", labelled=True)
    classes = {r.label for r in known}
    if len(classes) < 2:
        return {"absent": f"no control: {len(known)} labelled training images of {len(classes)} classes"}
    task, plan = work.task(manifest), work.view_plan(config.train)
    count, smoothing = len(manifest.of("train")), config.train.label_smoothing
    examples = Truth(known, task, plan, epoch_size=count, label_smoothing=smoothing)
    network = _build(work, config.student, manifest)
    return _learn(work, network, examples, build_loss("kl", 1.0), "baseline", manifest, task, cache)


def export(work: Work) -> dict[str, Any]:
    """Write, open, compare and score every exported file, in a process of its own."""
    forward(["files", "--run", str(work.run.root)])
    files = read_json(work.run.folder("export") / "files.json")
    return {"rejected": [file["name"] for file in files if file["status"] == "rejected"]}


def benchmark(work: Work) -> dict[str, Any]:
    """Time the exported files, each in a process of its own."""
    forward(["bench", "--run", str(work.run.root)])
    return {"file": "benchmark.json"}


def report(work: Work) -> dict[str, Any]:
    """Gather all numbers into report.json and draw report.html."""
    from distill.report.build import write_report

    document = write_report(work.run, work.config)
    broken = [
        f"the gate {g['name']} does not hold (found {g['found']}, limit {g['limit']:g})"
        for g in document["gates"]
        if not g["holds"]
    ]
    broken += [
        f"{row['name']} was rejected: {row['reason']}" for row in document["rows"] if row["status"] == "rejected"
    ]
    return {"broken": broken}


def forward(arguments: Sequence[str]) -> None:
    """Run `python -m export …`: the one way from here to the exporters.

    Raises:
        DistillError: it ended with another exit code than 0; it has printed why.
    """
    code = subprocess.run([sys.executable, "-m", "export", *arguments], check=False).returncode
    if code < 0:
        raise DistillError(f"`export {arguments[0]}` was ended by signal {-code}; the same command goes on")
    if code != 0:
        raise UserError(f"`export {arguments[0]}` ended with exit code {code} (above)")


def _build(work: Work, settings: Settings, manifest: Manifest) -> Any:
    """A teacher or student; where its weights are random, they are those of the run's seed."""
    import torch

    torch.manual_seed(work.config.seed)
    return plugins.build(settings, manifest.classes)


def _train(
    work: Work,
    network: Network,
    examples: Examples,
    settings: TrainSettings,
    loss: DistillationLoss,
    stage: str,
    manifest: Manifest,
    cache: ImageCache,
    *,
    part: str = "",
) -> Trained:
    from distill.train import train

    return train(
        network,
        examples,
        manifest.of("validation", labelled=True),
        work.task(manifest),
        settings,
        loss,
        work.run.folder(stage) / part,
        stage=f"{stage} {part}".strip(),
        seed=work.config.seed,
        cache=cache,
        resize=work.config.data.resize,
        metrics=MetricsLog(work.run.root / "metrics.jsonl"),
        progress=work.progress,
    )


def _learn(
    work: Work,
    network: Network,
    examples: Examples,
    loss: DistillationLoss,
    stage: str,
    manifest: Manifest,
    task: Classification,
    cache: ImageCache,
) -> dict[str, Any]:
    """Train a student, score it, leave its card."""
    from distill.trained_student import save_card

    trained = _train(work, network, examples, work.config.train, loss, stage, manifest, cache)
    predictor = _torch_predictor(network)
    scores = _score(work, predictor, stage, manifest, task, cache)
    facts = {"resize": work.config.data.resize, "max_megapixels": work.config.data.max_megapixels}
    save_card(work.run.folder(stage), work.config.student, network, facts)
    detail = f"{_name(work.config.student)}, {network.image_size} px"
    return {
        "detail": detail,
        "training": asdict(trained),
        "scores": {split: score.as_dict() for split, score in scores.items()},
        **_size_and_time(predictor),
    }


def _score(
    work: Work, predictor: Predictor, stage: str, manifest: Manifest, task: Classification, cache: ImageCache
) -> dict[str, Score]:
    """Scores on validation and, where there is one, test; the answers are kept for paired comparisons."""
    from distill.evaluate import evaluate

    scores = {}
    for split in ("validation", "test"):
        records: list[ImageRecord] = manifest.of(split, labelled=True)
        if records:
            scores[split], answers = evaluate(
                predictor, task, records, cache, work.config.data.resize, progress=work.progress
            )
            answers.save(work.run.folder(stage) / "predictions" / f"{split}.parquet")
    return scores


def _stop_at_chance(score: Score, task: Classification) -> None:
    """A teacher that knows nothing would fill the store with noise.

    Guessing has a balanced accuracy of 1/C whatever the class frequencies; two standard errors above it is the bound.
    """
    sizes = [sum(row) for row in score.confusion if sum(row)]
    chance = 1 / len(sizes)
    error = math.sqrt(sum(chance * (1 - chance) / n for n in sizes)) / len(sizes)
    if score.balanced_accuracy <= chance + 2 * error:
        raise TeacherError(
            f"the teacher knows no more than chance: balanced accuracy {score.balanced_accuracy:.3f} on"
            f" {score.images} validation images of {len(sizes)} classes, guessing gives {chance:.3f} +- {error:.3f}."
            " Usual causes: teacher.classes in another order than the weights' outputs, a wrong class_map, a wrong mean"
            " and std, labels mixed up"
        )


def _torch_predictor(network: Network) -> Predictor:
    from distill.torch_predictor import TorchPredictor

    return TorchPredictor(network)


def _size_and_time(predictor: Predictor) -> dict[str, Any]:
    """Of an ensemble the sums over its members, which answer one after another (so p90 and p99 are at most these).

    Nothing is known where a member is no torch module.
    """
    from distill.torch_timing import size_and_time

    first, *others = of_each(predictor, size_and_time)
    if any(part["parameters"] is None for part in (first, *others)):
        return dict.fromkeys(first)
    latency = {key: sum(part["latency"][0][key] for part in (first, *others)) for key in first["latency"][0]}
    return {
        "parameters": sum(part["parameters"] for part in (first, *others)),
        "bytes": sum(part["bytes"] for part in (first, *others)),
        "latency": [{**latency, "threads": 1}],
    }


def _name(settings: Settings) -> str:
    """The model's name: the value of the key that chose the plugin; of an ensemble its members' names."""
    value = getattr(settings, next(iter(type(settings).__annotations__), ""), None)
    if isinstance(value, list) and all(isinstance(member, TeacherSettings) for member in value):
        return " + ".join(map(_name, value))
    return str(value or type(settings).__module__)


def _pixels(predictor: Predictor) -> str:
    """Sides of the input; several where members of an ensemble differ."""
    sizes = predictor.sizes if isinstance(predictor, Ensemble) else (predictor.image_size,)
    return " + ".join(map(str, sizes if len(set(sizes)) > 1 else sizes[:1]))


def _draw_what_is_fed(
    network: Network, examples: Examples, classes: Sequence[str], folder: Path, cache: ImageCache
) -> None:
    """Pictures decoded from the very tensor that the network gets in training, with the target it should answer."""
    import torch
    from PIL import Image

    from distill.data.views import render

    lesson = examples.lesson(examples.epoch(0)[:_FED])
    pixels = np.stack([render(cache.get(record), view, network.image_size) for record, (view,) in lesson.shown])
    targets = lesson.teacher + (lesson.truth - lesson.teacher) * lesson.truth_share[:, None]
    shown = network.denormalize(network.normalize(torch.from_numpy(pixels))).numpy()
    captions = []
    folder.mkdir(exist_ok=True)
    for number, ((record, (view,)), target, picture) in enumerate(zip(lesson.shown, targets, shown, strict=True)):
        with replacing(folder / f"fed-{number}.png") as temporary:
            Image.fromarray(picture).save(temporary, format="PNG")
        top = target.argsort()[::-1][:2]
        said = ", ".join(f"{classes[i]} {target[i]:.2f}" for i in top)
        captions.append({"picture": f"fed-{number}", "caption": f"{record.id[:8]} {view}: {said}"})
    write_json(folder / "fed.json", captions)
