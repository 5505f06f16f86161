"""One trained student as this project exports it, and as others do: size, latency, accuracy, on the same images.

    python -m benchmarks.peers.exporting --run runs/a [--run runs/b --rounds 10]

- ours: `tflite-float32`, and the int8 file that the ladder ends with
- litert-torch by itself, quantized by ai-edge-quantizer's recipes as they come
- onnx2tf 1.29 (an environment of its own): ONNX by torch, then `-oiqt` with the same calibration images
- ONNX Runtime: the same ONNX file, and `quantize_static` as its documentation shows it (QDQ, per channel)

Every file runs in a process of its own on one thread, TFLite files by LiteRT with XNNPACK, ONNX files by ONNX Runtime;
all of a student take turns, so ratios hold on a noisy machine. Scores are those of the run's test images, losses paired
with the student in torch. Last line of stdout: one JSON object with the key `students`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks._stock import Stock, converted, fed, normalised, stock_recipe
from benchmarks.peers.environment import UnavailableError, python_of
from distill.core.environment import describe_environment
from distill.core.progress import Progress
from distill.core.quiet import quiet
from distill.core.run import Run
from distill.core.timing import percentiles
from distill.core.types import Images
from distill.torch_predictor import Network
from distill.trained_student import load_student
from export.files import Exporter
from export.isolated import IsolatedFile

_ONNX2TF = ["onnx2tf==1.29.24"]
_OURS = ("tflite-float32", "tflite-int8")


def main() -> None:
    """Measure and print."""
    options = _options()
    table = Table()
    for heading in ("student", "made by", "file", "score, %", "lost, points", "ms", "ours / its", "MB", "partitions"):
        table.add_column(heading, no_wrap=True)
    students = []
    for folder in options.run:
        with tempfile.TemporaryDirectory() as scratch:
            students.append(_measured(folder, Path(scratch), options.rounds))
        student = students[-1]
        for row in student["files"]:
            lost = row["drop"]
            table.add_row(
                student["name"] if row is student["files"][0] else "",
                row["by"],
                row["name"],
                f"{100 * row['score']:.1f}",
                f"{100 * lost['value']:.1f} [{100 * lost['low']:.1f}, {100 * lost['high']:.1f}]",
                f"{row['ms']:.2f}",
                f"{row['ours_over_its']:.2f}",
                f"{row['bytes'] / 1e6:.2f}",
                "-" if row["partitions"] is None else str(row["partitions"]),
            )
        for name, why in student["missing"].items():
            table.add_row("", name, f"skipped: {why}")
        table.add_section()
    Console(width=150).print(table)
    print(json.dumps({"students": students, "environment": describe_environment(0), "rounds": options.rounds}))


def _measured(folder: Path, scratch: Path, rounds: int) -> dict[str, Any]:
    run = Run(folder)
    exporter = Exporter(run, Progress(Console(stderr=True)))
    student, card = load_student(run)
    scores, paths = {}, {}
    for name in _OURS:
        made = exporter.make(name)
        paths["ours", name] = shutil.copy(run.folder("export") / made["file"], scratch / f"{name}.tflite")
        scores["ours", name] = made["scores"]["test"]
        metric = made["metric"]["key"]
    calibration = exporter.calibration_images()
    missing: dict[str, str] = {}
    peers: dict[str, Callable[[Network, Sequence[Images], Path], dict[str, Path]]] = {
        "litert-torch": _litert_torch,
        "onnx2tf": _onnx2tf,
        "ONNX Runtime": _onnx_runtime,
    }
    for by, make in peers.items():
        (scratch / by).mkdir()
        try:
            paths |= {(by, name): path for name, path in make(student, calibration, scratch / by).items()}
        except UnavailableError as error:
            missing[by] = str(error)
    with ExitStack() as stack:
        files = {
            key: stack.enter_context(IsolatedFile(Path(path), "onnx" if str(path).endswith("onnx") else "tflite"))
            for key, path in paths.items()
        }
        samples: dict[tuple[str, str], list[float]] = {key: [] for key in files}
        for _ in range(rounds):
            for key, file in files.items():
                samples[key] += file.time(fed(file, calibration[0]), runs=20, warmup=3)["samples_ms"]
        for key, file in files.items():
            if key not in scores:
                scores[key] = exporter.compare(Stock(file, card["class_names"]))["test"]
        facts = {key: file.facts for key, file in files.items()}
    ms = {key: percentiles(found)["p50_ms"] for key, found in samples.items()}
    rows = []
    for by, name in paths:
        whole = "float" in name  # compared with our file of the same kind
        ours = ms["ours", _OURS[0] if whole else _OURS[1]]
        rows.append(
            {
                "by": by,
                "name": name,
                "score": scores[by, name][metric]["value"],
                "drop": scores[by, name]["drop"],
                "ms": round(ms[by, name], 4),
                "ours_over_its": round(ours / ms[by, name], 4),
                "bytes": Path(paths[by, name]).stat().st_size,
                "partitions": facts[by, name]["partitions"],
            }
        )
    what = " ".join(str(card["settings"][key]) for key in ("smp", "timm", "encoder") if card["settings"].get(key))
    return {"name": what, "image_size": card["image_size"], "files": rows, "missing": missing}


def _litert_torch(student: Network, calibration: Sequence[Images], folder: Path) -> dict[str, Path]:
    with quiet():
        model = converted(student)
        contents = {
            "float32": model,
            "static int8": stock_recipe(model, calibration),
            "dynamic int8": stock_recipe(model, None),
        }
    for name, content in contents.items():
        (folder / f"{name}.tflite").write_bytes(content)
    return {name: folder / f"{name}.tflite" for name in contents}


class _Plain(nn.Module):
    """What people export: normalised [N, 3, S, S] in, probabilities out."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self._backbone = network.backbone

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self._backbone(image).softmax(dim=1)


def _onnx(student: Network, path: Path) -> Path:
    example = torch.zeros(1, 3, student.image_size, student.image_size)
    with quiet():
        torch.onnx.export(
            _Plain(student).eval(), (example,), str(path), input_names=["image"], opset_version=18, external_data=False
        )
    return path


def _onnx2tf(student: Network, calibration: Sequence[Images], folder: Path) -> dict[str, Path]:
    python = python_of("onnx2tf", _ONNX2TF)
    source = _onnx(student, folder / "model.onnx")
    np.save(folder / "calibration.npy", np.concatenate(calibration).astype(np.float32) / 255)
    script = Path(__file__).with_name("_onnx2tf.py")
    command = [str(python), str(script), str(source), str(folder / "out"), str(folder / "calibration.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode:
        raise UnavailableError(f"it failed: {(done.stderr.strip() or done.stdout.strip()).splitlines()[-1]}")
    found = {
        "float32": "model_float32.tflite",
        "int8": "model_integer_quant.tflite",
        "int8 throughout": "model_full_integer_quant.tflite",
    }
    return {name: folder / "out" / file for name, file in found.items()}


def _onnx_runtime(student: Network, calibration: Sequence[Images], folder: Path) -> dict[str, Path]:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Shown(CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter(calibration)

        def get_next(self) -> dict[str, Any] | None:
            for image in self._left:
                return {"image": np.ascontiguousarray(normalised(image).transpose(0, 3, 1, 2))}
            return None

    source, prepared, quantized = _onnx(student, folder / "float32.onnx"), folder / "ready.onnx", folder / "int8.onnx"
    with quiet():
        quant_pre_process(str(source), str(prepared))
        quantize_static(str(prepared), str(quantized), Shown(), quant_format=QuantFormat.QDQ, per_channel=True)
    return {"float32": source, "static int8": quantized}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, action="append", required=True, help="a trained student; may be repeated")
    parser.add_argument("--rounds", type=int, default=10)
    return parser.parse_args()


if __name__ == "__main__":
    main()
