"""Instructions that students take on ARM, in float and int8, and whether int8 answers there as it does here.

Counted in an emulator (`distill export arm-setup` makes it), so the figures are the same on every machine; they are no
time. A cortex-a53 multiplies int8 by widening to 16 bits, a cortex-a76 has an instruction for four products at once:
its ceiling is a quarter of float's instructions.

    python benchmarks/arm.py [--student mobilenetv2_100 --images 4 --runs 3]

Weights are random, which changes no count; batch norms have seen noise. Three files of each student: float32; int8 as
export writes it, whose first block and classifier are float where that costs little; int8 throughout with logits as
its answer, integers times a scale, so that the same integers are the same bytes. Float sums may differ in the last bit:
ARM's kernels add in another order. Each file is counted in two processes; the spread is over all of their runs. Last
line of stdout: one JSON object with the key `rows`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from students import settle

from distill.core import plugins
from distill.core.environment import describe_environment
from distill.core.quiet import quiet
from distill.listing import Offered, offered_students
from export.emulated import CORES, Emulator
from export.formats.tflite import TFLite
from export.isolated import IsolatedFile
from export.quantize.plan import minimum_and_maximum

_STUDENTS = ("mobilenetv4_conv_small", "mobilenetv2_100", "efficientnet_lite0")


def main() -> None:
    """Count and print."""
    options = _options()
    emulator = Emulator()
    students = {student.name: student for student in offered_students() if student.task == "classification"}
    table = Table(caption=f"{emulator.described}; batch 1, one thread; answers on {options.images} images")
    for heading in ("student", "px", "file", "core", "million instructions", "of float", "spread", "answers"):
        table.add_column(heading, no_wrap=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.student or _STUDENTS:
            rows += _count(students[name], Path(folder), emulator, options)
    for row in rows:
        said = "the same" if row["same_bytes"] else f"± {row['largest_difference']:.0e}"
        count, ratio = f"{row['instructions'] / 1e6:.2f}", f"{row['ratio']:.2f}"
        table.add_row(
            row["name"], str(row["image_size"]), row["file"], row["core"], count, ratio, f"{row['spread']:.0e}", said
        )
    Console(width=140).print(table)
    print(json.dumps({"rows": rows, "environment": describe_environment(0), "settings": vars(options)}))


def _count(student: Offered, folder: Path, emulator: Emulator, options: argparse.Namespace) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    network = plugins.build(student.config(), [f"class {n}" for n in range(student.classes)])
    size = network.image_size
    images = np.random.default_rng(0).integers(0, 256, (options.images, size, size, 3), dtype=np.uint8)
    settle(network, torch.from_numpy(images))
    network.eval()
    shown, tflite = [image[None] for image in images], TFLite()
    usual = minimum_and_maximum(network, shown, tflite.float_layers(network))
    files = {kind: folder / f"{student.name}.{kind}.tflite" for kind in ("float32", "int8", "int8 throughout")}
    with quiet(folder / "log.txt"):
        tflite.write(network, "float32", files["float32"])
        tflite.write(usual, "int8", files["int8"])
        whole = minimum_and_maximum(network, shown, frozenset())
        tflite.write(whole, "int8", files["int8 throughout"], output="logits")
    rows: list[dict[str, Any]] = []
    exact: dict[str, int] = {}
    for kind, file in files.items():
        with IsolatedFile(file, "tflite") as here:
            expected = here.run(images)
        for core in CORES:
            first, second = (emulator.run(file, images, core, options.runs) for _ in range(2))
            samples = [*first.instructions, *second.instructions]
            count = int(np.median(samples))
            exact.setdefault(core, count)
            rows.append(
                {
                    "name": student.name,
                    "image_size": size,
                    "file": kind,
                    "core": core,
                    "instructions": count,
                    "samples": samples,
                    "spread": (max(samples) - min(samples)) / count,
                    "ratio": count / exact[core],
                    "distinct_answers": len(np.unique(expected)),
                    "same_bytes": bool((first.answers == expected).all() and (second.answers == expected).all()),
                    "largest_difference": float(np.abs(first.answers - expected.astype(np.float64)).max()),
                }
            )
    return rows


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", action="append", help=f"{', '.join(_STUDENTS)} if left out")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--runs", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
