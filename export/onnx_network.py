"""An ONNX file as a network of torch, for what convolutional networks are made of.

Nobody else does this for graphs that are to go on: of the converters on PyPI, onnx2torch 1.5.15 knows no ReduceMean of
opset 18, which torch's own exporter writes, and what onnx2pytorch 0.6.0 makes looks up sizes while it runs, so that
torch.export refuses it. The network is compared with ONNX Runtime before anything is made of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by
from torch import fx

from distill.core.errors import UserError
from export.lifted import Builder, LiftedNetwork, batch_norm, convolution, linear

__all__ = ["input_shape", "read_onnx"]


def input_shape(path: Path) -> list[int]:
    """Of the one input of an ONNX file; 0 where it is open.

    Raises:
        UserError: it cannot be read, or has several inputs.
    """
    graph = _load(path).graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [each for each in graph.input if each.name not in weights]
    if len(inputs) != 1:
        raise UserError(f"{path}: it has {len(inputs)} inputs, expected one image")
    return [dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim]


def read_onnx(path: Path, shape: Sequence[int]) -> LiftedNetwork:
    """Make a network of a file.

    Args:
        path: ONNX, of float32, from one [N, 3, H, W] to one tensor.
        shape: of its input, [1, 3, H, W].

    Raises:
        UserError: it holds operators that are not known here; all of them are named.
    """
    import onnx
    from onnx import numpy_helper
    from onnxscript import optimizer

    model = _load(path)
    weights = {tensor.name for tensor in model.graph.initializer}
    (given,) = [each for each in model.graph.input if each.name not in weights]
    for dim, size in zip(given.type.tensor_type.shape.dim, shape, strict=True):
        dim.dim_value = size
    if len(model.graph.output) != 1:
        raise UserError(f"{path}: it has {len(model.graph.output)} outputs, expected one: its logits")
    for output in model.graph.output:  # written for another batch, perhaps
        output.type.tensor_type.ClearField("shape")
    model = optimizer.optimize(onnx.shape_inference.infer_shapes(model, data_prop=True))  # sizes become constants
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    reading = _Reading({tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer})
    for value in (*model.graph.input, *model.graph.value_info):
        reading.shapes[value.name] = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    unknown = sorted({node.op_type for node in model.graph.node} - set(_READERS))
    if unknown:
        raise UserError(
            f"{path}: operators that are not known here: {', '.join(unknown)}. If you have the torch model, give it as"
            " --model module:function, or as a .pt2 file of torch.export.save"
        )
    reading.values[given.name] = reading.builder.graph.placeholder("images")
    for node in model.graph.node:
        try:
            _READERS[node.op_type](reading, _Node(node))
        except _OtherwiseError as error:
            raise UserError(f"{path}: {node.op_type} {node.name!r} {error}, which is not known here") from error
    reading.builder.graph.output(reading.values[model.graph.output[0].name])
    return reading.builder.network()


def _load(path: Path) -> Any:
    import onnx

    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf, checker and missing external data all raise their own
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{path}: no ONNX file that can be read ({reason[0][:200]})") from error
    return model


class _OtherwiseError(Exception):
    """An operator with settings that have no like in torch."""


class _Node:
    """An ONNX node with its attributes as Python values."""

    def __init__(self, node: Any) -> None:
        from onnx import helper

        self.kind: str = node.op_type
        self.name: str = node.name
        self.inputs: list[str] = list(node.input)
        self.outputs: list[str] = list(node.output)
        self._attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}

    def get(self, name: str, default: Any = None) -> Any:
        found = self._attributes.get(name, default)
        return found.decode() if isinstance(found, bytes) else found

    def source(self, place: int) -> str:
        """Name of an input; empty where it is left out."""
        return self.inputs[place] if place < len(self.inputs) else ""


class _Reading:
    """What is known while a graph is read."""

    def __init__(self, constants: dict[str, Any]) -> None:
        self.constants, self.values, self.shapes = constants, dict[str, fx.Node](), dict[str, list[int]]()
        self.builder = Builder()

    def fixed(self, name: str) -> torch.Tensor:
        """A constant."""
        if name not in self.constants:
            raise _OtherwiseError(f"computes its {name or 'weights'} while it runs")
        return torch.from_numpy(np.array(self.constants[name]))

    def numbers(self, name: str) -> list[int]:
        """A constant list of whole numbers."""
        return [int(number) for number in self.fixed(name).reshape(-1)]

    def value(self, name: str) -> fx.Node | float:
        """An operand: what was computed, a number, or a constant tensor."""
        if name in self.values:
            return self.values[name]
        found = self.fixed(name)
        if found.numel() == 1:
            return float(found)
        self.values[name] = self.builder.constant(name, found)
        return self.values[name]

    def computed(self, name: str) -> fx.Node:
        if name not in self.values:
            raise _OtherwiseError("takes a constant where an image is expected")
        return self.values[name]

    def call(self, node: _Node, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self.values[node.outputs[0]] = self.builder.graph.call_function(function, args, kwargs)

    def layer(self, node: _Node, module: torch.nn.Module, source: fx.Node) -> None:
        weight = node.source(1)
        name = weight.removesuffix(".weight") if weight.endswith(".weight") else node.name or node.outputs[0]
        parts = [re.sub(r"\W", "_", part) for part in re.split(r"[./]", name) if part]
        self.values[node.outputs[0]] = self.builder.module(".".join(parts), module, source)

    def padded(self, node: _Node, source: fx.Node, value: float = 0.0) -> tuple[fx.Node, list[int]]:
        """Padding that torch's layers can do is returned, any other is put in front."""
        pads = list(node.get("pads") or [0, 0, 0, 0])
        if node.get("auto_pad", "NOTSET") in {"SAME_UPPER", "SAME_LOWER"}:
            pads = self._same(node)
        top, left, bottom, right = pads
        if (top, left) == (bottom, right):
            return source, [top, left]
        return self.builder.graph.call_function(F.pad, (source, [left, right, top, bottom], "constant", value)), [0, 0]

    def _same(self, node: _Node) -> list[int]:
        size = self.shapes.get(node.source(0), [])[2:]
        kernel = node.get("kernel_shape") or (self.fixed(node.source(1)).shape[2:] if node.source(1) else None)
        if len(size) != 2 or 0 in size or kernel is None:
            raise _OtherwiseError("pads maps of unknown size")
        strides, dilations = node.get("strides") or [1, 1], node.get("dilations") or [1, 1]
        before, after = list[int](), list[int]()
        for side, reach, stride, dilation in zip(size, kernel, strides, dilations, strict=True):
            total = max((-(-side // stride) - 1) * stride + (reach - 1) * dilation + 1 - side, 0)
            small, large = total // 2, total - total // 2
            first, last = (small, large) if node.get("auto_pad") == "SAME_UPPER" else (large, small)
            before.append(first)
            after.append(last)
        return before + after


def _conv(reading: _Reading, node: _Node) -> None:
    weight = reading.fixed(node.source(1))
    bias = reading.fixed(node.source(2)) if node.source(2) else None
    if weight.ndim != 4:
        raise _OtherwiseError(f"has weights of {weight.ndim} dimensions")
    source, padding = reading.padded(node, reading.computed(node.source(0)))
    strides, dilations = node.get("strides") or [1, 1], node.get("dilations") or [1, 1]
    module = convolution(
        weight, bias, stride=strides, padding=padding, dilation=dilations, groups=int(node.get("group", 1))
    )
    reading.layer(node, module, source)


def _gemm(reading: _Reading, node: _Node) -> None:
    if node.get("transA", 0) or node.get("alpha", 1.0) != 1 or node.get("beta", 1.0) != 1:
        raise _OtherwiseError("scales or turns its operands")
    weight = reading.fixed(node.source(1))
    bias = reading.fixed(node.source(2)) if node.source(2) else None
    weight = weight if node.get("transB", 0) else weight.T
    module = linear(weight, None if bias is None else bias.expand(len(weight)))
    reading.layer(node, module, reading.computed(node.source(0)))


def _matmul(reading: _Reading, node: _Node) -> None:
    weight = reading.fixed(node.source(1))
    if weight.ndim != 2:
        raise _OtherwiseError(f"has weights of {weight.ndim} dimensions")
    reading.layer(node, linear(weight.T, None), reading.computed(node.source(0)))


def _batch_norm(reading: _Reading, node: _Node) -> None:
    weight, bias, mean, variance = (reading.fixed(node.source(place)) for place in range(1, 5))
    module = batch_norm(weight, bias, mean, variance, float(node.get("epsilon", 1e-5)))
    reading.layer(node, module, reading.computed(node.source(0)))


def _clip(reading: _Reading, node: _Node) -> None:
    ends = [node.get(key) if key in {"min", "max"} and node.get(key) is not None else None for key in ("min", "max")]
    for place in (1, 2):
        if node.source(place):
            ends[place - 1] = float(reading.fixed(node.source(place)))
    low, high = ends
    source = reading.computed(node.source(0))
    if (low, high) == (0, 6):
        reading.call(node, F.relu6, source)
    elif low == 0 and (high is None or high > 3e38):
        reading.call(node, F.relu, source)
    else:
        reading.call(node, torch.clamp, source, low, high)


def _hard_sigmoid(reading: _Reading, node: _Node) -> None:
    alpha, beta = float(node.get("alpha", 0.2)), float(node.get("beta", 0.5))
    if abs(alpha - 1 / 6) > 1e-6 or beta != 0.5:
        raise _OtherwiseError(f"has alpha {alpha:g} and beta {beta:g} instead of 1/6 and 1/2")
    reading.call(node, F.hardsigmoid, reading.computed(node.source(0)))


def _binary(function: Callable[..., Any]) -> Callable[[_Reading, _Node], None]:
    def read(reading: _Reading, node: _Node) -> None:
        first, second = (reading.value(name) for name in node.inputs)
        if not isinstance(first, fx.Node):  # torch wants the tensor in front
            first = reading.builder.constant(node.inputs[0], reading.fixed(node.inputs[0]))
        reading.call(node, function, first, second)

    return read


def _unary(function: Callable[..., Any]) -> Callable[[_Reading, _Node], None]:
    def read(reading: _Reading, node: _Node) -> None:
        reading.call(node, function, reading.computed(node.source(0)))

    return read


def _same_value(reading: _Reading, node: _Node) -> None:
    if node.source(0) in reading.constants:
        reading.constants[node.outputs[0]] = reading.constants[node.source(0)]
    else:
        reading.values[node.outputs[0]] = reading.computed(node.source(0))


def _constant(reading: _Reading, node: _Node) -> None:
    from onnx import numpy_helper

    value = node.get("value")
    if value is None:
        numbers = [node.get(key) for key in ("value_float", "value_int", "value_floats", "value_ints")]
        reading.constants[node.outputs[0]] = np.array(next(each for each in numbers if each is not None))
    else:
        reading.constants[node.outputs[0]] = numpy_helper.to_array(value)


def _global_pool(reading: _Reading, node: _Node) -> None:
    reading.call(node, F.adaptive_avg_pool2d, reading.computed(node.source(0)), 1)


def _mean(reading: _Reading, node: _Node) -> None:
    axes = node.get("axes") or (reading.numbers(node.source(1)) if node.source(1) else None)
    if axes is None:
        raise _OtherwiseError("goes over all axes, images too")
    reading.call(node, torch.mean, reading.computed(node.source(0)), list(axes), bool(node.get("keepdims", 1)))


def _pool(reading: _Reading, node: _Node) -> None:
    greatest = node.kind == "MaxPool"
    if node.get("ceil_mode", 0) or set(node.get("dilations") or [1]) != {1}:
        raise _OtherwiseError("rounds sizes up or skips places")
    source, padding = reading.padded(node, reading.computed(node.source(0)), float("-inf") if greatest else 0.0)
    kernel, strides = node.get("kernel_shape"), node.get("strides") or [1, 1]
    if greatest:
        reading.call(node, F.max_pool2d, source, kernel, strides, padding)
        return
    counted = bool(node.get("count_include_pad", 0))
    if not counted and source is not reading.values[node.source(0)]:
        raise _OtherwiseError("leaves out a padding that is not the same on both sides")
    reading.call(node, F.avg_pool2d, source, kernel, strides, padding, False, counted)


def _concat(reading: _Reading, node: _Node) -> None:
    reading.call(node, torch.cat, [reading.value(name) for name in node.inputs], int(node.get("axis")))


def _resize(reading: _Reading, node: _Node) -> None:
    mode, how = node.get("mode", "nearest"), node.get("coordinate_transformation_mode", "half_pixel")
    sizes = reading.numbers(node.source(3))[2:] if node.source(3) else None
    scales = [float(each) for each in reading.fixed(node.source(2))][2:] if node.source(2) and sizes is None else None
    size = {"size": sizes} if sizes is not None else {"scale_factor": scales}
    source = reading.computed(node.source(0))
    if mode == "linear" and how in {"half_pixel", "pytorch_half_pixel", "align_corners"}:
        reading.call(node, F.interpolate, source, mode="bilinear", align_corners=how == "align_corners", **size)
    elif mode == "nearest" and how == "asymmetric" and node.get("nearest_mode", "round_prefer_floor") == "floor":
        reading.call(node, F.interpolate, source, mode="nearest", **size)
    else:
        raise _OtherwiseError(f"enlarges by {mode} with {how}")


def _reshape(reading: _Reading, node: _Node) -> None:
    source = reading.computed(node.source(0))
    sizes = [1, -1]
    if node.kind == "Reshape":
        before = reading.shapes.get(node.source(0), [])
        sizes = [
            before[place] if size == 0 and not node.get("allowzero", 0) and place < len(before) else size
            for place, size in enumerate(reading.numbers(node.source(1)))
        ]
    elif node.get("axis", 1) != 1:
        raise _OtherwiseError(f"has axis {node.get('axis')}")
    if node.kind == "Flatten" or sizes == [1, -1]:
        reading.call(node, torch.flatten, source, 1)
    else:
        reading.call(node, torch.reshape, source, [-1, *sizes[1:]] if sizes[0] == 1 and -1 not in sizes else sizes)


def _squeeze(reading: _Reading, node: _Node) -> None:
    axes = node.get("axes") or (reading.numbers(node.source(1)) if node.source(1) else None)
    if axes is None or 0 in axes:
        raise _OtherwiseError("drops the axis of images")
    source = reading.computed(node.source(0))
    if node.kind == "Squeeze":
        reading.call(node, torch.squeeze, source, tuple(axes))
        return
    for axis in sorted(axes):
        source = reading.builder.graph.call_function(torch.unsqueeze, (source, axis))
    reading.values[node.outputs[0]] = source


def _transpose(reading: _Reading, node: _Node) -> None:
    reading.call(node, torch.permute, reading.computed(node.source(0)), list(node.get("perm")))


def _pad(reading: _Reading, node: _Node) -> None:
    pads = list(node.get("pads") or reading.numbers(node.source(1)))
    half = len(pads) // 2
    if node.get("mode", "constant") != "constant" or any(pads[: half - 2] + pads[half:-2]) or node.source(3):
        raise _OtherwiseError("pads otherwise than maps with a constant")
    value = float(reading.fixed(node.source(2))) if node.source(2) else float(node.get("value", 0.0))
    top, left, bottom, right = *pads[half - 2 : half], *pads[-2:]
    reading.call(node, F.pad, reading.computed(node.source(0)), [left, right, top, bottom], "constant", value)


def _softmax(reading: _Reading, node: _Node) -> None:
    reading.call(node, torch.softmax, reading.computed(node.source(0)), int(node.get("axis", -1)))


def _leaky(reading: _Reading, node: _Node) -> None:
    reading.call(node, F.leaky_relu, reading.computed(node.source(0)), float(node.get("alpha", 0.01)))


_READERS: dict[str, Callable[[_Reading, _Node], None]] = {
    "Add": _binary(torch.add),
    "AveragePool": _pool,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Concat": _concat,
    "Constant": _constant,
    "Conv": _conv,
    "Div": _binary(torch.div),
    "Dropout": _same_value,
    "Flatten": _reshape,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _unary(F.hardswish),
    "Identity": _same_value,
    "LeakyRelu": _leaky,
    "MatMul": _matmul,
    "MaxPool": _pool,
    "Mul": _binary(torch.mul),
    "Pad": _pad,
    "ReduceMean": _mean,
    "Relu": _unary(F.relu),
    "Reshape": _reshape,
    "Resize": _resize,
    "Sigmoid": _unary(torch.sigmoid),
    "Softmax": _softmax,
    "Squeeze": _squeeze,
    "Sub": _binary(torch.sub),
    "Tanh": _unary(torch.tanh),
    "Transpose": _transpose,
    "Unsqueeze": _squeeze,
}
