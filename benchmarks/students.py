"""How much faster int8 makes each student that `distill ls students` offers.

Eight bits let one instruction multiply four numbers where float multiplies one, so a quarter of the time is the
ceiling. What keeps a student above it: depthwise convolutions, which XNNPACK widens to 32 bits on x86; the first
convolution, whose 3 channels are padded to 4 or 8; and, on CPUs with AMX, tiles of 64 output channels, of which a layer
of 16 uses a quarter. Narrow students gain nothing there: DeepLabV3+ on MobileNetV2-0.35 takes as long in int8 as in
float. A graph in several partitions loses everything to the copies between them.

    python benchmarks/students.py [--task segmentation --only lraspp --rounds 10 --runs 20]

Weights are random, which changes no time; batch norms have seen noise, so that the scales of int8, which decide what
XNNPACK takes, are those of a trained network. Both files of a student take turns, each in a process of its own; its
ratio is that of the medians. Last line of stdout: one JSON object with the key `students`, for each `name`, `task`,
`partitions` (of the int8 file) and `ratio`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from distill.core import plugins
from distill.core.environment import describe_environment
from distill.core.quiet import quiet
from distill.core.timing import percentiles
from distill.listing import Offered, offered_students
from distill.torch_predictor import Network
from export.formats._base import Precision
from export.formats.tflite import TFLite
from export.isolated import FilePredictor
from export.quantize.plan import minimum_and_maximum

_PRECISIONS: tuple[Precision, ...] = ("float32", "int8")


def main() -> None:
    """Measure and print."""
    options = _options()
    students = [s for s in offered_students() if options.task in {None, s.task} and (options.only or "") in s.name]
    with tempfile.TemporaryDirectory() as folder:
        rows = [_measure(student, Path(folder), options) for student in students]
    table = Table(caption="median of single inferences, one image, one thread")
    for heading in ("task", "student", "px", "float32, ms", "int8, ms", "ratio", "partitions"):
        table.add_column(heading, no_wrap=True)
    for row in rows:
        ms = (f"{row['float32_ms']:.2f}", f"{row['int8_ms']:.2f}", f"{row['ratio']:.2f}")
        table.add_row(row["task"], row["name"], str(row["image_size"]), *ms, str(row["partitions"]))
    Console(width=120).print(table)
    print(json.dumps({"students": rows, "environment": describe_environment(0), "settings": vars(options)}))


def _measure(student: Offered, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Write both files and let them take turns."""
    torch.manual_seed(0)
    network = plugins.build(student.config(), [f"class {n}" for n in range(student.classes)])
    size = network.image_size
    images = np.random.default_rng(0).integers(0, 256, (4, size, size, 3), dtype=np.uint8)
    settle(network, torch.from_numpy(images))
    calibration = [image[None] for image in images]
    network.eval()
    plan = minimum_and_maximum(network, calibration, TFLite().float_layers(network))
    files: dict[Precision, Path] = {
        precision: folder / f"{student.name}.{precision}.tflite" for precision in _PRECISIONS
    }
    for precision, path in files.items():
        with quiet(folder / "log.txt"):
            TFLite().write(plan if precision == "int8" else network, precision, path)
    samples: dict[Precision, list[float]] = {precision: [] for precision in _PRECISIONS}
    with ExitStack() as stack:
        opened = {
            precision: stack.enter_context(FilePredictor(path, "tflite", network.class_names))
            for precision, path in files.items()
        }
        for _ in range(options.rounds):
            for precision, session in opened.items():
                samples[precision] += session.time(calibration[0], runs=options.runs, warmup=3)["samples_ms"]
        facts = opened["int8"].facts
    median = {precision: percentiles(times)["p50_ms"] for precision, times in samples.items()}
    return {
        "name": student.name,
        "task": student.task,
        "image_size": size,
        "partitions": facts["partitions"],
        "ratio": round(median["int8"] / median["float32"], 4),
        **{f"{precision}_ms": round(value, 4) for precision, value in median.items()},
        **{f"{precision}_bytes": path.stat().st_size for precision, path in files.items()},
        "samples_ms": {precision: [round(t, 4) for t in times] for precision, times in samples.items()},
    }


def settle(network: Network, images: torch.Tensor) -> None:
    """Give batch norms the statistics of these images."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(images)
    network.eval()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=("classification", "segmentation"), help="both if left out")
    parser.add_argument("--only", help="students whose name holds this")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--runs", type=int, default=20, help="of each file a round")
    return parser.parse_args()


if __name__ == "__main__":
    main()
