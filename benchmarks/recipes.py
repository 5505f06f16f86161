"""Which recipe teaches a student best: the grid behind docs/recipes.md.

Takes a run whose labels are finished, trains the same student under each recipe and seed, and prints accuracy on the
validation set with intervals, and paired differences to the control and to KL at T = 4, both over all seeds and images.
The test set is not looked at: it is for the recipe that was chosen, at the end.

    python benchmarks/recipes.py RUN [--image-size 96 --epochs 8 --seeds 3] --out grid.jsonl

Each finished cell is a line of the file, so the same command goes on. Last line of stdout: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from distill.config import RunConfig, TrustSettings
from distill.config_file import load_config
from distill.core import plugins
from distill.core.metrics_log import MetricsLog
from distill.core.progress import Progress
from distill.core.types import ImageRecord, softmax
from distill.data.batches import ImageCache
from distill.data.manifest import Manifest
from distill.data.views import ViewPlan
from distill.evaluate import evaluate
from distill.examples import Examples, PseudoLabelled, Truth
from distill.labels.choice import choose
from distill.labels.store import LabelStore
from distill.losses import LossName, build_loss, of_rows
from distill.tasks.classification import Classification, LabelAnswers
from distill.torch_predictor import TorchPredictor
from distill.train import train

_RESAMPLES = 2000


@dataclass(frozen=True)
class Recipe:
    """What is tried; everything else is as the run's config says."""

    loss: LossName = "kl"
    temperature: float = 1.0
    views: int = 16
    mixup: float = 0.0
    pool: bool = True
    truth_only: bool = False
    trust: TrustSettings = field(default_factory=TrustSettings)


GRID = {
    "control: truth only": Recipe(truth_only=True),
    "hard labels": Recipe(loss="hard"),
    "KL T=1": Recipe(),
    "KL T=4": Recipe(temperature=4.0),
    "DIST": Recipe(loss="dist"),
    "DKD": Recipe(loss="dkd"),
    "JS": Recipe(loss="js"),
    "KL T=1, 1 view": Recipe(views=1),
    "KL T=1, 4 views": Recipe(views=4),
    "KL T=1, mixup 0.4": Recipe(mixup=0.4),
    "KL T=1, without pool": Recipe(pool=False),
    "KL T=1, calibrated": Recipe(trust=TrustSettings(calibrate=True)),
    "KL T=1, adaptive thresholds": Recipe(trust=TrustSettings(keep="adaptive")),
}


def main() -> None:
    """Fill the grid and print it."""
    options = _options()
    done: dict[tuple[str, int], list[bool]] = {}
    if options.out.exists():
        for line in options.out.read_text().splitlines():
            cell = json.loads(line)
            if cell["settings"] == _settings(options):
                done[cell["recipe"], cell["seed"]] = cell["right"]
    bench = _Bench(options)
    for seed in range(options.seeds):
        for name, recipe in GRID.items():
            if (name, seed) in done or (options.only and name not in options.only):
                continue
            right, facts = bench.cell(recipe, seed)
            done[name, seed] = right
            with options.out.open("a") as stream:
                cell = {"recipe": name, "seed": seed, "settings": _settings(options), **facts, "right": right}
                stream.write(json.dumps(cell) + "\n")
            print(f"{name}, seed {seed}: {np.mean(right):.3f} {facts}", flush=True)
    _print(done, options)


class _Bench:
    """A finished run's images, labels and student."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._config: RunConfig = load_config(options.run / "config.yaml")
        manifest = Manifest.load(options.run / "data" / "manifest.parquet")
        self._classes = manifest.classes
        self._task = Classification(manifest.classes)
        self._train, self._validation = manifest.of("train"), manifest.of("validation", labelled=True)
        self._store = LabelStore(options.run / "labels")
        self._said = LabelAnswers.load(options.run / "teacher" / "predictions" / "validation.parquet")
        self._cache = ImageCache(self._config.data.max_megapixels)

    def cell(self, recipe: Recipe, seed: int) -> tuple[list[bool], dict[str, Any]]:
        """Which validation images a student taught by this recipe names rightly."""
        update = {"image_size": self._options.image_size}
        torch.manual_seed(seed)
        student = plugins.build(self._config.student.model_copy(update=update), self._classes)
        settings = self._config.train.model_copy(
            update={"epochs": self._options.epochs, "mixup": recipe.mixup, "patience": self._options.epochs}
        )
        folder = Path(tempfile.mkdtemp(prefix="recipe-"))
        try:
            trained = train(
                student,
                self._examples(recipe, seed),
                self._validation,
                self._task,
                settings,
                of_rows(build_loss(recipe.loss, recipe.temperature)),
                folder,
                stage="student",
                seed=seed,
                cache=self._cache,
                resize=self._config.data.resize,
                metrics=MetricsLog(folder / "metrics.jsonl"),
                progress=Progress(Console(quiet=True)),
            )
        finally:
            shutil.rmtree(folder)
        score, answers = evaluate(
            TorchPredictor(student), self._task, self._validation, self._cache, self._config.data.resize
        )
        assert isinstance(answers, LabelAnswers)
        right = (answers.logits.argmax(axis=1) == answers.truth).tolist()
        return right, {"best_epoch": trained.best_epoch, "nll": round(score.nll, 4)}

    def _examples(self, recipe: Recipe, seed: int) -> Examples:
        smoothing = self._config.train.label_smoothing
        known = [r for r in self._train if r.label is not None]
        records = self._train if recipe.pool else known
        if recipe.truth_only:
            data, t = self._config.data, self._config.train
            plan = ViewPlan(data.resize, t.min_crop, data.mirror, t.color, seed)
            return Truth(known, self._classes, plan, epoch_size=len(self._train), label_smoothing=smoothing)
        choice = choose(
            self._store, self._train, self._classes, recipe.trust, softmax(self._said.logits), self._said.truth
        )
        wanted = {r.id for r in records}
        used = np.array([w > 0 and i in wanted for i, w in zip(choice.images, choice.weights, strict=True)])
        chosen: list[ImageRecord] = [r for r, use in zip(self._train, used, strict=True) if use]
        weights = choice.weights[used]
        # Without the pool the labelled images are repeated under other views, so that as many steps are taken.
        # Thresholds leave images out and take fewer.
        repeats = -(-len(self._train) // len(chosen)) if not recipe.pool else 1
        count = len(self._train) if not recipe.pool else len(chosen)
        return PseudoLabelled(
            (chosen * repeats)[:count],
            self._store,
            self._classes,
            weights=np.tile(weights, repeats)[:count],
            temperature=choice.temperature,
            truth_weight=self._config.train.truth_weight,
            label_smoothing=smoothing,
            seed=seed,
            views=min(recipe.views, self._store.views),
        )


def _print(done: dict[tuple[str, int], list[bool]], options: argparse.Namespace) -> None:
    table = Table("recipe", "seeds", "accuracy, %", "over control, points", "over KL T=4, points")
    rows = []
    for name in GRID:
        right = _seeds(done, name)
        if right is None:
            continue
        row: dict[str, Any] = {"recipe": name, "seeds": len(right), "accuracy": _interval(right)}
        for key, other in (("over_control", "control: truth only"), ("over_kl_t4", "KL T=4")):
            against = _seeds(done, other)
            if other != name and against is not None and against.shape == right.shape:
                row[key] = _interval(right - against)
        rows.append(row)
        table.add_row(name, str(len(right)), *(_said(row.get(k)) for k in ("accuracy", "over_control", "over_kl_t4")))
    Console(width=120).print(table)
    print(json.dumps({"rows": rows, "images": len(next(iter(done.values()), [])), "settings": _settings(options)}))


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """What cells must have in common to be compared."""
    return {"run": options.run.name, "image_size": options.image_size, "epochs": options.epochs}


def _seeds(done: dict[tuple[str, int], list[bool]], name: str) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    found = [right for (recipe, _), right in sorted(done.items()) if recipe == name]
    return np.array(found, dtype=np.float64) if found else None


def _interval(values: np.ndarray[Any, np.dtype[np.float64]]) -> list[float]:
    """Mean of [seeds, images] and its 95 % interval: seeds and images are both drawn anew (two-way bootstrap)."""
    rng = np.random.default_rng(0)
    seeds, images = values.shape
    means = [
        values[rng.integers(0, seeds, seeds)][:, rng.integers(0, images, images)].mean() for _ in range(_RESAMPLES)
    ]
    return [round(float(v), 4) for v in (values.mean(), *np.percentile(means, [2.5, 97.5]))]


def _said(interval: Sequence[float] | None) -> str:
    return "" if interval is None else "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * v for v in interval))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=list(GRID), metavar="RECIPE", help="names of the grid's rows")
    parser.add_argument("--out", type=Path, default=Path("grid.jsonl"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
