"""Quantization of TFLite graphs by ai-edge-quantizer, with the settings that keep one XNNPACK partition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distill.core.types import Images

__all__ = ["FLOAT_CLASSIFIER", "float16_weights", "normalized", "quantize_int8"]

# XNNPACK has no int8 kernel for these: quantized, each would split the graph (mobilenetv3_small: 20 partitions and 3.5
# times the time of float). SOFTMAX in float also keeps small probabilities apart, which 256 steps would tie.
_LEFT_FLOAT = ("HARD_SWISH", "SOFTMAX")

FLOAT_CLASSIFIER = 50_000
"""Weights up to which the classifier stays float: at most 0.15 MB more, still the same partition. Fitted on few images
it leans on rarely active features (weights of 9 beside a median of 0.03), which 8 bits a class cannot hold: on 341
photos a MobileNetV2-0.35 agreed with float on 94.1 %, with a float classifier on 96.2 %."""


def normalized(images: Images) -> Any:
    """What a uint8 input tensor of scale 2/255 and zero point 128 means: float32 in [-1.004, 0.996]."""
    return (images.astype(np.float32) - 128) * np.float32(2 / 255)


def quantize_int8(model: bytes, calibration: Sequence[Images]) -> bytes:
    """Static int8: weights symmetric by channel, activations by minimum and maximum over the calibration images.

    The quantizer's own `calibrate()` takes a moving average of each image's range, which clips (on a pretrained
    MobileNetV1-0.25: 41.9 % instead of 49 % top-1, float 54.3 %); the true minimum and maximum do not.

    Args:
        model: float TFLite file whose one input takes values in [-1, 1].
        calibration: at least one uint8 [1, S, S, 3].

    Returns:
        A TFLite file with uint8 input (scale 2/255, zero point 128: camera bytes as they are) and float32 output.
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
    work.update_quantization_recipe(".*", TFLOperationName.INPUT, as_bytes)
    classifier = ("FULLY_CONNECTED",) if _largest_classifier(model) <= FLOAT_CLASSIFIER else ()
    for name in ("OUTPUT", *_LEFT_FLOAT, *classifier):
        work.update_quantization_recipe(".*", TFLOperationName[name], algorithm_key=AlgorithmName.NO_QUANTIZE)
    measured = calibrator.Calibrator(bytearray(model), num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    ((signature, tensors),) = measured._tfl_interpreter.get_signature_list().items()
    (name,) = tensors["inputs"]
    measured.calibrate({signature: [{name: normalized(image)} for image in calibration]}, work._recipe_manager)
    ranges = measured.get_model_qsvs()
    # All bytes can come from a camera, whatever the calibration images hold.
    for tensor in _fed_by_input(model):
        ranges[tensor] = {
            "min": np.full_like(ranges[tensor]["min"], -1.0),
            "max": np.full_like(ranges[tensor]["max"], 1.0),
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


def _largest_classifier(model: bytes) -> int:
    """Weights of the largest fully connected layer."""
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils

    found = tfl_flatbuffer_utils.read_model(bytearray(model))
    graph = found.subgraphs[0]
    dense = [op for op in graph.operators if found.operatorCodes[op.opcodeIndex].builtinCode == _FULLY_CONNECTED]
    return max((int(np.prod(graph.tensors[op.inputs[1]].shape)) for op in dense), default=0)


_FULLY_CONNECTED = 9  # BuiltinOperator of the TFLite schema
_PAD = 34
