"""What every way to run a file on a phone gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from distill.core.errors import ArtifactError
from export.phone.facts import Cluster

__all__ = ["Job", "NoMeasurement", "OnPhone", "Timed", "Way"]


class NoMeasurement(ArtifactError):  # noqa: N818 - says what happened
    """One file gave no figure in one way: it crashed, hung, was refused, or what came back is no result."""


@dataclass(frozen=True)
class OnPhone:
    """A file that was copied to the phone.

    Args:
        path: there.
        file: here.
        sha256: of both.
        image_size: side of its input.
    """

    path: str
    file: Path
    sha256: str
    image_size: int


@dataclass(frozen=True)
class Job:
    """How a file is to be run.

    Args:
        threads: of the runtime.
        cluster: the cores it may use; None leaves that to the phone.
        runs: inferences that count.
        warmup: inferences before, that do not.
    """

    threads: int
    cluster: Cluster | None
    runs: int
    warmup: int


@dataclass(frozen=True)
class Timed:
    """What one process took.

    Args:
        load_ms: to open the file.
        middle_ms: the median where it is known, else the mean.
        samples_ms: of single inferences; empty where the way does not tell.
        is_median: whether `middle_ms` is the median.
        facts: what it said besides, for the row.
    """

    load_ms: float
    middle_ms: float
    samples_ms: list[float]
    is_median: bool
    facts: dict[str, Any] = field(default_factory=dict)


class Way(ABC):
    """A program on the phone that runs a file. All of its methods raise DeviceError where the phone went away."""

    name: str
    pins: bool
    """Whether it can be kept on a cluster."""

    @abstractmethod
    def prepare(self) -> str:
        """Make it ready; the runtime's name for the rows.

        Raises:
            DeviceError: it cannot run on this phone.
        """

    @abstractmethod
    def time(self, model: OnPhone, job: Job) -> Timed:
        """Run once in a process of its own.

        Raises:
            NoMeasurement: it gave none.
        """

    @abstractmethod
    def peak_memory_mb(self, model: OnPhone, job: Job) -> float | None:
        """Most memory of the process, in a run of its own; None where it does not tell.

        Raises:
            NoMeasurement: it gave none.
        """

    @abstractmethod
    def profile(self, model: OnPhone, job: Job) -> list[dict[str, Any]]:
        """Kinds of operators with `count`, `ms` and `share` of the time, in a run of its own; empty if it cannot.

        Raises:
            NoMeasurement: it gave none.
        """

    @abstractmethod
    def answers(self, model: OnPhone, images: npt.NDArray[np.uint8]) -> npt.NDArray[Any] | None:
        """What the file answers to images [N, S, S, 3]: [N, …] of the output's dtype; None if it cannot be asked.

        Raises:
            NoMeasurement: it gave none.
        """
