"""What a run will take, before hours go into it: a few batches are measured on this machine, the rest is arithmetic.

Reading, the teacher's and the student's forward passes and training steps are timed with the run's own models, sizes
and precision; conversion and benchmark take what they took on a 2-core machine (10 s a TFLite file, 6 s an ONNX file),
since they do not grow with the data. Memory is the most that this process held while it measured.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from distill.config import RunConfig
from distill.core import plugins
from distill.core.memory import peak_bytes
from distill.core.settings import TrainSettings
from distill.core.task import build_task
from distill.core.types import Predictor
from distill.data import masks
from distill.data.decode import DecodeError, decode
from distill.data.sources import Candidate
from distill.data.views import ViewPlan, fixed_view, render
from distill.teaching import as_labeller, build_teacher, networks, of_each

if TYPE_CHECKING:
    from distill.torch_predictor import Network

__all__ = ["Estimate", "estimate"]

_SAMPLED = 24  # files
_BATCH = 16  # images, of forward passes
_ROUNDS = 2
_CONVERSION_S = {"tflite": 10.0, "onnx": 6.0}
_ROW_BYTES = 300  # of the data manifest
_CORES = 2  # threads that decode and cut beside the training loop


@dataclass(frozen=True)
class Estimate:
    """Of one stage.

    Args:
        seconds: it will take.
        disk: bytes it will write.
        memory: bytes of the process at its largest.
        basis: what the time was worked out from.
    """

    seconds: float
    disk: int
    memory: int
    basis: str


@dataclass(frozen=True)
class _Counts:
    train: int
    labelled: int
    validation: int
    test: int


def estimate(config: RunConfig, candidates: Sequence[Candidate]) -> dict[str, Estimate]:
    """Measure a few batches and work out every stage.

    Args:
        config: of the run.
        candidates: its files; how many of them are usable is not known before they are read.

    Raises:
        UserError: the teacher or student cannot be built.
    """
    counts, class_names = _count(config, candidates)
    read_s, cut_s, file_bytes = _reading(config, candidates)
    found = {
        "data": Estimate(
            2 * len(candidates) * read_s / _CORES,
            len(candidates) * _ROW_BYTES,
            peak_bytes(),
            f"{read_s * 1e3:.1f} ms to decode an image of {file_bytes / 1e3:.0f} kB, twice",
        )
    }
    teacher = build_teacher(config, class_names)
    labeller = as_labeller(teacher, class_names, config.teacher)
    # Member by member: one that is built for its turn answers a whole shard of the store then, not one batch.
    answer_s = sum(of_each(teacher, _answer_seconds)) * labeller.passes / teacher.passes
    scored = (counts.validation + counts.test) * (answer_s + read_s / _CORES)
    fitting, disk, notes = 0.0, 0, [f"{1 / answer_s:.0f} views/s"]
    for _, network, part in networks(teacher, config.teacher):
        assert part.fit is not None
        step_s = max(_step_seconds(network, part.fit), cut_s / _CORES)
        fitting += part.fit.epochs * (counts.labelled * step_s + counts.validation * answer_s)
        disk += _checkpoints(network)
        notes.append(f"{1 / step_s:.0f} images/s in training")
        del network  # an ensemble may hold one at a time
    found["teacher"] = Estimate(fitting + scored, disk, peak_bytes(), ", ".join(notes))
    asked, an_image = build_task(config.task, class_names).size_of_store(config.labels)
    views = counts.train * asked
    asking = views * max(answer_s, (cut_s + read_s / asked) / _CORES)
    found["labels"] = Estimate(asking, round(counts.train * an_image), peak_bytes(), f"{views:,} views")
    found |= _students(config, counts, class_names, cut_s)
    exported = sum(_CONVERSION_S[name.partition("-")[0]] for name in config.export.files)
    student_bytes = found["student"].disk // 5
    found["export"] = Estimate(
        exported, student_bytes * len(config.export.files), peak_bytes(), "10 s a TFLite file, 6 s an ONNX file"
    )
    timed = config.benchmark.rounds * (config.benchmark.runs + config.benchmark.warmup)
    runs = timed * len(config.export.files) * len(config.benchmark.threads)
    found["benchmark"] = Estimate(
        runs * 0.005 + 2 * runs / timed * config.benchmark.rounds,
        100_000,
        peak_bytes(),
        "5 ms a run, 2 s to open a file",
    )
    found["report"] = Estimate(5.0, 1_000_000, peak_bytes(), "drawing")
    return found


def _students(config: RunConfig, counts: _Counts, class_names: Sequence[str], cut_s: float) -> dict[str, Estimate]:
    from distill.torch_predictor import TorchPredictor

    network: Network = plugins.build(config.student, class_names)
    predictor = TorchPredictor(network)
    answer_s = _answer_seconds(predictor)
    step_s = max(_step_seconds(network, config.train), cut_s / _CORES)
    epoch = counts.train * step_s + counts.validation * answer_s
    seconds, disk = config.train.epochs * epoch + counts.test * answer_s, _checkpoints(network)
    basis = f"at most {config.train.epochs} epochs at {1 / step_s:.0f} images/s"
    student = Estimate(seconds, disk, peak_bytes(), basis)
    return {"student": student, "baseline": student if counts.labelled else Estimate(0, 0, 0, "no labelled images")}


def _count(config: RunConfig, candidates: Sequence[Candidate]) -> tuple[_Counts, list[str]]:
    """Images by use, as far as it is known before their contents are read."""
    shares = [s for s in (config.data.validation, config.data.test) if isinstance(s, float)]
    labelled = sum(c.origin == "labeled" and c.labelled for c in candidates)
    split = {name: sum(c.origin == name for c in candidates) for name in ("validation", "test")}
    for name in ("validation", "test"):
        share = getattr(config.data, name)
        if isinstance(share, float):
            split[name] = round(labelled * share)
    kept = round(labelled * (1 - sum(shares)))
    rest = sum(c.origin in {"labeled", "unlabeled"} for c in candidates) - labelled
    drawn = [c.mask for c in candidates if c.mask is not None]
    if drawn:
        names = list(masks.class_names(config.data, drawn))
    else:
        names = config.data.classes or sorted({c.label for c in candidates if c.label and not c.hidden})
    return _Counts(kept + rest, kept, split["validation"], split["test"]), names


def _reading(config: RunConfig, candidates: Sequence[Candidate]) -> tuple[float, float, float]:
    """Seconds to decode a file, seconds to cut a view of the student's size, bytes of a file: means of a sample."""
    step = max(1, len(candidates) // _SAMPLED)
    plan = ViewPlan(config.data.resize, config.train.min_crop, config.data.mirror, config.train.color, config.seed)
    read, cut, sizes = [], [], []
    for candidate in candidates[::step][:_SAMPLED]:
        start = time.perf_counter()
        try:
            image = decode(candidate.path, config.data.max_megapixels)
        except DecodeError:
            continue
        read.append(time.perf_counter() - start)
        sizes.append(candidate.bytes)
        render(image, fixed_view(*image.size, config.data.resize), config.student.image_size)  # warms up
        start = time.perf_counter()
        render(image, plan.random("0" * 16, 2, *image.size), config.student.image_size)
        cut.append(time.perf_counter() - start)
    if not read:
        return 0.0, 0.0, 0.0
    return float(np.mean(read)), float(np.mean(cut)), float(np.mean(sizes))


def _answer_seconds(predictor: Predictor) -> float:
    """Of one answer."""
    size = predictor.image_size
    noise = np.random.default_rng(0).integers(0, 256, (_BATCH, size, size, 3), dtype=np.uint8)
    return _seconds(lambda: predictor.predict(noise)) / _BATCH


def _seconds(work: Callable[[], object]) -> float:
    """The faster of a few calls after one that warms up."""
    work()
    taken = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def _step_seconds(network: Network, settings: TrainSettings) -> float:
    """Of one training step, an image: forward, backward, AdamW; on a copy, so that the network stays as it is."""
    import torch

    from distill.losses import soft_cross_entropy
    from distill.train import decide

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = copy.deepcopy(network).to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    classes, count = len(network.class_names), settings.batch_size
    images = torch.randint(0, 256, (count, network.image_size, network.image_size, 3), dtype=torch.uint8, device=device)
    reduced = decide(settings, network).bfloat16

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=reduced):
            logits = model(images).float()
        rows = logits.movedim(1, -1).reshape(-1, classes)  # of maps, one a cell
        soft_cross_entropy(rows, torch.full_like(rows, 1 / classes)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return _seconds(step) / count


def _checkpoints(network: Network) -> int:
    """Best weights, last weights and their average, two moments of AdamW; and the kept result."""
    return 6 * 4 * math.ceil(sum(p.numel() for p in network.parameters()))
