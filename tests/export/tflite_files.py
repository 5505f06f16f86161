"""The child process that writes TFLite files before and after they say what they are.

`python -m tests.export.tflite_files FOLDER [WEIGHTS]`: `bare.PRECISION.tflite` and `said.PRECISION.tflite` for float32
and int8, of an untrained student of 32 px and 3 classes, or of ImageNet's MobileNetV2 where its weights are named. In a
child, because the converter starts JAX's threads, and JAX warns of every later fork of a process that has them.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import timm
import torch
from timm.data import ImageNetInfo

from distill.checkpoint import load_weights
from distill.torch_predictor import Network
from export.about import About, Taught
from export.formats.tflite import TFLite
from export.quantize.ladder import Ladder

SMALL = ("disc", "square", "neither\nof them")
ABOUT = About(
    "small, 32 px", False, "classification", SMALL, "probabilities", "0" * 64, Taught("big", "cc-by-4.0", "1" * 64)
)


def about_imagenet() -> About:
    info = ImageNetInfo()
    names = tuple(info.index_to_description(index) for index in range(1000))
    return About("mobilenetv2_100, 224 px", False, "classification", names, "probabilities", "0" * 64)


def main(folder: Path, weights: Path | None) -> None:
    torch.manual_seed(0)
    if weights is None:
        about, size = ABOUT, 32
        backbone = timm.create_model("tf_mobilenetv3_small_minimal_100", num_classes=3)
    else:
        about, size = about_imagenet(), 224
        backbone = timm.create_model("mobilenetv2_100", pad_type="same")
        load_weights(backbone, weights)
    student = Network(backbone.eval(), about.labels, size, [0.5] * 3, [0.5] * 3, pretrained=True).eval()
    if (folder / "images.npy").exists():
        images = np.load(folder / "images.npy")
    else:
        images = np.random.default_rng(0).integers(0, 256, (8, size, size, 3), dtype=np.uint8)
    maker = TFLite()

    def tuned(_: object) -> None:
        raise AssertionError("the first rung needs no tuning")

    plan = Ladder(student, [image[None] for image in images], maker.float_layers(student), tuned).plan(1)
    assert plan is not None
    for precision, source in (("float32", student), ("int8", plan)):
        bare, said = (folder / f"{name}.{precision}.tflite" for name in ("bare", "said"))
        maker.write(source, precision, bare)
        shutil.copy(bare, said)
        maker.describe(said, about)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
