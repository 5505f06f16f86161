"""The one function that gives teacher, student, control, files and phone their score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from distill.core.errors import DataError
from distill.core.progress import Progress
from distill.core.progress import Task as Bar
from distill.core.task import Answers, Score, Task
from distill.core.types import FloatArray, ImageRecord, Images, Predictor
from distill.data.batches import ImageCache, iterate
from distill.data.views import Resize, fixed_view

__all__ = ["evaluate"]

_BATCH = 32


def evaluate(
    predictor: Predictor,
    task: Task,
    records: Sequence[ImageRecord],
    cache: ImageCache,
    resize: Resize,
    *,
    progress: Progress | None = None,
) -> tuple[Score, Answers]:
    """Score a predictor on the fixed views of labelled images.

    Args:
        predictor: answers in the classes of the task.
        task: says what is right.
        records: those without truth are left out.
        cache: gives the images.
        resize: shape of the fixed view.
        progress: told of each batch.

    Raises:
        DataError: no image has truth.
    """
    labelled = [r for r in records if r.labelled]
    if not labelled:
        raise DataError("no labelled image to score on")
    chunks = [labelled[at : at + task.chunk] for at in range(0, len(labelled), task.chunk)]
    with ExitStack() as stack:
        counted = len(labelled) * predictor.passes
        bar = None if progress is None else stack.enter_context(progress.task("answering", counted))
        parts = [task.examine(chunk, _answer(predictor, chunk, cache, resize, bar), resize) for chunk in chunks]
    answers = task.joined(parts)
    return task.score(answers), answers


def _answer(
    predictor: Predictor, records: Sequence[ImageRecord], cache: ImageCache, resize: Resize, bar: Bar | None
) -> FloatArray:
    """Logits float32 [N, …, C] in the order of the records."""
    shown = [(r, (fixed_view(r.width, r.height, resize),)) for r in records]
    batches = [shown[start : start + _BATCH] for start in range(0, len(shown), _BATCH)]

    def rendered(size: int) -> Iterator[Images]:
        for images in iterate(cache, batches, size, workers=2):
            yield images
            if bar is not None:
                bar.advance(len(images))

    return predictor.predict_all(rendered)
