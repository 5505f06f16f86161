"""What distillation from stored answers costs: against plain training, and against a teacher beside every step.

The student's step is the same in all three: same loop, same images, same size. Plain training draws a fresh view and
has a one-hot target; cached distillation reads view and answer from the memory-mapped store, some microseconds each. An
online teacher adds its forward pass to each step: with a student of 330 images/s and a teacher of 110 the step takes
four times as long.

    python benchmarks/train_throughput.py [--student mobilenetv4_conv_small --teacher resnet50 --size 128 --images 512]

Rates are those of the epochs after the first, which decodes; the three take turns, ratios are medians over rounds. Last
line of stdout: one JSON object with the keys `ratio_plain` (cached over plain) and `ratio_online` (cached over online).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any, final

import numpy as np
import timm
import torch
from _photos import CLASSES, make_photos
from rich.console import Console
from rich.table import Table

from distill.config import DistillSettings, LabelSettings
from distill.core.metrics_log import MetricsLog
from distill.core.progress import Progress
from distill.core.task import Task
from distill.core.types import ImageRecord
from distill.data.batches import ImageCache
from distill.data.views import ViewPlan
from distill.examples import Examples, PseudoLabelled, Truth
from distill.labels.label import ViewLabelling
from distill.labels.store import LabelStore
from distill.losses import LessonLoss, Targets, build_loss, of_rows
from distill.tasks.classification import Classification
from distill.torch_predictor import Network, TorchPredictor
from distill.train import train

_QUIET = Progress(Console(quiet=True))
_PLAN = ViewPlan("center_crop", 0.4, True, 0.0, 0)


def main() -> None:
    """Measure and print."""
    options = _options()
    task, cache = Classification(CLASSES), ImageCache(100)
    rates: dict[str, list[float]] = {"plain": [], "cached": [], "online": []}
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        records = make_photos(folder / "photos", options.images)
        validation = make_photos(folder / "validation", 8, "validation")
        teacher = TorchPredictor(_network(options.teacher, options.size))
        ViewLabelling(
            TorchPredictor(_network("test_resnet", 32)),  # what the answers say does not change the speed
            records,
            folder / "labels",
            LabelSettings(),
            cache=cache,
            plan=_PLAN,
            batch_size=32,
            fingerprint="benchmark",
            facts={},
        ).label(_QUIET)
        store = LabelStore(folder / "labels")
        ones = np.ones(len(records), np.float32)
        cached = PseudoLabelled(
            records, store, CLASSES, weights=ones, temperature=1.0, truth_weight=0.0, label_smoothing=0.0, seed=0
        )
        plain = Truth(records, CLASSES, _PLAN, epoch_size=len(records), label_smoothing=0.0)
        for number in range(options.rounds):
            for name in rates:
                student = _network(options.student, options.size)
                loss: LessonLoss = of_rows(build_loss("kl", 1.0))
                if name == "online":
                    loss = _Online(teacher.network, student, loss)
                examples: Examples = cached if name != "plain" else plain
                settings = DistillSettings(epochs=options.epochs, probe=False)
                run = folder / f"{name}-{number}"
                rates[name].append(_rate(student, examples, validation, task, settings, loss, run, cache))
    _print(rates, options)


@final
class _Online:
    """Asks the teacher about each batch that the student is shown, as trainers without a store do."""

    def __init__(self, teacher: torch.nn.Module, student: torch.nn.Module, loss: LessonLoss) -> None:
        self._teacher, self._loss = teacher.eval(), loss
        self._answer: torch.Tensor | None = None
        student.register_forward_pre_hook(self._ask)

    def _ask(self, student: torch.nn.Module, shown: tuple[torch.Tensor, ...]) -> None:
        if student.training:
            with torch.inference_mode():
                self._answer = self._teacher(shown[0]).softmax(dim=1)

    def __call__(self, logits: torch.Tensor, targets: Targets) -> torch.Tensor:
        assert self._answer is not None
        return self._loss(logits, targets._replace(teacher=self._answer.clone()))


def _rate(
    student: Network,
    examples: Examples,
    validation: list[ImageRecord],
    task: Task,
    settings: DistillSettings,
    loss: LessonLoss,
    folder: Path,
    cache: ImageCache,
) -> float:
    """Images a second of the epochs after the first."""
    metrics = MetricsLog(folder / "metrics.jsonl")
    folder.mkdir()
    train(
        student,
        examples,
        validation,
        task,
        settings,
        loss,
        folder,
        stage="student",
        seed=0,
        cache=cache,
        resize="center_crop",
        metrics=metrics,
        progress=_QUIET,
    )
    rows: list[dict[str, Any]] = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return statistics.mean(float(row["images_per_s"]) for row in rows[1:])


def _network(name: str, size: int) -> Network:
    torch.manual_seed(0)
    backbone = timm.create_model(name, num_classes=len(CLASSES))
    return Network(backbone, CLASSES, size, (0.5,) * 3, (0.5,) * 3, pretrained=False)


def _print(rates: dict[str, list[float]], options: argparse.Namespace) -> None:
    def ratio(other: str) -> float:
        return statistics.median(a / b for a, b in zip(rates["cached"], rates[other], strict=True))

    table = Table("round", *(f"{name}, images/s" for name in rates))
    for number, row in enumerate(zip(*rates.values(), strict=True), 1):
        table.add_row(str(number), *(f"{rate:.1f}" for rate in row))
    Console().print(table)
    print(f"cached over plain {ratio('plain'):.3f}, cached over online teacher {ratio('online'):.2f}")
    print(
        json.dumps(
            {
                "ratio_plain": round(ratio("plain"), 4),
                "ratio_online": round(ratio("online"), 3),
                "images_per_s": {name: [round(rate, 1) for rate in values] for name, values in rates.items()},
                "settings": vars(options),
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
            }
        )
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", default="mobilenetv4_conv_small")
    parser.add_argument("--teacher", default="resnet50")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--images", type=int, default=384)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
