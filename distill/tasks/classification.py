"""One label an image: accuracy, macro F1, recall by class, with 95 % intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import numpy.typing as npt

from distill.core.errors import TeacherError
from distill.core.intervals import paired_difference, proportion
from distill.core.settings import Settings
from distill.core.task import Answers, Interval, Metric, Parity, Profile, Score, Task
from distill.core.types import FloatArray, ImageRecord, Predictor, softmax
from distill.tasks._label_answers import LabelAnswers
from distill.tasks._label_figures import FIGURES, FIGURES_OF_CLASSES, profile

if TYPE_CHECKING:
    from distill.config import LabelSettings, RunConfig
    from distill.core.settings import TrainSettings
    from distill.data.batches import ImageCache
    from distill.data.views import Resize, ViewPlan
    from distill.examples import Examples
    from distill.labels.label import ViewLabelling
    from distill.losses import LessonLoss
    from distill.map_losses import MapLossName

__all__ = ["Classification", "Config", "LabelAnswers", "LabelScore", "build"]


_LEAST = 1e-7  # probability of what is not said


class Config(Settings):
    """Classification has no settings of its own."""


@dataclass(frozen=True)
class LabelScore(Score):
    """How a predictor did on labelled images.

    Args:
        accuracy: share of right answers, 0..1.
        balanced_accuracy: mean recall over the classes that occur.
        macro_f1: mean F1 over the classes that occur in truth or answers.
        recall: by class name; classes without images are absent.
        confusion: [truth][answer] counts in the order of the classes.
    """

    accuracy: Interval
    balanced_accuracy: float
    macro_f1: float
    recall: dict[str, float]
    confusion: list[list[int]]


@final
class Classification(Task):
    """What "right" means for one label an image."""

    metric = Metric("accuracy", "accuracy")
    figures = FIGURES
    figures_of_classes = FIGURES_OF_CLASSES
    figures_of_confidence = frozenset({"top5", "roc_auc", "pr_auc", "calibration_error"})
    chunk = 1 << 20  # answers are a few numbers each
    by_pixel = False

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = tuple(class_names)

    def truth(self, labels: Sequence[str | None]) -> npt.NDArray[np.int64]:
        """Class indices, int64 [N]."""
        place = {name: index for index, name in enumerate(self.class_names)}
        return np.array([place[str(label)] for label in labels], dtype=np.int64)

    def classes_in(self, records: Sequence[ImageRecord]) -> set[str]:
        return {record.label for record in records if record.label is not None}

    def examine(self, records: Sequence[ImageRecord], logits: FloatArray, resize: Resize) -> LabelAnswers:
        if logits.ndim != 2:
            raise TeacherError(f"answers are {list(logits.shape)}, of pixels; expected [N, C], of images")
        return LabelAnswers(tuple(r.id for r in records), logits, self.truth([r.label for r in records]))

    def examine_hard(self, records: Sequence[ImageRecord], said: Sequence[Any], resize: Resize) -> LabelAnswers:
        certain = np.eye(len(self.class_names))[np.asarray(said, np.int64)]
        return self.examine(records, np.log(np.maximum(certain, _LEAST)).astype(np.float32), resize)

    def joined(self, parts: Sequence[Answers]) -> LabelAnswers:
        known = [_known(part) for part in parts]
        return LabelAnswers(
            tuple(image for part in known for image in part.ids),
            np.concatenate([part.logits for part in known]),
            np.concatenate([part.truth for part in known]),
        )

    def load_answers(self, path: Path) -> LabelAnswers:
        return LabelAnswers.load(path)

    def score(self, answers: Answers) -> LabelScore:
        from sklearn.metrics import confusion_matrix, f1_score

        logits, truth = _known(answers).logits, _known(answers).truth
        said = logits.argmax(axis=1)
        right = said == truth
        counts = confusion_matrix(truth, said, labels=range(len(self.class_names)))
        present = counts.sum(axis=1) > 0
        recall = counts.diagonal()[present] / counts.sum(axis=1)[present]
        probabilities = softmax(logits)
        return LabelScore(
            images=len(truth),
            nll=float(-np.log(np.maximum(probabilities[np.arange(len(truth)), truth], 1e-12)).mean()),
            accuracy=proportion(right),
            balanced_accuracy=float(recall.mean()),
            macro_f1=float(f1_score(truth, said, average="macro", zero_division=0)),
            recall=dict(zip(np.array(self.class_names)[present].tolist(), recall.tolist(), strict=True)),
            confusion=counts.tolist(),
        )

    def profile(self, answers: Answers) -> Profile:
        return profile(_known(answers), self.class_names)

    def difference(self, first: Answers, second: Answers) -> Interval:
        one, other = _known(first), _known(second)
        return paired_difference(*(each.logits.argmax(axis=1) == one.truth for each in (one, other)))

    def parity(self, first: Answers, second: Answers) -> Parity:
        one, other = _known(first).logits, _known(second).logits
        agreement = float((one.argmax(axis=1) == other.argmax(axis=1)).mean())
        return Parity(agreement, float(np.abs(softmax(one) - softmax(other)).max()))

    def no_better_than_chance(self, score: Score) -> str | None:
        """Guessing has a balanced accuracy of 1/C whatever the class frequencies; two standard errors are added."""
        assert isinstance(score, LabelScore)
        sizes = [sum(row) for row in score.confusion if sum(row)]
        chance = 1 / len(sizes)
        error = float(np.sqrt(sum(chance * (1 - chance) / n for n in sizes))) / len(sizes)
        if score.balanced_accuracy > chance + 2 * error:
            return None
        return (
            f"balanced accuracy {score.balanced_accuracy:.3f} on {score.images} validation images of {len(sizes)}"
            f" classes, guessing gives {chance:.3f} +- {error:.3f}"
        )

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
    ) -> ViewLabelling:
        from distill.labels.label import ViewLabelling

        return ViewLabelling(
            labeller,
            records,
            folder,
            settings,
            cache=cache,
            plan=plan,
            batch_size=batch_size,
            fingerprint=fingerprint,
            facts=facts,
            earlier=earlier,
        )

    def summary_of_store(self, folder: Path, records: Sequence[ImageRecord]) -> dict[str, Any]:
        from distill.labels.store import LabelStore

        store = LabelStore(folder)
        fixed = store.targets(0)
        answers = [self.class_names[i] for i in fixed.argmax(axis=1)]
        hidden = [a == r.hidden_label for a, r in zip(answers, records, strict=True) if r.hidden_label is not None]
        return {
            "stored": f"{store.views} views an image, {store.bytes_on_disk / len(store):.0f} bytes a view",
            "views": store.views,
            "bytes_a_view": round(store.bytes_on_disk / len(store), 1),
            "mean_confidence": float(fixed.max(axis=1).mean()),
            "by_class": dict(sorted(Counter(answers).items())),
            "hidden_score": float(np.mean(hidden)) if hidden else None,
        }

    def size_of_store(self, settings: LabelSettings) -> tuple[int, float]:
        classes = len(self.class_names)
        k = min(settings.top_k, classes)
        return settings.views, 8 + settings.views * (15.125 + k * (4 if classes > 256 else 3))

    def lessons_of_truth(
        self, records: Sequence[ImageRecord], plan: ViewPlan, settings: TrainSettings, *, epoch_size: int, size: int
    ) -> Examples:
        from distill.examples import Truth

        return Truth(
            records,
            self.class_names,
            plan,
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
        from distill.examples import PseudoLabelled
        from distill.labels.choice import choose
        from distill.labels.store import LabelStore

        store, answers = LabelStore(labels), _known(said)
        choice = choose(store, records, self.class_names, config.trust, softmax(answers.logits), answers.truth)
        choice.save(folder / "choice.parquet", self.class_names)
        used = choice.weights > 0
        examples = PseudoLabelled(
            [r for r, use in zip(records, used, strict=True) if use],
            store,
            self.class_names,
            weights=choice.weights[used],
            temperature=choice.temperature,
            truth_weight=config.train.truth_weight,
            label_smoothing=config.train.label_smoothing,
            seed=config.seed,
            labelled_share=config.train.labelled_share,
        )
        return examples, choice.summary(self.class_names)

    def loss(self, config: RunConfig) -> LessonLoss:
        from distill.losses import build_loss, of_rows

        return of_rows(build_loss(config.train.loss, config.train.temperature))

    def loss_of_truth(self, extra: Mapping[MapLossName, float]) -> LessonLoss:
        from distill.losses import build_loss, of_rows

        return of_rows(build_loss("kl", 1.0))  # of truth alone it is cross-entropy


def build(config: Config, class_names: Sequence[str]) -> Classification:
    """The task for these classes."""
    return Classification(class_names)


def _known(answers: Answers) -> LabelAnswers:
    assert isinstance(answers, LabelAnswers)
    return answers
