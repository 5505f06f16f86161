"""What a device plugin gives: a way to open an exported file where it is to be timed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from distill.core.run import Run
from distill.core.timing import percentiles
from export.isolated import FilePredictor

__all__ = ["Device"]


class Device(ABC):
    """A place where exported files run."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """`name`, and what it is in words."""

    @abstractmethod
    def open(self, run: Run, manifest: dict[str, Any], threads: int) -> FilePredictor:
        """Load one file there.

        Raises:
            ArtifactError: it does not open.
        """

    def row(
        self, manifest: dict[str, Any], threads: int, load_ms: float, samples_ms: Sequence[float], peak_memory_mb: float
    ) -> dict[str, Any]:
        """One result: what, where, how fast, how large, and the raw samples."""
        test = manifest["scores"].get("test") or manifest["scores"]["validation"]
        return {
            "name": manifest["name"],
            "sha256": manifest["sha256"],
            "runtime": manifest["runtime"],
            "threads": threads,
            **percentiles(samples_ms),
            "load_ms": load_ms,
            "peak_memory_mb": peak_memory_mb,
            "bytes": manifest["bytes"],
            "partitions": manifest["partitions"],
            "score": test[manifest["metric"]["key"]]["value"],
            "samples_ms": [round(sample, 4) for sample in samples_ms],
        }
