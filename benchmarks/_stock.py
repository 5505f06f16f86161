"""A student as litert-torch and ai-edge-quantizer convert it by themselves, and any file shown what its input takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from distill.core.types import FloatArray, Images, Predictor
from distill.torch_predictor import Network
from export.graph import ForNormalized
from export.isolated import IsolatedFile

__all__ = ["Stock", "converted", "fed", "normalised", "stock_recipe"]


class Stock(Predictor):
    """A file of somebody else's recipe: normalised values in, probabilities out, either in whatever type it has.

    Args:
        file: takes [1, S, S, 3] or [1, 3, S, S].
        class_names: of its outputs.
    """

    def __init__(self, file: IsolatedFile, class_names: Sequence[str]) -> None:
        self._file, self._class_names = file, tuple(class_names)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._class_names

    @property
    def image_size(self) -> int:
        return int(self._file.facts["inputs"][0]["shape"][2])  # of either layout

    def predict(self, images: Images) -> FloatArray:
        (given,) = self._file.facts["outputs"]
        answers = self._file.run(fed(self._file, images))
        if given["dtype"] != "float32":
            answers = (answers.astype(np.float32) - given["zero_point"]) * np.float32(given["scale"])
        return np.log(np.maximum(answers, 1e-12)).astype(np.float32)

    def digest(self) -> str:
        return ""


def converted(network: Network) -> bytes:
    import litert_torch
    import torch

    size = network.image_size
    converted = litert_torch.convert(ForNormalized(network).eval(), (torch.zeros(1, size, size, 3),))
    content: bytes = converted.model_content()
    return content


def stock_recipe(model: bytes, calibration: Sequence[Images] | None) -> bytes:
    """A recipe of the quantizer as it comes."""
    from ai_edge_quantizer import quantizer, recipe

    chosen = recipe.dynamic_wi8_afp32() if calibration is None else recipe.static_wi8_ai8()
    work = quantizer.Quantizer(bytearray(model), chosen)
    if calibration is None:
        return bytes(work.quantize().quantized_model)
    shown = [{"args_0": normalised(image)} for image in calibration]
    return bytes(work.quantize(work.calibrate({"serving_default": shown})).quantized_model)


def normalised(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return images.astype(np.float32) / np.float32(127.5) - 1


def fed(file: IsolatedFile, images: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    """Images as the file's input takes them."""
    (taken,) = file.facts["inputs"]
    if taken["dtype"] == "uint8":
        return images
    values = normalised(images)
    if taken["shape"][1] == 3:
        values = np.ascontiguousarray(values.transpose(0, 3, 1, 2))
    if taken["dtype"] == "float32":
        return values
    limits = np.iinfo(taken["dtype"])
    steps = np.rint(values / taken["scale"]) + taken["zero_point"]
    return steps.clip(limits.min, limits.max).astype(taken["dtype"])
