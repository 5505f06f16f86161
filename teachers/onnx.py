"""An ONNX file, of either task, through ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, final

import numpy as np
import numpy.typing as npt

from distill.core.errors import UserError
from distill.core.settings import InputPath
from teachers._files import FileSettings, FileTeacher, Opened

if TYPE_CHECKING:
    from distill.core.types import Predictor

__all__ = ["TASKS", "Config", "build"]

TASKS: tuple[str, ...] = ("classification", "segmentation")

_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"} | {
    f"tensor({name})": name for name in ("uint8", "int8")
}


class Config(FileSettings):
    """An ONNX file as teacher."""

    onnx: InputPath
    """The file."""
    output_name: str | None = None
    """Which of its outputs, where it has several."""

    def watched_files(self) -> list[Path]:
        """Files beside it that hold its weights.

        Raises:
            UserError: it is no ONNX file, or one of these is missing.
        """
        import onnx
        from onnx.external_data_helper import ExternalDataInfo, uses_external_data

        try:
            tensors = onnx.load(self.onnx, load_external_data=False).graph.initializer
        except Exception as error:  # protobuf has its own tree of errors
            raise UserError(f"teacher.onnx: {self.onnx} is no ONNX file ({_first_line(error)})") from error
        named = {ExternalDataInfo(tensor).location for tensor in tensors if uses_external_data(tensor)}
        files = sorted(self.onnx.parent / name for name in named)
        for file in files:
            if not file.is_file():
                raise UserError(f"teacher.onnx: {self.onnx} keeps weights in {file.name}, which is not beside it")
        return files


@final
class _Session(Opened):
    def __init__(self, config: Config) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
        try:
            self._session = onnxruntime.InferenceSession(str(config.onnx), options, providers=providers)
        except Exception as error:
            raise UserError(f"teacher.onnx: ONNX Runtime does not open {config.onnx} ({_first_line(error)})") from error
        inputs, outputs = self._session.get_inputs(), [found.name for found in self._session.get_outputs()]
        if len(inputs) != 1:
            raise UserError(
                f"teacher.onnx: {config.onnx.name} takes {', '.join(i.name for i in inputs)}, expected one input"
            )
        if config.output_name is None and len(outputs) > 1:
            raise UserError(
                f"teacher.output_name: {config.onnx.name} answers {', '.join(outputs)}: say which holds the classes"
            )
        if config.output_name is not None and config.output_name not in outputs:
            raise UserError(
                f"teacher.output_name: found {config.output_name!r}, but {config.onnx.name} answers"
                f" {', '.join(outputs)}"
            )
        if inputs[0].type not in _DTYPES:
            raise UserError(
                f"teacher.onnx: the input of {config.onnx.name} is {inputs[0].type}, expected floats or bytes"
            )
        self.license = self._session.get_modelmeta().custom_metadata_map.get("license") or None
        self._input, self._output = inputs[0].name, config.output_name or outputs[0]
        self.shape = tuple(side if isinstance(side, int) and side > 0 else None for side in inputs[0].shape)
        self.dtype = np.dtype(_DTYPES[inputs[0].type])

    def run(self, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return cast("npt.NDArray[Any]", self._session.run([self._output], {self._input: batch})[0])


def build(config: Config, class_names: Sequence[str]) -> Predictor:
    """Open the file.

    Raises:
        UserError: it cannot be opened, a key is needed to understand it, or it is to be fitted.
        TeacherError: it takes no square RGB images, or does not answer in its classes.
    """
    files = [config.onnx, *config.watched_files()]
    return FileTeacher(_Session(config), config, "onnx", config.onnx, files, class_names)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
