"""What a format plugin gives: a way to write a trained student, and a way to run such a file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy.typing as npt

if TYPE_CHECKING:
    from distill.torch_predictor import Network
    from export.about import About
    from export.graph import Output, Tensors
    from export.quantize.plan import Int8Plan

__all__ = ["Format", "LayerRunner", "Precision", "Runner"]

Precision = Literal["float32", "float16", "int8"]


class Runner(ABC):
    """An opened file in this process. Native code may abort: only the child process opens files."""

    @property
    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What the file says of itself.

        `inputs` and `outputs` (name, dtype, shape, scale and zero_point of each), `partitions` (delegated parts of the
        graph, None where the runtime has no delegates), `outside` (count by name of the operators in none of them) and
        `operators` (count by name).
        """

    @abstractmethod
    def run(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """One input [1, ...] of the file's own dtype to what it answers: see `export.graph.Output`.

        Raises:
            ValueError: the file has several inputs or outputs, or others than this.
        """


class LayerRunner(ABC):
    """An opened file whose inner tensors can be read, in this process."""

    layers: list[dict[str, Any]]
    """Layers with weights, and sums of two tensors, in the order in which they run: `kind` (the operator), `name` and
    `dtype` of what it makes."""

    @abstractmethod
    def run(self, image: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """One input [1, ...] of the file's own dtype to what each layer makes of it, as float32."""


class Format(ABC):
    """One kind of file.

    A file takes uint8 [1, S, S, 3] RGB, camera bytes as they are, and gives float32 [1, C] probabilities, of pixels
    [1, h, w, C]; or what else `output` and `tensors` say.
    """

    runtime: str
    """Name of the runtime that opens it here."""
    suffix: str
    """Of the file name, with the dot."""
    precisions: tuple[Precision, ...]
    """Those it can write."""

    packages: ClassVar[tuple[str, ...]]
    """Distributions whose versions decide what it writes and how that runs here."""

    rungs: ClassVar[int]
    """How many ways it has to write int8: see `export.quantize.ladder`."""

    @abstractmethod
    def write(
        self,
        source: Network | Int8Plan,
        precision: Precision,
        path: Path,
        *,
        output: Output = "probabilities",
        upsample: bool = False,
        tensors: Tensors = "bytes",
    ) -> None:
        """Convert a student in evaluation mode.

        Args:
            source: a student whose C outputs are logits; for int8 a plan of one.
            precision: of weights and activations.
            path: written to; the caller moves it into place.
            output: what the file answers.
            upsample: whether maps get the size of the image, h = w = S, instead of the student's own.
            tensors: what the file takes and gives; `int8` for int8 TFLite files alone.
        """

    @abstractmethod
    def describe(self, path: Path, about: About) -> None:
        """Put into a file that `write` has written what its readers need to know. It answers as before.

        Args:
            path: of the file, which is replaced.
            about: what is said; the same words give the same bytes.

        Raises:
            ArtifactError: the file says something already, or cannot be made to.
        """

    @abstractmethod
    def float_layers(self, student: Network) -> frozenset[str]:
        """Names of the student's layers whose weights stay float in an int8 file; those of all others are rounded."""

    @abstractmethod
    def open(self, path: Path, threads: int) -> Runner:
        """Open a file in this process."""

    @abstractmethod
    def open_layers(self, path: Path) -> LayerRunner:
        """Open a file in this process so that its inner tensors can be read; slower, and without delegates.

        Raises:
            ValueError: this runtime shows none.
        """
