"""ONNX for ONNX Runtime (mobile, desktop, web): float32, or int8 in QDQ form."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, final

import numpy as np
import numpy.typing as npt

from distill import __version__
from distill.core.files import replacing
from distill.core.settings import Settings
from export.formats._base import Format, LayerRunner, Precision, Runner

if TYPE_CHECKING:
    from distill.torch_predictor import Network
    from export.about import About
    from export.graph import Output, Tensors
    from export.quantize.plan import Int8Plan

__all__ = ["ONNX", "Config", "build"]

_OPSET = 18  # what the dynamo exporter writes without conversion; ONNX Runtime reads it since 1.14 (February 2023)
_IR_VERSION = 8
"""Of the file's own layout: the one that came with opset 18. The exporter writes 10, for notes on nodes that nothing
here keeps, and then ONNX Runtime refuses the file up to 1.17 (May 2024), which is in apps: 1.18 was the last release of
the package `onnxruntime-mobile`."""


class Config(Settings):
    """ONNX has no settings of its own."""


@final
class _OnnxRuntime(Runner):
    def __init__(self, path: Path, threads: int) -> None:
        import onnx
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._inputs, self._outputs = self._session.get_inputs(), self._session.get_outputs()
        self._operators = dict(sorted(Counter(n.op_type for n in onnx.load(path).graph.node).items()))

    @property
    def facts(self) -> dict[str, Any]:
        return {
            "inputs": [_tensor(each) for each in self._inputs],
            "outputs": [_tensor(each) for each in self._outputs],
            "partitions": None,  # one provider runs the whole graph
            "outside": {},
            "operators": self._operators,
        }

    def run(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        (taken,), (given,) = self._inputs, self._outputs
        (answers,) = self._session.run([given.name], {taken.name: image})
        return cast(npt.NDArray[Any], answers)


@final
class ONNX(Format):
    """Converts by torch's dynamo exporter, quantizes and runs by ONNX Runtime."""

    runtime = "ONNX Runtime"
    suffix = ".onnx"
    precisions = ("float32", "int8")
    packages = ("torch", "onnx", "onnxruntime")
    rungs = 1

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
        import onnx
        import torch

        from distill.torch_predictor import Network
        from export.graph import ForBytes

        student = source if isinstance(source, Network) else source.student
        taken = torch.float32 if tensors == "float" else torch.uint8
        example = torch.zeros(1, student.image_size, student.image_size, 3, dtype=taken)
        program = torch.onnx.export(
            ForBytes(student, output, upsample=upsample).eval(),
            (example,),
            dynamo=True,
            opset_version=_OPSET,
            input_names=["image"],
            output_names=[output],
            verbose=False,
        )
        assert program is not None
        model = program.model_proto
        if not isinstance(source, Network):
            with tempfile.TemporaryDirectory() as folder:
                prepared, quantized = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
                onnx.save(model, prepared)
                dtype = np.float32 if tensors == "float" else np.uint8
                _quantize(prepared, (image.astype(dtype) for image in source.calibration), quantized)
                model = onnx.load(quantized)
        _strip(model)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, path)

    def describe(self, path: Path, about: About) -> None:
        import onnx

        model = onnx.load(path)
        model.doc_string = about.description
        onnx.helper.set_model_props(model, about.properties())
        with replacing(path) as temporary:
            onnx.save(model, temporary)

    def float_layers(self, student: Network) -> frozenset[str]:
        return frozenset()

    def open(self, path: Path, threads: int) -> Runner:
        return _OnnxRuntime(path, threads)

    def open_layers(self, path: Path) -> LayerRunner:
        raise ValueError("ONNX Runtime does not show the tensors inside a file")


def build(config: Config) -> Format:
    """The format."""
    return ONNX()


def _strip(model: Any) -> None:
    """Leave what computes, in the layout that older runtimes read.

    The exporter notes for each node where in the source code it came from, with the paths of this machine: 4 to 8 % of
    a file, another one for each folder that the program is installed in, and nobody else's business. The quantizer adds
    operator sets that nothing uses.
    """
    used = {node.domain for node in model.graph.node} | {""}
    model.ir_version, model.producer_name, model.producer_version = _IR_VERSION, "mobile-distill", __version__
    sets = [each for each in model.opset_import if each.domain in used]
    del model.opset_import[:], model.metadata_props[:]
    model.opset_import.extend(sets)
    graph = model.graph
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""


def _quantize(source: Path, calibration: Iterable[npt.NDArray[Any]], path: Path) -> None:
    """Static QDQ int8 by minimum and maximum; weights symmetric by channel. Softmax stays float."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = source.with_name("prepared.onnx")
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._images = iter(calibration)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self._images, None)
            return None if image is None else {"image": image}

    # What stands in front of the first convolution (cast, scale, shift) and behind the last matrix product stays float.
    nodes = onnx.load(prepared).graph.node
    quantized = sorted(
        {n.op_type for n in nodes}
        & {"Conv", "Gemm", "MatMul", "Add", "Clip", "Relu", "GlobalAveragePool", "ReduceMean", "Mul", "HardSigmoid"}
    )
    first = next(i for i, n in enumerate(nodes) if n.op_type == "Conv")
    quantize_static(
        str(prepared),
        str(path),
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=quantized,
        nodes_to_exclude=[n.name for n in nodes[:first]],
        calibrate_method=CalibrationMethod.MinMax,
    )


def _tensor(value: Any) -> dict[str, Any]:
    dtypes = {"tensor(uint8)": "uint8", "tensor(float)": "float32", "tensor(int8)": "int8"}
    shape = [n if isinstance(n, int) else -1 for n in value.shape]
    return {
        "name": value.name,
        "dtype": dtypes.get(value.type, value.type),
        "shape": shape,
        "scale": 0.0,
        "zero_point": 0,
    }
