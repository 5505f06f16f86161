"""Which layers of an int8 file stay float: the rule, and a file of a whole run that keeps it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

from distill.call_graph import weight_layers
from distill.core.errors import ArtifactError
from distill.core.files import read_json
from distill.core.run import Run
from distill.torch_predictor import Network
from distill.trained_student import load_student
from export.formats.onnx import ONNX
from export.formats.tflite import TFLite
from export.quantize.plan import Int8Plan
from export.quantize.tflite import quantize_int8
from tests.workplace import Workplace

HALF = (0.5, 0.5, 0.5)


def network(name: str, size: int, classes: int = 6) -> Network:
    backbone = timm.create_model(name, num_classes=classes)
    return Network(backbone, [str(n) for n in range(classes)], size, HALF, HALF, pretrained=False).eval()


FIRST_BLOCK = {"backbone.conv_stem", "backbone.blocks.0.0.conv_dw", "backbone.blocks.0.0.conv_pw"}
SQUEEZE = {"backbone.blocks.0.0.se.conv_reduce", "backbone.blocks.0.0.se.conv_expand"}
CLASSIFIER = {"backbone.classifier"}


@pytest.mark.parametrize(
    ("name", "size", "classes", "stay"),
    [
        ("mobilenetv2_035", 128, 6, FIRST_BLOCK | CLASSIFIER),
        ("mobilenetv2_100", 224, 6, FIRST_BLOCK | CLASSIFIER),
        ("mobilenetv2_100", 224, 1000, FIRST_BLOCK),
        ("mobilenetv3_small_100", 224, 6, FIRST_BLOCK | SQUEEZE | CLASSIFIER),
        ("mobilenetv4_conv_small", 64, 6, CLASSIFIER),
        ("mobilenetv4_conv_small", 224, 6, CLASSIFIER),
    ],
)
def test_a_depthwise_first_block_and_a_small_classifier(name: str, size: int, classes: int, stay: set[str]) -> None:
    assert TFLite().float_layers(network(name, size, classes)) == stay
    assert ONNX().float_layers(network(name, size, classes)) == set()


class Segmenter(nn.Module):
    """A depthwise first block in front of as much as `width` makes of the rest; its last layer is a convolution."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        first = [nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.Conv2d(8, 4, 1)]
        self.layers = nn.Sequential(*first, nn.Conv2d(4, width, 3, 2, 1), nn.Conv2d(width, classes, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.layers(images)
        return maps

    def get_classifier(self) -> nn.Module:
        return self.layers[-1]


@pytest.mark.parametrize(
    ("width", "classes", "stay"),
    [
        (512, 21, {0, 1, 2, 4}),  # the block: 320 x 256 of 1,949,696 multiply-accumulates; 10,752 weights at the end
        (512, 100, {0, 1, 2}),  # 51,200 weights at the end
        (8, 21, {4}),  # the block: 320 x 256 of 111,104
    ],
)
def test_a_share_of_the_network_and_a_convolution_at_the_end(width: int, classes: int, stay: set[int]) -> None:
    names = [str(n) for n in range(classes)]
    student = Network(Segmenter(width, classes), names, 32, HALF, HALF, pretrained=False, answers_maps=True).eval()
    assert TFLite().float_layers(student) == {f"backbone.layers.{n}" for n in stay}


def dtypes_of_weights(path: Path) -> list[str]:
    """Of the layers of a TFLite file, in order."""
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils

    model = tfl_flatbuffer_utils.read_model(str(path))
    graph = model.subgraphs[0]
    dtypes = {0: "float32", 9: "int8"}
    weighted = {3, 4, 9}  # CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED
    operators = [op for op in graph.operators if model.operatorCodes[op.opcodeIndex].builtinCode in weighted]
    return [dtypes[graph.tensors[op.inputs[1]].type] for op in operators]


@pytest.mark.parametrize(
    "run", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in ("finished", "segmented")]
)
def test_the_file_keeps_these_layers_float_and_rounds_the_others(run: str, request: pytest.FixtureRequest) -> None:
    place: Workplace = request.getfixturevalue(run)
    student, _ = load_student(Run(place.root / "runs/teacher"))
    stay = TFLite().float_layers(student)
    expected = ["float32" if layer.name in stay else "int8" for layer in weight_layers(student)]
    assert {"float32", "int8"} == set(expected)
    assert expected[0] == ("float32" if run == "finished" else "int8"), "a MobileNetV3 begins float, a MobileNetV4 not"
    path = place.root / "runs/teacher/export/student.int8.tflite"
    assert dtypes_of_weights(path) == expected
    assert read_json(path.with_name(path.name + ".json"))["partitions"] == 1


def test_a_graph_of_another_network_is_refused(finished: Workplace) -> None:
    model = (finished.root / "runs/teacher/export/student.float32.tflite").read_bytes()
    images, other = [np.zeros((1, 32, 32, 3), np.uint8)], network("mobilenetv2_035", 32)
    with pytest.raises(ArtifactError, match=r"^the graph's 36 layers with weights are not the student's 53$"):
        quantize_int8(model, Int8Plan(other, other, frozenset(), images, {}))
