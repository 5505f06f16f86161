"""What is kept of answers to whole images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from distill.core.tables import read_table, write_table
from distill.core.task import Answers
from distill.core.types import FloatArray

__all__ = ["LabelAnswers"]


@dataclass(frozen=True)
class LabelAnswers(Answers):
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

        columns = {"image": list(self.ids), "truth": self.truth, "logits": list(self.logits)}
        write_table(pa.table(columns), path)

    def take(self, places: Sequence[int]) -> LabelAnswers:
        return LabelAnswers(tuple(self.ids[place] for place in places), self.logits[places], self.truth[places])

    @classmethod
    def load(cls, path: Path) -> LabelAnswers:
        """Read what `save` wrote.

        Raises:
            RunFolderError: it is missing or damaged.
        """
        table = read_table(path)
        logits = np.stack(table["logits"].to_numpy()).astype(np.float32)
        return cls(tuple(table["image"].to_pylist()), logits, table["truth"].to_numpy().astype(np.int64))
