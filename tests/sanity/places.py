"""Runs whose teacher has answered and whose student has not begun: what `distill sanity` looks at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console

from distill import pipeline
from distill.config_file import load_config
from distill.core.progress import Progress
from distill.core.run import Run
from distill.sanity.subject import Subject
from distill.sanity_check import subject_of
from distill.stages import Work
from tests.workplace import write_photos, write_shapes

LABELS = """\
data: {unlabeled: photos/unlabeled, labeled: photos/labeled, validation: photos/validation, test: photos/test}
teacher: {python: "tests.sanity.oracle:labels", image_size: 32, precision: float32}
student: {timm: tf_mobilenetv3_small_minimal_100, pretrained: false, image_size: 32}
labels: {views: 4}
train: {epochs: 2, batch_size: 16, ema_decay: 0.9, warmup_epochs: 1}
"""

MASKS = """\
task: segmentation
data:
  unlabeled: shapes/unlabeled
  labeled: shapes/labeled
  validation: shapes/validation
  test: shapes/test
  classes: [background, disc, square]
  resize: squash
teacher: {python: "tests.sanity.oracle:masks", image_size: 64, precision: float32}
student: {smp: lraspp, encoder: mobilenetv2_050, decoder_channels: 16, pretrained: false, image_size: 64}
labels: {grid: 32}
train: {epochs: 2, batch_size: 8, ema_decay: 0.9, warmup_epochs: 1, target_stride: 2}
"""

CONFIGS = {"classification": LABELS, "segmentation": MASKS}


def prepare(root: Path, task: str) -> Path:
    """Photos and a config of this task; the config's path."""
    if task == "classification":
        write_photos(root / "photos")
    else:
        write_shapes(root / "shapes")
        for path in (root / "shapes").glob("*/masks/*.png"):  # nobody marked the rim
            mask = np.asarray(Image.open(path)).copy()
            mask[:, :16], mask[:6] = 255, 255
            Image.fromarray(mask).save(path)
    path = root / f"{task}.yaml"
    path.write_text(CONFIGS[task])
    return path


def asked(config: Path, *changes: str) -> Work:
    """The run of a config, up to the stage `labels`."""
    console = Console(quiet=True)
    settings = load_config(config, [*changes, f"output={config.parent / 'runs' / config.stem}"])
    pipeline.run(settings, console, until="labels")
    return Work(settings, Run(settings.output), Progress(console))


def looked_at(work: Work, folder: Path, *, stored: bool = True, **changes: Any) -> Subject:
    """A student of a run before its first step, some sections of the config replaced."""
    config = work.config.model_copy(update=changes)
    folder.mkdir(parents=True, exist_ok=True)
    return subject_of(Work(config, work.run, work.progress), folder, stored=stored)
