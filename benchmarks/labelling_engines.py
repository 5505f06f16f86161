"""What it costs to label by several processes.

The teacher's bare forward passes bound labelling from above: a worker cannot be faster, nor W workers than W processes
that do nothing else at the same time, which on two threads of one core is less than twice one. What is lost is decoding
and cutting, which share the cores on a CPU; the time of a shard that one worker still makes while the others have none
left; and on a Ray cluster a few milliseconds a shard. Starting the first worker and its teacher is counted apart, since
it is paid once, whatever the work; a cluster of two CPUs on this machine is there from the beginning.

    python benchmarks/labelling_engines.py [--model resnet18 --size 160 --images 96 --views 8 --threads 1 --rounds 3]

Rates are medians over rounds in which all take turns. All stores must have the same bytes. Last line of stdout: one
JSON object whose `rows` have the ratio to the ceiling.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import logging
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from _photos import CLASSES, make_photos
from rich.console import Console
from rich.table import Table

from distill.config import LabelSettings
from distill.core.files import sha256_of
from distill.core.progress import Progress, Task
from distill.core.types import ImageRecord
from distill.data.batches import ImageCache, iterate
from distill.data.views import ViewPlan
from distill.labels import store
from distill.labels.label import ViewLabelling, batches_of
from distill.labels.on_ray import label_on_ray
from distill.torch_predictor import Network, TorchPredictor

_PLAN = ViewPlan("center_crop", 0.4, True, 0.0, 0)
_ENGINES = {"local": 1, "ray, 1 worker": 1, "ray, 2 workers": 2}


class _Clock(Progress):
    """Notes when labelling began and how long it took."""

    began = seconds = 0.0

    @contextlib.contextmanager
    def task(self, name: str, total: int, unit: str = "images") -> Iterator[Task]:
        start = time.perf_counter()
        with super().task(name, total, unit) as task:
            yield task
        if name == "labelling":
            self.began, self.seconds = start, time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    options = _options()
    torch.set_num_threads(options.threads)
    bare: dict[int, list[float]] = {workers: [] for workers in sorted(set(_ENGINES.values()))}
    rates: dict[str, list[float]] = {engine: [] for engine in _ENGINES}
    starts: dict[str, list[float]] = {engine: [] for engine in _ENGINES}
    bytes_seen: set[tuple[str, ...]] = set()
    with tempfile.TemporaryDirectory() as root, _cluster(Path(root)):
        records = make_photos(Path(root) / "photos", options.images)
        views = len(records) * options.views
        for number in range(options.rounds):
            for workers, found in bare.items():
                found.append(_bare_at_once(records, options, workers))
            for engine, workers in _ENGINES.items():
                folder, clock = Path(root) / f"{engine}-{number}", _Clock(Console(quiet=True))
                folder.mkdir()
                make = functools.partial(_labelling, folder, records, options)
                start = time.perf_counter()
                if engine == "local":
                    make().label(clock)
                else:
                    label_on_ray(folder, make, workers, clock)
                rates[engine].append(views / clock.seconds)
                starts[engine].append(clock.began - start)
                bytes_seen.add(tuple(sha256_of(path) for path in sorted(folder.iterdir())))
    rows = [
        {
            "engine": engine,
            "workers": workers,
            "views_per_s": round(statistics.median(rates[engine]), 1),
            "ceiling_views_per_s": round(statistics.median(bare[workers]), 1),
            "of_ceiling": round(
                statistics.median(rate / most for rate, most in zip(rates[engine], bare[workers], strict=True)), 3
            ),
            "start_s": round(statistics.median(starts[engine]), 1),
        }
        for engine, workers in _ENGINES.items()
    ]
    table = Table("engine", "views/s", "ceiling, views/s", "of the ceiling", "start, s")
    for row in rows:
        table.add_row(
            str(row["engine"]),
            f"{row['views_per_s']:.1f}",
            f"{row['ceiling_views_per_s']:.1f}",
            f"{row['of_ceiling']:.3f}",
            f"{row['start_s']:.1f}",
        )
    Console().print(table)
    print(f"the same bytes: {'yes' if len(bytes_seen) == 1 else 'NO'}; load average {os.getloadavg()[0]:.1f}")
    print(
        json.dumps(
            {
                "rows": rows,
                "same_bytes": len(bytes_seen) == 1,
                "raw": {**{f"{workers} bare": found for workers, found in bare.items()}, **rates},
                "settings": vars(options),
                "cpus": os.cpu_count(),
                "load_average": os.getloadavg()[0],
                "torch": torch.__version__,
            }
        )
    )


@contextlib.contextmanager
def _cluster(root: Path) -> Iterator[None]:
    """Two CPUs of this machine."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    silent = {"log_to_driver": False, "logging_level": logging.ERROR}
    ray.init("local", num_cpus=2, include_dashboard=False, _temp_dir=str(root / "ray"), **silent)
    try:
        yield
    finally:
        ray.shutdown()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--images-a-shard", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1, help="of each teacher")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def _teacher(options: argparse.Namespace) -> TorchPredictor:
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    backbone = timm.create_model(options.model, num_classes=len(CLASSES))
    return TorchPredictor(Network(backbone, CLASSES, options.size, (0.5,) * 3, (0.5,) * 3, pretrained=False))


def _labelling(folder: Path, records: list[ImageRecord], options: argparse.Namespace) -> ViewLabelling:
    store._VIEWS_A_SHARD = options.images_a_shard * options.views
    return ViewLabelling(
        _teacher(options),
        records,
        folder,
        LabelSettings(views=options.views),
        cache=ImageCache(100),  # a new one: files are read and decoded each time
        plan=_PLAN,
        batch_size=options.batch_size,
        fingerprint="benchmark",
        facts={},
    )


def _bare_at_once(records: list[ImageRecord], options: argparse.Namespace, processes: int) -> float:
    """Views a second that so many processes answer together, each over all batches."""
    spawn = multiprocessing.get_context("spawn")
    barrier, rates = spawn.Barrier(processes), spawn.Queue()
    started = [spawn.Process(target=_bare, args=(records, options, barrier, rates)) for _ in range(processes)]
    for process in started:
        process.start()
    total = sum(rates.get(timeout=600) for _ in started)
    for process in started:
        process.join()
    return float(total)


def _bare(records: list[ImageRecord], options: argparse.Namespace, barrier: Any, rates: Any) -> None:
    """Views a second of forward passes alone, over the very batches that labelling shows."""
    teacher = _teacher(options)
    shown = [(r, [_PLAN.stored(r.id, index, r.width, r.height) for index in range(options.views)]) for r in records]
    prepared = [
        np.array(images) for images in iterate(ImageCache(100), batches_of(shown, options.batch_size), options.size, 2)
    ]
    teacher.predict(prepared[0])  # warms up
    barrier.wait(600)
    start = time.perf_counter()
    for images in prepared:
        teacher.predict(images)
    rates.put(len(records) * options.views / (time.perf_counter() - start))


if __name__ == "__main__":
    main()
