"""What labelling costs above the teacher's own work.

The teacher's forward passes bound the labelling stage from below. Beside them it reads files, decodes JPEG, cuts and
scales views, sorts answers and writes shards: on threads, while the teacher computes, so the ratio of both rates is
near one where a view takes the teacher 10 ms or more. On 2 cores the teacher computes on both, so what the threads take
is taken from it: decoding 512x384 costs 4 ms an image, which its views share, and cutting one of 160 px 0.5 ms.

    python benchmarks/label_throughput.py [--model resnet50 --size 160 --images 32 --views 8 --rounds 5]

The ratio is the median over rounds in which both take turns. Last line of stdout: one JSON object with the key `ratio`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import timm
import torch
from _photos import CLASSES, make_photos
from rich.console import Console
from rich.table import Table

from distill.config import LabelSettings
from distill.core.progress import Progress
from distill.core.types import ImageRecord, Images
from distill.data.batches import ImageCache, iterate
from distill.data.views import ViewPlan
from distill.labels.label import ViewLabelling, batches_of
from distill.torch_predictor import Network, TorchPredictor


def main() -> None:
    """Measure and print."""
    options = _options()
    torch.manual_seed(0)
    backbone = timm.create_model(options.model, num_classes=len(CLASSES))
    network = Network(backbone, CLASSES, options.size, (0.5,) * 3, (0.5,) * 3, pretrained=False)
    teacher = TorchPredictor(network, precision=options.precision)
    plan = ViewPlan("center_crop", 0.4, True, 0.0, 0)
    rows = []
    with tempfile.TemporaryDirectory() as root:
        records = make_photos(Path(root) / "photos", options.images)
        prepared = _prepare(records, plan, options)
        for images in prepared:
            teacher.predict(images)  # warms up
        views = sum(len(images) for images in prepared)
        for number in range(options.rounds):
            start = time.perf_counter()
            for images in prepared:
                teacher.predict(images)
            bare = views / (time.perf_counter() - start)
            start = time.perf_counter()
            ViewLabelling(
                teacher,
                records,
                Path(root) / f"labels-{number}",
                LabelSettings(views=options.views),
                cache=ImageCache(100),  # a new one: files are read and decoded each time
                plan=plan,
                batch_size=options.batch_size,
                fingerprint="benchmark",
                facts={},
            ).label(Progress(Console(quiet=True)))
            rows.append((bare, views / (time.perf_counter() - start)))
    ratio = statistics.median(labelling / bare for bare, labelling in rows)
    table = Table("round", "forward passes, views/s", "labelling, views/s", "ratio")
    for number, (bare, labelling) in enumerate(rows, 1):
        table.add_row(str(number), f"{bare:.1f}", f"{labelling:.1f}", f"{labelling / bare:.3f}")
    Console().print(table)
    bare_ms = 1e3 / statistics.median(bare for bare, _ in rows)
    what = f"{options.model} at {options.size} px, {options.precision}"
    print(f"{what}: {bare_ms:.1f} ms a view on {torch.get_num_threads()} threads")
    print(
        json.dumps(
            {
                "ratio": round(ratio, 4),
                "teacher_ms_per_view": round(bare_ms, 2),
                "views_per_s": [[round(rate, 2) for rate in row] for row in rows],
                "settings": vars(options),
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
            }
        )
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def _prepare(records: list[ImageRecord], plan: ViewPlan, options: argparse.Namespace) -> list[Images]:
    """The very batches that labelling will show, rendered before the clock starts."""
    shown = [(r, [plan.stored(r.id, index, r.width, r.height) for index in range(options.views)]) for r in records]
    batches = batches_of(shown, options.batch_size)
    return [np.array(images) for images in iterate(ImageCache(100), batches, options.size, workers=2)]


if __name__ == "__main__":
    main()
