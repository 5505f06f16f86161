"""`distill score`: anybody's predictions on labelled images, with the figures that a run's own have."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from distill.config import DataSettings
from distill.config_file import load_config
from distill.core.errors import UserError
from distill.core.progress import Progress
from distill.core.run import Run
from distill.core.task import build_task
from distill.core.types import Split
from distill.data.manifest import Manifest
from distill.data.sources import has_masks
from distill.data.views import Resize
from distill.golden.document import gather
from distill.golden.predictions import read_predictions
from distill.golden.subject import Golden, find_in_classes, read_images, settings_for
from distill.stages import MANIFEST

__all__ = ["score"]


def score(
    predictions: Path,
    data: Path | None,
    run: Run | None,
    progress: Progress,
    *,
    classes: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Figures of predictions.

    Args:
        predictions: see `read_predictions`.
        data: a folder as `data.test` takes it, or a manifest; None for the test images of the run, or those of
            validation where it has none.
        run: whose classes, masks and views count; None for those of the data.
        progress: told of each image.
        classes: of the data, in the order of the answers; None for those that are found.
        groups: as in `data.groups`; None for those of the run's own test images, if these are scored.

    Returns:
        As of `gather`; `rows` has one row, and `others` says how many predictions are about other images.

    Raises:
        DataError: images or predictions that cannot be used, with every mistake.
        UserError: neither data nor a run was named, or classes and a run.
    """
    if data is None and run is None:
        raise UserError("nothing to score on: give --data, labelled images, or --run")
    if run is not None and classes is not None:
        raise UserError("--classes: the classes are those of the run; leave out one of both")
    with ExitStack() as stack:
        if data is None:
            assert run is not None
            golden = _of_run(run, groups)
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            golden = _of_data(data, run, classes, groups or (), folder, progress)
        golden.groups()  # says what is wrong before anything is read
        answers, hard, others = read_predictions(predictions, golden)
        return {**gather(golden, {predictions.name: answers}, hard=hard), "others": others}


def _of_run(run: Run, groups: Sequence[str] | None) -> Golden:
    run.summary("data")
    config, manifest = load_config(run.root / "config.yaml"), Manifest.load(run.folder("data") / MANIFEST)
    split: Split = "test" if manifest.of("test", labelled=True) else "validation"
    data = config.data if groups is None else config.data.model_copy(update={"groups": list(groups)})
    task = build_task(config.task, manifest.classes)
    return Golden(f"{run.root}, {split}", manifest, split, task, config.data.resize, data)


def _of_data(
    data: Path,
    run: Run | None,
    classes: Sequence[str] | None,
    groups: Sequence[str],
    masks: Path,
    progress: Progress,
) -> Golden:
    like: DataSettings | None = None
    resize: Resize = "squash"  # all of the image
    if run is not None:
        run.summary("data")
        config = load_config(run.root / "config.yaml")
        like, task, resize = config.data, config.task, config.data.resize
        classes = Manifest.load(run.folder("data") / MANIFEST).classes
    elif not data.exists():
        raise UserError(f"--data: found no file or folder {data}")
    else:
        task = "segmentation" if has_masks(data) else "classification"
    settings = settings_for(data, groups, classes, like)
    candidates = find_in_classes(settings, task, "--data")
    by_pixel = build_task(task, ()).by_pixel
    manifest = read_images(candidates, settings, masks / "masks" if by_pixel else None, "--data", progress)
    return Golden(str(data.absolute()), manifest, "test", build_task(task, manifest.classes), resize, settings)
