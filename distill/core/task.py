"""What a task plugin gives: what "right" means, what is stored of the teacher, what a lesson shows.

Stages, export and report speak to a task through this alone, so that nobody else asks whether an answer is one label an
image or one a pixel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from distill.core import plugins
from distill.core.types import FloatArray, ImageRecord, Predictor

if TYPE_CHECKING:
    from distill.config import LabelSettings, RunConfig
    from distill.core.settings import TrainSettings
    from distill.data.batches import ImageCache
    from distill.data.views import Resize, ViewPlan
    from distill.examples import Examples
    from distill.labels.label import Labelling
    from distill.losses import LessonLoss
    from distill.map_losses import MapLossName

__all__ = ["Answers", "Figure", "Interval", "Metric", "Parity", "Profile", "Score", "Task", "build_task"]


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Figure:
    """A figure with its 95 % interval, where one is known.

    Args:
        value: 0..1; None where there is nothing to judge.
        low: end of the interval, None where none is known.
        high: the other end.
    """

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Profile:
    """All that people ask of a predictor's answers.

    Args:
        figures: by key, as in `Task.figures`.
        classes: by class name, figures by key.
        sizes: by class name, images or pixels of it in the truth.
        reliability: answers in bins of confidence: mean confidence, share of right ones, share of all answers.
    """

    figures: dict[str, Figure]
    classes: dict[str, dict[str, Figure]]
    sizes: dict[str, int]
    reliability: list[tuple[float, float, float]]

    def without(self, keys: Collection[str]) -> Profile:
        """The same without some figures, and without bins of confidence: of answers that state none."""

        def left(figures: dict[str, Figure]) -> dict[str, Figure]:
            return {key: figure for key, figure in figures.items() if key not in keys}

        classes = {name: left(figures) for name, figures in self.classes.items()}
        return Profile(left(self.figures), classes, self.sizes, [])

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"reliability": [list(each) for each in self.reliability]}


class Metric(NamedTuple):
    """The figure that a task is judged by, 0..1, higher is better.

    Args:
        key: its field in a score, such as `accuracy`.
        title: as people say it, such as `mIoU`.
    """

    key: str
    title: str


@dataclass(frozen=True)
class Score:
    """How a predictor did on labelled images; a task adds its own figures, one of them an Interval named by its metric.

    Args:
        images: how many.
        nll: mean -log p(truth), natural logarithm; breaks ties between epochs.
    """

    images: int
    nll: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Parity(NamedTuple):
    """How alike two predictors answered, whether right or wrong.

    Args:
        agreement: share of equal answers (images, or pixels), 0..1.
        max_difference: largest difference of a probability; None where probabilities are not kept.
    """

    agreement: float
    max_difference: float | None


class Answers(ABC):
    """What a predictor said about labelled images, as much of it as scores, comparisons and pictures need."""

    ids: tuple[str, ...]
    """Image ids."""

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write as Parquet, atomically."""

    @abstractmethod
    def take(self, places: Sequence[int]) -> Answers:
        """Those about some of the images, by their places in `ids`."""


class Task(ABC):
    """What "right" means, and everything that follows from it."""

    metric: ClassVar[Metric]
    figures: ClassVar[Mapping[str, str]]
    """Titles of figures of all images together, by key; `metric` is among them."""
    figures_of_classes: ClassVar[Mapping[str, str]]
    """The same of figures that each class has."""
    figures_of_confidence: ClassVar[frozenset[str]]
    """Keys of those that answers without probabilities cannot have."""
    chunk: ClassVar[int]
    """Images whose answers are held at once while a predictor is scored."""

    by_pixel: ClassVar[bool]
    """Whether truth and answers are masks. The teacher is then asked about whole images, and its answer is cut as a
    view is; otherwise it is asked about each view."""

    class_names: tuple[str, ...]

    # Scoring

    @abstractmethod
    def classes_in(self, records: Sequence[ImageRecord]) -> set[str]:
        """Names of the classes that occur in the truth of these images."""

    @abstractmethod
    def examine(self, records: Sequence[ImageRecord], logits: FloatArray, resize: Resize) -> Answers:
        """Keep what matters of answers to the fixed views of labelled images.

        Args:
            records: N images with truth.
            logits: float32 [N, C], or [N, h, w, C] where pixels are answered.
            resize: shape of the fixed view.
        """

    @abstractmethod
    def examine_hard(self, records: Sequence[ImageRecord], said: Sequence[Any], resize: Resize) -> Answers:
        """The same of answers without probabilities, such as a person's.

        Figures of confidence (`figures_of_confidence`, the score's `nll`) mean nothing then.

        Args:
            records: N images with truth.
            said: places of classes, or masks of them, uint8 [H, W] of the image's upright size or that of its fixed
                view; pixels of 255 count nowhere.
            resize: shape of the fixed view.
        """

    @abstractmethod
    def joined(self, parts: Sequence[Answers]) -> Answers:
        """Answers about several groups of images as one."""

    @abstractmethod
    def load_answers(self, path: Path) -> Answers:
        """Read what `Answers.save` wrote."""

    @abstractmethod
    def score(self, answers: Answers) -> Score:
        """The figures."""

    def main(self, score: Score) -> Interval:
        """The figure that the task is judged by."""
        found: Interval = getattr(score, self.metric.key)
        return found

    @abstractmethod
    def profile(self, answers: Answers) -> Profile:
        """All figures, of which `score` has those that training and export decide by."""

    @abstractmethod
    def difference(self, first: Answers, second: Answers) -> Interval:
        """The metric of `first` minus that of `second` on the same images, with its paired interval."""

    @abstractmethod
    def parity(self, first: Answers, second: Answers) -> Parity:
        """How alike two predictors answered the same images."""

    @abstractmethod
    def no_better_than_chance(self, score: Score) -> str | None:
        """Why a teacher with this score knows nothing; None if it knows something."""

    # The teacher's answers

    @abstractmethod
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
    ) -> Labelling[Any, Any]:
        """What asks about every training image and keeps the answers in a folder, behind finished shards.

        What the store in `earlier` holds of the same teacher is not asked again.
        """

    @abstractmethod
    def summary_of_store(self, folder: Path, records: Sequence[ImageRecord]) -> dict[str, Any]:
        """What is worth saying of a finished store; `hidden_score` compares with hidden truth, or is None."""

    @abstractmethod
    def size_of_store(self, settings: LabelSettings) -> tuple[int, float]:
        """Views that the teacher is asked about an image, and bytes an image, before anything is asked."""

    # Teaching

    @abstractmethod
    def lessons_of_truth(
        self, records: Sequence[ImageRecord], plan: ViewPlan, settings: TrainSettings, *, epoch_size: int, size: int
    ) -> Examples:
        """Labelled images under fresh views, for the control and a fitted teacher; `size` is the side that is shown."""

    @abstractmethod
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
        """What the student learns from, and a summary of what was chosen.

        Args:
            records: training images in order of id.
            labels: folder of the store.
            config: of the run.
            said: the teacher's answers about the validation images.
            folder: of the stage `student`; the choice is written there.
            plan: draws views where the store does not hold them.
            size: side in pixels of what the student is shown.
        """

    @abstractmethod
    def loss(self, config: RunConfig) -> LessonLoss:
        """What the student minimises."""

    @abstractmethod
    def loss_of_truth(self, extra: Mapping[MapLossName, float]) -> LessonLoss:
        """What the control and a fitted teacher minimise: cross-entropy.

        Args:
            extra: losses of maps beside it, with their weights; empty where images are answered.
        """


def build_task(name: str, class_names: Sequence[str] = ()) -> Task:
    """The task of this name; without classes it says what does not hang on them, such as its metric."""
    module = plugins.load("tasks", name)
    task: Task = module.build(module.Config(), class_names)
    return task
