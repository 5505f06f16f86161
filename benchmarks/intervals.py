"""How often intervals of 95 % hold the truth, on simulated images whose truth is known.

Accuracy: right answers with a probability that differs from experiment to experiment within the range given. Paired
drop: two predictors disagree on a share of the images. mIoU: scenes with a background and classes of which the rarest
is in one image of ten, one image of ten hard; the truth is that of 400,000 images. Paired drop of mIoU: a second
predictor errs on the same images alike, and a little more.

Beside the intervals that scores have, the percentile bootstrap over images (1,000 resamples).

    python benchmarks/intervals.py [--experiments 2000]

Where two predictors are expected to disagree on fewer than four images, no interval of integers can be exact; the error
is on the safe side. Last line of stdout: one JSON object with the key `rows`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from distill.core.task import Interval
from distill.core.types import FloatArray
from distill.tasks._mask_answers import CONFIDENCE_BINS
from distill.tasks.classification import Classification, LabelAnswers
from distill.tasks.segmentation import MaskAnswers, Segmentation

_Floats = npt.NDArray[np.float64]
_PIXELS = 10_000  # of an image


class Row(NamedTuple):
    """How often the truth was held; the mean width tells that it was not held by saying little."""

    figure: str
    setting: str
    images: int
    held: float
    width: float
    bootstrap_held: float
    bootstrap_width: float


def main() -> None:
    """Simulate and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=2000, help="of each line; of mIoU a quarter")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    rows = [*_labels(rng, options.experiments), *_masks(rng, options.experiments // 4)]
    table = Table("figure", "setting", "images", "held", "width", "bootstrap held", "width")
    for row in rows:
        style = "" if 0.93 <= row.held <= 0.97 else "bold"
        shares = (f"{row.held:.3f}", f"{row.width:.3f}", f"{row.bootstrap_held:.3f}", f"{row.bootstrap_width:.3f}")
        table.add_row(row.figure, row.setting, str(row.images), *shares, style=style)
    Console(width=120).print(table)
    print(json.dumps({"rows": [row._asdict() for row in rows], "settings": vars(options)}))


def _counted(
    figure: str, setting: str, images: int, experiments: int, once: Callable[[], tuple[float, Interval, Interval]]
) -> Row:
    found = [once() for _ in range(experiments)]
    held, boot = (
        [float(np.mean([each[k].low <= each[0] <= each[k].high for each in found])) for k in (1, 2)],
        [float(np.mean([each[k].high - each[k].low for each in found])) for k in (1, 2)],
    )
    return Row(figure, setting, images, held[0], boot[0], held[1], boot[1])


def _labels(rng: np.random.Generator, experiments: int) -> Iterator[Row]:
    task = Classification(["a", "b"])

    def answers(right: npt.NDArray[np.bool_]) -> LabelAnswers:
        logits: FloatArray = np.stack([right, ~right], axis=1).astype(np.float32)
        return LabelAnswers(tuple(map(str, range(len(right)))), logits, np.zeros(len(right), np.int64))

    for low, high in ((0.5, 0.8), (0.8, 0.95), (0.95, 0.99)):
        for images in (50, 200, 1000):

            def accuracy(
                low: float = low, high: float = high, images: int = images
            ) -> tuple[float, Interval, Interval]:
                truth = rng.uniform(low, high)
                right = rng.random(images) < truth
                return truth, task.score(answers(right)).accuracy, _bootstrap(right.astype(float), rng)

            yield _counted("accuracy", f"{low} to {high}", images, experiments, accuracy)
    for low, high in ((0.01, 0.02), (0.02, 0.06), (0.06, 0.2)):
        for images in (100, 400, 1000):

            def drop(ends: tuple[float, float] = (low, high), n: int = images) -> tuple[float, Interval, Interval]:
                apart, share = rng.uniform(*ends), rng.uniform(0.35, 0.65)
                u, first = rng.random(n), rng.random(n) < 0.9
                first[u < apart] = u[u < apart] < apart * share
                second = np.where(u < apart, ~first, first)
                found = task.difference(answers(first), answers(second))
                return apart * (2 * share - 1), found, _bootstrap(first.astype(float) - second, rng)

            yield _counted("paired drop", f"differ on {low} to {high}", images, experiments, drop)


def _masks(rng: np.random.Generator, experiments: int) -> Iterator[Row]:
    for presence in ((1.0, 0.9), (1.0, 0.6, 0.3, 0.15), (1.0, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)):
        task = Segmentation([str(place) for place in range(len(presence))])
        for quality in (0.75, 0.92):
            parts = [[each.sum(axis=0) for each in _scenes(rng, 20_000, presence, quality)] for _ in range(20)]
            truth, other = _miou(np.array(parts).sum(axis=0))
            for images in (60, 150, 400):

                def experiment(
                    paired: bool, images: int = images, presence: tuple[float, ...] = presence, quality: float = quality
                ) -> tuple[float, Interval, Interval]:
                    first, second = _scenes(rng, images, presence, quality)
                    draws = rng.multinomial(images, np.full(images, 1 / images), size=1000).astype(float)
                    figures = _miou(np.tensordot(draws, first, axes=1))
                    if not paired:
                        return truth, task.score(_answers(first)).miou, _quantiles(figures)  # noqa: B023
                    found = task.difference(_answers(first), _answers(second))  # noqa: B023
                    return truth - other, found, _quantiles(figures - _miou(np.tensordot(draws, second, axes=1)))  # noqa: B023

                setting = f"{len(presence)} classes, recall {quality}"
                yield _counted("mIoU", setting, images, experiments, lambda e=experiment: e(False))
                yield _counted("drop of mIoU", setting, images, experiments, lambda e=experiment: e(True))


def _scenes(
    rng: np.random.Generator, images: int, presence: tuple[float, ...], quality: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Confusion counts [N, C, C] of two predictors about the same images."""
    classes = len(presence)
    common = np.array([6.0] + [1.0] * (classes - 1))
    area = rng.gamma(1.2, 1.0, (images, classes)) * common * (rng.random((images, classes)) < np.array(presence))
    area *= _PIXELS / np.maximum(area.sum(axis=1, keepdims=True), 1e-9)
    recall = rng.beta(8 * quality, 8 * (1 - quality), (images, classes))
    recall *= np.where(rng.random((images, 1)) < 0.1, 0.6, 1.0)
    strays = rng.gamma(0.5, 1.0, (images, 1, classes)) * np.where(np.eye(classes, dtype=bool), 0.0, common)
    strays /= np.maximum(strays.sum(axis=2, keepdims=True), 1e-12)
    worse = np.clip(recall - rng.normal(0.01, 0.03, recall.shape), 0, 1)
    found = []
    for each in (recall, worse):
        right = area * each
        found.append(np.rint(right[..., None] * np.eye(classes) + (area - right)[..., None] * strays).astype(np.int64))
    return found[0], found[1]


def _answers(counts: npt.NDArray[np.int64]) -> MaskAnswers:
    images, classes = counts.shape[:2]
    none = np.zeros((images, 2, CONFIDENCE_BINS), np.int64)
    outlines = np.zeros((images, classes, 4), np.int64)
    return MaskAnswers(tuple(map(str, range(images))), counts, outlines, np.zeros(images), none, (b"",) * images)


def _miou(counts: npt.NDArray[np.generic]) -> _Floats:
    """Of [..., C, C]."""
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    union = counts.sum(axis=-1) + counts.sum(axis=-2) - right
    return np.nanmean(np.where(union > 0, right / np.maximum(union, 1), np.nan), axis=-1)  # type: ignore[no-any-return]


def _bootstrap(values: _Floats, rng: np.random.Generator) -> Interval:
    levels, counts = np.unique(values, return_counts=True)
    draws = rng.multinomial(len(values), counts / len(values), size=1000)
    return _quantiles(draws @ levels / len(values))


def _quantiles(figures: _Floats) -> Interval:
    low, high = np.nanquantile(figures, [0.025, 0.975])
    return Interval(float(np.nanmean(figures)), float(low), float(high))


if __name__ == "__main__":
    main()
