"""A place with photos and a config, in which tests run commands as a user would."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"green": (40, 160, 60), "red": (180, 50, 40), "violet": (120, 60, 170)}

CONFIG = """\
data: {unlabeled: photos/unlabeled, labeled: photos/labeled, validation: photos/validation, test: photos/test}
teacher:
  timm: test_resnet
  pretrained: false
  image_size: 32
  precision: float32
  fit: {epochs: 8, batch_size: 8, ema_decay: 0.9}
student: {timm: tf_mobilenetv3_small_minimal_100, pretrained: false, image_size: 32}
labels: {views: 16}
train: {epochs: 4, batch_size: 16, ema_decay: 0.9, warmup_epochs: 1}
export: {calibration_images: 16, min_int8_agreement: 0.5, min_float_agreement: 0.9}
benchmark: {rounds: 1, runs: 5, warmup: 1}
gates: {max_int8_drop: 0.5}
"""


SHAPES = """\
task: segmentation
data:
  unlabeled: shapes/unlabeled
  labeled: shapes/labeled
  validation: shapes/validation
  test: shapes/test
  classes: [background, disc, square]
  resize: squash
teacher:
  smp: unet
  encoder: tu-tf_mobilenetv3_small_minimal_100
  image_size: 64
  encoder_weights: null
  fit: {epochs: 12, batch_size: 4, ema_decay: 0.9}
student: {smp: deeplabv3plus, encoder: mobilenetv4_conv_small, decoder_channels: 16, pretrained: false, image_size: 32}
labels: {grid: 32}
train: {epochs: 8, batch_size: 8, ema_decay: 0.9, warmup_epochs: 1, target_stride: 2}
export:
  files: [tflite-float32, tflite-int8, onnx-float32, onnx-int8]
  calibration_images: 16
  min_int8_agreement: 0.5
  min_float_agreement: 0.9
benchmark: {rounds: 1, runs: 5, warmup: 1, threads: [1]}
gates: {max_int8_drop: 0.5}
"""


@dataclass(frozen=True)
class Workplace:
    """A folder with photos/ and teacher.yaml, and a way to run commands in it."""

    root: Path

    def start(self, *arguments: str, module: str = "distill") -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # A shell that puts a job into the background makes it ignore SIGINT, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads here
        )

    def run(self, *arguments: str, module: str = "distill", expect: int = 0) -> str:
        process = self.start(*arguments, module=module)
        output, _ = process.communicate(timeout=900)
        assert process.returncode == expect, output
        return output


def write_photos(folder: Path) -> None:
    """Three colours on noise, 40x32, easy to tell apart; 16 views of 330 fill two shards of the label store."""
    rng = np.random.default_rng(3)
    for part, count in {"labeled": 10, "validation": 8, "test": 12, "unlabeled": 100}.items():
        for name, colour in COLOURS.items():
            target = folder / part / ("" if part == "unlabeled" else name)
            target.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                pixels = np.clip(rng.normal(colour, 45, (32, 40, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(target / f"{name}{number:03d}.png")


def write_shapes(folder: Path) -> None:
    """A red disc and a violet square on green noise, 72x56, with index masks: colours tell the classes."""
    rng = np.random.default_rng(4)
    down, across = np.mgrid[:56, :72]
    colours = np.array([COLOURS["green"], COLOURS["red"], COLOURS["violet"]])
    for part, count in {"labeled": 16, "validation": 8, "test": 10, "unlabeled": 60}.items():
        images, masks = (folder / part / ("" if part == "unlabeled" else name) for name in ("images", "masks"))
        images.mkdir(parents=True, exist_ok=True)
        masks.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            mask = np.zeros((56, 72), np.uint8)
            x, y, r = rng.integers(12, 60), rng.integers(12, 44), rng.integers(7, 14)
            mask[(across - x) ** 2 + (down - y) ** 2 < r * r] = 1
            x, y, r = rng.integers(0, 52), rng.integers(0, 36), rng.integers(10, 20)
            mask[y : y + r, x : x + r] = 2
            pixels = np.clip(rng.normal(colours[mask], 30), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(images / f"{part}{number:03d}.png")
            if part != "unlabeled":
                Image.fromarray(mask).save(masks / f"{part}{number:03d}.png")


def prepare(root: Path, photos: Path) -> Workplace:
    (root / "photos").symlink_to(photos)
    (root / "teacher.yaml").write_text(CONFIG)
    return Workplace(root)
