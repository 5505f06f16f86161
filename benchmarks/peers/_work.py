"""What every trainer with an online teacher is given: networks and training images of a run, and where results go."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset
from torchvision import transforms

from distill.checkpoint import save_weights
from distill.config_file import load_config
from distill.core import plugins
from distill.core.run import Run
from distill.core.types import ImageRecord
from distill.data.decode import decode
from distill.data.manifest import Manifest
from distill.teaching import build_teacher, load_fitted
from distill.torch_predictor import Network, TorchPredictor
from distill.train import decide

__all__ = ["Crops", "Work", "given", "report"]

Crop = tuple[torch.Tensor, int]


@dataclass(frozen=True)
class Work:
    """A training to be done.

    Args:
        teacher: fitted; its backbone takes values normalised by its own mean and standard deviation.
        student: with the weights that the run's student began with.
        records: training images.
        lr: peak learning rate.
        weight_decay: of AdamW.
        batch_size: images a step.
        min_crop: smallest share of an image's area that a crop keeps.
        epochs: passes over the images.
        output: file for the trained weights of the student's backbone.
    """

    teacher: Network
    student: Network
    records: Sequence[ImageRecord]
    lr: float
    weight_decay: float
    batch_size: int
    min_crop: float
    epochs: int
    output: Path


@final
class Crops(Dataset[Crop]):
    """Random crops and flips as torchvision draws them, normalised for the student; no truth, so the label is 0.

    A photo is decoded anew in each epoch, as these trainers do.
    """

    def __init__(self, work: Work) -> None:
        self._records = work.records
        self.transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(work.student.image_size, scale=(work.min_crop, 1.0)),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.5,) * 3, (0.5,) * 3),
            ]
        )

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, place: int) -> Crop:
        image: Image.Image = decode(self._records[place].path)
        return self.transform(image), 0


def given() -> Work:
    """From the command line: RUN EPOCHS OUTPUT."""
    root, epochs, output = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    run, config = Run(root), load_config(root / "config.yaml")
    manifest = Manifest.load(run.folder("data") / "manifest.parquet")
    teacher = build_teacher(config, manifest.classes)
    load_fitted(teacher, config.teacher, run.folder("teacher"))
    assert isinstance(teacher, TorchPredictor), "expected a teacher of torch"
    torch.manual_seed(config.seed)
    student: Network = plugins.build(config.student, manifest.classes)
    settings = config.train
    return Work(
        teacher.network.eval(),
        student.train(),
        manifest.of("train"),
        decide(settings, student).lr,
        settings.weight_decay,
        settings.batch_size,
        settings.min_crop,
        epochs,
        output,
    )


def report(work: Work, student: nn.Module, seconds: Sequence[float]) -> None:
    """Save the weights and print what was measured, as one JSON object.

    Args:
        work: that was done.
        student: its trained backbone.
        seconds: of each epoch.
    """
    save_weights(student, work.output)
    later = seconds[1:] or seconds  # the first one starts workers
    print(json.dumps({"images_per_s": len(work.records) * len(later) / sum(later), "seconds": sum(seconds)}))
