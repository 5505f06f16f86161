"""What int8 does to a network, in torch: weights, and the tensors between layers, rounded as a TFLite file rounds them.

Fake quantization (Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", arXiv 1712.05877): batch norm folded, weights symmetric by output channel, all else
by one range a tensor. It tells in a second what writing and running a file tells in twenty, and gradients go through
it: weights past the rounding, ranges by learned step sizes (Esser et al. 2020, arXiv 1902.08153).
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from distill.call_graph import Call, call_graph, calls_of, see_calls, weight_layers
from distill.core.types import Images
from distill.torch_predictor import Network

__all__ = ["Int8Backbone", "Ranges", "fake_quantized", "measured_ranges", "rounded_weights", "signal_to_noise"]

Ranges = Mapping[str, tuple[float, float]]
"""Least and greatest value of tensors, by the name of the call that makes them."""

_BATCH = 32
_RATE = 100.0


def rounded_weights(weights: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Weights as int8 will hold them once the batch norm is folded in, and unfolded again; gradients pass.

    Args:
        weights: float32 [C, ...].
        scale: float32 [C], what folding multiplies each output channel by.
    """
    shape = (-1, *[1] * (weights.ndim - 1))
    folding = torch.where(scale == 0, torch.ones_like(scale), scale).detach().view(shape)
    folded = weights.detach() * folding
    step = folded.flatten(1).abs().amax(dim=1).clamp_min(1e-12).div(127).view(shape)
    return weights + ((folded / step).round() * step / folding - weights.detach())


def measured_ranges(network: Network, images: Sequence[Images]) -> dict[str, tuple[float, float]]:
    """Least and greatest value of each tensor between operations, and of zero.

    Args:
        network: in evaluation mode.
        images: uint8 [1, S, S, 3] each.
    """
    calls = call_graph(network)
    found = {call.name: (0.0, 0.0) for call in calls if not call.fused}

    def see(place: int, output: torch.Tensor) -> None:
        if not calls[place].fused:
            low, high = found[calls[place].name]
            found[calls[place].name] = min(low, float(output.min())), max(high, float(output.max()))

    together = torch.from_numpy(np.concatenate(list(images)))
    with torch.no_grad():
        for start in range(0, len(together), _BATCH):
            see_calls(network, together[start : start + _BATCH], see)
    return found


def fake_quantized(network: Network, float_layers: Collection[str], ranges: Ranges) -> Network:
    """A copy of a network that answers as an int8 file of it would.

    Args:
        network: in evaluation mode; left as it is.
        float_layers: names of the layers that are not rounded.
        ranges: of all its tensors, as `measured_ranges` gives them, or narrower.
    """
    copied = copy.deepcopy(network)
    backbone = copied.backbone = Int8Backbone(copied, float_layers)
    backbone.ranges = ranges
    copied.pretrained = False  # there is no part of it that another came before
    return copied.eval()


def signal_to_noise(exact: torch.Tensor, found: torch.Tensor) -> float:
    """How far answers [N, ...] stand above what they differ by, in decibels."""
    noise = (exact - found).double().square().mean().clamp_min(1e-30)
    return float(10 * torch.log10((exact - exact.mean()).double().square().mean() / noise))


class Int8Backbone(nn.Module):
    """A backbone whose weights and tensors are rounded while it runs.

    Args:
        network: whose backbone it takes over.
        float_layers: names of the layers that are not rounded.
    """

    low: torch.Tensor
    high: torch.Tensor

    def __init__(self, network: Network, float_layers: Collection[str]) -> None:
        super().__init__()
        self._calls = call_graph(network)
        self._float = frozenset(float_layers)
        layers = {layer.name: layer for layer in weight_layers(network)}
        self._norms = {
            name: next(found for found, module in network.named_modules() if module is layer.norm)
            for name, layer in layers.items()
            if layer.norm is not None
        }
        self.points = tuple(place for place, call in enumerate(self._calls) if not call.fused and self._rounds(call))
        self.names = tuple(self._calls[place].name for place in self.points)
        self.inner = network.backbone
        self._numbers = {place: number for number, place in enumerate(self.points)}
        self.register_buffer("low", torch.zeros(len(self.points)))
        self.register_buffer("high", torch.zeros(len(self.points)))
        self.growth: nn.Parameter | None = None
        self.only: Collection[str] | None = None
        """Names of the tensors that are rounded; None: all. Weights are rounded with None alone."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with _Rounding(self):
            answers: torch.Tensor = self.inner(images)
        return answers

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        layer: nn.Module = self.inner.get_classifier()  # type: ignore[operator]
        return layer

    def learn_ranges(self) -> None:
        """Make the ranges learnable: each end is exp(100 g) times what it is now, with a parameter g of its own.

        A step of AdamW changes g by its learning rate, so at 1e-4 an end by 1 %, whatever its size.
        """
        self.growth = nn.Parameter(torch.zeros(2, len(self.points)))

    def _ends(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the ranges, float32 [P] each."""
        if self.growth is None:
            return self.low, self.high
        low, high = (_RATE * self.growth).exp()
        return self.low * low, self.high * high

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """The range of each rounded tensor, by name."""
        low, high = self._ends()
        return dict(zip(self.names, zip(low.tolist(), high.tolist(), strict=True), strict=True))

    @ranges.setter
    def ranges(self, ranges: Ranges) -> None:
        with torch.no_grad():
            for place, name in enumerate(self.names):
                self.low[place], self.high[place] = ranges[name]

    def _rounds(self, call: Call) -> bool:
        """Whether what it makes is rounded: by a layer in int8, or on the way to one."""
        users = [self._calls[user] for user in call.users]
        return call.name not in self._float or not all(user.layer in self._float for user in users)

    def _weights(self, layer: str, weights: torch.Tensor) -> torch.Tensor:
        if layer in self._float or self.only is not None:
            return weights
        if layer not in self._norms:
            return rounded_weights(weights, torch.ones(len(weights), device=weights.device))
        norm = cast(nn.BatchNorm2d, self.inner.get_submodule(self._norms[layer].removeprefix("backbone.")))
        assert norm.running_var is not None
        return rounded_weights(weights, norm.weight / (norm.running_var + norm.eps).sqrt())

    def _tensor(self, place: int, values: torch.Tensor) -> torch.Tensor:
        number = self._numbers[place]
        if self.only is not None and self.names[number] not in self.only:
            return values
        low, high = (end[number] for end in self._ends())
        step = ((high - low) / 255).clamp_min(1e-9)
        if self.growth is None:
            return torch.fake_quantize_per_tensor_affine(values, float(step), int((-low / step).round()), 0, 255)
        zero = _passing(-low / step)
        return (_passing(values / step + zero).clamp(0, 255) - zero) * step


def _passing(values: torch.Tensor) -> torch.Tensor:
    """Rounded, as if it were not for gradients."""
    return values + (values.round() - values).detach()


class _Rounding(TorchFunctionMode):
    """Goes through the calls of one pass in the order in which they were recorded."""

    def __init__(self, backbone: Int8Backbone) -> None:
        super().__init__()
        self._backbone, self._place = backbone, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not calls_of(func):
            return func(*args, **(kwargs or {}))
        place, backbone = self._place, self._backbone
        self._place += 1
        call = backbone._calls[place]
        if call.layer:
            args = (args[0], backbone._weights(call.layer, args[1]), *args[2:])
        output = func(*args, **(kwargs or {}))
        return backbone._tensor(place, output) if place in backbone._numbers else output
