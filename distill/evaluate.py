"""The one function that gives teacher, student, control, files and phone their score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from distill.core.errors import DataError
from distill.core.files import replacing
from distill.core.progress import Progress
from distill.core.types import FloatArray, ImageRecord, Images, Predictor
from distill.data.batches import ImageCache, iterate
from distill.data.views import Resize, fixed_view
from distill.tasks.classification import Classification, Score

__all__ = ["Answers", "answer", "evaluate"]


@dataclass(frozen=True)
class Answers:
    """What a predictor said about labelled images.

    Args:
        ids: image ids.
        logits: float32 [N, C].
        truth: int64 [N].
    """

    ids: tuple[str, ...]
    logits: FloatArray
    truth: npt.NDArray[np.int64]

    def save(self, path: Path) -> None:
        """Write as Parquet: image, truth, logits."""
        import pyarrow as pa
        import pyarrow.parquet

        columns = {"image": list(self.ids), "truth": self.truth, "logits": list(self.logits)}
        with replacing(path) as temporary:
            pyarrow.parquet.write_table(pa.table(columns), temporary)

    @classmethod
    def load(cls, path: Path) -> Answers:
        """Read what `save` wrote."""
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(path)
        logits = np.stack(table["logits"].to_numpy()).astype(np.float32)
        return cls(tuple(table["image"].to_pylist()), logits, table["truth"].to_numpy().astype(np.int64))


def answer(
    predictor: Predictor,
    records: Sequence[ImageRecord],
    cache: ImageCache,
    resize: Resize,
    *,
    progress: Progress | None = None,
    batch_size: int = 32,
) -> FloatArray:
    """Ask a predictor about the fixed view of each image.

    Returns:
        float32 [N, C] logits in the order of the records.
    """
    shown = [(r, (fixed_view(r.width, r.height, resize),)) for r in records]
    batches = [shown[start : start + batch_size] for start in range(0, len(shown), batch_size)]
    if progress is None:
        return predictor.predict_all(lambda size: iterate(cache, batches, size, workers=2))
    with progress.task("answering", len(records) * predictor.passes) as task:

        def counted(size: int) -> Iterator[Images]:
            for images in iterate(cache, batches, size, workers=2):
                yield images
                task.advance(len(images))

        return predictor.predict_all(counted)


def evaluate(
    predictor: Predictor,
    task: Classification,
    records: Sequence[ImageRecord],
    cache: ImageCache,
    resize: Resize,
    *,
    progress: Progress | None = None,
) -> tuple[Score, Answers]:
    """Score a predictor on labelled images.

    Raises:
        DataError: no image has a label.
    """
    labelled = [r for r in records if r.label is not None]
    if not labelled:
        raise DataError("no labelled image to score on")
    logits = answer(predictor, labelled, cache, resize, progress=progress)
    truth = task.truth([r.label for r in labelled])
    return task.score(logits, truth), Answers(tuple(r.id for r in labelled), logits, truth)
