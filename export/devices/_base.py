"""What a device plugin gives: figures of exported files, measured where they are to run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from distill.config import BenchmarkSettings
from distill.core.progress import Progress
from distill.core.run import Run
from distill.core.timing import percentiles

__all__ = ["Device", "file_facts", "timed_row"]


class Device(ABC):
    """A place where exported files run."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """`name`, `model` and `cores`, and whatever else bears on the figures; asked after `measure`."""

    @abstractmethod
    def measure(
        self, run: Run, manifests: Sequence[dict[str, Any]], settings: BenchmarkSettings, progress: Progress
    ) -> list[dict[str, Any]]:
        """Figures of every file.

        Args:
            run: whose files they are.
            manifests: of the files, at least one.
            settings: threads, rounds and runs.
            progress: told of long work.

        Returns:
            Rows for the document, see `export.bench.benchmark`.

        Raises:
            ArtifactError: a file does not open there.
            UserError: the device cannot be had.
        """


def timed_row(
    manifest: dict[str, Any], threads: int, load_ms: float, samples_ms: Sequence[float], peak_memory_mb: float
) -> dict[str, Any]:
    """One result: what, where, how fast, how large, and the raw samples."""
    return {
        **file_facts(manifest),
        "threads": threads,
        **percentiles(samples_ms),
        "load_ms": load_ms,
        "peak_memory_mb": peak_memory_mb,
        "samples_ms": [round(sample, 4) for sample in samples_ms],
    }


def file_facts(manifest: dict[str, Any]) -> dict[str, Any]:
    """What a row says of its file, wherever it ran."""
    score = manifest["scores"].get("test") or manifest["scores"]["validation"]
    return {
        "name": manifest["name"],
        "sha256": manifest["sha256"],
        "runtime": manifest["runtime"],
        "bytes": manifest["bytes"],
        "partitions": manifest["partitions"],
        "score": score[manifest["metric"]["key"]]["value"],
    }
