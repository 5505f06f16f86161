"""How far each layer of an int8 file stands above its error: where a network suffers from being rounded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from distill.call_graph import call_graph, see_calls
from distill.core.errors import ArtifactError
from distill.core.types import Images
from distill.torch_predictor import Network
from export.graph import Tensors
from export.isolated import IsolatedFile, fed_pixels

__all__ = ["IMAGES", "LayerNoise", "layer_noise"]

IMAGES: Final = 16
"""That are shown. A layer's figure moves by less than a decibel with more."""


@dataclass(frozen=True)
class LayerNoise:
    """A tensor that a layer or a sum of two makes.

    Args:
        name: of the module in the network, or `add 3`.
        snr_db: how far its values stand above what the file's differ by; infinite where they are the same.
        dtype: that it has in the file.
    """

    name: str
    snr_db: float
    dtype: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "snr_db": round(self.snr_db, 2) if math.isfinite(self.snr_db) else None,
            "dtype": self.dtype,
        }


def layer_noise(file: Path, format_name: str, student: Network, images: Images, tensors: Tensors) -> list[LayerNoise]:
    """Compare the tensors of a TFLite file with those of the student it was made from.

    Conversion keeps the order in which layers run, so the first convolution of the file is the first of the network.
    Values are compared up to one factor a channel: on the way to int8 scale moves from layer to layer
    (`export.quantize.equalization`), which changes tensors and no answers. Read without the delegate, whose
    intermediate tensors nobody can see; its kernels round a little differently.

    Args:
        file: of a run.
        format_name: its plugin.
        student: of the run, in evaluation mode.
        images: uint8 [N, S, S, 3].
        tensors: how the file takes pixels.

    Returns:
        Layers and sums, worst first.

    Raises:
        ArtifactError: the file does not open, or its layers are not those of the student.
    """
    calls = call_graph(student)
    named = {call.layer for call in calls if call.layer}  # an activation behind a layer has its name and ends it
    wanted = [
        place
        for place, call in enumerate(calls)
        if not call.fused and (call.name in named or call.name.startswith("add "))
    ]
    with IsolatedFile(file, format_name, layers=True) as opened:
        found = opened.facts["layers"]
        kept = list(range(len(found)))
        if [each["kind"] == "ADD" for each in found] != [calls[place].name not in named for place in wanted]:
            kept = [
                number for number in kept if found[number]["kind"] != "ADD"
            ]  # conversion made other sums: layers alone
            wanted = [place for place in wanted if calls[place].name in named]
        if len(kept) != len(wanted):
            raise ArtifactError(f"{file.name}: its {len(kept)} layers are not the {len(wanted)} of the run's student")
        noises = [_Noise() for _ in wanted]
        for image in images:
            exact: dict[int, torch.Tensor] = {}

            def see(place: int, output: torch.Tensor, exact: dict[int, torch.Tensor] = exact) -> None:
                exact[place] = output

            with torch.no_grad():
                see_calls(student, torch.from_numpy(image[None]), see)
            answered = opened.run_layers(fed_pixels(image[None], tensors))
            made = [answered[number] for number in kept]
            for noise, place, values in zip(noises, wanted, made, strict=True):
                noise.add(_channels_first(exact[place].numpy()), _channels_last(values, file.name, exact[place].shape))
    layers = [
        LayerNoise(calls[place].name.removeprefix("backbone."), noise.snr_db(), found[number]["dtype"])
        for place, noise, number in zip(wanted, noises, kept, strict=True)
    ]
    return sorted(layers, key=lambda layer: (layer.snr_db, layer.name))


def _channels_first(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """[1, C, …] to [C, places]."""
    flat: npt.NDArray[np.float64] = values[0].reshape(values.shape[1], -1).astype(np.float64)
    return flat


def _channels_last(values: npt.NDArray[Any], file: str, expected: Sequence[int]) -> npt.NDArray[np.float64]:
    """[1, …, C] to [C, places]."""
    if values.size != math.prod(expected) or values.shape[-1] != expected[1]:
        raise ArtifactError(f"{file}: a layer gives {list(values.shape)}, the student's {list(expected)}")
    turned: npt.NDArray[np.float64] = values.reshape(-1, values.shape[-1]).T.astype(np.float64)
    return turned


class _Noise:
    """Sums over images, by channel."""

    def __init__(self) -> None:
        self._count = 0
        self._sums: Any = 0.0

    def add(self, exact: npt.NDArray[np.float64], found: npt.NDArray[np.float64]) -> None:
        self._count += exact.size
        parts = exact.sum(1), (exact * exact).sum(1), (exact * found).sum(1), (found * found).sum(1)
        self._sums = self._sums + np.stack(parts)

    def snr_db(self) -> float:
        total, square, product, other = self._sums
        explained = np.divide(product * product, other, out=np.zeros_like(other), where=other > 0)
        noise = max(float((square - explained).sum()), 0.0)
        signal = float(square.sum() - total.sum() ** 2 / self._count)
        if noise <= 1e-12 * float(square.sum()):
            return math.inf
        return 10 * math.log10(max(signal, 1e-30) / noise)
