"""A TFLite file, of either task, float or quantized, through LiteRT."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import numpy.typing as npt

from distill.core.errors import UserError
from distill.core.flatbuffer import number, numbers, root_of, string, tables
from distill.core.quiet import quiet
from distill.core.settings import InputPath
from teachers._files import FileSettings, FileTeacher, Opened

if TYPE_CHECKING:
    from distill.core.types import Predictor

__all__ = ["TASKS", "Config", "build"]

TASKS: tuple[str, ...] = ("classification", "segmentation")


class Config(FileSettings):
    """A TFLite file as teacher. LiteRT runs in this process: a file that makes it abort ends the run."""

    tflite: InputPath
    """The file."""


@final
class _LiteRT(Opened):
    def __init__(self, config: Config) -> None:
        import torch  # noqa: F401 - once LiteRT was loaded, importing torchvision ended in a segmentation fault
        from ai_edge_litert.interpreter import Interpreter

        path = config.tflite
        try:
            with quiet():  # it tells the terminal which delegate it created
                self._interpreter = Interpreter(str(path), num_threads=os.cpu_count() or 1)
                self._interpreter.allocate_tensors()
        except Exception as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"teacher.tflite: LiteRT does not open {path} ({type(error).__name__}: {reason})"
            ) from error
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        if len(inputs) != 1 or len(outputs) != 1:
            raise UserError(
                f"teacher.tflite: {path.name} has {len(inputs)} inputs and {len(outputs)} outputs, expected one of each"
            )
        (self._input,), (self._output,) = inputs, outputs
        signature = [int(side) for side in self._input["shape_signature"]] or [int(n) for n in self._input["shape"]]
        self.shape = tuple(None if side < 1 else side for side in signature)
        self.dtype = np.dtype(self._input["dtype"])
        scale, zero_point = self._input["quantization"]
        self.quantization = (float(scale), int(zero_point)) if scale else None
        self.license = _license(path)
        self._fed_shape: tuple[int, ...] = tuple(int(side) for side in self._input["shape"])

    def run(self, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if batch.shape != self._fed_shape:
            self._interpreter.resize_tensor_input(self._input["index"], batch.shape)
            self._interpreter.allocate_tensors()
            self._fed_shape = batch.shape
        self._interpreter.set_tensor(self._input["index"], batch)
        self._interpreter.invoke()
        answer: npt.NDArray[Any] = self._interpreter.get_tensor(self._output["index"])
        scale, zero_point = self._output["quantization"]
        if scale and np.issubdtype(answer.dtype, np.integer):
            return (answer.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
        return answer


def build(config: Config, class_names: Sequence[str]) -> Predictor:
    """Open the file.

    Raises:
        UserError: it cannot be opened, a key is needed to understand it, or it is to be fitted.
        TeacherError: it takes no square RGB images, or does not answer in its classes.
    """
    return FileTeacher(_LiteRT(config), config, "tflite", config.tflite, [config.tflite], class_names)


def _license(path: Path) -> str | None:
    """What the metadata inside the file says (field 5 of `metadata_schema.fbs`)."""
    try:
        model = root_of(path.read_bytes())
        entry = {string(each, 0): each for each in tables(model, 6)}["TFLITE_METADATA"]
        buffer = tables(model, 4)[number(entry, 1, "I")]
        said = string(root_of(bytes(numbers(buffer, 0, "B"))), 5)
    except (KeyError, IndexError, ValueError, TypeError, struct.error):  # no metadata, or damaged
        return None
    return " ".join(said.split()) or None
