"""Exported programs and ONNX files become networks of known layers that answer as before, for any batch."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from distill.call_graph import call_graph, weight_layers
from distill.core.errors import CheckpointError, UserError
from export.isolated import IsolatedFile
from export.lifted import lift
from export.onnx_network import input_shape, read_onnx
from export.own_student import network_of, open_program
from tests.export.brought_net import Pixels, small

ONE, NONE = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)


def exported(network: nn.Module, size: int = 32) -> torch.export.ExportedProgram:
    return torch.export.export(network, (torch.zeros(1, 3, size, size),))


@torch.no_grad()
def test_a_program_written_for_one_image_answers_several() -> None:
    network = small()
    images = torch.randn(3, 3, 32, 32)
    lifted = lift(exported(network), ONE, NONE)
    torch.testing.assert_close(lifted(images), network(images), atol=1e-5, rtol=1e-5)


def test_layers_keep_their_names_and_their_batch_norms() -> None:
    student = network_of(exported(small()), ["a", "b", "c", "d", "e"], 32, (0.5,) * 3, (0.5,) * 3)
    layers = weight_layers(student)
    assert [layer.name for layer in layers] == [
        f"backbone.{name}" for name in ("stem.0", "deep.0", "project.0", "expand.0", "back", "head")
    ]
    assert [layer.norm is not None for layer in layers] == [True, True, True, True, False, False]
    assert [call.kind for call in call_graph(student) if not call.fused and not call.layer] == [
        "relu6", "relu6", "batch_norm", "batch_norm", "hardswish", "add", "adaptive_avg_pool2d",
    ]  # fmt: skip
    assert student.backbone.get_classifier() is student.backbone.get_submodule("head")


@torch.no_grad()
def test_pixels_are_normalised_as_the_network_wants_them_up_to_the_border() -> None:
    network, mean, std = small(), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    pixels = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    given = (pixels.permute(0, 3, 1, 2) / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    student = network_of(exported(network), [], 32, mean, std)
    torch.testing.assert_close(student(pixels), network(given), atol=1e-4, rtol=1e-4)
    assert student.class_names == ("0", "1", "2", "3", "4")


@torch.no_grad()
def test_a_softmax_at_the_end_is_left_out() -> None:
    network = nn.Sequential(small(), nn.Softmax(dim=1)).eval()
    images = torch.randn(2, 3, 32, 32)
    lifted = lift(exported(network), ONE, NONE)
    torch.testing.assert_close(lifted(images).softmax(dim=1), network(images), atol=1e-5, rtol=1e-5)
    assert lifted(images).min() < 0


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = small()

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.inner(images)
        return {"logits": logits, "twice": logits * 2}


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (Two(), "the network gives 2 outputs, expected one: its logits"),
        (small().train(), "exported in training mode"),
        (nn.Flatten(), "no convolution and no linear layer"),
    ],
)
def test_what_is_no_such_network_is_refused(network: nn.Module, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        lift(exported(network), ONE, NONE)


def test_a_damaged_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.pt2").write_bytes(b"PK\x03\x04 not much of an archive")
    with pytest.raises(CheckpointError, match=r"net\.pt2: no \.pt2 file of torch\.export\.save"):
        open_program(tmp_path / "net.pt2")


class Payload:
    """Unpickled, it writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.target, "run")


def test_nothing_in_a_program_is_unpickled_that_could_run(tmp_path: Path) -> None:
    torch.save(Payload(tmp_path / "written"), tmp_path / "payload")
    torch.export.save(exported(small()), tmp_path / "good.pt2")
    with zipfile.ZipFile(tmp_path / "good.pt2") as good, zipfile.ZipFile(tmp_path / "net.pt2", "w") as bad:
        for name in good.namelist():
            changed = name.endswith("sample_inputs/model.pt")
            bad.writestr(
                name.replace("good/", "net/", 1), (tmp_path / "payload").read_bytes() if changed else good.read(name)
            )
    with pytest.raises(CheckpointError, match=r"net\.pt2: no \.pt2 file"):
        open_program(tmp_path / "net.pt2")
    assert not (tmp_path / "written").exists()
    torch.load(tmp_path / "payload", weights_only=False)
    assert (tmp_path / "written").exists(), "it would have been"


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(0, 0.3, shape).astype(np.float32)


def write_onnx(
    path: Path, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], batch: str | int = 1, size: int = 15
) -> Path:
    given = helper.make_tensor_value_info("images", TensorProto.FLOAT, (batch, 3, size, size))
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["N", "C", "h", "w"][: 2 if constants else 4])
    graph = helper.make_graph(
        nodes, "net", [given], [answer], [numpy_helper.from_array(value, name) for name, value in constants.items()]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


NODES = [
    helper.make_node("Conv", ["images", "stem.weight", "stem.bias"], ["a"], strides=[2, 2], auto_pad="SAME_UPPER"),
    helper.make_node("Clip", ["a", "zero", "six"], ["b"]),
    helper.make_node("Conv", ["b", "deep.weight"], ["c"], group=8, pads=[0, 0, 1, 1], name="/deep/Conv"),
    helper.make_node("BatchNormalization", ["c", "n.weight", "n.bias", "n.mean", "n.var"], ["d"]),
    helper.make_node("HardSigmoid", ["d"], ["e"], alpha=1 / 6, beta=0.5),
    helper.make_node("Mul", ["d", "e"], ["f"]),
    helper.make_node("MaxPool", ["f"], ["g"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    # Not in front of the pool: ONNX Runtime 1.31.1 fuses the two, and pads with other values than zero.
    helper.make_node("Pad", ["g", "pads"], ["h"]),
    helper.make_node("Resize", ["h", "", "", "sizes"], ["i"], mode="linear"),
    helper.make_node("Concat", ["i", "f"], ["j"], axis=1),
    helper.make_node("Transpose", ["j"], ["k"], perm=[0, 2, 3, 1]),
    helper.make_node("Transpose", ["k"], ["l"], perm=[0, 3, 1, 2]),
    helper.make_node("ReduceMean", ["l", "axes"], ["m"], keepdims=0),
    helper.make_node("Add", ["shift", "m"], ["o"]),
    helper.make_node("Gemm", ["o", "head.weight", "head.bias"], ["answer"], transB=1),
]
CONSTANTS = {
    "stem.weight": weights(8, 3, 3, 3), "stem.bias": weights(8), "zero": np.float32(0), "six": np.float32(6),
    "deep.weight": weights(8, 1, 2, 2), "n.weight": weights(8), "n.bias": weights(8), "n.mean": weights(8),
    "n.var": np.abs(weights(8)) + 0.1, "pads": np.array([0, 0, 1, 0, 0, 0, 0, 1]), "sizes": np.array([1, 8, 8, 8]),
    "axes": np.array([2, 3]), "shift": weights(1, 16), "head.weight": weights(4, 16), "head.bias": weights(4),
}  # fmt: skip


@pytest.mark.parametrize("batch", [1, "N"])
def test_an_onnx_file_answers_as_in_onnx_runtime(tmp_path: Path, batch: str | int) -> None:
    path = write_onnx(tmp_path / "net.onnx", NODES, CONSTANTS, batch)
    assert input_shape(path) == [0 if batch == "N" else 1, 3, 15, 15]
    network = read_onnx(path, (1, 3, 15, 15))
    images = np.random.default_rng(0).normal(size=(2, 3, 15, 15)).astype(np.float32)
    with IsolatedFile(path, "onnx") as opened:
        expected = opened.run(images)
    with torch.no_grad():
        np.testing.assert_allclose(network(torch.from_numpy(images)).numpy(), expected, atol=1e-5)
    named = [name for name, module in network.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    assert named == ["stem", "deep", "head"]


def test_all_unknown_operators_are_named_at_once(tmp_path: Path) -> None:
    nodes = [helper.make_node("Cos", ["images"], ["a"]), helper.make_node("Erf", ["a"], ["answer"])]
    path = write_onnx(tmp_path / "net.onnx", nodes, {})
    with pytest.raises(UserError, match=r"operators that are not known here: Cos, Erf\. If you have the torch model"):
        read_onnx(path, (1, 3, 15, 15))


def test_settings_without_a_like_in_torch_are_named(tmp_path: Path) -> None:
    nodes = [helper.make_node("HardSigmoid", ["images"], ["answer"], name="gate")]
    path = write_onnx(tmp_path / "net.onnx", nodes, {})
    with pytest.raises(UserError, match=r"HardSigmoid 'gate' has alpha 0\.2 and beta 0\.5"):
        read_onnx(path, (1, 3, 15, 15))


@torch.no_grad()
def test_pixels_answered_by_enlarged_maps() -> None:
    network = Pixels().eval()
    student = network_of(exported(network), [], 32, (0.5,) * 3, (0.5,) * 3)
    assert student.answers_maps and student.class_names == ("0", "1", "2")
    images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    torch.testing.assert_close(student(images), network(images.permute(0, 3, 1, 2) / 127.5 - 1), atol=1e-5, rtol=1e-5)
