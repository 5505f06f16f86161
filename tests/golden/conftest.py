"""A run whose student was never trained, and commands as a user gives them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from distill import pipeline
from distill.checkpoint import save_weights
from distill.cli import app
from distill.config_file import load_config
from distill.core import plugins
from distill.core.run import Run
from distill.core.task import build_task
from distill.data.batches import ImageCache
from distill.data.manifest import Manifest
from distill.evaluate import evaluate
from distill.torch_predictor import TorchPredictor
from distill.trained_student import save_card
from tests.audit.conftest import photo, save

CONFIG = """\
data: {labeled: train, validation: val, test: test, resize: squash}
teacher: {timm: test_resnet, pretrained: false, image_size: 32}
student: {timm: tf_mobilenetv3_small_minimal_100, pretrained: false, image_size: 32}
"""
SHAPES = """\
task: segmentation
data: {labeled: train, validation: val, test: test, classes: [background, disc, square], resize: squash}
teacher: {smp: unet, encoder: tu-tf_mobilenetv3_small_minimal_100, encoder_weights: null}
student: {smp: deeplabv3plus, encoder: mobilenetv4_conv_small, decoder_channels: 16, pretrained: false, image_size: 32}
"""
Command = Callable[..., str]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command of `distill` in the test's folder and gives what it printed, or of `expect` the error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, expect: int = 0) -> str:
        done = CliRunner().invoke(app, [str(each) for each in arguments])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        assert done.exit_code == expect, done.output
        return " ".join((done.stderr if expect else done.stdout).split())

    return run


@pytest.fixture
def document(command: Command) -> Callable[..., dict[str, Any]]:
    """The same with --json."""
    return lambda *arguments: json.loads(command(*arguments, "--json"))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Of photos of cats and dogs."""
    number = 0
    for split, count in {"train": 6, "val": 2, "test": 3}.items():
        for name in ("cat", "dog"):
            for _ in range(count):
                number += 1
                save(photo(number), tmp_path / split / name / f"{number}.png")
    return _with_student(tmp_path, CONFIG)


@pytest.fixture
def masked(tmp_path: Path) -> Run:
    """Of scenes with masks."""
    number = 0
    for split, count in {"train": 4, "val": 2, "test": 3}.items():
        for _ in range(count):
            number += 1
            write_scene(tmp_path / split, number)
    return _with_student(tmp_path, SHAPES)


def write_scene(folder: Path, number: int) -> Path:
    """A photo of 96x80 and its mask of three classes; the path of the mask."""
    save(photo(number), folder / "images" / f"{number}.png")
    mask = np.random.default_rng(number).integers(0, 3, (5, 6)).astype(np.uint8).repeat(16, 0).repeat(16, 1)
    return save(Image.fromarray(mask), folder / "masks" / f"{number}.png")


def _with_student(root: Path, config: str) -> Run:
    (root / "teacher.yaml").write_text(config)
    settings = load_config(root / "teacher.yaml", [f"output={root / 'run'}"])
    pipeline.run(settings, Console(quiet=True), until="data")
    run = Run(root / "run")
    manifest = Manifest.load(run.folder("data") / "manifest.parquet")
    network = plugins.build(settings.student, manifest.classes)
    folder = run.begin("student", "untrained")
    save_weights(network.backbone, folder / "weights.safetensors")
    save_card(folder, settings.student, network, {"resize": "squash", "max_megapixels": 100.0})
    task, records = build_task(settings.task, manifest.classes), manifest.of("test")
    score, answers = evaluate(TorchPredictor(network), task, records, ImageCache(100), "squash")
    answers.save(run.answers("student", "test"))
    run.finish("student", "untrained", 1.0, {"scores": {"test": score.as_dict()}})
    return run
