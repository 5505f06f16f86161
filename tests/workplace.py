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


def prepare(root: Path, photos: Path) -> Workplace:
    (root / "photos").symlink_to(photos)
    (root / "teacher.yaml").write_text(CONFIG)
    return Workplace(root)
