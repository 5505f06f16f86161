"""A search: trials are run folders that share data, teacher and labels; the store remembers what was tried.

Random search comes first (Bergstra & Bengio 2012), then TPE (Bergstra et al. 2011), by Optuna. What is judged by is the
student's validation metric; the test set decides nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml
from rich.console import Console

from distill import pipeline
from distill.config import RunConfig
from distill.config_file import load_config
from distill.core.errors import DistillError, UserError
from distill.core.files import digest_of, read_json, write_json, write_text
from distill.core.run import Run
from distill.core.settings import Settings
from distill.core.task import build_task
from distill.data.demo import with_demo
from distill.search.space import Parameter, read_space
from distill.yaml_document import YamlDumper

if TYPE_CHECKING:
    import optuna

__all__ = ["Budget", "search"]

SHARED: Final = ("data", "teacher", "labels")
"""Stages that all trials have in common."""

_RANDOM = 10  # trials before TPE; Optuna's own default
_HOPELESS = 3  # trials that failed, and none that did not
_SPACE = "space.json"


@dataclass(frozen=True)
class Budget:
    """When to stop.

    Args:
        trials: in the store, over all workers; None for no limit.
        minutes: of this worker; a trial that would probably end later is not begun, unless it is the worker's first.
            None for no limit.
    """

    trials: int | None
    minutes: float | None


def search(
    path: Path,
    changes: Sequence[str],
    space: Sequence[str],
    budget: Budget,
    folder: Path,
    console: Console,
    *,
    store: str | None = None,
) -> dict[str, Any]:
    """Try settings until the budget is spent; the same call goes on, several at once work on one search.

    Args:
        path: the config.
        changes: `--set` options.
        space: `--space` options; without them `tune.space` of the config, else a default.
        budget: when to stop.
        folder: for the store, shared stages, trials and the best config.
        console: told what happens.
        store: URL of an Optuna storage; an SQLite file in the folder if left out.

    Returns:
        The document of `trials.json`.

    Raises:
        UserError: a mistake in space or settings; the folder holds another search; nothing but failed trials.
    """
    optuna = _optuna()
    base = load_config(path, [*changes, f"output={folder / 'shared'}"])
    parameters = read_space(space, base.tune.space)
    folder.mkdir(parents=True, exist_ok=True)
    _same_search(folder, base, parameters)
    _try_ends(path, changes, base, parameters)
    done = folder / "shared" / "labels" / "stage.json"
    with _alone(folder / ".shared.lock"):
        pipeline.run(base, Console(quiet=True) if done.exists() else console, until="labels")
    data = with_demo(base).data if base.data.demo is not None else base.data
    study = optuna.create_study(
        storage=store or f"sqlite:///{(folder / 'study.db').absolute()}",
        study_name=folder.resolve().name,
        direction="maximize",
        load_if_exists=True,
    )
    labels = read_json(done)["fingerprint"]
    if study.user_attrs.get("labels", labels) != labels:
        raise UserError(f"{folder}: images or teacher have changed since the search began; choose another --out")
    study.set_user_attr("labels", labels)
    worker = _Worker(study, path, list(changes), base, data, parameters, folder, console)
    begun = time.monotonic()
    while worker.work(budget):
        worker.write_results()
        if not worker.has_time(budget, time.monotonic() - begun):
            break
    return worker.write_results()


class _Worker:
    """One process of a search."""

    def __init__(
        self,
        study: optuna.Study,
        path: Path,
        changes: list[str],
        base: RunConfig,
        data: Settings,
        parameters: Sequence[Parameter],
        folder: Path,
        console: Console,
    ) -> None:
        self._study, self._path, self._changes, self._base = study, path, changes, base
        self._data, self._parameters, self._folder, self._console = data, parameters, folder, console
        self._metric = build_task(base.task).metric

    def has_time(self, budget: Budget, seconds: float) -> bool:
        """Whether time is left for a trial as long as those before."""
        took = [t.duration.total_seconds() for t in self._finished() if t.duration]
        expected = sum(took) / len(took) if took else 0.0
        return budget.minutes is None or seconds + expected <= 60 * budget.minutes

    def work(self, budget: Budget) -> bool:
        """Do one trial, or go on with one whose worker has ended; False where the budget has none left."""
        claimed = self._claim(budget)
        if claimed is None:
            return False
        number, values, lock = claimed
        with lock:
            self._console.print(f"[bold]trial {number}[/bold] {self._said(values)}", highlight=False)
            try:
                score = self._train(number, values)
            except DistillError as error:
                self._console.print(f"  failed: {error}", markup=False, highlight=False)
                self._study.tell(number, state=_optuna().trial.TrialState.FAIL)
                states = [t.state.name for t in self._study.get_trials(deepcopy=False)]
                if states.count("FAIL") >= _HOPELESS and "COMPLETE" not in states:
                    raise UserError(f"all of {states.count('FAIL')} trials failed; the last one: {error}") from error
            else:
                self._study.tell(number, score)
                self._console.print(f"  validation {self._metric.title} {score:.4f}", highlight=False)
        return True

    def write_results(self) -> dict[str, Any]:
        """Write `trials.json`, and the best config where there is one."""
        rows: list[dict[str, Any]] = [
            {
                "trial": trial.number,
                "state": trial.state.name.lower(),
                "score": trial.value,
                "settings": {p.key: _plain(p, trial.params[p.key]) for p in self._parameters if p.key in trial.params},
                "seconds": trial.duration.total_seconds() if trial.duration else None,
                "run": str(self._trial(trial.number)),
            }
            for trial in self._study.get_trials(deepcopy=False)
        ]
        done = [row for row in rows if row["state"] == "complete"]
        best = max(done, key=lambda row: (row["score"], -row["trial"]), default=None)
        document = {
            "format": 1,
            "config": str(self._path),
            "metric": self._metric._asdict(),
            "split": "validation",
            "trials": rows,
            "best": best,
            "recipe": str(self._recipe) if best else None,
        }
        write_json(self._folder / "trials.json", document)
        if best is not None:
            self._write_recipe(best, len(done))
        return document

    @property
    def _recipe(self) -> Path:
        return self._folder / f"{self._path.stem}-tuned.yaml"

    def _write_recipe(self, best: dict[str, Any], count: int) -> None:
        """The user's config with what was found, every default spelt out."""
        overrides = [p.override(best["settings"][p.key]) for p in self._parameters]
        values = load_config(self._path, [*self._changes, *overrides]).model_dump(mode="json", by_alias=True)
        values.pop("output")  # runs/ and the name of this file
        found = "".join(f"#   {override}\n" for override in overrides)
        head = (
            f"# {self._recipe.stem}: the best of {count} trials of `distill tune`, validation {self._metric.title}"
            f" {best['score']:.4f}.\n# Found by the search, which the validation images have chosen; the test set has"
            f" the last word:\n{found}# Run: distill run {self._recipe.name}\n"
        )
        write_text(self._recipe, head + yaml.dump(values, Dumper=YamlDumper, sort_keys=False, allow_unicode=True))

    def _claim(self, budget: Budget) -> tuple[int, dict[str, Any], contextlib.ExitStack] | None:
        """A trial that is this process's alone: one that was left behind, or a new one."""
        optuna = _optuna()
        locks = self._folder / "trials"
        locks.mkdir(exist_ok=True)
        with _alone(self._folder / ".search.lock"):
            trials = self._study.get_trials(deepcopy=False)
            for trial in trials:
                lock = contextlib.ExitStack()
                if trial.state.name == "RUNNING" and _taken(locks / f".{trial.number:04d}.lock", lock):
                    return trial.number, dict(trial.params), lock
            counted = [t for t in trials if t.state.name in {"COMPLETE", "RUNNING", "FAIL"}]
            if budget.trials is not None and len(counted) >= budget.trials:
                return None
            with _without_warnings():
                # seeded by what is there, so that workers draw different settings and the same history the same
                self._study.sampler = optuna.samplers.TPESampler(
                    n_startup_trials=_RANDOM, seed=self._base.seed + len(trials), constant_liar=True
                )
                asked = self._study.ask({p.key: p.distribution for p in self._parameters})
            lock = contextlib.ExitStack()
            assert _taken(locks / f".{asked.number:04d}.lock", lock)
            return asked.number, dict(asked.params), lock

    def _train(self, number: int, values: dict[str, Any]) -> float:
        """The validation metric of the student of these settings."""
        folder = self._trial(number)
        overrides = [p.override(_plain(p, values[p.key])) for p in self._parameters]
        config = load_config(self._path, [*self._changes, *overrides, f"output={folder}"])
        config = config.model_copy(update={"data": self._data})
        run = Run.create(folder)
        for stage in SHARED:
            if not (run.folder(stage) / "stage.json").exists():
                shutil.rmtree(run.folder(stage), ignore_errors=True)
                _linked(self._folder / "shared" / stage, run.folder(stage))
        pipeline.run(config, self._console, until="student")
        score = run.summary("student")["scores"]["validation"][self._metric.key]["value"]
        return float(score)

    def _trial(self, number: int) -> Path:
        return self._folder / "trials" / f"{number:04d}"

    def _finished(self) -> list[Any]:
        return [t for t in self._study.get_trials(deepcopy=False) if t.state.name == "COMPLETE"]

    def _said(self, values: dict[str, Any]) -> str:
        return ", ".join(p.override(_plain(p, values[p.key])) for p in self._parameters)


def _plain(parameter: Parameter, value: Any) -> Any:
    """A figure of four digits: more say nothing, and recipes are read by people. Rounding stays inside the range."""
    if isinstance(value, float) and not parameter.choices:
        return min(max(float(f"{value:.4g}"), parameter.low), parameter.high)
    return value


def _same_search(folder: Path, base: RunConfig, parameters: Sequence[Parameter]) -> None:
    """Trials of one folder differ in what is searched alone."""
    settings = base.model_dump(mode="json", exclude={"output", "tune"})
    now = {"settings": digest_of(settings), "space": [vars(p) | {"choices": list(p.choices)} for p in parameters]}
    path = folder / _SPACE
    if not path.exists():
        write_json(path, now)
        return
    then = read_json(path)
    if then != now:
        what = "settings" if then["settings"] != now["settings"] else "ranges or choices"
        raise UserError(f"{folder} holds a search with other {what}; choose another --out, or delete it")


def _try_ends(path: Path, changes: Sequence[str], base: RunConfig, parameters: Sequence[Parameter]) -> None:
    """Load the config at both ends of each range and at each choice: mistakes show before anything is trained.

    Raises:
        UserError: a key that stages before the student depend on.
    """
    for parameter in parameters:
        for value in parameter.choices or (parameter.low, parameter.high):
            tried = load_config(path, [*changes, parameter.override(value), f"output={base.output}"])
            asked = [_asked(config) for config in (base, tried)]
            if asked[0] != asked[1]:
                raise UserError(
                    f"{parameter.key} decides what the teacher is asked, so each trial would label anew: search among"
                    " settings of the student (student, train, trust), or start one search for each value"
                )


def _asked(config: RunConfig) -> dict[str, Any]:
    """What stages before the student depend on."""
    values = config.model_dump(mode="json", include={"task", "data", "teacher", "labels", "seed"})
    if not build_task(config.task).by_pixel:
        values["crop"] = [config.train.min_crop, config.train.color]
    return values


def _linked(source: Path, target: Path) -> None:
    """A copy of a finished folder that takes no room: files are only ever replaced, not written into."""

    def link(one: str, other: str) -> None:
        try:
            os.link(one, other)
        except OSError:  # another disk, or a file system without links
            shutil.copy2(one, other)

    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(source, temporary, copy_function=link)
    temporary.rename(target)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other worker is in the block."""
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _taken(path: Path, stack: contextlib.ExitStack) -> bool:
    """Hold a lock until the stack is closed or the process ends; False where another process holds it."""
    stream = stack.enter_context(path.open("w"))
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        stack.close()
        return False
    return True


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Optuna calls `constant_liar` experimental each time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise UserError("`distill tune` needs Optuna: pip install 'mobile-distill[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
