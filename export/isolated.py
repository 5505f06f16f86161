"""An exported file, run in a process of its own; as it is, or as a predictor."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, final

import numpy as np
import numpy.typing as npt

from distill.core.errors import ArtifactError
from distill.core.files import sha256_of
from distill.core.types import FloatArray, Images, Predictor

if TYPE_CHECKING:
    from export.graph import Output, Tensors

__all__ = ["FilePredictor", "IsolatedFile", "fed_pixels", "latency_ratio", "real_answers"]

_TIMEOUT_S = 300.0  # a batch of 32 images through the slowest reference kernels takes well under a minute
_Opened = TypeVar("_Opened", bound="IsolatedFile")
_ROUNDS = 5  # in turn; these machines are noisy
_INPUTS = {"bytes": "uint8", "int8": "int8", "float": "float32"}
_LEAST = 1e-12  # probabilities of zero become this before the logarithm


class IsolatedFile:
    """Opens a file in a child process; a crash or hang there is an ArtifactError here.

    Args:
        file: .tflite or .onnx.
        format_name: its plugin.
        threads: of the runtime.
        timeout_s: for one request.
        layers: open it for `run_layers` instead.

    Raises:
        ArtifactError: the file does not open.
    """

    def __init__(
        self, file: Path, format_name: str, *, threads: int = 1, timeout_s: float = _TIMEOUT_S, layers: bool = False
    ) -> None:
        self._file, self._timeout_s = file, timeout_s
        self._folder = tempfile.TemporaryDirectory(prefix="distill-")
        self._log = Path(self._folder.name) / "stderr.txt"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "export.child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            )
        request = {"do": "open", "file": str(file), "format": format_name, "threads": threads}
        request["layers"] = layers
        opened = self._ask(request)
        self.load_ms: float = opened["load_ms"]
        self.facts: dict[str, Any] = opened["facts"]

    def run(self, tensors: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What a file of one input and one output answers to each of these, one after another.

        Args:
            tensors: of the input's dtype, [N, *shape[1:]], where the input's shape begins with 1.
        """
        shown, said = Path(self._folder.name) / "tensors.npy", Path(self._folder.name) / "answers.npy"
        np.save(shown, tensors, allow_pickle=False)
        self._ask({"do": "predict", "images": str(shown), "answers": str(said)})
        answers: npt.NDArray[Any] = np.load(said, allow_pickle=False)
        return answers

    def run_layers(self, tensor: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """What each layer answers to one input [1, ...], float32, in the order of the facts' `layers`."""
        shown, said = Path(self._folder.name) / "tensors.npy", Path(self._folder.name) / "layers.npz"
        np.save(shown, tensor, allow_pickle=False)
        self._ask({"do": "layers", "images": str(shown), "answers": str(said)})
        with np.load(said, allow_pickle=False) as found:
            return [found[str(place)] for place in range(len(found.files))]

    def time(self, tensor: npt.NDArray[Any], *, runs: int, warmup: int) -> dict[str, Any]:
        """`samples_ms` of single inferences on one input [1, ...], and `peak_memory_mb` of the process."""
        shown = Path(self._folder.name) / "tensors.npy"
        np.save(shown, tensor, allow_pickle=False)
        return self._ask({"do": "time", "images": str(shown), "runs": runs, "warmup": warmup})

    def close(self) -> None:
        if self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):  # what it did not read of the last request
                self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._folder.cleanup()

    def __enter__(self: _Opened) -> _Opened:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write((json.dumps(request) + "\n").encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the child is gone; the answer below says how
        ready, _, _ = select.select([self._process.stdout], [], [], self._timeout_s)
        if not ready:
            self._process.kill()
            self._fail(f"no answer within {self._timeout_s:g} s")
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            self._fail(f"the runtime ended with {how}{self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            self._fail(f"the runtime refused it ({answer['error']})")
        return answer

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f": {lines[-1][:300]}" if lines else ""

    def _fail(self, reason: str) -> None:
        self.close()
        raise ArtifactError(f"{self._file.name}: {reason}")


@final
class FilePredictor(IsolatedFile, Predictor):
    """A file that takes and gives what those of this project do, as a predictor.

    Answers are logits: those of the file, the logarithm of its probabilities, or of ones and zeros for a class map.

    Args:
        file: .tflite or .onnx.
        format_name: its plugin.
        class_names: names of its outputs.
        output: what it answers: [1, C] or [1, h, w, C], or a class map uint8 [1, h, w].
        tensors: how it takes pixels and gives answers.
        threads: of the runtime.
        timeout_s: for one request.

    Raises:
        ArtifactError: the file does not open, or takes or gives something else.
    """

    def __init__(
        self,
        file: Path,
        format_name: str,
        class_names: Sequence[str],
        *,
        output: Output = "probabilities",
        tensors: Tensors = "bytes",
        threads: int = 1,
        timeout_s: float = _TIMEOUT_S,
    ) -> None:
        super().__init__(file, format_name, threads=threads, timeout_s=timeout_s)
        self._class_names = tuple(class_names)
        self._output: Output = output
        self._tensors: Tensors = tensors
        self._check_shapes()

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._class_names

    @property
    def image_size(self) -> int:
        return int(self.facts["inputs"][0]["shape"][1])

    def predict(self, images: Images) -> FloatArray:
        answers = real_answers(self.run(fed_pixels(images, self._tensors)), self.facts["outputs"][0])
        if not np.isfinite(answers).all() or (self._output == "probabilities" and answers.min() < 0):
            self._fail(f"it answered with values that are no {self._output}")
        if self._output == "class_map":
            if answers.max() >= len(self._class_names):
                self._fail(f"it answered with class {answers.max()}, expected 0 to {len(self._class_names) - 1}")
            answers = np.eye(len(self._class_names), dtype=np.float32)[answers]
        logits: FloatArray = answers
        if self._output != "logits":
            logits = np.log(np.maximum(answers, _LEAST)).astype(np.float32)
        return logits

    def digest(self) -> str:
        return sha256_of(self._file)

    def _check_shapes(self) -> None:
        counts = len(self.facts["inputs"]), len(self.facts["outputs"])
        if counts != (1, 1):
            self._fail(f"it has {counts[0]} inputs and {counts[1]} outputs, expected one of each")
        (taken,), (given,) = self.facts["inputs"], self.facts["outputs"]
        shape = taken["shape"]
        wanted = _INPUTS[self._tensors]
        if len(shape) != 4 or shape[0] != 1 or shape[1] != shape[2] or shape[3] != 3 or taken["dtype"] != wanted:
            self._fail(f"its input is {taken['dtype']} {shape}, expected {wanted} [1, S, S, 3]")
        classes, dense = len(self._class_names), self._output == "class_map"
        fits = given["shape"][:1] == [1] and (
            len(given["shape"]) == 3 if dense else len(given["shape"]) in {2, 4} and given["shape"][-1] == classes
        )
        dtype = "uint8" if dense else "int8" if self._tensors == "int8" else "float32"
        if not fits or given["dtype"] != dtype:
            shapes = "[1, h, w]" if dense else f"[1, {classes}] or [1, h, w, {classes}]"
            self._fail(f"its output is {given['dtype']} {given['shape']}, expected {dtype} {shapes}")


def fed_pixels(images: Images, tensors: Tensors) -> npt.NDArray[Any]:
    """Pixels uint8 as a file takes them."""
    if tensors == "int8":
        return (images.astype(np.int16) - 128).astype(np.int8)
    return images.astype(np.float32) if tensors == "float" else images


def real_answers(answers: npt.NDArray[Any], given: Mapping[str, Any]) -> npt.NDArray[Any]:
    """What answers mean by the scale and zero point in the facts of the output tensor; answers without are returned."""
    if not given["scale"] or not np.issubdtype(answers.dtype, np.integer):
        return answers
    real: FloatArray = (answers.astype(np.float32) - given["zero_point"]) * np.float32(given["scale"])
    return real


def latency_ratio(file: Path, other: Path, format_name: str) -> float:
    """Median time of an inference with one file over that with another, the two in turn on one thread."""
    with (
        IsolatedFile(file, format_name) as first,
        IsolatedFile(other, format_name) as second,
    ):
        samples: tuple[list[float], list[float]] = [], []
        for _ in range(_ROUNDS):
            for place, opened in enumerate((first, second)):
                (tensor,) = opened.facts["inputs"]
                shown = np.zeros(tensor["shape"], np.dtype(tensor["dtype"]))
                samples[place].extend(opened.time(shown, runs=20, warmup=5)["samples_ms"])
    return float(np.median(samples[0]) / np.median(samples[1]))
