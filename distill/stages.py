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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distill.config import RunConfig
from distill.core import plugins
from distill.core.errors import DistillError, TeacherError, UserError
from distill.core.files import read_json, replacing, write_json
from distill.core.metrics_log import MetricsLog
from distill.core.progress import Progress
from distill.core.run import Run
from distill.core.settings import Settings, TeacherSettings
from distill.core.types import ImageRecord, Predictor
from distill.data import sources
from distill.data.batches import ImageCache
from distill.data.manifest import Manifest, scan
from distill.tasks.classification import Classification, Score

if TYPE_CHECKING:
    from distill.torch_predictor import Network
    from distill.train import Examples, Trained

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

    def cache(self) -> ImageCache:
        """Decoded images."""
        return ImageCache(self.config.data.max_megapixels)


def data(work: Work, candidates: Sequence[sources.Candidate], known: Manifest | None) -> dict[str, Any]:
    """Read every image once; say which split it is in or why it was left out."""
    manifest = scan(candidates, work.config.data, known, work.progress)
    manifest.save(work.run.folder("data") / MANIFEST)
    return {**manifest.counts(), "digest": manifest.digest(), "truth_digest": manifest.digest(truth_only=True)}


def teacher(work: Work) -> dict[str, Any]:
    """Fit the teacher where asked, then score it, and stop if it knows no more than chance."""
    settings, manifest, cache = work.config.teacher, work.manifest(), work.cache()
    task = work.task(manifest)
    predictor: Predictor = _build(work, settings, manifest)
    summary: dict[str, Any] = {}
    if settings.fit is not None:
        from distill.train import Truth

        known = manifest.of("train", labelled=True)
        if not known:
            raise TeacherError("teacher.fit needs labelled training images: give data.labeled")
        network = _network_of(predictor)
        examples = Truth(
            known,
            task,
            epoch_size=len(known),
            resize=work.config.data.resize,
            min_area=settings.fit.min_crop,
            mirror=work.config.data.mirror,
            label_smoothing=settings.fit.label_smoothing,
            seed=work.config.seed,
        )
        trained = _train(work, network, examples, settings.fit, "teacher", manifest, cache)
        summary |= {"fit": asdict(trained)}
        predictor = _torch_predictor(network)
    mapped = _mapped(predictor, manifest, settings)
    scores = _score(work, mapped, "teacher", manifest, task, cache)
    _stop_at_chance(scores["validation"], task)
    summary |= {"detail": f"{_name(settings)}, {predictor.image_size} px", **_size_and_time(predictor)}
    return summary | {"scores": {split: score.as_dict() for split, score in scores.items()}}


def labels(work: Work, fingerprint: str) -> dict[str, Any]:
    """Ask the teacher about every view of every training image, once."""
    from distill.labels.label import label
    from distill.labels.store import LabelStore

    config, manifest, folder = work.config, work.manifest(), work.run.folder("labels")
    records = manifest.of("train")
    predictor: Predictor = _build(work, config.teacher, manifest)
    if config.teacher.fit is not None:
        from distill.checkpoint import load_weights

        load_weights(_network_of(predictor).backbone, work.run.folder("teacher") / "weights.safetensors")
    mapped = _mapped(predictor, manifest, config.teacher)
    label(
        mapped,
        records,
        folder,
        config.labels,
        cache=work.cache(),
        resize=config.data.resize,
        min_area=config.train.min_crop,
        mirror=config.data.mirror,
        seed=config.seed,
        batch_size=config.teacher.batch_size,
        facts={"fingerprint": fingerprint},
        progress=work.progress,
    )
    store = LabelStore(folder)
    fixed = np.stack([store.target(r.id, 0) for r in records])
    answers = [manifest.classes[i] for i in fixed.argmax(axis=1)]
    hidden = [a == r.hidden_label for a, r in zip(answers, records, strict=True) if r.hidden_label is not None]
    shards = list(folder.glob("shard-*.arrow"))
    return {
        "images": len(records),
        "views": store.views,
        "bytes_a_view": round(sum(s.stat().st_size for s in shards) / len(store), 1),
        "mean_confidence": float(fixed.max(axis=1).mean()),
        "by_class": dict(sorted(Counter(answers).items())),
        "hidden_accuracy": float(np.mean(hidden)) if hidden else None,
    }


def student(work: Work) -> dict[str, Any]:
    """Teach the student what the store says."""
    from distill.labels.store import LabelStore
    from distill.train import PseudoLabelled

    manifest, cache, config = work.manifest(), work.cache(), work.config
    store = LabelStore(work.run.folder("labels"))
    task = work.task(manifest)
    examples = PseudoLabelled(
        manifest.of("train"),
        store,
        task,
        truth_weight=config.train.truth_weight,
        label_smoothing=config.train.label_smoothing,
        seed=config.seed,
    )
    network = _build(work, config.student, manifest)
    summary = _learn(work, network, examples, "student", manifest, task, cache)
    _draw_what_is_fed(network, examples, manifest.classes, work.run.folder("student") / "fed", cache)
    return summary


def baseline(work: Work) -> dict[str, Any]:
    """Train the control: the same student, as many steps, on the labelled images alone."""
    from distill.train import Truth

    manifest, cache, config = work.manifest(), work.cache(), work.config
    known = manifest.of("train", labelled=True)
    classes = {r.label for r in known}
    if len(classes) < 2:
        return {"absent": f"no control: {len(known)} labelled training images of {len(classes)} classes"}
    task = work.task(manifest)
    examples = Truth(
        known,
        task,
        epoch_size=len(manifest.of("train")),
        resize=config.data.resize,
        min_area=config.train.min_crop,
        mirror=config.data.mirror,
        label_smoothing=config.train.label_smoothing,
        seed=config.seed,
    )
    network = _build(work, config.student, manifest)
    return _learn(work, network, examples, "baseline", manifest, task, cache)


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
    work: Work, network: Network, examples: Examples, settings: Any, stage: str, manifest: Manifest, cache: ImageCache
) -> Trained:
    from distill.train import train

    return train(
        network,
        examples,
        manifest.of("validation", labelled=True),
        work.task(manifest),
        settings,
        work.run.folder(stage),
        stage=stage,
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
    stage: str,
    manifest: Manifest,
    task: Classification,
    cache: ImageCache,
) -> dict[str, Any]:
    """Train a student, score it, leave its card."""
    from distill.trained_student import save_card

    trained = _train(work, network, examples, work.config.train, stage, manifest, cache)
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


def _mapped(predictor: Predictor, manifest: Manifest, settings: TeacherSettings) -> Predictor:
    from distill.labels.class_map import MappedTeacher

    if predictor.class_names == manifest.classes and not settings.class_map:
        return predictor
    return MappedTeacher(predictor, manifest.classes, settings.class_map, settings.unmapped)


def _torch_predictor(network: Network) -> Predictor:
    from distill.torch_predictor import TorchPredictor

    return TorchPredictor(network)


def _network_of(predictor: Predictor) -> Network:
    from distill.torch_predictor import TorchPredictor

    if not isinstance(predictor, TorchPredictor):
        raise UserError("teacher.fit: only torch models can be fitted")
    network: Network = predictor.network
    return network


def _size_and_time(predictor: Predictor) -> dict[str, Any]:
    from distill.torch_timing import size_and_time

    return size_and_time(predictor)


def _name(settings: Any) -> str:
    """The model's name: the value of the key that chose the plugin."""
    first = next(iter(type(settings).__annotations__), "")
    return str(getattr(settings, first, type(settings).__module__))


def _draw_what_is_fed(
    network: Network, examples: Examples, classes: Sequence[str], folder: Path, cache: ImageCache
) -> None:
    """Pictures decoded from the very tensor that the network gets in training, with the target it should answer."""
    import torch
    from PIL import Image

    from distill.data.views import render

    drawn = examples.draw(0)[:_FED]
    pixels = np.stack([render(cache.get(d.record), d.view, network.image_size) for d in drawn])
    shown = network.denormalize(network.normalize(torch.from_numpy(pixels))).numpy()
    captions = []
    folder.mkdir(exist_ok=True)
    for number, (d, picture) in enumerate(zip(drawn, shown, strict=True)):
        with replacing(folder / f"fed-{number}.png") as temporary:
            Image.fromarray(picture).save(temporary, format="PNG")
        top = d.target.argsort()[::-1][:2]
        said = ", ".join(f"{classes[i]} {d.target[i]:.2f}" for i in top)
        crop = f"{d.view.width}x{d.view.height}+{d.view.left}+{d.view.top}{' mirrored' if d.view.flip else ''}"
        captions.append({"picture": f"fed-{number}", "caption": f"{d.record.id[:8]} {crop}: {said}"})
    write_json(folder / "fed.json", captions)
