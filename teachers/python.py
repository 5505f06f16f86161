"""Your own Python: a callable `module:name` from uint8 images to logits or probabilities."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
from pydantic import Field, field_validator

from distill.core.errors import TeacherError, UserError
from distill.core.files import digest_of, sha256_of
from distill.core.plugins import import_user_module
from distill.core.settings import TeacherSettings
from distill.core.types import FloatArray, Images, Predictor

__all__ = ["TASKS", "Config", "build"]

TASKS: tuple[str, ...] = ("classification", "segmentation")


class Config(TeacherSettings):
    """A user's callable as teacher."""

    python: str
    """`module:name` of a callable: numpy uint8 [N, size, size, 3] (RGB) in, scores out: [N, C], or of pixels
    [N, h, w, C] on a grid of its own."""
    image_size: int = Field(ge=8, le=4096)
    """Side in pixels of the square images it is given."""
    probabilities: bool = False
    """Its scores are probabilities, not logits."""
    version: str = ""
    """Change this when the callable's weights change: its source file alone is watched."""

    @field_validator("python")
    @classmethod
    def _module_and_name(cls, text: str) -> str:
        if not re.fullmatch(r"[\w.]+:[\w.]+", text):
            raise ValueError(f"found {text!r}, expected `module:name` of a callable, for example my_model:predict")
        return text

    def watched_files(self) -> list[Path]:
        """The callable's source: another source means other labels."""
        module = import_user_module(self.python.partition(":")[0])
        return [Path(module.__file__)] if module.__file__ else []


@final
class _Callable(Predictor):
    def __init__(self, function: Callable[[Images], Any], config: Config, class_names: tuple[str, ...]) -> None:
        self._function, self._config, self._class_names = function, config, class_names

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._class_names

    @property
    def image_size(self) -> int:
        return self._config.image_size

    def predict(self, images: Images) -> FloatArray:
        try:
            answer = np.asarray(self._function(images), dtype=np.float32)
        except Exception as error:
            raise TeacherError(
                f"teacher.python: {self._config.python} raised {type(error).__name__}: {error}"
            ) from error
        count, classes = len(images), len(self._class_names)
        if answer.ndim not in (2, 4) or answer.shape[0] != count or answer.shape[-1] != classes:
            raise TeacherError(
                f"teacher.python: {self._config.python} returned shape {answer.shape}, expected {(count, classes)}, or"
                f" ({count}, h, w, {classes}) for pixels"
            )
        if not np.isfinite(answer).all():
            raise TeacherError(f"teacher.python: {self._config.python} returned values that are not finite")
        if self._config.probabilities:
            if answer.min() < 0 or not np.allclose(answer.sum(axis=-1), 1, atol=1e-2):
                raise TeacherError(f"teacher.python: {self._config.python} returned rows that are no probabilities")
            return np.log(np.maximum(answer, 1e-8))
        return answer

    def digest(self) -> str:
        sources = [sha256_of(path) for path in self._config.watched_files()]
        return digest_of({"config": self._config.model_dump(mode="json"), "sources": sources, "to": self._class_names})


def build(config: Config, class_names: Sequence[str]) -> Predictor:
    """Import the callable.

    Raises:
        UserError: it cannot be imported, is not callable, or cannot be fitted.
    """
    if config.fit is not None:
        raise UserError("teacher.fit: a Python callable cannot be fitted, only torch models can")
    module_name, _, attribute = config.python.partition(":")
    found: Any = import_user_module(module_name)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise UserError(f"teacher.python: the module {module_name} has no {attribute!r}")
        found = getattr(found, part)
    if not callable(found):
        raise UserError(f"teacher.python: {config.python} is not callable")
    return _Callable(found, config, tuple(config.classes or class_names))
