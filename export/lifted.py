"""An exported program of torch as a network of layers that the ways to int8 know: convolutions, batch norms, sums.

`torch.export` keeps what a network does and forgets what it was made of: a convolution is a function of two tensors.
The ladder asks which layers there are, folds batch norms into them, moves scale between them. Here they become modules
again, by the names that their weights have.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by
from torch import fx, nn

from distill.core.errors import UserError

__all__ = ["Builder", "LiftedNetwork", "batch_norm", "convolution", "lift", "linear"]

_Module = TypeVar("_Module", bound=nn.Module)


class LiftedNetwork(fx.GraphModule):
    """float32 [N, 3, H, W] to what the program answered, with its layers as modules."""

    def get_classifier(self) -> nn.Module:
        """The layer with weights that runs last."""
        last = [
            module
            for node in self.graph.nodes
            if node.op == "call_module"
            and isinstance(module := self.get_submodule(str(node.target)), (nn.Conv2d, nn.Linear))
        ][-1]
        assert isinstance(last, nn.Module)
        return last


def lift(program: torch.export.ExportedProgram, scale: Iterable[float], shift: Iterable[float]) -> LiftedNetwork:
    """Make a network of a program.

    Args:
        program: from one float32 [1, 3, H, W] to one tensor; the network does with any batch what it does with one.
        scale: what each of the three channels is multiplied by first.
        shift: what is then added to each.

    Raises:
        UserError: it takes or gives several tensors, or has no layer with weights.
    """
    scales, shifts = tuple(scale), tuple(shift)
    found = program.module()
    lifting = _Lifting(found)
    for node in found.graph.nodes:
        lifting.take(node, scales, shifts)
    return lifting.network()


class Builder:
    """Writes a network, node by node."""

    def __init__(self) -> None:
        self.root, self.graph = nn.Module(), fx.Graph()

    def module(self, name: str, module: nn.Module, source: fx.Node) -> fx.Node:
        """Call a new module; where its dotted name is taken, it gets a number."""
        wanted, number = name, 0
        while any(wanted == found for found, _ in self.root.named_modules()):
            number += 1
            wanted = f"{name}_{number}"
        *folders, leaf = wanted.split(".")
        place = self.root
        for part in folders:
            if part not in dict(place.named_children()):
                place.add_module(part, nn.Module())
            place = place.get_submodule(part)
        place.add_module(leaf, module)
        return self.graph.call_module(wanted, (source,))

    def constant(self, name: str, value: torch.Tensor) -> fx.Node:
        """Read a tensor that no layer holds."""
        kept = "constant_" + re.sub(r"\W", "_", name)
        if not hasattr(self.root, kept):
            self.root.register_buffer(kept, value.detach().clone())
        return self.graph.get_attr(kept)

    def network(self) -> LiftedNetwork:
        """What was written.

        Raises:
            UserError: no layer in it has weights.
        """
        self.graph.lint()
        network = LiftedNetwork(self.root, self.graph)
        network.graph.eliminate_dead_code()
        network.recompile()
        if not any(isinstance(module, (nn.Conv2d, nn.Linear)) for module in network.modules()):
            raise UserError("the network has no convolution and no linear layer")
        return network.eval()


def convolution(
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> nn.Conv2d:
    """A convolution with these weights [C, K / groups, h, w]."""
    each = [value if isinstance(value, (int, str)) else tuple(value) for value in (stride, padding, dilation)]
    how: dict[str, Any] = dict(zip(("stride", "padding", "dilation"), each, strict=True), bias=bias is not None)
    size: Any = tuple(weight.shape[2:])
    return _filled(nn.Conv2d(weight.shape[1] * groups, weight.shape[0], size, groups=groups, **how), weight, bias)


def linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    """A linear layer with these weights [C, K]."""
    return _filled(nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None), weight, bias)


def batch_norm(
    weight: torch.Tensor, bias: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor, eps: float
) -> nn.BatchNorm2d:
    """A batch norm with these weights and statistics [C]."""
    module = _filled(nn.BatchNorm2d(len(mean), eps), weight, bias)
    assert module.running_mean is not None and module.running_var is not None
    with torch.no_grad():
        module.running_mean.copy_(mean)
        module.running_var.copy_(variance)
    return module


class _Lifting(Builder):
    """Goes through the nodes of a program and writes those of the network."""

    def __init__(self, found: nn.Module) -> None:
        super().__init__()
        self._found = found
        self._made: dict[fx.Node, Any] = {}
        self._inputs = 0

    def take(self, node: fx.Node, scale: tuple[float, ...], shift: tuple[float, ...]) -> None:
        if node.op == "placeholder":
            self._input(node, scale, shift)
        elif node.op == "output":
            self.graph.output(self._output(node))
        elif node.op == "call_function":
            self._made[node] = self._call(node)
        elif node.op == "call_module" and node.users:  # other modules are guards on the shape of the input
            raise UserError(f"the network holds a part that cannot be looked into ({node.target})")

    def _input(self, node: fx.Node, scale: tuple[float, ...], shift: tuple[float, ...]) -> None:
        self._inputs += 1
        if self._inputs > 1:
            raise UserError("the network takes several inputs, expected one image")
        images = self.graph.placeholder("images")
        if set(scale) != {1.0} or set(shift) != {0.0}:
            for name, values in (("input_scale", scale), ("input_shift", shift)):
                self.root.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))
            constants = self.graph.get_attr("input_shift"), images, self.graph.get_attr("input_scale")
            images = self.graph.call_function(torch.addcmul, constants)
        self._made[node] = images

    def _output(self, node: fx.Node) -> Any:
        leaves = node.all_input_nodes
        if len(leaves) != 1:
            raise UserError(f"the network gives {len(leaves)} outputs, expected one: its logits")
        (answer,) = leaves
        # Probabilities are made of the logits once more, in the file.
        softmax = answer.op == "call_function" and "softmax" in str(answer.target)
        return self._made[answer.args[0] if softmax else answer]  # type: ignore[index]

    def _call(self, node: fx.Node) -> Any:
        name = str(getattr(node.target, "_opname", getattr(node.target, "__name__", ""))).removesuffix("_")
        layer = getattr(self, f"_{name}", None) if name in _LAYERS else None
        if layer is not None and (made := layer(node)) is not None:
            return made
        if name in _SAME:
            return self._known(node.args[0])
        args = tuple(self._known(each) for each in node.args)
        kwargs = {key: self._known(value) for key, value in node.kwargs.items()}
        if name in {"clamp", "hardtanh"}:
            return self._clamp(args, kwargs, node)
        if name in {"view", "reshape", "_unsafe_view"}:
            return self.graph.call_function(torch.reshape, (args[0], self._any_batch(*args[:2])))
        if name == "expand" and isinstance(args[1], (list, tuple)) and args[1][0] == 1:
            args = args[0], [-1, *args[1][1:]], *args[2:]
        if name.startswith("upsample_") and len(args) > 1:
            return self._upsampled(name, args)
        function = _FUNCTIONS.get(name)
        if function is None or "alpha" in kwargs:
            function = node.target  # type: ignore[assignment]
        return self.graph.call_function(function, args, kwargs)  # type: ignore[arg-type]

    def _known(self, value: Any) -> Any:
        """An argument of the program as one of the network: nodes are exchanged, weights become buffers."""

        def exchanged(node: fx.Node) -> Any:
            if node.op != "get_attr":
                return self._made[node]
            return self.constant(str(node.target), self._tensor(node))

        return fx.node.map_arg(value, exchanged)

    def _tensor(self, node: Any) -> torch.Tensor:
        """A weight or constant of the program."""
        if not isinstance(node, fx.Node) or node.op != "get_attr":
            raise _NoLayerError
        found: Any = self._found
        for part in str(node.target).split("."):
            found = getattr(found, part)
        assert isinstance(found, torch.Tensor)
        return found

    def _layer(self, weight: Any, module: nn.Module, source: Any) -> fx.Node:
        return self.module(str(weight.target).removesuffix(".weight"), module, self._known(source))

    def _conv2d(self, node: fx.Node) -> fx.Node | None:
        source, weight, bias, stride, padding, dilation, groups = _positional(node, _CONVOLUTION)
        try:
            weights, biases = self._tensor(weight), None if bias is None else self._tensor(bias)
        except _NoLayerError:
            return None
        how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        return self._layer(weight, convolution(weights, biases, **how), source)

    def _linear(self, node: fx.Node) -> fx.Node | None:
        source, weight, bias = _positional(node, _LINEAR)
        try:
            weights, biases = self._tensor(weight), None if bias is None else self._tensor(bias)
        except _NoLayerError:
            return None
        return self._layer(weight, linear(weights, biases), source)

    def _batch_norm(self, node: fx.Node) -> fx.Node | None:
        source, weight, bias, mean, variance, training, _, eps, _ = node.args
        if training:
            raise UserError("the network was exported in training mode: call eval() on it first")
        try:
            means, variances = self._tensor(mean), self._tensor(variance)
            weights = torch.ones_like(means) if weight is None else self._tensor(weight)
            biases = torch.zeros_like(means) if bias is None else self._tensor(bias)
        except _NoLayerError:
            return None
        module = batch_norm(weights, biases, means, variances, float(str(eps)))
        return self._layer(mean if weight is None else weight, module, source)

    def _clamp(self, args: tuple[Any, ...], kwargs: dict[str, Any], node: fx.Node) -> fx.Node:
        low = args[1] if len(args) > 1 else kwargs.get("min")
        high = args[2] if len(args) > 2 else kwargs.get("max")
        if low == 0 and high == 6:
            return self.graph.call_function(F.relu6, (args[0],))
        if low == 0 and high is None:
            return self.graph.call_function(F.relu, (args[0],))
        return self.graph.call_function(node.target, args, kwargs)  # type: ignore[arg-type]

    def _upsampled(self, name: str, args: tuple[Any, ...]) -> fx.Node:
        """Enlarging to a size or by factors, as the function that everybody calls."""
        bilinear = name == "upsample_bilinear2d"
        if name not in {"upsample_bilinear2d", "upsample_nearest2d"}:
            raise UserError(f"the network enlarges maps by {name}, expected bilinear2d or nearest2d")
        size, scales = args[1], args[-1] if isinstance(args[-1], (list, tuple)) else None
        how: dict[str, Any] = {"mode": "bilinear", "align_corners": bool(args[2])} if bilinear else {"mode": "nearest"}
        how |= {"size": list(size)} if size is not None else {"scale_factor": list(scales or ())}
        return self.graph.call_function(F.interpolate, (args[0],), how)

    def _any_batch(self, source: fx.Node, sizes: Any) -> Any:
        """A batch of one, written into a program as a number, for any number of images."""
        one = isinstance(sizes, (list, tuple)) and len(sizes) > 0 and sizes[0] == 1
        return [self.graph.call_method("size", (source, 0)), *sizes[1:]] if one else sizes


class _NoLayerError(Exception):
    """The weights of what looks like a layer are computed."""


_LAYERS = frozenset({"conv2d", "linear", "batch_norm"})
_SAME = frozenset({"dropout", "feature_dropout", "alias", "contiguous", "clone", "detach", "lift_fresh_copy"})
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "sigmoid": torch.sigmoid,
    "add": torch.add,
    "mul": torch.mul,
    "mean": torch.mean,
    "cat": torch.cat,
    "adaptive_avg_pool2d": F.adaptive_avg_pool2d,
    "avg_pool2d": F.avg_pool2d,
    "max_pool2d": F.max_pool2d,
}  # as `distill.call_graph` knows them; in-place ones are written out of place
_CONVOLUTION = (("bias", None), ("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1))
_LINEAR = (("bias", None),)


def _positional(node: fx.Node, defaults: tuple[tuple[str, Any], ...]) -> list[Any]:
    """Arguments of a layer in their order, the two first always given."""
    values = list(node.args[:2])
    for place, (name, default) in enumerate(defaults, 2):
        values.append(node.args[place] if place < len(node.args) else node.kwargs.get(name, default))
    return values


def _filled(module: _Module, weight: torch.Tensor, bias: torch.Tensor | None) -> _Module:
    with torch.no_grad():
        module.weight.copy_(weight)  # type: ignore[operator]
        if bias is not None:
            module.bias.copy_(bias)  # type: ignore[operator]
    return module
