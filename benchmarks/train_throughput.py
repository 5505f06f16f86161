"""What distillation from stored answers costs: against the bare step, plain training, and a teacher beside every step.

The student's step is the same in all three: same loop, same images, same size. Plain training draws a fresh view and
has a one-hot target; cached distillation reads view and answer from the memory-mapped store, some microseconds each. An
online teacher adds its forward pass to each step: with a student of 330 images/s and a teacher of 110 the step takes
four times as long. The ceiling is the bare step: forward, backward, optimizer and averaging on one batch in memory,
while nothing is decoded, cut or written.

With photos of a camera (`--photo 4000x3000`) decoding takes longer than learning, and the memory that holds decoded
images (`--memory-gb`) is soon full; `--large` compares `data.cache: none`, `memory` and `disk` then.

    python benchmarks/train_throughput.py [--student mobilenetv4_conv_small --teacher resnet50 --size 128 --images 512]
    python benchmarks/train_throughput.py --large [--images 64 --photo 4000x3000 --memory-gb 0.5]

Rates are those of the epochs after the first, which decodes; all take turns, ratios are medians over rounds. Last line
of stdout: one JSON object with the keys `ratio_plain` (cached over plain), `ratio_online` (cached over online),
`ratio_bare` (cached over bare) and `data_wait` (share of its time that the cached training waited for images), with
`--large` the keys `ratio_disk` (disk over memory) and `data_wait` of each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import timm
import torch
from _photos import CLASSES, make_photos
from rich.console import Console
from rich.table import Table
from timm.utils import ModelEmaV3

from distill.config import DistillSettings, LabelSettings
from distill.core.metrics_log import MetricsLog
from distill.core.progress import Progress
from distill.core.types import ImageRecord
from distill.data.batches import ImageCache, iterate
from distill.data.decoded import DecodedImages
from distill.data.views import ViewPlan
from distill.examples import Examples, PseudoLabelled, Truth
from distill.labels.label import ViewLabelling
from distill.labels.store import LabelStore
from distill.losses import LessonLoss, Targets, build_loss, of_rows
from distill.tasks.classification import Classification
from distill.torch_predictor import Network, TorchPredictor
from distill.train import Batch, parameter_groups, train, training_mode

_QUIET = Progress(Console(quiet=True))
_PLAN = ViewPlan("center_crop", 0.4, True, 0.0, 0)


def main() -> None:
    """Measure and print."""
    options = _options()
    names = ("none", "memory", "disk") if options.large else ("bare", "plain", "cached", "online")
    found: dict[str, list[_Speed]] = {name: [] for name in names}
    width, height = map(int, options.photo.split("x"))
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        records = make_photos(folder / "photos", options.images, side=(width, height))
        place = _Place(folder, records, make_photos(folder / "validation", 8, "validation"), options)
        for number in range(options.rounds):
            for name in names:
                found[name].append(place.measure(name, folder / f"{name}-{number}"))
    _print(found, options)


class _Speed(NamedTuple):
    """Images a second, and the share of the time that was waited for images."""

    rate: float
    wait: float


@final
class _Place:
    """Photos, stored answers to them, and the ways to learn."""

    def __init__(
        self, folder: Path, records: list[ImageRecord], validation: list[ImageRecord], options: argparse.Namespace
    ) -> None:
        self._folder, self._records, self._validation, self._options = folder, records, validation, options
        self._cache = ImageCache(100, int(options.memory_gb * 1e9))
        self._teacher = TorchPredictor(_network(options.teacher, options.size))
        ViewLabelling(
            TorchPredictor(_network("test_resnet", 32)),  # what the answers say does not change the speed
            records,
            folder / "labels",
            LabelSettings(),
            cache=self._cache,
            plan=_PLAN,
            batch_size=32,
            fingerprint="benchmark",
            facts={},
        ).label(_QUIET)
        store, ones = LabelStore(folder / "labels"), np.ones(len(records), np.float32)
        self._cached = PseudoLabelled(
            records, store, CLASSES, weights=ones, temperature=1.0, truth_weight=0.0, label_smoothing=0.0, seed=0
        )
        self._plain = Truth(records, CLASSES, _PLAN, epoch_size=len(records), label_smoothing=0.0)

    def measure(self, name: str, folder: Path) -> _Speed:
        """Train in one of the ways."""
        options = self._options
        student = _network(options.student, options.size)
        loss: LessonLoss = of_rows(build_loss("kl", 1.0))
        settings = DistillSettings(epochs=options.epochs, probe=False, batch_size=options.batch)
        if name == "bare":
            return _Speed(self._bare(student, loss, settings), 0.0)
        if name == "online":
            loss = _Online(self._teacher.network, student, loss)
        cache, decoded = self._cache, None
        if name in {"none", "disk"}:
            cache = ImageCache(100, 0)
        if name == "disk":
            decoded = DecodedImages(
                self._records, self._folder / "decoded", cache, size=options.size, min_crop=_PLAN.min_area
            )
        examples: Examples = self._plain if name == "plain" else self._cached
        return _speed(student, examples, self._validation, settings, loss, folder, cache, decoded)

    def _bare(self, student: Network, loss: LessonLoss, settings: DistillSettings) -> float:
        """Images a second of steps on one batch, as many as the others make behind their first epoch."""
        lesson = self._cached.lesson(self._cached.epoch(0)[: settings.batch_size])
        pixels = next(iterate(self._cache, [lesson.shown], student.image_size, 2))
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        student.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        batch = Batch.of(lesson, pixels, device)
        optimizer = torch.optim.AdamW(parameter_groups(student, settings.weight_decay), lr=1e-3, fused=True)
        ema = ModelEmaV3(student, decay=settings.ema_decay, use_warmup=True)
        training_mode(student, frozen=False)
        steps = max(1, len(self._records) * (settings.epochs - 1) // settings.batch_size)
        for step in range(-2, steps):  # two to warm up
            if step == 0:
                start = time.perf_counter()
            value = loss(student(batch.images), Targets(*batch[1:]))
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            ema.update(student, step=step)
            float(value.detach())
        return steps * len(pixels) / (time.perf_counter() - start)


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


def _speed(
    student: Network,
    examples: Examples,
    validation: list[ImageRecord],
    settings: DistillSettings,
    loss: LessonLoss,
    folder: Path,
    cache: ImageCache,
    decoded: DecodedImages | None,
) -> _Speed:
    """Of the epochs after the first."""
    metrics = MetricsLog(folder / "metrics.jsonl")
    folder.mkdir()
    train(
        student,
        examples,
        validation,
        Classification(CLASSES),
        settings,
        loss,
        folder,
        stage="student",
        seed=0,
        cache=cache,
        resize="center_crop",
        metrics=metrics,
        progress=_QUIET,
        decoded=decoded,
    )
    rows = metrics.read()[1:]
    return _Speed(*(statistics.mean(row[key] for row in rows) for key in ("images_per_s", "data_wait")))


def _network(name: str, size: int) -> Network:
    torch.manual_seed(0)
    backbone = timm.create_model(name, num_classes=len(CLASSES))
    return Network(backbone, CLASSES, size, (0.5,) * 3, (0.5,) * 3, pretrained=False)


def _print(found: dict[str, list[_Speed]], options: argparse.Namespace) -> None:
    def ratio(one: str, other: str) -> float:
        return statistics.median(a.rate / b.rate for a, b in zip(found[one], found[other], strict=True))

    table = Table("round", *(f"{name}, images/s (waited)" for name in found))
    for number, row in enumerate(zip(*found.values(), strict=True), 1):
        table.add_row(str(number), *(f"{speed.rate:.1f} ({speed.wait:.1%})" for speed in row))
    Console(width=150).print(table)
    waits = {name: round(statistics.median(speed.wait for speed in speeds), 4) for name, speeds in found.items()}
    document: dict[str, Any] = {}
    if options.large:
        print(f"disk over memory {ratio('disk', 'memory'):.2f}, disk over none {ratio('disk', 'none'):.2f}")
        document |= {"ratio_disk": round(ratio("disk", "memory"), 3), "data_wait": waits}
    else:
        print(
            f"cached over bare step {ratio('cached', 'bare'):.3f}, over plain {ratio('cached', 'plain'):.3f}, over"
            f" online teacher {ratio('cached', 'online'):.2f}; waited {waits['cached']:.1%}"
        )
        document |= {f"ratio_{name}": round(ratio("cached", name), 4) for name in ("bare", "plain", "online")}
        document |= {"data_wait": waits["cached"]}
    document |= {"images_per_s": {name: [round(speed.rate, 1) for speed in all_] for name, all_ in found.items()}}
    print(
        json.dumps(
            {**document, "settings": vars(options), "threads": torch.get_num_threads(), "torch": torch.__version__}
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
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--photo", default="512x384", metavar="WIDTHxHEIGHT")
    parser.add_argument("--memory-gb", type=float, default=2.0, help="for decoded images")
    parser.add_argument("--large", action="store_true", help="compare what data.cache may be")
    return parser.parse_args()


if __name__ == "__main__":
    main()
