"""The same student distilled from the same teacher by this project, by timm and by torchdistill: speed and accuracy.

    python -m benchmarks.peers.distilling CONFIG [--epochs 6 --set KEY=VALUE]

CONFIG is of classification, with a teacher of timm or torchvision. All three begin with the same weights, see every
training image once an epoch, minimise the Kullback-Leibler divergence from the teacher's answer at temperature 1 with
AdamW at the same peak rate, in float32. Here the teacher was asked once, before; there it answers beside every step, at
the student's size. Otherwise each does as its documentation shows, so this project has its probe, frozen batch norm and
averaged weights, and the others have not. torchdistill 1.1.5 has an environment of its own above this one; timm is
installed here.

Last line of stdout: one JSON object with the key `trainers`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.peers.environment import UnavailableError, python_of
from distill.checkpoint import load_weights
from distill.config_file import load_config
from distill.core import plugins
from distill.core.environment import describe_environment
from distill.core.files import read_json
from distill.core.run import Run
from distill.core.task import build_task
from distill.data.batches import ImageCache
from distill.data.manifest import Manifest
from distill.evaluate import evaluate
from distill.torch_predictor import Network, TorchPredictor

_ROOT = Path(__file__).parents[2]
_TORCHDISTILL = ["torchdistill==1.1.5"]


def main() -> None:
    """Measure and print."""
    options = _options()
    rows: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        run = Run(_ours(options, Path(scratch) / "ours"))
        rows.append(_of_ours(run))
        for name, module in (("timm", "_timm"), ("torchdistill", "_torchdistill")):
            try:
                python = Path(sys.executable) if name == "timm" else python_of(name, _TORCHDISTILL, over_ours=True)
                rows.append({"name": name, **_trained(python, module, run, options.epochs, Path(scratch))})
            except UnavailableError as error:
                missing[name] = str(error)
    own = rows[0]
    table = Table("trainer", "images/s", "ours / its", "teacher before, s", "training, s", "test accuracy, %")
    for row in rows:
        table.add_row(
            row["name"],
            f"{row['images_per_s']:.1f}",
            f"{own['images_per_s'] / row['images_per_s']:.2f}",
            f"{row['labelling_s']:.0f}",
            f"{row['seconds']:.0f}",
            f"{100 * row['accuracy']['value']:.1f} [{100 * row['accuracy']['low']:.1f},"
            f" {100 * row['accuracy']['high']:.1f}]",
        )
    for name, why in missing.items():
        table.add_row(name, f"skipped: {why}")
    Console(width=120).print(table)
    facts = {"epochs": options.epochs, "environment": describe_environment(0)}
    print(json.dumps({"trainers": rows, "missing": missing, **facts}))


def _ours(options: argparse.Namespace, output: Path) -> Path:
    fixed = ["train.precision=float32", "train.truth_weight=0", "train.loss=kl", "train.temperature=1"]
    fixed += [f"train.epochs={options.epochs}", f"output={output}"]
    settings = [part for setting in [*options.set, *fixed] for part in ("--set", setting)]
    command = [sys.executable, "-m", "distill", "run", str(options.config), "--until", "student", *settings]
    subprocess.run(command, check=True, stdout=sys.stderr, env=_environment())
    return output


def _of_ours(run: Run) -> dict[str, Any]:
    lines = [json.loads(line) for line in (run.root / "metrics.jsonl").read_text().splitlines()]
    rates = [line["images_per_s"] for line in lines if line.get("stage") == "student" and "images_per_s" in line]
    return {
        "name": "mobile-distill",
        "images_per_s": float(np.mean(rates[1:] or rates)),
        "labelling_s": read_json(run.folder("labels") / "stage.json")["seconds"],
        "seconds": read_json(run.folder("student") / "stage.json")["seconds"],
        "accuracy": run.summary("student")["scores"]["test"]["accuracy"],
    }


def _trained(python: Path, module: str, run: Run, epochs: int, scratch: Path) -> dict[str, Any]:
    output = scratch / f"{module}.safetensors"
    command = [str(python), "-m", f"benchmarks.peers.{module}", str(run.root), str(epochs), str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=_ROOT, env=_environment())
    if done.returncode:
        raise UnavailableError(f"it failed: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    config = load_config(run.root / "config.yaml")
    manifest = Manifest.load(run.folder("data") / "manifest.parquet")
    student: Network = plugins.build(config.student, manifest.classes)
    load_weights(student.backbone, output)
    task = build_task(config.task, manifest.classes)
    cache = ImageCache(config.data.max_megapixels)
    score, _ = evaluate(TorchPredictor(student), task, manifest.of("test"), cache, config.data.resize)
    return {**measured, "labelling_s": 0.0, "accuracy": score.as_dict()["accuracy"]}


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(_ROOT)}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as in `distill run`")
    return parser.parse_args()


if __name__ == "__main__":
    main()
