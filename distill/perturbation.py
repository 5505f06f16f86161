"""How much answers suffer where photos are worse than those of training: blurred, dark, noisy, squeezed, turned.

The idea of ImageNet-C (Hendrycks & Dietterich 2019, arXiv 1903.12261), with levels in units that a photographer knows.
The photo is changed, not the network's input, so that predictors of any input size are shown the same.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from distill.core.progress import Progress
from distill.core.task import Task
from distill.core.types import ImageRecord, Predictor, Split
from distill.data.batches import ImageCache
from distill.data.manifest import Manifest
from distill.data.views import Resize
from distill.evaluate import evaluate

__all__ = ["KINDS", "Kind", "Levels", "kinds_for", "perturbed", "sensitivity", "shown"]

Kind = Literal["blur", "noise", "brightness", "jpeg", "crop", "rotation"]
_GREY: Final = (128, 128, 128)  # of corners that a turned photo leaves empty


class Levels(NamedTuple):
    """How far a perturbation goes.

    Args:
        values: from mild to hard, in their unit.
        unit: as a heading says it.
        moves: whether it moves what the photo shows, so that a mask would no longer lie over it.
    """

    values: tuple[float, ...]
    unit: str
    moves: bool = False


KINDS: Final[dict[Kind, Levels]] = {
    "blur": Levels((0.5, 1.0, 2.0, 4.0), "Gaussian, radius in % of the shorter side"),
    "noise": Levels((8.0, 16.0, 32.0, 64.0), "Gaussian, standard deviation of 255"),
    "brightness": Levels((0.25, 0.5, 1.5, 2.0), "times every value"),
    "jpeg": Levels((50.0, 25.0, 10.0, 5.0), "quality"),
    "crop": Levels((80.0, 60.0, 40.0, 20.0), "% of the area that is left, centred", moves=True),
    "rotation": Levels((5.0, 10.0, 20.0, 45.0), "degrees", moves=True),
}


def kinds_for(task: Task) -> dict[Kind, Levels]:
    """Perturbations that leave this task's truth as it is."""
    return {kind: levels for kind, levels in KINDS.items() if not (levels.moves and task.by_pixel)}


def shown(manifest: Manifest, count: int) -> tuple[Split, list[ImageRecord]]:
    """The split and at most `count` labelled images of it, test if there is one; the same ones for every predictor."""
    split: Split = "test" if manifest.of("test", labelled=True) else "validation"
    return split, sorted(manifest.of(split, labelled=True), key=lambda record: record.id)[:count]


def perturbed(image: Image.Image, kind: Kind, level: float, seed: int = 0) -> Image.Image:
    """The photo after one perturbation, of the same size.

    Args:
        image: RGB.
        kind: what is done.
        level: how much, in the unit of `KINDS`.
        seed: of the noise.
    """
    match kind:
        case "blur":
            return image.filter(ImageFilter.GaussianBlur(level / 100 * min(image.size)))
        case "noise":
            drawn = np.random.default_rng(seed).normal(0, level, (image.height, image.width, 3))
            return Image.fromarray(np.clip(np.rint(np.asarray(image) + drawn), 0, 255).astype(np.uint8))
        case "brightness":
            return ImageEnhance.Brightness(image).enhance(level)
        case "jpeg":
            written = io.BytesIO()
            image.save(written, "JPEG", quality=int(level))
            with Image.open(written) as read:
                return read.convert("RGB")
        case "crop":
            side = (level / 100) ** 0.5
            left, top = image.width * (1 - side) / 2, image.height * (1 - side) / 2
            box = (left, top, image.width - left, image.height - top)
            return image.resize(image.size, Image.Resampling.BICUBIC, box=box)
        case "rotation":
            return image.rotate(level, Image.Resampling.BICUBIC, fillcolor=_GREY)


def sensitivity(
    predictor: Predictor,
    task: Task,
    records: Sequence[ImageRecord],
    cache: ImageCache,
    resize: Resize,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Scores of a predictor on the photos as they are, and after each perturbation at each level.

    Returns:
        Rows of `kind` (`none` first), `level`, `score` (the task's metric: value, low, high) and `nll`.
    """
    asked: list[tuple[Kind | None, float]] = [(None, 0.0)]
    asked += [(kind, level) for kind, levels in kinds_for(task).items() for level in levels.values]
    rows = []
    with progress.task("perturbing", len(asked), "levels") as bar:
        for kind, level in asked:
            given = cache if kind is None else _PerturbedImages(cache, kind, level)
            score, _ = evaluate(predictor, task, records, given, resize)
            figures = {"score": asdict(task.main(score)), "nll": score.nll}
            rows.append({"kind": kind or "none", "level": level, **figures})
            bar.advance(1)
    return rows


class _PerturbedImages(ImageCache):
    """Images of a cache after a perturbation."""

    def __init__(self, cache: ImageCache, kind: Kind, level: float) -> None:
        super().__init__(0.0)
        self._inner, self._kind, self._level = cache, kind, level

    def get(self, record: ImageRecord) -> Image.Image:
        return perturbed(self._inner.get(record), self._kind, self._level, int(record.id[:8], 16))
