"""A Keras model (.keras) or a SavedModel folder, of either task; needs the extra `tensorflow`."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import numpy.typing as npt
from pydantic import field_validator

from distill.core.errors import UserError
from distill.core.settings import InputPath
from teachers._files import FileSettings, FileTeacher, Opened

if TYPE_CHECKING:
    from distill.core.types import Predictor

__all__ = ["TASKS", "Config", "build"]

TASKS: tuple[str, ...] = ("classification", "segmentation")

_SIGNATURE = "serving_default"


class Config(FileSettings):
    """A Keras model or SavedModel as teacher."""

    keras: InputPath
    """The file `….keras`, or the folder of a SavedModel. A model that holds Python code (a Lambda layer) is refused;
    the graph of a SavedModel may read and write files, so take it from people you trust."""

    @field_validator("keras")
    @classmethod
    def _kind(cls, path: Path) -> Path:
        if path.is_dir() and not (path / "saved_model.pb").is_file():
            raise ValueError(f"found no saved_model.pb in {path}, expected the folder of a SavedModel")
        if path.is_file() and path.suffix != ".keras":
            raise ValueError(f"found {path.name}, expected a .keras file (`model.save('model.keras')`) or a SavedModel")
        return path

    def watched_files(self) -> list[Path]:
        """What a SavedModel consists of."""
        return sorted(path for path in self.keras.rglob("*") if path.is_file()) if self.keras.is_dir() else []


@final
class _Network(Opened):
    """A function of one tensor, in TensorFlow."""

    def __init__(
        self, function: Callable[[npt.NDArray[Any]], npt.NDArray[Any]], shape: Sequence[int | None], dtype: str
    ) -> None:
        self._function, self.shape, self.dtype = function, tuple(shape), np.dtype(dtype)

    def run(self, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return self._function(batch)


def build(config: Config, class_names: Sequence[str]) -> Predictor:
    """Load the model.

    Raises:
        UserError: TensorFlow is missing, the model cannot be loaded without running code of its own, a key is needed to
            understand it, or it is to be fitted.
        TeacherError: it takes no square RGB images, or does not answer in its classes.
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError("teacher.keras: TensorFlow is missing: pip install 'mobile-distill[tensorflow]'")
    try:
        opened = _saved_model(config.keras) if config.keras.is_dir() else _keras(config.keras)
    except UserError:
        raise
    except Exception as error:
        reason = next((line for line in str(error).strip().splitlines() if line), "")
        raise UserError(f"teacher.keras: {config.keras} cannot be loaded ({type(error).__name__}: {reason})") from error
    files = [config.keras] if config.keras.is_file() else config.watched_files()
    return FileTeacher(opened, config, "keras", config.keras, files, class_names)


def _keras(path: Path) -> Opened:
    _tensorflow()
    import keras

    model = keras.models.load_model(path, compile=False, safe_mode=True)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise UserError(
            f"teacher.keras: {path.name} has {len(model.inputs)} inputs and {len(model.outputs)} outputs, expected one"
            " of each"
        )
    (taken,) = model.inputs
    return _Network(lambda batch: np.asarray(model.predict_on_batch(batch)), taken.shape, taken.dtype)


def _saved_model(path: Path) -> Opened:
    tensorflow = _tensorflow()
    loaded = tensorflow.saved_model.load(str(path))
    if _SIGNATURE not in loaded.signatures:
        raise UserError(
            f"teacher.keras: {path} has the signatures {', '.join(loaded.signatures) or 'none'}, expected {_SIGNATURE}"
        )
    described = loaded.signatures[_SIGNATURE]
    takes, gives = described.structured_input_signature[1], described.structured_outputs
    if len(takes) != 1 or len(gives) != 1:
        raise UserError(f"teacher.keras: {path} has {len(takes)} inputs and {len(gives)} outputs, expected one of each")
    ((name, taken),), (given,) = takes.items(), gives

    def run(batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        # from `loaded` each time: a signature alone does not hold its variables
        answers = loaded.signatures[_SIGNATURE](**{name: tensorflow.constant(batch)})
        answer: npt.NDArray[Any] = answers[given].numpy()
        return answer

    return _Network(run, list(taken.shape), taken.dtype.name)


def _tensorflow() -> Any:
    """TensorFlow, leaving torch its share of the GPU."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # it tells of each CPU instruction that it uses
    import tensorflow

    for device in tensorflow.config.list_physical_devices("GPU"):
        tensorflow.config.experimental.set_memory_growth(device, True)
    return tensorflow
