"""What each stage does.

Order, fingerprints and going on after an interruption are the pipeline's. Torch is imported only inside the stages that
need it, so that a finished run answers at once.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from rich.console import Console

from distill import __version__
from distill.audit.leakage import find_pairs, refuse_wrong_splits, without_leaks
from distill.config import RunConfig
from distill.config_file import load_config
from distill.core import plugins
from distill.core.dense import IGNORED
from distill.core.ensemble import Ensemble
from distill.core.errors import DistillError, TeacherError, UserError
from distill.core.files import read_json, replacing, write_json
from distill.core.metrics_log import MetricsLog
from distill.core.overlay import background, class_colors, overlay
from distill.core.progress import Progress
from distill.core.run import Run, locks_held
from distill.core.settings import FitSettings, Settings, TeacherSettings, TrainSettings
from distill.core.task import Score, Task, build_task
from distill.core.types import ImageRecord, Predictor
from distill.data import sources
from distill.data.batches import ImageCache
from distill.data.corrections import Corrections
from distill.data.demo import with_demo
from distill.data.manifest import Manifest, check, reviewed, scan
from distill.data.views import ViewPlan
from distill.labels.shards import complete, facts_of
from distill.report.golden import check_promises, second_opinion
from distill.teaching import (
    as_labeller,
    build_teacher,
    choose_precision,
    keep_precision,
    load_fitted,
    networks,
    of_each,
    same_threads,
)

if TYPE_CHECKING:
    from distill.data.decoded import DecodedImages
    from distill.examples import Examples
    from distill.labels.label import Labelling
    from distill.losses import LessonLoss
    from distill.ranks import Team
    from distill.torch_predictor import Network
    from distill.train import Trained

__all__ = [
    "Call",
    "Work",
    "baseline",
    "benchmark",
    "build_network",
    "data",
    "export",
    "join",
    "labelling",
    "labelling_elsewhere",
    "labels",
    "report",
    "student",
    "teacher",
]

MANIFEST = "manifest.parquet"
LEAKS = "leaks.json"
_FED = 8  # pictures of what the network is fed
_FEATURES = 4000  # labelled images behind neighbours and regression; more hardly change them, and take longer


@dataclass(frozen=True)
class Work:
    """What every stage is given.

    Args:
        config: of the run.
        run: its folder.
        progress: told of long work.
        team: processes that torchrun or srun started, to train with.
    """

    config: RunConfig
    run: Run
    progress: Progress
    team: Team | None = None

    def manifest(self) -> Manifest:
        """The images, as the stage `data` left them."""
        return Manifest.load(self.run.folder("data") / MANIFEST)

    def task(self, manifest: Manifest) -> Task:
        """What right means."""
        return build_task(self.config.task, manifest.classes)

    def view_plan(self, settings: TrainSettings) -> ViewPlan:
        """How random views are drawn."""
        data = self.config.data
        return ViewPlan(data.resize, settings.min_crop, data.mirror, settings.color, self.config.seed)

    def lessons_of_teacher(
        self, manifest: Manifest, task: Task, folder: Path, size: int
    ) -> tuple[Examples, dict[str, Any]]:
        """What a student that is shown `size` pixels learns from, and a summary of the choice, written to `folder`."""
        said = task.load_answers(self.run.answers("teacher", "validation"))
        return task.lessons_of_teacher(
            manifest.of("train"),
            self.run.folder("labels"),
            self.config,
            said,
            folder,
            plan=self.view_plan(self.config.train),
            size=size,
        )

    def cache(self) -> ImageCache:
        """Decoded images."""
        data = self.config.data
        return ImageCache(data.max_megapixels, 0) if data.cache == "none" else ImageCache(data.max_megapixels)

    def decoded(self, stack: ExitStack, manifest: Manifest, cache: ImageCache, size: int) -> DecodedImages | None:
        """Training images on disk for a student of this size, where the config asks for that, until the stack ends."""
        if self.config.data.cache != "disk":
            return None
        from distill.data.decoded import DecodedImages

        folder, records, min_crop = self.run.root / "decoded", manifest.of("train"), self.config.train.min_crop
        found = DecodedImages(records, folder, cache, size=size, min_crop=min_crop)
        stack.callback(found.close)
        said = f"decoded images: {found.bytes / 1e6:,.0f} MB in {folder}"
        self.progress.console.print(f"  {said}", highlight=False, markup=False, soft_wrap=True)
        return found


class Call(NamedTuple):
    """What rank 0 tells the others of a training that begins: all else is in the run folder.

    Args:
        run: its folder.
        stage: teacher, student or baseline.
        part: member of an ensemble.
        seed: of this training.
    """

    run: Path
    stage: str
    part: str
    seed: int


def data(
    work: Work, candidates: Sequence[sources.Candidate], known: Manifest | None, corrections: Corrections
) -> dict[str, Any]:
    """Read every image; say which split it is in or why it was left out."""
    masks = work.run.folder("data") / "masks" if build_task(work.config.task).by_pixel else None
    manifest = scan(candidates, work.config.data, known, work.progress, masks, corrections)
    pairs = find_pairs(manifest, work.cache(), work.progress)
    write_json(work.run.folder("data") / LEAKS, [asdict(pair) for pair in pairs])
    if work.config.data.leaks == "error":
        refuse_wrong_splits(pairs)
    manifest = without_leaks(manifest, pairs)
    check(manifest)  # all of a pool may be copies
    task, test = work.task(manifest), manifest.of("test", labelled=True)
    check_promises(work.config, test, task)
    second_opinion(work.config.data, test or manifest.of("validation", labelled=True), task)  # before all the work
    manifest.save(work.run.folder("data") / MANIFEST)
    counts = {**manifest.counts(), "leaks": len(pairs)}
    if corrections.answers:
        asked = manifest.as_asked()
        counts |= {"reviewed": reviewed(manifest, corrections)}
        counts |= {"asked_digest": asked.digest(), "asked_truth_digest": asked.digest(truth_only=True)}
    return {**counts, "digest": manifest.digest(), "truth_digest": manifest.digest(truth_only=True)}


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
    if lacking := task.no_better_than_chance(scores["validation"]):
        raise TeacherError(
            f"the teacher knows no more than chance: {lacking}. Usual causes: teacher.classes in another order than the"
            " weights' outputs, a wrong class_map, a wrong mean and std, labels mixed up"
        )
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
    known = manifest.of("train", labelled=True)
    if not known:
        raise TeacherError("teacher.fit needs labelled training images: give data.labeled")
    task = work.task(manifest)
    examples = task.lessons_of_truth(
        known,
        work.view_plan(settings),
        settings,
        epoch_size=len(known),
        size=network.image_size,
    )
    loss = task.loss_of_truth(settings.extra)
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
    """Ask the teacher about every training image, once."""
    manifest, folder, settings = work.manifest(), work.run.folder("labels"), work.config.labels
    if not complete(folder):  # shares of it may have been made elsewhere
        with same_threads(folder) as threads:
            if settings.engine == "ray":
                from distill.labels.on_ray import label_on_ray

                make = partial(labelling_elsewhere, work.run.root, fingerprint, threads)
                label_on_ray(folder, make, settings.workers, work.progress)
            else:
                labelling(work, fingerprint).label(work.progress)
    records = manifest.of("train")
    summary = work.task(manifest).summary_of_store(folder, records)
    facts = facts_of(folder)
    return {
        "images": len(records),
        "taken_over": facts.get("taken_over", 0),
        "precision": facts["precision"],
        **summary,
    }


def labelling_elsewhere(root: Path, fingerprint: str, threads: int) -> Labelling[Any, Any]:
    """What asks the teacher, in another process, which sees the run folder and the images under the same paths."""
    import torch

    torch.set_num_threads(threads)
    config = load_config(root / "config.yaml")
    config = with_demo(config) if config.data.demo is not None else config
    return labelling(Work(config, Run(root), Progress(Console(quiet=True))), fingerprint)


def labelling(work: Work, fingerprint: str) -> Labelling[Any, Any]:
    """What asks the teacher, with the teacher built, fitted, mapped and tuned."""
    import torch

    config, manifest, folder, cache = work.config, work.manifest(), work.run.folder("labels"), work.cache()
    records, settings, task = manifest.of("train"), config.teacher, work.task(manifest)
    predictor = build_teacher(config, manifest.classes)
    load_fitted(predictor, settings, work.run.folder("teacher"))
    labeller, earlier = as_labeller(predictor, manifest.classes, settings), work.run.earlier("labels")
    keep_precision(labeller, earlier, folder)
    precision = choose_precision(predictor, settings, records, cache, folder)
    plan = work.view_plan(config.train)
    return task.labelling(
        labeller,
        records,
        folder,
        config.labels,
        cache=cache,
        plan=plan,
        batch_size=settings.batch_size,
        fingerprint=fingerprint,
        facts={
            "teacher": {
                "name": _name(settings),
                "digest": labeller.digest(),
                "image_size": labeller.image_size,
                "license": _license(predictor),
            },
            "class_map": settings.class_map,
            "precision": precision,
            "threads": torch.get_num_threads(),
            "view_plan": asdict(plan),
            "version": __version__,
        },
        earlier=earlier,
    )


def student(work: Work) -> dict[str, Any]:
    """Teach the student what the store says."""
    manifest, cache, config, folder = work.manifest(), work.cache(), work.config, work.run.folder("student")
    task = work.task(manifest)
    network = build_network(work, config.student, manifest)
    examples, choice = work.lessons_of_teacher(manifest, task, folder, network.image_size)
    _look_before(work, network, examples, task, manifest, cache)
    summary = _learn(work, network, examples, task.loss(config), "student", manifest, task, cache)
    _draw_what_is_fed(network, examples, manifest.classes, folder / "fed", cache)
    from distill.simple import Blind

    blind = {"black images": ("the student", Blind(_torch_predictor(network)))}
    simple = _score_simple(work, blind, "student", manifest, task, cache)
    return {**summary, "choice": choice, "simple": simple}


def baseline(work: Work) -> dict[str, Any]:
    """Train the control: the same student, as many steps, on the labelled images alone."""
    manifest, cache, config = work.manifest(), work.cache(), work.config
    known = manifest.of("train", labelled=True)
    task = work.task(manifest)
    classes = task.classes_in(known)
    simple = _score_simple(work, _simple(work, known, manifest, task, cache), "baseline", manifest, task, cache)
    if len(classes) < 2:
        absent = f"no control: {len(known)} labelled training images of {len(classes)} classes"
        return {"absent": absent, "simple": simple}
    network = build_network(work, config.student, manifest)
    examples, loss = _of_control(work, manifest, task, network.image_size)
    return {**_learn(work, network, examples, loss, "baseline", manifest, task, cache), "simple": simple}


def _of_control(work: Work, manifest: Manifest, task: Task, size: int) -> tuple[Examples, LessonLoss]:
    """What the control learns from, and what it minimises."""
    train, known = work.config.train, manifest.of("train", labelled=True)
    plan, epoch_size = work.view_plan(train), len(manifest.of("train"))
    examples = task.lessons_of_truth(known, plan, train, epoch_size=epoch_size, size=size)
    return examples, task.loss_of_truth(train.extra)


def join(work: Work, stage: str, part: str) -> None:
    """Take part in a training that rank 0 has called to: build what it has built, then train with it.

    Args:
        work: with the team, and the seed that rank 0 has told.
        stage: teacher, student or baseline.
        part: member of an ensemble.
    """
    config, manifest, cache = work.config, work.manifest(), work.cache()
    task = work.task(manifest)
    if stage == "teacher":
        found = networks(build_teacher(config, manifest.classes), config.teacher)
        network, fit = next((network, member.fit) for name, network, member in found if name == part)
        assert fit is not None
        _fit(work, network, fit, part, manifest, cache)
        return
    network = build_network(work, config.student, manifest)
    if stage == "student":
        with TemporaryDirectory() as folder:  # rank 0 keeps the choice
            examples, _ = work.lessons_of_teacher(manifest, task, Path(folder), network.image_size)
        loss = task.loss(config)
    else:
        examples, loss = _of_control(work, manifest, task, network.image_size)
    _train(work, network, examples, config.train, loss, stage, manifest, cache)


def _simple(
    work: Work, known: Sequence[ImageRecord], manifest: Manifest, task: Task, cache: ImageCache
) -> dict[str, tuple[str, Predictor]]:
    """Answers by frequency alone and, where images are answered, by the features that the student starts from.

    By name, each with what it stands on.
    """
    from distill.probe import fit_probe
    from distill.simple import Frequencies, Neighbours

    if not known:
        return {}
    config, size = work.config, work.config.student.image_size
    found: dict[str, tuple[str, Predictor]] = {}
    found["class frequencies"] = ("the labelled images", Frequencies(task, known, size))
    if not task.by_pixel and len(task.classes_in(known)) > 1:
        start = build_network(work, config.student, manifest)
        features = f"{'pretrained' if start.pretrained else 'untrained'} features"
        found["nearest neighbours"] = (features, Neighbours(start, known[:_FEATURES], cache, config.data.resize))
        probed = deepcopy(start)
        lesson = task.lessons_of_truth(
            known, work.view_plan(config.train), config.train, epoch_size=len(known), size=size
        ).fixed(_FEATURES)
        validation = manifest.of("validation", labelled=True)
        fit_probe(probed, lesson, validation, cache=cache, resize=config.data.resize)
        found["logistic regression"] = (features, _torch_predictor(probed))
    return found


def _score_simple(
    work: Work,
    predictors: Mapping[str, tuple[str, Predictor]],
    stage: str,
    manifest: Manifest,
    task: Task,
    cache: ImageCache,
) -> dict[str, Any]:
    """What each stands on and its scores; the answers are kept as those of trainings are."""
    found = {}
    for name, (basis, predictor) in predictors.items():
        scores = _score(work, predictor, stage, manifest, task, cache, name=name)
        found[name] = {"detail": basis, "scores": {split: score.as_dict() for split, score in scores.items()}}
    return found


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
    """Gather all numbers into report.json, draw report.html, write the model card report.md."""
    from distill.report.build import write_report

    document = write_report(work.run, work.config)
    broken = [
        f"the gate {g['name']} does not hold (found {g['found']}, {g['relation']} {g['limit']:g}"
        f"{', ' if g['detail'] else ''}{g['detail']})"
        for g in document["gates"]
        if not g["holds"]
    ]
    broken += [
        f"{row['name']} was rejected: {row['reason']}" for row in document["rows"] if row["status"] == "rejected"
    ]
    return {"broken": broken}


def _look_before(
    work: Work, network: Network, examples: Examples, task: Task, manifest: Manifest, cache: ImageCache
) -> None:
    """The quick checks of what the student starts from.

    Raises:
        SanityFailed: one failed.
    """
    from distill.sanity import suite
    from distill.sanity.subject import Subject, store_in
    from distill.train import started

    config = work.config
    if started(work.run.folder("student")):  # they passed before it began
        return
    validation, store = manifest.of("validation", labelled=True), store_in(work.run.folder("labels"))
    loss, resize = task.loss(config), config.data.resize
    subject = Subject(network, examples, loss, task, config.train, validation, cache, resize, config.seed, store)
    results, pictures = suite.examine(subject, quick=True)
    found = suite.document(results, quick=True, learns_from="teacher")
    suite.keep(work.run.root, found, pictures)
    if failed := suite.failures(found):
        if config.sanity == "stop":
            raise failed
        work.progress.console.print(f"  {failed}", highlight=False, markup=False, soft_wrap=True)


def forward(arguments: Sequence[str]) -> None:
    """Run `python -m export …`: the one way from here to the exporters.

    Raises:
        DistillError: it ended with another exit code than 0; it has printed why.
    """
    command = [sys.executable, "-m", "export", *arguments]
    code = subprocess.run(command, check=False, pass_fds=locks_held()).returncode
    if code < 0:
        raise DistillError(f"`export {arguments[0]}` was ended by signal {-code}; the same command goes on")
    if code != 0:
        raise UserError(f"`export {arguments[0]}` ended with exit code {code} (above)")


def build_network(work: Work, settings: Settings, manifest: Manifest) -> Any:
    """A teacher or student; where its weights are random, they are those of the run's seed."""
    import torch

    torch.manual_seed(work.config.seed)
    return plugins.build(settings, manifest.classes)


def _train(
    work: Work,
    network: Network,
    examples: Examples,
    settings: TrainSettings,
    loss: LessonLoss,
    stage: str,
    manifest: Manifest,
    cache: ImageCache,
    *,
    part: str = "",
) -> Trained:
    from distill.ranks import team_of
    from distill.strip import Strip
    from distill.train import smallest_batch, train

    validation, folder, resize = (
        manifest.of("validation", labelled=True),
        work.run.folder(stage),
        work.config.data.resize,
    )
    with ExitStack() as stack:
        # a teacher's fit reads the files: changing the key must not make it anew, and all labels with it
        decoded = None if stage == "teacher" else work.decoded(stack, manifest, cache, network.image_size)
        smallest = smallest_batch(examples, settings.batch_size)
        team = stack.enter_context(team_of(work.team, settings.devices, smallest))
        if team.rank == 0:
            team.agree(tuple(Call(work.run.root, stage, part, work.config.seed)))
        return train(
            network,
            examples,
            validation,
            work.task(manifest),
            settings,
            loss,
            folder / part,
            stage=f"{stage} {part}".strip(),
            seed=work.config.seed,
            cache=cache,
            resize=resize,
            metrics=MetricsLog(work.run.root / "metrics.jsonl"),
            progress=work.progress,
            watch=Strip(folder / "strip", validation, cache, resize) if stage == "student" else None,
            team=team,
            decoded=decoded,
        )


def _learn(
    work: Work,
    network: Network,
    examples: Examples,
    loss: LessonLoss,
    stage: str,
    manifest: Manifest,
    task: Task,
    cache: ImageCache,
) -> dict[str, Any]:
    """Train a student, score it, leave its card."""
    from distill.trained_student import save_card

    trained = _train(work, network, examples, work.config.train, loss, stage, manifest, cache)
    predictor = _torch_predictor(network)
    scores = _score(work, predictor, stage, manifest, task, cache)
    facts: dict[str, Any] = {"resize": work.config.data.resize, "max_megapixels": work.config.data.max_megapixels}
    if stage == "student":
        facts["teacher"] = facts_of(work.run.folder("labels"))["teacher"]
    save_card(work.run.folder(stage), work.config.student, network, facts)
    detail = f"{_name(work.config.student)}, {network.image_size} px"
    return {
        "detail": detail,
        "training": asdict(trained),
        "scores": {split: score.as_dict() for split, score in scores.items()},
        **_size_and_time(predictor),
    }


def _score(
    work: Work,
    predictor: Predictor,
    stage: str,
    manifest: Manifest,
    task: Task,
    cache: ImageCache,
    *,
    name: str = "",
) -> dict[str, Score]:
    """Scores on validation and, where there is one, test; the answers are kept for paired comparisons."""
    from distill.evaluate import evaluate

    scores = {}
    for split in ("validation", "test"):
        records = manifest.of(split, labelled=True)
        if records:
            scores[split], answers = evaluate(
                predictor, task, records, cache, work.config.data.resize, progress=work.progress
            )
            answers.save(work.run.stage_answers(stage, split, name))
    return scores


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


def _license(teacher: Predictor) -> str | None:
    """As the cards of its weights state it, of an ensemble each member's."""
    stated = of_each(teacher, lambda part: part.license)
    return " + ".join(each or "unknown" for each in stated) if any(stated) else None


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
    targets = lesson.teacher + (lesson.truth - lesson.teacher) * lesson.truth_share[..., None]
    shown = network.denormalize(network.normalize(torch.from_numpy(pixels))).numpy()
    captions = []
    folder.mkdir(exist_ok=True)
    for number, ((record, (view,)), target, picture) in enumerate(zip(lesson.shown, targets, shown, strict=True)):
        drawn = picture
        if target.ndim == 3:  # of pixels: the target beside what is shown
            mask = target.argmax(axis=-1).astype(np.uint8)
            mask[lesson.weight[number] == 0] = IGNORED
            side = len(picture) // len(mask)
            filled = mask.repeat(side, 0).repeat(side, 1)
            laid = overlay(picture, filled, class_colors(len(classes)), clear=background(classes))
            drawn = np.concatenate([picture, laid], axis=1)
        with replacing(folder / f"fed-{number}.png") as temporary:
            Image.fromarray(drawn).save(temporary, format="PNG")
        mean = target.reshape(-1, len(classes)).mean(axis=0)
        top = mean.argsort()[::-1][:2]
        said = ", ".join(f"{classes[i]} {mean[i]:.2f}" for i in top)
        captions.append({"picture": f"fed-{number}", "caption": f"{record.id[:8]} {view}: {said}"})
    write_json(folder / "fed.json", captions)
