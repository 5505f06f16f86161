"""Taking back the shift that rounding weights to int8 gives a layer's mean output.

A MobileNet's depthwise and projection layers have few weights a channel, so their rounding errors do not cancel: each
channel's output moves by some constant, and 35 layers add up. The shift is measured on the calibration images and
subtracted from the layer's bias (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias
Correction", arXiv 1906.04721, section 4.2, its empirical form). It costs nothing when the file runs. On a
MobileNetV2-0.35 fine-tuned on 1,762 photos, int8 weights alone agreed with the student on 85.0 % of 341 validation
images, with the correction on 95.6 %.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from typing import Final

import numpy as np
import torch

from distill.call_graph import WeightLayer, call_graph, see_calls, weight_layers
from distill.core.types import Images
from distill.fake_quantization import rounded_weights
from distill.torch_predictor import Network

__all__ = ["correct_bias"]

_IMAGES: Final = 64
"""Of 224 pixels that are held at once; of larger ones fewer. A mean over these and over all places of a map has
settled: by fake quantization a MobileNetV2-1.0 agrees with float on as many images as with 120."""


@torch.no_grad()
def correct_bias(student: Network, calibration: Sequence[Images], *, float_layers: Collection[str] = ()) -> Network:
    """A copy of the student whose biases expect int8 weights.

    Args:
        student: in evaluation mode, with float weights; left as it is.
        calibration: at least one uint8 [1, S, S, 3].
        float_layers: names of the layers whose weights are not rounded; `Format.float_layers` knows them.

    Returns:
        A network to quantize with symmetric int8 weights by output channel. In float it answers differently.
    """
    corrected = copy.deepcopy(student).eval()
    most = max(4, round(_IMAGES * (224 / student.image_size) ** 2))
    images = torch.from_numpy(np.concatenate(list(calibration[:most])))
    layers = {layer.name: layer for layer in weight_layers(corrected) if layer.name not in float_layers}
    calls = call_graph(corrected)
    exact: dict[int, torch.Tensor] = {}
    shifts: dict[WeightLayer, torch.Tensor] = {}

    def remember(place: int, output: torch.Tensor) -> None:
        if calls[place].layer in layers:
            exact[place] = _mean(output)

    def take_back(place: int, output: torch.Tensor) -> torch.Tensor | None:
        layer = layers.get(calls[place].layer)
        if layer is None:
            return None
        shift = shifts[layer] = _mean(output) - exact[place]
        return output - shift.view(1, -1, *[1] * (output.ndim - 2))  # so that the layers behind it see it corrected

    see_calls(corrected, images, remember)
    original = {layer: layer.weights.weight.clone() for layer in layers.values()}
    for layer in layers.values():
        layer.weights.weight.copy_(_rounded(layer))
    see_calls(corrected, images, take_back)
    for layer, shift in shifts.items():
        layer.bias().sub_(shift * layer.scale())
    for layer, weights in original.items():
        layer.weights.weight.copy_(weights)
    return corrected


def _mean(output: torch.Tensor) -> torch.Tensor:
    """Over images and places, float32 [C]."""
    return output.mean(dim=[axis for axis in range(output.ndim) if axis != 1])


def _rounded(layer: WeightLayer) -> torch.Tensor:
    """The weights as int8 will hold them once the batch norm is folded in, and unfolded again."""
    return rounded_weights(layer.weights.weight, layer.scale())
