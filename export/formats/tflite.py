"""TFLite for LiteRT on Android: float32, float16 weights, or int8 in one XNNPACK partition."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, final

import numpy as np
import numpy.typing as npt

from distill.core.files import replacing
from distill.core.settings import Settings
from export.formats._base import Format, LayerRunner, Precision, Runner

if TYPE_CHECKING:
    from distill.torch_predictor import Network
    from export.about import About
    from export.graph import Output, Tensors
    from export.quantize.plan import Int8Plan

__all__ = ["Config", "TFLite", "build"]


class Config(Settings):
    """TFLite has no settings of its own."""


@final
class _LiteRT(Runner):
    def __init__(self, path: Path, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(str(path), num_threads=threads)
        self._interpreter.allocate_tensors()
        self._inputs = self._interpreter.get_input_details()
        self._outputs = self._interpreter.get_output_details()

    @property
    def facts(self) -> dict[str, Any]:
        # The plan lists the operators of the file and, behind them, one DELEGATE node for each delegated partition.
        plan = self._interpreter._get_ops_details()
        names = Counter(str(op["op_name"]) for op in plan)
        partitions = names.pop("DELEGATE", 0)
        return {
            "inputs": [_tensor(each) for each in self._inputs],
            "outputs": [_tensor(each) for each in self._outputs],
            "partitions": partitions,
            "outside": _outside(plan, [int(each["index"]) for each in self._outputs]),
            "operators": dict(sorted(names.items())),
        }

    def run(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        (taken,), (given,) = self._inputs, self._outputs
        self._interpreter.set_tensor(taken["index"], image)
        self._interpreter.invoke()
        return cast(npt.NDArray[Any], self._interpreter.get_tensor(given["index"]))


@final
class _Layers(LayerRunner):
    def __init__(self, path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        self._interpreter = Interpreter(
            str(path), experimental_op_resolver_type=plain, experimental_preserve_all_tensors=True, num_threads=1
        )
        self._interpreter.allocate_tensors()
        tensors = {int(each["index"]): each for each in self._interpreter.get_tensor_details()}
        plan = self._interpreter._get_ops_details()
        made = {int(each["index"]) for each in self._interpreter.get_input_details()}
        made |= {int(tensor) for op in plan for tensor in op["outputs"]}
        kept = [
            op
            for op in plan
            if op["op_name"] in _WITH_WEIGHTS or (op["op_name"] == "ADD" and all(int(t) in made for t in op["inputs"]))
        ]
        self._made = [tensors[int(op["outputs"][0])] for op in kept]
        self.layers = [
            {"kind": str(op["op_name"]), "name": str(each["name"]), "dtype": np.dtype(each["dtype"]).name}
            for op, each in zip(kept, self._made, strict=True)
        ]

    def run(self, image: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        (taken,) = self._interpreter.get_input_details()
        self._interpreter.set_tensor(taken["index"], image)
        self._interpreter.invoke()
        return [self._real(each) for each in self._made]

    def _real(self, details: dict[str, Any]) -> npt.NDArray[np.float32]:
        values = self._interpreter.get_tensor(details["index"])
        scale, zero_point = details["quantization"]
        if scale and np.issubdtype(values.dtype, np.integer):
            real: npt.NDArray[np.float32] = (values.astype(np.float32) - zero_point) * np.float32(scale)
            return real
        return cast(npt.NDArray[np.float32], values.astype(np.float32))


@final
class TFLite(Format):
    """Converts by litert-torch, quantizes by ai-edge-quantizer, runs by LiteRT."""

    runtime = "LiteRT"
    suffix = ".tflite"
    precisions = ("float32", "float16", "int8")
    packages = ("torch", "litert-torch", "ai-edge-quantizer", "ai-edge-litert")
    rungs = 4

    def write(
        self,
        source: Network | Int8Plan,
        precision: Precision,
        path: Path,
        *,
        output: Output = "probabilities",
        upsample: bool = False,
        tensors: Tensors = "bytes",
    ) -> None:
        import litert_torch
        import torch

        from distill.torch_predictor import Network
        from export.graph import ForBytes, ForFloats, ForNormalized
        from export.quantize.tflite import float16_weights, quantize_int8

        student = source if isinstance(source, Network) else source.student
        size = student.image_size
        floats = precision == "int8" or tensors == "float"
        example = torch.zeros(1, size, size, 3, dtype=torch.float32 if floats else torch.uint8)
        if precision != "int8":
            kind: type[torch.nn.Module] = ForBytes
        elif tensors == "float":
            kind = ForFloats
        else:
            kind = ForNormalized  # the input tensor's own scale and zero point do the rest: see quantize_int8
        graph = kind(student, output, upsample=upsample)
        converted = litert_torch.convert(graph.eval(), (example,)).model_content()
        if precision == "float16":
            converted = float16_weights(converted)
        elif not isinstance(source, Network):
            converted = quantize_int8(converted, source, output=output, tensors=tensors)
        path.write_bytes(converted)

    def describe(self, path: Path, about: About) -> None:
        from export.tflite_metadata import with_metadata

        described = with_metadata(path.read_bytes(), about)
        with replacing(path) as temporary:
            temporary.write_bytes(described)

    def float_layers(self, student: Network) -> frozenset[str]:
        from export.quantize.tflite import float_layers

        return float_layers(student)

    def open(self, path: Path, threads: int) -> Runner:
        return _LiteRT(path, threads)

    def open_layers(self, path: Path) -> LayerRunner:
        return _Layers(path)


def build(config: Config) -> Format:
    """The format."""
    return TFLite()


_WITH_WEIGHTS = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}


def _outside(plan: Sequence[dict[str, Any]], outputs: Sequence[int]) -> dict[str, int]:
    """Operators that run, but in no delegated partition: those that the outputs are made of, as far as they are left.

    The plan still lists what the partitions have taken over; a tensor that a partition makes is made by nothing else.
    """
    makers: dict[int, dict[str, Any]] = {}
    for op in plan:
        for tensor in op["outputs"]:
            if op["op_name"] == "DELEGATE" or int(tensor) not in makers:
                makers[int(tensor)] = op
    wanted, run = list(outputs), dict[int, str]()
    while wanted:
        maker = makers.get(wanted.pop())
        if maker is not None and maker["index"] not in run:
            run[maker["index"]] = str(maker["op_name"])
            wanted += [int(tensor) for tensor in maker["inputs"] if tensor >= 0]
    return dict(sorted(Counter(name for name in run.values() if name != "DELEGATE").items()))


def _tensor(details: dict[str, Any]) -> dict[str, Any]:
    scale, zero_point = details["quantization"]
    return {
        "name": str(details["name"]),
        "dtype": np.dtype(details["dtype"]).name,
        "shape": [int(n) for n in details["shape"]],
        "scale": float(scale),
        "zero_point": int(zero_point),
    }
