"""Which operations a network runs, in order, and what each is given: found by running it once.

A converter turns a batch norm and a ReLU into parts of the convolution in front of them; here they are *fused*
likewise, so that what is left are the tensors that a quantized file rounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from distill.torch_predictor import Network

__all__ = ["ADDS", "CAPPED", "WEIGHTED", "Call", "WeightLayer", "call_graph", "calls_of", "see_calls", "weight_layers"]

WEIGHTED = frozenset({"conv2d", "linear"})
ADDS = frozenset({"add", "__add__", "__iadd__", "__radd__", "add_"})
CAPPED = frozenset({"relu6", "hardtanh", "hardtanh_"})
_FUSED = frozenset({"batch_norm", "relu", "relu_"}) | CAPPED
_OTHERS = frozenset(
    {
        "adaptive_avg_pool2d",
        "avg_pool2d",
        "max_pool2d",
        "mean",
        "cat",
        "interpolate",
        "mul",
        "__mul__",
        "__rmul__",
        "mul_",
    }
    | {"hardswish", "hardswish_", "hardsigmoid", "hardsigmoid_", "sigmoid"}
)
_KINDS = (
    WEIGHTED | ADDS | _FUSED | _OTHERS
)  # torch's names of functions that change values; views and casts do not count


@dataclass
class Call:
    """One operation.

    Args:
        kind: torch's name of the function.
        inputs: places of the calls that made its operands; those of the network's input and of weights are left out.
        layer: name of the module whose weights it takes, such as `backbone.conv_stem`; else empty.
        shape: of its output for one image.
        users: places of the calls that its output is given to.
        fused: whether a batch norm or an activation behind it is part of the same operation in a file.
        name: of its output: its layer's, or its kind and number.
    """

    kind: str
    inputs: tuple[int, ...]
    layer: str
    shape: tuple[int, ...]
    users: list[int] = field(default_factory=list)
    fused: bool = False
    name: str = ""


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
        """What a shift of its output is added to."""
        if self.norm is not None:
            return self.norm.bias
        if not isinstance(self.weights.bias, nn.Parameter):
            self.weights.bias = nn.Parameter(torch.zeros(self.weights.weight.shape[0]))
        return self.weights.bias


def call_graph(network: Network) -> list[Call]:
    """The operations in the order in which they run."""
    return _Recorder.of(network).calls


def weight_layers(network: Network) -> list[WeightLayer]:
    """Layers with weights in the order in which they run; a batch norm belongs to the layer whose output it gets."""
    found = _Recorder.of(network)
    modules = dict(network.named_modules())
    return [
        WeightLayer(call.layer, modules[call.layer], found.norms.get(place), math.prod(call.shape[2:]))
        for place, call in enumerate(found.calls)
        if call.layer
    ]


def calls_of(func: Any) -> str:
    """The kind of call that a torch function is; empty for those that do not count."""
    name = getattr(func, "__name__", "")
    return name if name in _KINDS else ""


def see_calls(network: Network, images: torch.Tensor, see: Callable[[int, torch.Tensor], torch.Tensor | None]) -> None:
    """Run a network on uint8 [N, S, S, 3] and show the output of each call of its graph, with its place.

    What `see` returns takes the place of the output.
    """
    with _Visit(see):
        network(images)


def _operands(args: Sequence[Any]) -> Iterator[torch.Tensor]:
    """Tensors among the arguments of a function, those of a list too."""
    for given in args:
        for each in given if isinstance(given, (list, tuple)) else [given]:
            if isinstance(each, torch.Tensor):
                yield each


class _Visit(TorchFunctionMode):
    def __init__(self, see: Callable[[int, torch.Tensor], torch.Tensor | None]) -> None:
        super().__init__()
        self._see, self._place = see, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if not calls_of(func):
            return output
        other = self._see(self._place, output)
        self._place += 1
        return output if other is None else other


class _Recorder(TorchFunctionMode):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.norms: dict[int, nn.BatchNorm2d] = {}
        self._made: dict[int, int] = {}
        self._kept: list[torch.Tensor] = []  # alive, so that no two have one address
        self._layers: dict[int, str] = {}
        self._statistics: dict[int, nn.BatchNorm2d] = {}
        for name, module in network.named_modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                self._layers[id(module.weight)] = name
            elif isinstance(module, nn.BatchNorm2d):
                self._statistics[id(module.running_mean)] = module

    @classmethod
    def of(cls, network: Network) -> _Recorder:
        recorder, size = cls(network), network.image_size
        with torch.no_grad(), recorder:
            network(torch.zeros(1, size, size, 3, dtype=torch.uint8, device=network.mean.device))
        recorder._finish()
        return recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if not isinstance(output, torch.Tensor):
            return output
        self._kept.append(output)
        given = list(_operands(args))
        makers = [self._made[id(tensor)] for tensor in given if id(tensor) in self._made]
        kind = calls_of(func)
        if not kind:
            if makers:  # a view, a cast, dropout: the same values
                self._made[id(output)] = makers[0]
            return output
        place = len(self.calls)
        layer = next((self._layers[id(tensor)] for tensor in given if id(tensor) in self._layers), "")
        self.calls.append(Call(kind, tuple(makers), layer if kind in WEIGHTED else "", tuple(output.shape)))
        for maker in makers:
            self.calls[maker].users.append(place)
        if kind == "batch_norm" and makers:
            norm = next((self._statistics[id(tensor)] for tensor in given if id(tensor) in self._statistics), None)
            if norm is not None:
                self.norms[makers[0]] = norm
        self._made[id(output)] = place
        return output

    def _finish(self) -> None:
        counts: dict[str, int] = {}
        for place, call in enumerate(self.calls):
            group = "add" if call.kind in ADDS else call.kind
            if call.layer:
                call.name = call.layer
            elif call.kind in _FUSED and len(call.inputs) == 1 and len(self.calls[call.inputs[0]].users) == 1:
                before = self.calls[call.inputs[0]]
                before.fused, call.name = True, before.name
            elif group != "add" or len(call.inputs) == 2:
                call.name = f"{group} {counts.setdefault(group, 0)}"
                counts[group] += 1
            else:  # a constant is added: part of a hard-sigmoid
                call.name = f"shift {place}"
