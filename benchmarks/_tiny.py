"""Runs of every stage on images made on the spot, small enough that starting Python takes longest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["CONFIGS", "write_images"]

_COLOURS = {"green": (40, 160, 60), "red": (180, 50, 40), "violet": (120, 60, 170)}

_OF_LABELS = """\
data: {unlabeled: images/unlabeled, labeled: images/labeled, validation: images/validation, test: images/test}
teacher:
  timm: test_resnet
  pretrained: false
  image_size: 32
  precision: float32
  fit: {epochs: 8, batch_size: 8, ema_decay: 0.9}
student: {timm: test_efficientnet, pretrained: false, image_size: 32}
labels: {views: 16}
train: {epochs: 6, batch_size: 16, ema_decay: 0.9, warmup_epochs: 1}
"""

_OF_MASKS = """\
task: segmentation
data:
  unlabeled: images/unlabeled
  labeled: images/labeled
  validation: images/validation
  test: images/test
  classes: [background, disc, square]
  resize: squash
teacher:
  smp: unet
  encoder: tu-test_resnet
  image_size: 64
  precision: float32
  encoder_weights: null
  fit: {epochs: 8, batch_size: 4, ema_decay: 0.9}
student: {smp: deeplabv3plus, encoder: mobilenetv4_conv_small, decoder_channels: 16, pretrained: false, image_size: 32}
labels: {grid: 32}
train: {epochs: 6, batch_size: 8, ema_decay: 0.9, warmup_epochs: 1, target_stride: 2}
"""

_OF_BOTH = """\
export:
  files: [tflite-int8, onnx-int8]
  calibration_images: 16
  min_int8_agreement: 0.0
  min_float_agreement: 0.9
benchmark: {rounds: 1, runs: 5, warmup: 1, threads: [1]}
gates: {max_int8_drop: 1.0}
"""

CONFIGS = {"classification": _OF_LABELS + _OF_BOTH, "segmentation": _OF_MASKS + _OF_BOTH}
"""By task, with `images` as `write_images` makes them."""


def write_images(folder: Path, task: str, counts: dict[str, int], side: int = 40) -> None:
    """Write PNGs of `side` pixels, each unlike the others: a colour on noise for each class, or shapes with masks.

    Args:
        folder: made if needed.
        task: classification or segmentation.
        counts: images of labeled, validation, test and unlabeled.
        side: in pixels.
    """
    rng = np.random.default_rng(3)
    write = _write_photo if task == "classification" else _write_scene
    for part, count in counts.items():
        for number in range(count):
            write(folder / part, part, number, side, rng)


def _write_photo(folder: Path, part: str, number: int, side: int, rng: np.random.Generator) -> None:
    name, colour = list(_COLOURS.items())[number % len(_COLOURS)]
    target = folder if part == "unlabeled" else folder / name
    target.mkdir(parents=True, exist_ok=True)
    # Noise alone is flat once it is made small, so all of it would look like copies; photos have coarse structure.
    coarse = Image.fromarray(np.clip(rng.normal(128, 45, (6, 6, 3)), 0, 255).astype(np.uint8))
    coarse = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.float64) - 128
    _save(rng.normal(colour + coarse, 20), target / f"{number:05d}.png")


def _write_scene(folder: Path, part: str, number: int, side: int, rng: np.random.Generator) -> None:
    colours = np.array(list(_COLOURS.values()))
    down, across = np.mgrid[:side, :side]
    mask = np.zeros((side, side), np.uint8)
    x, y, radius = [*rng.integers(0, side, 2).tolist(), rng.integers(side // 6, side // 3)]
    mask[(across - x) ** 2 + (down - y) ** 2 < radius**2] = 1
    x, y, edge = [*rng.integers(0, side // 2, 2).tolist(), rng.integers(side // 6, side // 3)]
    mask[y : y + edge, x : x + edge] = 2
    images = folder if part == "unlabeled" else folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    _save(rng.normal(colours[mask], 30), images / f"{number:05d}.png")
    if part != "unlabeled":
        (folder / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(folder / "masks" / f"{number:05d}.png")


def _save(pixels: np.ndarray, path: Path) -> None:
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)
