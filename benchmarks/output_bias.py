"""Is it worth starting the output bias at the log of the class frequencies?

Karpathy (2019, "A Recipe for Training Neural Networks") starts it there, so that the first steps do not go into
learning how frequent classes are. Here the classifier starts at zero. What could be saved at most is log(n) less the
entropy of the frequencies, and AdamW moves a bias by about its learning rate a step, whatever the gradient. So:
handwritten digits of which 0 is ten times as frequent as 9, from random weights, both starts, several seeds.

    python benchmarks/output_bias.py [--seeds 3 --epochs 6]

Last line of stdout: one JSON object with the validation loss and accuracy after each epoch by start, means over seeds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from sklearn.datasets import load_digits

from distill import train
from distill.core.files import sha256_of
from distill.core.metrics_log import MetricsLog
from distill.core.progress import Progress
from distill.core.settings import TrainSettings
from distill.core.types import ImageRecord, Split
from distill.data.batches import ImageCache
from distill.data.views import ViewPlan
from distill.examples import Truth
from distill.losses import build_loss, of_rows
from distill.students.timm import Config, build
from distill.tasks.classification import Classification
from distill.torch_predictor import Network

NAMES = tuple(map(str, range(10)))
SHOWN = [round(100 * 0.1 ** (digit / 9)) for digit in range(10)]  # training images of each digit: 100 to 10
_QUIET = Progress(Console(quiet=True))


def main() -> None:
    """Train both ways and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    options = parser.parse_args()
    found: dict[str, list[list[tuple[float, float]]]] = {"zero": [], "frequencies": []}
    with tempfile.TemporaryDirectory() as root:
        records = {split: _written(Path(root), split) for split in ("train", "validation")}
        for seed in range(options.seeds):
            for start in found:
                folder = Path(root) / f"{start}-{seed}"
                found[start].append(_curve(records, start, seed, options.epochs, folder))
    means = {start: np.mean(curves, axis=0) for start, curves in found.items()}
    print("| epoch | nll, zero | nll, frequencies | accuracy, zero | accuracy, frequencies |\n|---|---|---|---|---|")
    for epoch in range(options.epochs):
        (a, b), (c, d) = means["zero"][epoch], means["frequencies"][epoch]
        print(f"| {epoch + 1} | {a:.3f} | {c:.3f} | {b:.3f} | {d:.3f} |")
    shares = np.array(SHOWN) / sum(SHOWN)
    saved = float(np.log(10) + (shares * np.log(shares)).sum())
    print(f"\nlog(10) less the entropy of the frequencies: {saved:.3f} nats; {options.seeds} seeds\n")
    print(json.dumps({"saved_at_most": saved, **{start: mean.tolist() for start, mean in means.items()}}))


def _curve(
    records: dict[str, list[ImageRecord]], start: str, seed: int, epochs: int, folder: Path
) -> list[tuple[float, float]]:
    """Validation loss and accuracy after each epoch."""
    torch.manual_seed(seed)
    student = Config(timm="tf_mobilenetv3_small_minimal_100", pretrained=False, image_size=32)
    network = build(student, NAMES)
    settings = TrainSettings(epochs=epochs, batch_size=16, ema_decay=0, warmup_epochs=1, label_smoothing=0)
    right = train.begin

    def begin(network: Network, *given: object, **named: object) -> None:
        right(network, *given, **named)  # type: ignore[arg-type]
        with torch.no_grad():
            network.classifier().bias.copy_(torch.tensor(SHOWN, dtype=torch.float32).div(sum(SHOWN)).log())

    plan = ViewPlan("squash", 0.6, False, 0.0, seed)
    examples = Truth(records["train"], NAMES, plan, epoch_size=len(records["train"]), label_smoothing=0)
    metrics = MetricsLog(folder.parent / f"{folder.name}.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        if start == "frequencies":
            patch.setattr(train, "begin", begin)
        train.train(
            network,
            examples,
            records["validation"],
            Classification(NAMES),
            settings,
            of_rows(build_loss("kl", 1.0)),
            folder,
            stage="student",
            seed=seed,
            cache=ImageCache(100),
            resize="squash",
            metrics=metrics,
            progress=_QUIET,
        )
    return [(line["validation_nll"], line["validation_score"]) for line in metrics.read()]


def _written(root: Path, split: Split) -> list[ImageRecord]:
    """As many training images as `SHOWN` says, and 200 for validation as frequent as these."""
    from PIL import Image

    digits, records = load_digits(), []
    for digit, count in enumerate(SHOWN):
        places = np.flatnonzero(digits.target == digit)
        chosen = places[:count] if split == "train" else places[100 : 100 + max(4, count // 2)]
        for place in chosen.tolist():
            pixels = np.round(digits.images[place] * (255 / 16)).astype(np.uint8)
            path = root / split / f"{place:04d}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC).save(path)
            records.append(ImageRecord(sha256_of(path), str(path), 32, 32, split, str(digit)))
    return sorted(records, key=lambda record: record.id)


if __name__ == "__main__":
    main()
