"""`distill sanity`: every check of what a training would start from, kept beside the run's finished work."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from distill import pipeline
from distill.config import RunConfig
from distill.config_file import load_config, recipe_path
from distill.core.errors import DataError, UserError
from distill.core.progress import Progress
from distill.core.run import Run
from distill.sanity import suite
from distill.sanity.subject import Subject, store_in
from distill.stages import Work, build_network

__all__ = ["check", "subject_of"]


def check(what: str, *, quick: bool, console: Console, told: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Look at the training of a config or a run; write `sanity.json` and pictures into the run folder.

    Of a config without a run folder, images are read first, as `distill run` would. Where the teacher's answers are
    stored, the student learns from these; otherwise from truth alone, as the control does.

    Args:
        what: a run folder, a config, or the name of a recipe.
        quick: only what also stands before every training.
        console: told of images being read.
        told: called with each check's name before it begins.

    Returns:
        The document of `sanity.json`.

    Raises:
        RunFolderError: the run's images are not read yet.
        UserError: there is nothing to learn from, or the run folder is of another state of the config.
    """
    import torch

    if (Path(what) / "run.json").is_file():
        run = Run(Path(what))
        config = load_config(run.root / "config.yaml", [])
        run.summary("data")
        learns_from = "teacher" if (run.folder("labels") / "stage.json").exists() else "truth"
    else:
        config = load_config(recipe_path(what), [])
        learns_from = "teacher" if "labels" in _finished(config, console) else "truth"
        run = Run(config.output)
    work = Work(config, run, Progress(console))
    with tempfile.TemporaryDirectory(prefix="sanity-") as scratch:
        device = "cuda" if torch.cuda.is_available() and not quick else "cpu"
        subject = subject_of(work, Path(scratch), stored=learns_from == "teacher", device=device)
        results, pictures = suite.examine(subject, quick=quick, told=told)
    found = suite.document(results, quick=quick, learns_from=learns_from)
    suite.keep(work.run.root, found, pictures)
    return found


def subject_of(work: Work, folder: Path, *, stored: bool, device: str = "cpu") -> Subject:
    """A student of this run before its first step.

    Args:
        work: its stage `data` is done.
        folder: the choice of answers is written there.
        stored: it learns from the stored answers; otherwise from truth, as the control does.
        device: where it is looked at.

    Raises:
        DataError: no labelled image to learn from.
    """
    config, manifest = work.config, work.manifest()
    task = work.task(manifest)
    network = build_network(work, config.student, manifest)
    if stored:
        examples, _ = work.lessons_of_teacher(manifest, task, folder, network.image_size)
        loss = task.loss(config)
    else:
        known = manifest.of("train", labelled=True)
        if len(known) < 2:
            raise DataError(
                f"nothing to learn from: the teacher's answers are not stored yet, and {len(known)} training images"
                " have labels. `distill run CONFIG --until labels` asks the teacher"
            )
        plan, size = work.view_plan(config.train), network.image_size
        examples = task.lessons_of_truth(known, plan, config.train, epoch_size=len(known), size=size)
        loss = task.loss_of_truth(config.train.extra)
    return Subject(
        network,
        examples,
        loss,
        task,
        config.train,
        manifest.of("validation", labelled=True),
        work.cache(),
        config.data.resize,
        config.seed,
        store=store_in(work.run.folder("labels")) if stored else None,
        device=device,
    )


def _finished(config: RunConfig, console: Console) -> set[str]:
    """Stages that are done for this very config; the stage `data` is, afterwards.

    Raises:
        UserError: doing it would discard what another state of the config made.
    """
    if not (config.output / "run.json").exists():
        pipeline.run(config, console, until="data")
        return {"data"}
    planned, _ = pipeline.plan(config)
    done: set[str] = {step.name for step in planned if step.done}
    if "data" not in done:
        if (config.output / "data" / "stage.json").exists():
            raise UserError(
                f"{config.output} holds what was made of other images or settings of `data`: `distill run` does it"
                " anew, another `output` leaves it as it is"
            )
        pipeline.run(config, console, until="data")
        return {"data"}
    return done
