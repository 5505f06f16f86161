"""Quantization of TFLite graphs by ai-edge-quantizer, with the settings that keep one XNNPACK partition."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from distill.call_graph import WeightLayer, call_graph, weight_layers
from distill.core.errors import ArtifactError
from distill.core.types import Images

if TYPE_CHECKING:
    from distill.torch_predictor import Network
    from export.graph import Output, Tensors
    from export.quantize.plan import Int8Plan

__all__ = ["FIRST_BLOCK_SHARE", "FLOAT_CLASSIFIER", "float16_weights", "float_layers", "normalized", "quantize_int8"]

# XNNPACK has no int8 kernel for these: quantized, each would split the graph (mobilenetv3_small: 20 partitions and 3.5
# times the time of float). SOFTMAX in float also keeps small probabilities apart, which 256 steps would tie.
_LEFT_FLOAT = ("HARD_SWISH", "SOFTMAX")

FLOAT_CLASSIFIER = 50_000
"""Weights up to which the classifier stays float: at most 0.15 MB more, still the same partition. Fitted on few images
it leans on rarely active features (weights of 9 beside a median of 0.03), which 8 bits a class cannot hold: on 341
photos a MobileNetV2-0.35 agreed with float on 94.1 %, with a float classifier on 96.2 %."""

FIRST_BLOCK_SHARE = 0.16
"""Share of a network's multiply-accumulates up to which its first block stays float, if that is depthwise.

What the stem answers goes through nine weights a channel, over which rounding errors do not average out. On three
MobileNetV2-0.35 at 128 px the logits of 341 validation images stood 17.5, 18.5 and 18.6 dB above the error of int8,
with the first block float 23.0, 23.2 and 23.5 dB, in 0.50 instead of 0.71 ms. The block holds 5 to 15 % of MobileNetV2,
V3 and EfficientNet-Lite; a MobileNetV2-1.0 at 224 px took at most 3 % longer for it, 10 to 25 % for two layers more."""


def normalized(images: Images) -> Any:
    """What a uint8 input tensor of scale 2/255 and zero point 128 means: float32 in [-1.004, 0.996]."""
    return (images.astype(np.float32) - 128) * np.float32(2 / 255)


def float_layers(student: Network) -> frozenset[str]:
    """Names of the student's layers that stay float in an int8 file: a small classifier, and a small first block."""
    layers = weight_layers(student)
    block = _first_block(layers)
    if sum(layer.macs for layer in block) > FIRST_BLOCK_SHARE * sum(layer.macs for layer in layers):
        block = []
    classifier = student.backbone.get_classifier()  # type: ignore[operator]
    small = classifier.weight.numel() <= FLOAT_CLASSIFIER
    return frozenset(layer.name for layer in layers if layer in block or (small and layer.weights is classifier))


def _first_block(layers: list[WeightLayer]) -> list[WeightLayer]:
    """Stem, depthwise layer and on to the projection, whose answer is narrow and quickly rounded; else none.

    A part of it would not do: with the stem alone the three MobileNetV2 stood at 17.4, 18.4 and 19.1 dB.
    """
    if [layer.depthwise for layer in layers[:2]] != [False, True]:
        return []
    return layers[: next((end for end, layer in enumerate(layers, 1) if layer.projects), 0)]


def quantize_int8(
    model: bytes, plan: Int8Plan, *, output: Output = "probabilities", tensors: Tensors = "bytes"
) -> bytes:
    """Static int8: weights symmetric by channel, activations by the plan's ranges, else by minimum and maximum.

    The quantizer's own `calibrate()` takes a moving average of each image's range, which clips (on a pretrained
    MobileNetV1-0.25: 41.9 % instead of 49 % top-1, float 54.3 %); the true minimum and maximum do not.

    Args:
        model: float TFLite file whose one input takes values in [-1, 1], or 0..255 where it stays float.
        plan: whose student the file was made from.
        output: what the file answers.
        tensors: what it takes and gives.

    Returns:
        A TFLite file. bytes: uint8 input (scale 2/255, zero point 128: camera bytes as they are), float32 output. int8:
        input of zero point 0, bytes less 128; int8 output, of probabilities with scale 1/256 and zero point -128.
        float: both float32.

    Raises:
        ArtifactError: the file's layers cannot be told apart.
    """
    from ai_edge_quantizer import calibrator, qtyping, quantizer, recipe
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import TFLOperationName
    from ai_edge_quantizer.utils import qsv_utils

    work = quantizer.Quantizer(bytearray(model))
    work.load_quantization_recipe(recipe.static_wi8_ai8())
    unsigned = qtyping.TensorQuantizationConfig(num_bits=8, symmetric=False, dtype=qtyping.TensorDataType.UINT)
    as_bytes = qtyping.OpQuantizationConfig(
        activation_tensor_config=unsigned, compute_precision=qtyping.ComputePrecision.INTEGER
    )
    if tensors == "bytes":
        work.update_quantization_recipe(".*", TFLOperationName.INPUT, as_bytes)
    ends = {"bytes": ["OUTPUT"], "float": ["INPUT", "OUTPUT"], "int8": ["OUTPUT"] if output == "class_map" else []}
    left = [(".*", name) for name in (*ends[tensors], *_LEFT_FLOAT)] + _operators(model, plan) + _in_front(model)
    for scope, name in left:
        work.update_quantization_recipe(scope, TFLOperationName[name], algorithm_key=AlgorithmName.NO_QUANTIZE)
    measured = calibrator.Calibrator(bytearray(model), num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    ((signature, named),) = measured._tfl_interpreter.get_signature_list().items()
    (name,) = named["inputs"]
    shown = [image.astype(np.float32) if tensors == "float" else normalized(image) for image in plan.calibration]
    measured.calibrate({signature: [{name: image} for image in shown]}, work._recipe_manager)
    ranges = measured.get_model_qsvs()
    chosen = _chosen(model, plan)
    if tensors == "int8" and output == "probabilities":
        chosen[_output(model)] = (0.0, 255 / 256)
    for tensor, (low, high) in chosen.items():
        ranges[tensor] = {
            "min": np.full_like(ranges[tensor]["min"], low),
            "max": np.full_like(ranges[tensor]["max"], high),
        }
    # All bytes can come from a camera, whatever the calibration images hold. A range of -1 to 1 would have 127.5 as its
    # zero point, which is rounded to 127.
    least, most = normalized(np.array([0, 255], np.uint8))
    for tensor in _fed_by_input(model) if tensors != "float" else []:
        ranges[tensor] = {
            "min": np.full_like(ranges[tensor]["min"], least),
            "max": np.full_like(ranges[tensor]["max"], most),
        }
    return bytes(work.quantize(ranges).quantized_model)


def float16_weights(model: bytes) -> bytes:
    """Weights stored as float16 and widened when the file is loaded: half the size, the speed of float32."""
    from ai_edge_quantizer import qtyping, quantizer
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    work = quantizer.Quantizer(bytearray(model))
    half = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
    stored = qtyping.OpQuantizationConfig(
        weight_tensor_config=half, compute_precision=qtyping.ComputePrecision.FLOAT, explicit_dequantize=True
    )
    work.update_quantization_recipe(
        ".*", qtyping.TFLOperationName.ALL_SUPPORTED, stored, algorithm_key=AlgorithmName.FLOAT_CASTING
    )
    return bytes(work.quantize().quantized_model)


def _fed_by_input(model: bytes) -> list[str]:
    """Names of the graph's input and of the tensor that padding alone makes of it."""
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils

    graph = tfl_flatbuffer_utils.read_model(bytearray(model)).subgraphs[0]
    codes = tfl_flatbuffer_utils.read_model(bytearray(model)).operatorCodes
    (first,) = graph.inputs
    names = [graph.tensors[first].name.decode()]
    padded = [op for op in graph.operators if first in op.inputs and codes[op.opcodeIndex].builtinCode == _PAD]
    return names + [graph.tensors[op.outputs[0]].name.decode() for op in padded]


def _output(model: bytes) -> str:
    """Name of the graph's output."""
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils

    graph = tfl_flatbuffer_utils.read_model(bytearray(model)).subgraphs[0]
    name: str = graph.tensors[graph.outputs[0]].name.decode()
    return name


def _in_front(model: bytes) -> list[tuple[str, str]]:
    """Scope and kind of sums and products of the input with constants: what is left of a normalisation stays float."""
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils

    found = tfl_flatbuffer_utils.read_model(bytearray(model))
    graph = found.subgraphs[0]
    fed, made = {graph.inputs[0]}, {output for op in graph.operators for output in op.outputs}
    left = []
    for op in graph.operators:
        kind = _OF_NUMBERS.get(found.operatorCodes[op.opcodeIndex].builtinCode, "")
        computed = [tensor for tensor in op.inputs if tensor in made or tensor in graph.inputs]
        if kind and computed and all(tensor in fed for tensor in computed):
            fed.update(op.outputs)
            left.append((f"^{re.escape(tfl_flatbuffer_utils.get_op_scope(op, graph.tensors))}$", kind))
    return left


def _operators(model: bytes, plan: Int8Plan) -> list[tuple[str, str]]:
    """Scope (a regular expression) and kind of the operators that the plan's float layers became."""
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils

    graph, operators = _weighted(model, plan.student)
    return [
        (f"^{re.escape(tfl_flatbuffer_utils.get_op_scope(op, graph.tensors))}$", kind)
        for name, (op, kind) in operators.items()
        if name in plan.float_layers
    ]


def _chosen(model: bytes, plan: Int8Plan) -> dict[str, tuple[float, float]]:
    """The plan's ranges by the names that its tensors have in the file."""
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils

    graph, operators = _weighted(model, plan.student)
    made = {name: op.outputs[0] for name, (op, _) in operators.items()}
    codes = tfl_flatbuffer_utils.read_model(bytearray(model)).operatorCodes
    fed = {graph.inputs[0]} | {output for op in graph.operators for output in op.outputs}
    sums = [
        op.outputs[0]
        for op in graph.operators
        if codes[op.opcodeIndex].builtinCode == _ADD and all(tensor in fed for tensor in op.inputs)
    ]
    if len(sums) == sum(call.name.startswith("add ") and not call.fused for call in call_graph(plan.student)):
        made |= {f"add {number}": tensor for number, tensor in enumerate(sums)}
    lost = sorted(plan.ranges.keys() - made)
    if lost:
        raise ArtifactError(f"the graph has no tensor for the ranges of {', '.join(lost[:3])}")
    return {graph.tensors[made[name]].name.decode(): ends for name, ends in plan.ranges.items()}


def _weighted(model: bytes, student: Network) -> tuple[Any, dict[str, tuple[Any, str]]]:
    """The graph, and the operator and its kind that each layer of the student became."""
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils

    found = tfl_flatbuffer_utils.read_model(bytearray(model))
    graph = found.subgraphs[0]
    kinds = [_WITH_WEIGHTS.get(found.operatorCodes[op.opcodeIndex].builtinCode, "") for op in graph.operators]
    operators = [(op, kind) for op, kind in zip(graph.operators, kinds, strict=True) if kind]
    layers = weight_layers(student)
    sizes = [int(np.prod(graph.tensors[op.inputs[1]].shape)) for op, _ in operators]
    if sizes != [layer.weights.weight.numel() for layer in layers]:  # conversion keeps the order in which layers run
        raise ArtifactError(f"the graph's {len(sizes)} layers with weights are not the student's {len(layers)}")
    return graph, {layer.name: made for layer, made in zip(layers, operators, strict=True)}


_WITH_WEIGHTS = {3: "CONV_2D", 4: "DEPTHWISE_CONV_2D", 9: "FULLY_CONNECTED"}  # BuiltinOperator of the TFLite schema
_PAD = 34
_ADD = 0
_OF_NUMBERS = {_ADD: "ADD", 18: "MUL", 41: "SUB", 42: "DIV"}
