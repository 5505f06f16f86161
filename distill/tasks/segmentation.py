"""A class for each pixel: mIoU, IoU by class, pixel accuracy, boundary F-score, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import numpy.typing as npt

from distill.core.dense import IGNORED
from distill.core.errors import DataError, TeacherError, UserError
from distill.core.intervals import jackknife
from distill.core.settings import Settings
from distill.core.task import Answers, Interval, Metric, Parity, Profile, Score, Task
from distill.core.types import FloatArray, ImageRecord, Predictor
from distill.data.mask_file import read_mask
from distill.data.views import fixed_view
from distill.tasks._mask_answers import MaskAnswers, look, look_at_mask
from distill.tasks._mask_figures import FIGURES, FIGURES_OF_CLASSES, f_scores, iou, miou, profile, right, sums_of
from distill.tasks._sums import mean_of_known

if TYPE_CHECKING:
    from distill.config import LabelSettings, RunConfig
    from distill.core.settings import TrainSettings
    from distill.data.batches import ImageCache
    from distill.data.views import Resize, ViewPlan
    from distill.examples import Examples
    from distill.labels.map_label import MapLabelling
    from distill.losses import LessonLoss
    from distill.map_examples import Grid
    from distill.map_losses import MapLossName

__all__ = ["Config", "MaskAnswers", "MaskScore", "Segmentation", "build"]

_Floats = npt.NDArray[np.float64]
_Mask = npt.NDArray[np.uint8]


class Config(Settings):
    """Segmentation has no settings of its own."""


@dataclass(frozen=True)
class MaskScore(Score):
    """How a predictor did on the pixels of labelled images; ignored pixels count nowhere.

    `nll` is the mean over pixels. Means over classes leave out what no figure can be given for, as the field does.

    Args:
        miou: mean IoU over the classes that occur in truth or answers. Pixels of all images are counted together first
            (Everingham et al. 2010), so that a class which a single image has counts once.
        pixel_accuracy: share of pixels answered right, 0..1.
        iou: by class name, intersection over union, 0..1; None for a class neither in truth nor in answers.
        boundary_f: mean of `boundary_f_by_class`; None if no class has an outline.
        boundary_f_by_class: by class name, harmonic mean of two shares of outlines, 0..1: of the answer's within 0.75 %
            of the diagonal of the truth's, and of the truth's within that of the answer's (Csurka et al. 2013, BMVC).
            They take the mean over images; here outlines of all images are counted together, as pixels are. None for a
            class without outline in truth and answers. Masks with an ignored seam around everything (PASCAL VOC) have
            no outlines, and it says nothing.
        confusion: [truth][answer] pixels in the order of the classes.
    """

    miou: Interval
    pixel_accuracy: Interval
    iou: dict[str, float | None]
    boundary_f: float | None
    boundary_f_by_class: dict[str, float | None]
    confusion: list[list[int]]


@final
class Segmentation(Task):
    """What "right" means for a class for each pixel."""

    metric = Metric("miou", "mIoU")
    figures = FIGURES
    figures_of_classes = FIGURES_OF_CLASSES
    figures_of_confidence = frozenset({"calibration_error"})
    chunk = 32  # answers of 257x257 cells and 21 classes take 6 MB an image
    by_pixel = True

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = tuple(class_names)

    def classes_in(self, records: Sequence[ImageRecord]) -> set[str]:
        found = np.zeros(256, np.bool_)
        for record in records:
            if record.mask is not None:
                found[self._truth(record)] = True
        return {name for name, occurs in zip(self.class_names, found[: len(self.class_names)], strict=True) if occurs}

    def examine(self, records: Sequence[ImageRecord], logits: FloatArray, resize: Resize) -> MaskAnswers:
        if logits.ndim != 4:
            raise TeacherError(f"answers are {list(logits.shape)}, of images; expected maps [N, h, w, C], of pixels")
        looks = []
        for record, answer in zip(records, logits, strict=True):
            if not np.isfinite(answer).all():
                raise UserError(f"{record.path}: the answer has values that are no finite numbers, expected logits")
            looks.append(look(answer, self._truth(record)[_shown(record, resize)]))
        return MaskAnswers.of([record.id for record in records], looks)

    def examine_hard(self, records: Sequence[ImageRecord], said: Sequence[Any], resize: Resize) -> MaskAnswers:
        looks = []
        for record, mask in zip(records, said, strict=True):
            truth, box = self._truth(record), _shown(record, resize)
            cut = mask[box] if mask.shape == truth.shape else mask
            looks.append(look_at_mask(cut, truth[box], len(self.class_names)))
        return MaskAnswers.of([record.id for record in records], looks)

    def _truth(self, record: ImageRecord) -> _Mask:
        mask = read_mask(str(record.mask))
        if mask.shape != (record.height, record.width):
            raise DataError(
                f"{record.mask}: found {mask.shape[1]}x{mask.shape[0]} pixels, expected {record.width}x{record.height},"
                f" as {record.path} has"
            )
        unknown = mask[(mask >= len(self.class_names)) & (mask != IGNORED)]
        if len(unknown):
            raise DataError(
                f"{record.mask}: found the value {unknown[0]}, expected 0 to {len(self.class_names) - 1} or {IGNORED}"
            )
        return mask

    def joined(self, parts: Sequence[Answers]) -> MaskAnswers:
        return MaskAnswers.joined([_known(part) for part in parts])

    def load_answers(self, path: Path) -> MaskAnswers:
        return MaskAnswers.load(path, len(self.class_names))

    def score(self, answers: Answers) -> MaskScore:
        known = _known(answers)
        confusion = known.counts.sum(axis=0)
        pixels = int(confusion.sum())
        if not pixels:
            raise DataError(f"no pixel to score on: all of {len(known.ids)} masks are ignored ({IGNORED}) everywhere")
        sums = sums_of(known)
        boundary = f_scores(known.boundary.sum(axis=0).astype(np.float64))
        return MaskScore(
            images=len(known.ids),
            nll=float(known.nll.sum() / pixels),
            miou=jackknife(sums, miou),
            pixel_accuracy=jackknife(sums, right),
            iou=self._by_name(iou(sums.sum(axis=0))),
            boundary_f=_number(mean_of_known(boundary)),
            boundary_f_by_class=self._by_name(boundary),
            confusion=confusion.tolist(),
        )

    def _by_name(self, values: _Floats) -> dict[str, float | None]:
        return {name: _number(value) for name, value in zip(self.class_names, values, strict=True)}

    def profile(self, answers: Answers) -> Profile:
        return profile(_known(answers), self.class_names)

    def difference(self, first: Answers, second: Answers) -> Interval:
        """The same image is left out of both, so that what is hard for both cancels."""
        one, other = _same_images(first, second)
        sums = np.stack([sums_of(one), sums_of(other)], axis=1)
        return jackknife(sums, lambda both: miou(both[..., 0, :, :]) - miou(both[..., 1, :, :]), lowest=-1.0)

    def parity(self, first: Answers, second: Answers) -> Parity:
        """Of all pixels of the masks, also those whose truth is ignored; probabilities are not kept."""
        one, other = _same_images(first, second)
        equal = pixels = 0
        for place in range(len(one.ids)):
            same = one.mask(place) == other.mask(place)
            equal, pixels = equal + int(same.sum()), pixels + same.size
        return Parity(equal / pixels, None)

    def no_better_than_chance(self, score: Score) -> str | None:
        """Whether the interval's lower end is above the best mIoU of an answer that does not look at the image.

        Answered at random with share q, a class of share p has IoU pq / (p + q - pq). The mean is largest for q in
        proportion to p / (1 - p); with S, the sum of these over the K classes that occur, it is S / (S + 1) / K. The
        most frequent class everywhere gives less, max(p) / K: of three equally frequent classes 0.11, not 0.2.
        """
        assert isinstance(score, MaskScore)
        sizes = np.array(score.confusion).sum(axis=1)
        shares = sizes[sizes > 0] / sizes.sum()
        said = (
            f"mIoU {score.miou.value:.3f} (95 % interval from {score.miou.low:.3f}) on {score.images} validation images"
        )
        if len(shares) == 1:
            name = self.class_names[int(sizes.argmax())]
            return f"{said} whose masks have {name!r} alone, which an answer without looking gets right too"
        odds = float((shares / (1 - shares)).sum())
        chance = odds / (odds + 1) / len(shares)
        if score.miou.low > chance:
            return None
        return f"{said} of {len(shares)} classes, guessing gives {chance:.3f}"

    def labelling(
        self,
        labeller: Predictor,
        records: Sequence[ImageRecord],
        folder: Path,
        settings: LabelSettings,
        *,
        cache: ImageCache,
        plan: ViewPlan,
        batch_size: int,
        fingerprint: str,
        facts: Mapping[str, Any],
        earlier: Path,
    ) -> MapLabelling:
        from distill.labels.map_label import MapLabelling

        return MapLabelling(
            labeller,
            records,
            folder,
            settings,
            cache=cache,
            batch_size=batch_size,
            fingerprint=fingerprint,
            facts=facts,
            earlier=earlier,
        )

    def summary_of_store(self, folder: Path, records: Sequence[ImageRecord]) -> dict[str, Any]:
        from distill.labels.map_stat import score_against
        from distill.labels.maps import MapStore

        store = MapStore(folder)
        hidden = score_against(store, records, self.class_names, lambda record: record.hidden_mask)
        pixels = np.zeros(len(self.class_names), np.int64)
        for place in range(len(store)):
            pixels += np.bincount(store.hard(place)[0].reshape(-1), minlength=len(pixels))
        an_image, total = store.bytes_on_disk / len(store), max(1, int(pixels.sum()))
        return {
            "stored": f"{store.grid}x{store.grid} cells and a mask each, {an_image / 1000:.1f} kB an image",
            "grid": store.grid,
            "bytes_an_image": round(an_image),
            "mean_confidence": float(store.mean_confidence().mean()),
            "by_class": {name: int(n) / total for name, n in zip(self.class_names, pixels, strict=True)},
            "hidden_score": None if hidden is None else hidden.miou.value,
        }

    def size_of_store(self, settings: LabelSettings) -> tuple[int, float]:
        return 1, 4 * settings.grid**2  # measured: 16.5 kB at 64 cells and 384x256 pixels, two thirds the confidence

    def lessons_of_truth(
        self, records: Sequence[ImageRecord], plan: ViewPlan, settings: TrainSettings, *, epoch_size: int, size: int
    ) -> Examples:
        from distill.map_examples import TruthMasks

        return TruthMasks(
            records,
            len(self.class_names),
            plan,
            _grid(size, settings.target_stride),
            epoch_size=epoch_size,
            label_smoothing=settings.label_smoothing,
        )

    def lessons_of_teacher(
        self,
        records: Sequence[ImageRecord],
        labels: Path,
        config: RunConfig,
        said: Answers,
        folder: Path,
        *,
        plan: ViewPlan,
        size: int,
    ) -> tuple[Examples, dict[str, Any]]:
        from distill.labels.maps import MapStore
        from distill.map_examples import PseudoMasks

        trust, train = config.trust, config.train
        least = trust.min_confidence
        if trust.keep == "precision":
            least = _reaching(_known(said).confidence.sum(axis=0), trust.precision)
        examples = PseudoMasks(
            records,
            MapStore(labels),
            len(self.class_names),
            plan,
            _grid(size, train.target_stride),
            hard=train.loss == "hard",
            min_confidence=least,
            below=trust.below,
            truth_weight=train.truth_weight,
            label_smoothing=train.label_smoothing,
            labelled_share=train.labelled_share,
        )
        return examples, {"used": len(records), "min_confidence": least, "below": trust.below}

    def loss(self, config: RunConfig) -> LessonLoss:
        from distill.losses import build_loss
        from distill.map_losses import of_maps, of_names

        train = config.train
        return of_maps(build_loss(train.loss, train.temperature), of_names(train.extra))

    def loss_of_truth(self, extra: Mapping[MapLossName, float]) -> LessonLoss:
        from distill.losses import build_loss
        from distill.map_losses import of_maps, of_names

        return of_maps(build_loss("kl", 1.0), of_names(extra))  # of truth alone it is cross-entropy


def build(config: Config, class_names: Sequence[str]) -> Segmentation:
    """The task for these classes."""
    return Segmentation(class_names)


def _grid(size: int, stride: int) -> Grid:
    from distill.map_examples import Grid

    if size % stride:
        raise UserError(f"target_stride: {stride} does not divide the side of {size} pixels")
    return Grid(size, size // stride)


def _shown(record: ImageRecord, resize: Resize) -> tuple[slice, slice]:
    """Rows and columns of the fixed view."""
    view = fixed_view(record.width, record.height, resize)
    return slice(view.top, view.top + view.height), slice(view.left, view.left + view.width)


def _reaching(histogram: npt.NDArray[np.int64], precision: float) -> float:
    """The least confidence of pixels that reached a precision on validation.

    Raises:
        TeacherError: none did.
    """
    from distill.labels.trust import trusted_confidence

    found = trusted_confidence(histogram, precision)
    if found is None:
        wrong, right = histogram.sum(axis=1)
        raise TeacherError(
            f"trust.precision: on validation no confidence that 1 % of the pixels have reaches a precision of"
            f" {precision:g} (all together: {right / (wrong + right):.3f}). `distill labels stat` shows what can be had"
            " at which confidence"
        )
    return found


def _known(answers: Answers) -> MaskAnswers:
    assert isinstance(answers, MaskAnswers)
    return answers


def _same_images(first: Answers, second: Answers) -> tuple[MaskAnswers, MaskAnswers]:
    one, other = _known(first), _known(second)
    if one.ids != other.ids:
        raise ValueError("answers about other images cannot be compared")
    return one, other


def _number(value: float | _Floats) -> float | None:
    return None if np.isnan(value) else float(value)
