"""The whole story on one page: images, teacher, labels, student, control, files, numbers, report.

Each line of `run` is a stage. A stage is done when the fingerprint of all it depends on stands in its folder; so the
same command goes on where it stopped, and a changed setting redoes only what depends on it.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape

from distill import stages
from distill.config import RunConfig
from distill.config_file import save_config
from distill.core import plugins
from distill.core.environment import describe_environment
from distill.core.errors import GateFailed, RunFolderError, UserError
from distill.core.files import digest_of, sha256_of, write_json
from distill.core.progress import Progress
from distill.core.run import Run
from distill.core.settings import TeacherSettings
from distill.core.task import Metric, build_task
from distill.data import sources
from distill.data.corrections import Corrections
from distill.data.demo import images_in_demo, with_demo
from distill.data.manifest import Manifest
from distill.labels.shards import REVISION, planned, shard_path
from distill.labels.share import Share
from distill.teaching import same_threads

if TYPE_CHECKING:
    from distill.data.candidate import Candidate
    from distill.estimate import Estimate
    from distill.ranks import Team

__all__ = ["PURPOSE", "STAGES", "Plan", "StageName", "label_share", "plan", "run"]

StageName = Literal["data", "teacher", "labels", "student", "baseline", "export", "benchmark", "report"]
STAGES: tuple[StageName, ...] = get_args(StageName)

# Raised when a stage's code starts to give other results, so that finished runs do that stage anew.
_VERSIONS: dict[StageName, int] = {
    "data": 3,
    "teacher": 3,
    "labels": REVISION,
    "student": 4,
    "baseline": 5,
    "export": 6,
    "benchmark": 2,
    "report": 5,
}

_NEEDS: dict[StageName, tuple[StageName, ...]] = {
    "data": (),
    "teacher": ("data",),
    "labels": ("data", "teacher"),
    "student": ("labels",),
    "baseline": ("data",),
    "export": ("student",),
    "benchmark": ("export",),
    "report": STAGES[:-1],
}

PURPOSE: dict[StageName, str] = {
    "data": "read every image: hash, size, split, or why it is left out",
    "teacher": "load the teacher, fit it where asked, score it on the validation set",
    "labels": "ask the teacher about every view of every training image, once",
    "student": "teach the student what the store says",
    "baseline": "train the control: the same student on the labelled images alone",
    "export": "write each file, open it in another process, compare and score it",
    "benchmark": "time the files on this CPU in interleaved rounds",
    "report": "gather all numbers into report.json, report.html and report.md",
}


@dataclass(frozen=True)
class Planned:
    """One stage of a plan.

    Args:
        name: of the stage.
        done: nothing is left to do.
        why: one sentence.
        estimate: what it will take, where that was asked for and there is something left to do.
    """

    name: StageName
    done: bool
    why: str
    estimate: Estimate | None = None


class Plan(NamedTuple):
    """What a run would do.

    Args:
        stages: in order.
        images: files that the config names.
    """

    stages: list[Planned]
    images: int


def run(config: RunConfig, console: Console, *, until: StageName | None = None, team: Team | None = None) -> Path:
    """Do everything that is not done yet.

    Args:
        config: of the run.
        console: told what happens.
        until: last stage to do.
        team: processes that torchrun or srun started, to train with; this one is rank 0.

    Returns:
        The run folder.

    Raises:
        UserError: something the user can change; finished work is kept.
        GateFailed: all is done, a promise does not hold.
    """
    folder = Run.create(config.output)
    with folder.lock():
        work, steps = _begin(config, folder, console, until, team)
        steps.do("labels", lambda: stages.labels(work, steps.fingerprints["labels"]))
        steps.do("student", lambda: stages.student(work))
        steps.do("baseline", lambda: stages.baseline(work))
        steps.do("export", lambda: stages.export(work))
        steps.do("benchmark", lambda: stages.benchmark(work))
        steps.do("report", lambda: stages.report(work))
        steps.close()
    if steps.reached("report") and (broken := folder.summary("report")["broken"]):
        raise GateFailed(f"{'; '.join(broken)}. All files are kept in {folder.root}")
    return folder.root


def label_share(config: RunConfig, console: Console, share: Share) -> Path:
    """Write a share of the label shards, beside other processes that write theirs; `run` then goes on.

    What comes before is done by whichever process is first, with precision and batch of the labelling, while the others
    wait.

    Returns:
        The run folder.

    Raises:
        UserError: something the user can change; finished work is kept.
    """
    if config.labels.engine != "local":
        raise UserError(f"--shard: found `labels.engine: {config.labels.engine}`, which shares the work out by itself")
    folder, told = Run.create(config.output), False
    while True:
        with folder.lock_with_others():
            if (fingerprint := _labels_under_way(config, folder)) is not None:
                _label_share(config, folder, console, share, fingerprint)
                return folder.root
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(folder.lock())
            except RunFolderError:
                if not told:
                    console.print(f"waiting for another process in {folder.root}", highlight=False, markup=False)
                told = True
                time.sleep(random.uniform(0.1, 0.5))  # noqa: S311 - so that two do not meet again and again
                continue
            work, steps = _begin(config, folder, console, "labels")
            fingerprint = steps.fingerprint("labels")
            if folder.done("labels", fingerprint):  # by a version that kept no plan
                steps.close()
                return folder.root
            with same_threads(folder.begin("labels", fingerprint, set_aside=True)):
                stages.labelling(work, fingerprint).settle(work.progress)


def plan(config: RunConfig, *, measured: bool = False) -> Plan:
    """What `run` would do, without doing or writing anything.

    A stage behind one that has to run is shown as to do: whether its inputs change is not known before.

    Args:
        config: of the run.
        measured: also estimate time, disk and memory of what is left to do, from a few batches on this machine.
    """
    exists = (config.output / "run.json").exists()
    if config.data.demo is not None:
        if not exists:  # its images are written when it runs
            return Plan([Planned(name, False, "new run") for name in STAGES], images_in_demo(config))
        config = with_demo(config)
    candidates = sources.find(config.data, config.task)
    folder = Run(config.output) if exists else None
    planned = _planned(config, folder, candidates) if folder else [Planned(name, False, "new run") for name in STAGES]
    if measured and not all(step.done for step in planned):
        from distill.estimate import estimate

        found = estimate(config, candidates)
        if folder and folder.fingerprint("labels"):
            labels = found["labels"]
            found["labels"] = replace(labels, basis=f"{labels.basis} at most: answers that still hold are taken over")
        planned = [step if step.done else replace(step, estimate=found[step.name]) for step in planned]
    return Plan(planned, len(candidates))


def _planned(config: RunConfig, folder: Run, candidates: Sequence[Candidate]) -> list[Planned]:
    steps = _Steps(config, folder, Console(quiet=True), None)
    corrections = Corrections.of_run(config).digest()
    planned: list[Planned] = []
    for name in STAGES:
        waits_for = next((step.name for step in planned if not step.done and step.name in _NEEDS[name]), None)
        if waits_for is not None:
            planned.append(Planned(name, False, f"after {waits_for}"))
            continue
        inputs = (sources.listing(candidates), corrections) if name == "data" else ()
        fingerprint = steps.fingerprint(name, *inputs)
        steps.fingerprints[name] = fingerprint
        done = folder.done(name, fingerprint) is not None
        fresh = not (folder.folder(name) / "stage.json").exists()
        planned.append(Planned(name, done, "done" if done else "not done yet" if fresh else "its inputs changed"))
    return planned


def _begin(
    config: RunConfig, folder: Run, console: Console, until: StageName | None, team: Team | None = None
) -> tuple[stages.Work, _Steps]:
    """Do what comes before the labels."""
    save_config(config, folder.root / "config.yaml")
    if config.data.demo is not None:
        config = with_demo(config)
    steps = _Steps(config, folder, console, until)
    work = stages.Work(config, folder, Progress(console), team)

    candidates = sources.find(config.data, config.task)
    known, corrections = _known_images(folder), Corrections.of_run(config)
    steps.do(
        "data",
        lambda: stages.data(work, candidates, known, corrections),
        listing=sources.listing(candidates),
        corrections=corrections.digest(),
    )
    steps.do("teacher", lambda: stages.teacher(work))
    return work, steps


def _labels_under_way(config: RunConfig, folder: Run) -> str | None:
    """Fingerprint of the labels, where all before them is done and their plan is written."""
    if config.data.demo is not None:
        if not (config.output / "images").exists():
            return None
        config = with_demo(config)
    steps = _Steps(config, folder, Console(quiet=True), None)
    listing, corrections = sources.listing(sources.find(config.data, config.task)), Corrections.of_run(config).digest()
    before: dict[StageName, tuple[str, ...]] = {"data": (listing, corrections), "teacher": ()}
    for name, inputs in before.items():
        steps.fingerprints[name] = steps.fingerprint(name, *inputs)
        if folder.done(name, steps.fingerprints[name]) is None:
            return None
    fingerprint = steps.fingerprint("labels")
    there = folder.begun("labels", fingerprint) and planned(folder.folder("labels")) is not None
    return fingerprint if there else None


def _label_share(config: RunConfig, folder: Run, console: Console, share: Share, fingerprint: str) -> None:
    labels = folder.folder("labels")
    shards = planned(labels) or 0
    mine = share.of(shards)
    if not all(shard_path(labels, number).exists() for number in mine):
        config = with_demo(config) if config.data.demo is not None else config
        progress = Progress(console)
        with same_threads(labels):
            labelling = stages.labelling(stages.Work(config, folder, progress), fingerprint)
            with progress.task("labelling", labelling.extent.of(mine), labelling.unit) as task:
                labelling.label_part(mine, task)
    missing = sum(not shard_path(labels, number).exists() for number in range(shards))
    left = f"{missing} of {shards} are missing" if missing else f"all {shards} are there, `distill run` goes on"
    console.print(f"share {share.number}/{share.total}: {len(mine)} label shards; {left}", highlight=False)


class _Steps:
    """Does stages in order and says so."""

    def __init__(self, config: RunConfig, folder: Run, console: Console, until: StageName | None) -> None:
        self._config, self._run, self._console = config, folder, console
        self._until = STAGES.index(until or STAGES[-1])
        self._task = build_task(config.task)  # the classes are not known before the stage `data`
        self._did: list[str] = []
        self.fingerprints: dict[str, str] = {}

    def reached(self, name: StageName) -> bool:
        """Whether this stage is among those to be done."""
        return STAGES.index(name) <= self._until

    def do(
        self, name: StageName, work: Callable[[], dict[str, Any]], *, listing: str = "", corrections: str = ""
    ) -> None:
        """Do a stage unless it is done or lies behind `until`."""
        if not self.reached(name):
            return
        fingerprint = self.fingerprints[name] = self.fingerprint(name, listing, corrections)
        if self._run.done(name, fingerprint):
            return
        if not self._did:
            write_json(self._run.root / "environment.json", describe_environment(self._config.seed))
        self._console.print(f"[bold]{name}[/bold]")
        start = time.monotonic()
        self._run.begin(name, fingerprint, set_aside=name == "labels")
        summary = work()
        seconds = time.monotonic() - start
        self._run.finish(name, fingerprint, seconds, summary)
        self._did.append(name)
        for line in describe(name, summary, self._task.metric):
            self._console.print(f"  {escape(line)}", highlight=False)
        self._console.print(f"  [dim]{seconds:.1f} s[/dim]", highlight=False)

    def close(self) -> None:
        """Say so if there was nothing to do."""
        if not self._did:
            self._console.print("Nothing to do: every stage is done and nothing it depends on has changed.")

    def fingerprint(self, name: StageName, listing: str = "", corrections: str = "") -> str:
        """Hash of everything that decides a stage's result."""
        c = self._config
        match name:
            case "data":
                excluded = {"corrections", "groups", "second", "cache"}
                settings = c.data.model_dump(mode="json", exclude=excluded)
                depends: dict[str, Any] = {"data": settings, "listing": listing}
                if corrections:  # by content, whichever journal holds them
                    depends |= {"corrections": corrections}
            case "teacher":
                teacher = {
                    k: v for k, v in _values(c.teacher).items() if k not in {"batch_size", "precision"}
                }  # of labelling
                truth = self._data("truth_digest") if _is_fitted(c.teacher) else self._asked("truth_digest")
                depends = {"teacher": teacher, "truth": truth, "view": self._view()}
            case "labels":
                depends = {
                    "labels": _values(c.labels),
                    "data": self._asked("digest"),
                }
                if not self._task.by_pixel:
                    depends |= {"crop": [c.train.min_crop, c.train.color], "view": self._view()}
                depends |= {
                    "teacher": self.fingerprints["teacher"],
                    "asked": [c.teacher.batch_size, c.teacher.precision],
                }
            case "student":
                depends = {
                    "student": _values(c.student),
                    "train": _values(c.train),
                    "trust": _values(c.trust),
                    "view": self._view(),
                    "labels": self.fingerprints["labels"],
                }
                if self._data("digest") != self._asked("digest"):  # it learns from what a review said
                    depends |= {"data": self._data("digest")}
            case "baseline":
                depends = {"student": _values(c.student), "train": _values(c.train), "view": self._view()}
                depends |= {"truth": self._data("truth_digest"), "images": self._data("images")}
            case "export":
                depends = {"export": _values(c.export), "student": self.fingerprints["student"]}
                depends |= {"max_int8_drop": c.gates.max_int8_drop}
            case "benchmark":
                depends = {"benchmark": _values(c.benchmark), "export": self.fingerprints["export"]}
            case "report":
                depends = {"gates": _values(c.gates), "before": dict(self.fingerprints)}
                depends |= {"groups": [c.data.groups, _values(c.data)["manifest"]] if c.data.groups else []}
                depends |= {"second": [c.data.second, _values(c.data)["manifest"]]} if c.data.second else {}
        if c.data.cache == "disk" and name in {"student", "baseline"}:  # pixels are rounded otherwise
            depends |= {"cache": "disk"}
        return digest_of({"stage": name, "version": _VERSIONS[name], "seed": c.seed, "task": c.task, **depends})

    def _view(self) -> dict[str, Any]:
        return {"resize": self._config.data.resize, "mirror": self._config.data.mirror}

    def _data(self, key: str) -> Any:
        summary = self._run.summary("data")
        return summary["train_labelled"] + summary["train_unlabelled"] if key == "images" else summary[key]

    def _asked(self, key: str) -> Any:
        """A digest without what a review said of training images: for a teacher who never sees that."""
        return self._run.summary("data").get(f"asked_{key}", self._data(key))


def _values(settings: BaseModel) -> dict[str, Any]:
    """Settings as JSON; files they name count by content, user code by its source, who does the work not at all."""
    values: dict[str, Any] = settings.model_dump(
        mode="json", exclude={"workers": True, "engine": True, "devices": True, "fit": {"workers", "devices"}}
    )
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Path) and value.is_file():
            values[name] = sha256_of(value)
        elif isinstance(value, list) and value and all(isinstance(item, TeacherSettings) for item in value):
            values[name] = [_values(member) for member in value]
            values.pop("memory", None)  # members answer the same together and in turn
    values |= {path.name: sha256_of(path) for path in plugins.user_files(settings)}
    return values


def _is_fitted(teacher: TeacherSettings) -> bool:
    """Whether it, or a member of an ensemble, learns from training images."""
    lists = [getattr(teacher, name) for name in type(teacher).model_fields if name != "classes"]
    members = [one for each in lists if isinstance(each, list) for one in each if isinstance(one, TeacherSettings)]
    return any(one.fit is not None for one in (teacher, *members))


def _known_images(folder: Run) -> Manifest | None:
    path = folder.folder("data") / stages.MANIFEST
    return Manifest.load(path) if path.exists() else None


def describe(name: StageName, summary: dict[str, Any], metric: Metric) -> Iterator[str]:
    """What a finished stage is worth saying."""
    match name:
        case "data":
            yield (
                f"{summary['train_unlabelled']} unlabelled and {summary['train_labelled']} labelled training images,"
                f" {summary['validation']} validation, {summary['test']} test; classes: {', '.join(summary['classes'])}"
            )
            if "reviewed" in summary:
                told = {"new": "new", "confirmed": "confirmed", "changed": "changed", "left_out": "left out"}
                told |= {"elsewhere": "of images that are not here"}
                parts = [f"{summary['reviewed'][key]} {word}" for key, word in told.items() if summary["reviewed"][key]]
                yield f"truth by review: {', '.join(parts)}"
            for reason, count in summary["left_out_by_reason"].items():
                yield f"left out: {count} x {reason}"
            if summary["leaks"]:
                yield f"{summary['leaks']} pairs of images in two splits that show the same: see data/{stages.LEAKS}"
        case "teacher" | "student" | "baseline":
            if "absent" in summary:
                yield summary["absent"]
                return
            yield summary["detail"]
            learnt = summary.get("training") or summary.get("fit") or {"decisions": {}}
            for member, fit in learnt.get("members", {}).items():
                yield (
                    f"{member}: {metric.title} {fit['validation_score']:.3f} on validation after epoch"
                    f" {fit['best_epoch']} of {fit['epochs']}"
                )
            for key, value in learnt["decisions"].items():
                yield f"{key}: {value}"
            for split, score in summary["scores"].items():
                a = score[metric.key]
                yield (
                    f"{split} {metric.title} {a['value']:.3f} [{a['low']:.3f}, {a['high']:.3f}] on"
                    f" {score['images']} images"
                )
        case "labels":
            yield (f"{summary['images']} images, {summary['stored']}, mean confidence {summary['mean_confidence']:.2f}")
            if summary["taken_over"]:
                yield f"{summary['taken_over']} of them known from the labelling before, the same teacher's"
            yield f"answered in {summary['precision']}"
            if summary["hidden_score"] is not None:
                yield f"{metric.title} {summary['hidden_score']:.3f} on the images whose truth was hidden"
        case _:
            return


def require_run(path: Path) -> Run:
    """A run folder that exists.

    Raises:
        RunFolderError: it does not.
    """
    if not path.is_dir():
        raise RunFolderError(f"found no run folder {path}")
    return Run(path)
