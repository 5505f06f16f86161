"""What int8 costs a network as this project makes it, and as ai-edge-quantizer's stock recipes do.

    python benchmarks/quantization.py --run runs/a --run runs/b [--rounds 10]
    python benchmarks/quantization.py --student '{timm: mobilenetv2_100, checkpoint: weights.safetensors}' \
        --classes 1000 --images photos/ [--calibration 120 --shown 200 --rounds 10]

With `--run`, the trained students of finished runs: every file is scored on the run's test images, its loss from the
student paired by image. `rung 1` is what `distill export tflite --quantize --rung 1` writes, `kept` the file that the
ladder ends with. With `--student`, a classifier of timm with its weights as they are: of the photos some calibrate,
others are shown; how often does each file name the class that the float file names? Rungs 1 to 3 are its rows.

All files of a student take turns, one thread, each in a process of its own. `stock static` is litert-torch and
`static_wi8_ai8` with the quantizer's own calibration, `stock dynamic` is `dynamic_wi8_afp32`; both are made from the
same weights and calibration images. Last line of stdout: one JSON object with the key `students`, or `files`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from _stock import Stock, converted, fed, stock_recipe
from rich.console import Console
from rich.table import Table

from distill.core.environment import describe_environment
from distill.core.progress import Progress
from distill.core.quiet import quiet
from distill.core.run import Run
from distill.core.timing import percentiles
from distill.core.types import Images
from distill.data.decode import decode
from distill.data.views import fixed_view, render
from distill.students.timm import Config, build
from distill.torch_predictor import Network
from distill.trained_student import load_student
from export.files import Exporter
from export.isolated import IsolatedFile
from export.quantize import tflite
from export.quantize.ladder import Ladder
from export.quantize.plan import Int8Plan

_SUFFIXES = {".jpg", ".jpeg", ".png"}


def main() -> None:
    """Measure and print."""
    options = _options()
    if options.run:
        _trained(options)
    else:
        _untrained(options)


def _trained(options: argparse.Namespace) -> None:
    table = Table()
    for heading in ("student", "file", "score, %", "lost, points", "alike, %", "ratio", "partitions", "MB"):
        table.add_column(heading, no_wrap=True)
    students = []
    for folder in options.run:
        with tempfile.TemporaryDirectory() as scratch:
            students.append(_measured(folder, Path(scratch), options.rounds))
        for row in students[-1]["files"]:
            lost = row["drop"]
            table.add_row(
                students[-1]["name"] if row is students[-1]["files"][0] else "",
                row["name"] + (f" (rung {row['rung']})" if row["name"] == "kept" else ""),
                f"{100 * row['score']:.1f}",
                "-"
                if row["name"] == "float32"
                else f"{100 * lost['value']:.1f} [{100 * lost['low']:.1f}, {100 * lost['high']:.1f}]",
                f"{100 * row['agreement']:.1f}",
                f"{row['ratio']:.2f}",
                f"{row['partitions']}{' ' * bool(row['outside'])}{', '.join(row['outside'])}",
                f"{row['bytes'] / 1e6:.2f}",
            )
        table.add_section()
    Console(width=140).print(table)
    print(json.dumps({"students": students, "environment": describe_environment(0), "settings": _plain(vars(options))}))


def _measured(folder: Path, scratch: Path, rounds: int) -> dict[str, Any]:
    """The files of one run, timed in turn and scored on its test images."""
    run = Run(folder)
    exporter = Exporter(run, Progress(Console(stderr=True)))
    student, card = load_student(run)
    made = {"float32": exporter.make("tflite-float32")}
    for name, rung in (("rung 1", 1), ("kept", None)):
        made[name] = exporter.make("tflite-int8", rung=rung)
        shutil.copy(run.folder("export") / made[name]["file"], scratch / f"{name}.tflite")
    shutil.copy(run.folder("export") / made["float32"]["file"], scratch / "float32.tflite")
    calibration = exporter.calibration_images()
    for name, content in (("stock static", calibration), ("stock dynamic", None)):
        with quiet():
            (scratch / f"{name}.tflite").write_bytes(stock_recipe(converted(student), content))
    names = [*made, "stock static", "stock dynamic"]
    with ExitStack() as stack:
        opened = {name: stack.enter_context(IsolatedFile(scratch / f"{name}.tflite", "tflite")) for name in names}
        samples: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(rounds):
            for name, file in opened.items():
                shown = fed(file, np.concatenate(calibration[:1]))
                samples[name] += file.time(shown, runs=20, warmup=3)["samples_ms"]
        facts = {name: file.facts for name, file in opened.items()}
        scores = {name: manifest["scores"]["test"] for name, manifest in made.items()}
        for name in names[len(made) :]:
            scores[name] = exporter.compare(Stock(opened[name], card["class_names"]))["test"]
    metric = made["float32"]["metric"]["key"]
    float_ms = percentiles(samples["float32"])["p50_ms"]
    files = [
        {
            "name": name,
            "score": scores[name][metric]["value"],
            "drop": scores[name]["drop"],
            "agreement": scores[name]["agreement"],
            "partitions": facts[name]["partitions"],
            "outside": facts[name]["outside"],
            "bytes": (scratch / f"{name}.tflite").stat().st_size,
            "ms": round(percentiles(samples[name])["p50_ms"], 4),
            "ratio": round(percentiles(samples[name])["p50_ms"] / float_ms, 4),
            **({"rung": made[name]["ladder"]["chosen"]} if name == "kept" else {}),
        }
        for name in names
    ]
    what = " ".join(str(card["settings"][key]) for key in ("smp", "timm", "encoder") if card["settings"].get(key))
    return {"name": what, "image_size": card["image_size"], "metric": metric, "files": files}


def _untrained(options: argparse.Namespace) -> None:
    settings = Config.model_validate(yaml.safe_load(options.student))
    student = build(settings, [f"class {n}" for n in range(options.classes)]).eval()
    images = _photos(options.images, student.image_size, options.calibration + options.shown)
    calibration, shown = images[: options.calibration], images[options.calibration :]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        opened: dict[str, IsolatedFile] = {}
        for name, write in _files(student, [image[None] for image in calibration]).items():
            path = Path(folder) / f"{name}.tflite"
            with quiet():
                path.write_bytes(write())
            opened[name] = stack.enter_context(IsolatedFile(path, "tflite"))
        answers = {name: file.run(fed(file, shown)) for name, file in opened.items()}
        samples: dict[str, list[float]] = {name: [] for name in opened}
        for _ in range(options.rounds):
            for name, file in opened.items():
                samples[name] += file.time(fed(file, shown[:1]), runs=20, warmup=3)["samples_ms"]
        sizes = {name: (Path(folder) / f"{name}.tflite").stat().st_size for name in opened}
    exact, float_ms = answers["float32"].argmax(axis=1), percentiles(samples["float32"])["p50_ms"]
    rows = [
        {
            "name": name,
            "agreement": round(float((answers[name].argmax(axis=1) == exact).mean()), 4),
            "partitions": file.facts["partitions"],
            "outside": file.facts["outside"],
            "bytes": sizes[name],
            "ms": round(percentiles(samples[name])["p50_ms"], 4),
            "ratio": round(percentiles(samples[name])["p50_ms"] / float_ms, 4),
        }
        for name, file in opened.items()
    ]
    table = Table(
        caption=f"{settings.timm}, {student.image_size} px, {len(shown)} photos, {len(calibration)} to calibrate"
    )
    for heading in ("file", "MB", "as float32, %", "ms", "ratio", "partitions", "outside them"):
        table.add_column(heading, no_wrap=True)
    for row in rows:
        numbers = (
            f"{row['bytes'] / 1e6:.2f}",
            f"{100 * row['agreement']:.1f}",
            f"{row['ms']:.2f}",
            f"{row['ratio']:.2f}",
        )
        table.add_row(row["name"], *numbers, str(row["partitions"]), ", ".join(row["outside"]))
    Console(width=120).print(table)
    print(json.dumps({"files": rows, "environment": describe_environment(0), "settings": _plain(vars(options))}))


def _files(student: Network, calibration: Sequence[Images]) -> dict[str, Callable[[], bytes]]:
    """How each file is made."""
    ladder = Ladder(student, calibration, tflite.float_layers(student), _no_training)

    def rung(number: int) -> bytes:
        plan = ladder.plan(number) or ladder.plan(number - 1)
        assert plan is not None
        with quiet():
            return tflite.quantize_int8(converted(plan.student), plan)

    return {
        "float32": lambda: converted(student),
        **{f"rung {number}": partial(rung, number) for number in (1, 2, 3)},
        "stock static": lambda: stock_recipe(converted(student), calibration),
        "stock dynamic": lambda: stock_recipe(converted(student), None),
    }


def _no_training(plan: Int8Plan) -> Int8Plan:
    raise NotImplementedError("rung 4 takes the teacher's answers, of which there are none here")


def _photos(folders: Sequence[Path], size: int, count: int) -> npt.NDArray[np.uint8]:
    """The same number of each folder, drawn with a fixed seed, the folders in turn: uint8 [N, size, size, 3]."""
    drawn = []
    for folder in folders:
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
        order = np.random.default_rng(0).permutation(len(paths))[: -(-count // len(folders))]
        drawn.append([paths[place] for place in order])
    chosen = [path for together in zip(*drawn, strict=True) for path in together][:count]
    photos = [decode(path) for path in chosen]
    return np.stack([render(photo, fixed_view(*photo.size, "center_crop"), size) for photo in photos])


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(values, default=str))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    subject = parser.add_mutually_exclusive_group(required=True)
    subject.add_argument("--run", type=Path, action="append", help="run with a trained student; may be repeated")
    subject.add_argument("--student", help="as in a config, a classifier of timm; needs --images")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--images", type=Path, action="append", help="folder of photos; may be repeated")
    parser.add_argument("--calibration", type=int, default=120)
    parser.add_argument("--shown", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    if options.student and not options.images:
        parser.error("--student needs --images")
    return options


if __name__ == "__main__":
    main()
