"""A file that does not open, crashes, hangs or lies is one clear verdict in the parent process."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper

from distill.core.errors import ArtifactError
from export.graph import Output
from export.isolated import FilePredictor


def write_model(path: Path, *, size: int = 8, shape: tuple[int, ...] | None = None, scale: float = 0.001) -> Path:
    """A three-class ONNX file: mean colour, scaled; its answers are easy to compute by hand."""
    x = helper.make_tensor_value_info("image", TensorProto.UINT8, shape or (1, size, size, 3))
    y = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, (1, 3))
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "scale"], ["probabilities"]),
    ]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
        helper.make_tensor("scale", TensorProto.FLOAT, [], [scale]),
    ]
    graph = helper.make_graph(nodes, "mean", [x], [y], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


CLASSES = ("red", "green", "blue")


def test_answers_are_logarithms_of_the_files_probabilities(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    with FilePredictor(write_model(tmp_path / "m.onnx"), "onnx", CLASSES) as predictor:
        assert predictor.image_size == 8
        assert predictor.load_ms > 0
        answers = predictor.predict(images)
    assert answers.dtype == np.float32 and answers.shape == (5, 3)
    np.testing.assert_allclose(answers, np.log(images.mean(axis=(1, 2)) * 0.001), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "format_name", "content"),
    [
        ("m.onnx", "onnx", b""),
        ("m.onnx", "onnx", b"\x00garbage" * 50),
        ("m.tflite", "tflite", b""),
        ("m.tflite", "tflite", b"\x1c\x00\x00\x00TFL3" + b"\xff" * 300),
        ("m.tflite", "tflite", b"not a model at all"),
    ],
)
def test_garbage_is_refused(tmp_path: Path, name: str, format_name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=rf"^{name}: the runtime (refused it|ended with)"):
        FilePredictor(tmp_path / name, format_name, CLASSES)


def test_an_aborted_runtime_is_named_by_its_signal(tmp_path: Path) -> None:
    predictor = FilePredictor(write_model(tmp_path / "m.onnx"), "onnx", CLASSES)
    os.kill(predictor._process.pid, signal.SIGABRT)
    with pytest.raises(ArtifactError, match=r"^m.onnx: the runtime ended with SIGABRT"):
        predictor.predict(np.zeros((1, 8, 8, 3), np.uint8))


def test_a_hanging_runtime_is_ended(tmp_path: Path) -> None:
    predictor = FilePredictor(write_model(tmp_path / "m.onnx"), "onnx", CLASSES)
    predictor._timeout_s = 0.2
    os.kill(predictor._process.pid, signal.SIGSTOP)
    with pytest.raises(ArtifactError, match=r"^m.onnx: no answer within 0.2 s"):
        predictor.predict(np.zeros((1, 8, 8, 3), np.uint8))
    assert predictor._process.poll() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("changes", "classes", "sentence"),
    [
        ({"shape": (1, 3, 8, 8)}, CLASSES, r"its input is uint8 \[1, 3, 8, 8\], expected uint8 \[1, S, S, 3\]"),
        ({"shape": (1, 8, 9, 3)}, CLASSES, r"its input is uint8 \[1, 8, 9, 3\]"),
        ({}, ("cat", "dog"), r"its output is float32 \[1, 3\], expected float32 \[1, 2\] or \[1, h, w, 2\]"),
    ],
)
def test_other_shapes_are_refused(tmp_path: Path, changes: dict, classes: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ArtifactError, match=sentence):
        FilePredictor(write_model(tmp_path / "m.onnx", **changes), "onnx", classes)


def write_map_model(path: Path, *, kind: str = "probabilities", scale: float = 1 / 255) -> Path:
    """8 px to 4x4 cells of three classes: every second pixel, scaled. As a class map: its red value, over 64."""
    x = helper.make_tensor_value_info("image", TensorProto.UINT8, (1, 8, 8, 3))
    nodes = [helper.make_node("Slice", ["image", "starts", "ends", "axes", "steps"], ["cells"])]
    constants = [
        helper.make_tensor("starts", TensorProto.INT64, [2], [0, 0]),
        helper.make_tensor("ends", TensorProto.INT64, [2], [8, 8]),
        helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
        helper.make_tensor("steps", TensorProto.INT64, [2], [2, 2]),
    ]
    if kind == "class_map":
        y = helper.make_tensor_value_info("answer", TensorProto.UINT8, (1, 4, 4))
        constants += [
            helper.make_tensor("first", TensorProto.INT64, [], [0]),
            helper.make_tensor("step", TensorProto.UINT8, [], [64]),
        ]
        nodes += [
            helper.make_node("Gather", ["cells", "first"], ["red"], axis=3),
            helper.make_node("Div", ["red", "step"], ["answer"]),
        ]
    else:
        y = helper.make_tensor_value_info("answer", TensorProto.FLOAT, (1, 4, 4, 3))
        constants += [helper.make_tensor("scale", TensorProto.FLOAT, [], [scale])]
        nodes += [
            helper.make_node("Cast", ["cells"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["floats", "scale"], ["answer"]),
        ]
    graph = helper.make_graph(nodes, "maps", [x], [y], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def noise(images: int = 3) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (images, 8, 8, 3), dtype=np.uint8)


def test_maps_keep_their_grid_and_have_the_classes_last(tmp_path: Path) -> None:
    images = noise()
    with FilePredictor(write_map_model(tmp_path / "m.onnx"), "onnx", CLASSES) as predictor:
        answers = predictor.predict(images)
    assert answers.dtype == np.float32 and answers.shape == (3, 4, 4, 3)
    expected = np.log(np.maximum(images[:, ::2, ::2] / 255, 1e-12))
    np.testing.assert_allclose(answers, expected, rtol=1e-5)


def test_logits_are_taken_as_they_are(tmp_path: Path) -> None:
    images = noise()
    with FilePredictor(write_map_model(tmp_path / "m.onnx", scale=-0.1), "onnx", CLASSES, output="logits") as predictor:
        answers = predictor.predict(images)
    np.testing.assert_allclose(answers, images[:, ::2, ::2] * -0.1, rtol=1e-5)
    assert answers.dtype == np.float32 and answers.min() < 0


def test_a_class_map_says_one_class_a_cell(tmp_path: Path) -> None:
    images = np.minimum(noise(), 191)  # red over 64 is 0, 1 or 2
    path = write_map_model(tmp_path / "m.onnx", kind="class_map")
    with FilePredictor(path, "onnx", CLASSES, output="class_map") as predictor:
        answers = predictor.predict(images)
    assert answers.dtype == np.float32 and answers.shape == (3, 4, 4, 3)
    np.testing.assert_array_equal(answers.argmax(axis=-1), images[:, ::2, ::2, 0] // 64)
    assert set(np.unique(answers)) == {np.float32(np.log(1e-12)), np.float32(0)}


def test_a_class_that_is_none_is_refused(tmp_path: Path) -> None:
    path = write_map_model(tmp_path / "m.onnx", kind="class_map")
    predictor = FilePredictor(path, "onnx", CLASSES, output="class_map")
    with pytest.raises(ArtifactError, match=r"^m\.onnx: it answered with class 3, expected 0 to 2"):
        predictor.predict(np.full((1, 8, 8, 3), 255, np.uint8))


@pytest.mark.parametrize(
    ("kind", "output", "sentence"),
    [
        ("class_map", "probabilities", r"its output is uint8 \[1, 4, 4\], expected float32 \[1, 3\] or \[1, h, w, 3\]"),
        ("class_map", "logits", r"its output is uint8 \[1, 4, 4\], expected float32"),
        ("probabilities", "class_map", r"its output is float32 \[1, 4, 4, 3\], expected uint8 \[1, h, w\]"),
    ],
)
def test_other_answers_than_said_are_refused(tmp_path: Path, kind: str, output: Output, sentence: str) -> None:
    with pytest.raises(ArtifactError, match=sentence):
        FilePredictor(write_map_model(tmp_path / "m.onnx", kind=kind), "onnx", CLASSES, output=output)


def test_logits_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    path = write_map_model(tmp_path / "m.onnx", scale=float("inf"))
    predictor = FilePredictor(path, "onnx", CLASSES, output="logits")
    with pytest.raises(ArtifactError, match="it answered with values that are no logits"):
        predictor.predict(noise())


@pytest.mark.parametrize("scale", [float("nan"), -1.0])
def test_answers_that_are_no_probabilities_are_refused(tmp_path: Path, scale: float) -> None:
    predictor = FilePredictor(write_model(tmp_path / "m.onnx", scale=scale), "onnx", CLASSES)
    with pytest.raises(ArtifactError, match="no probabilities"):
        predictor.predict(np.full((1, 8, 8, 3), 9, np.uint8))


def test_timing_keeps_each_sample(tmp_path: Path) -> None:
    with FilePredictor(write_model(tmp_path / "m.onnx"), "onnx", CLASSES) as predictor:
        timed = predictor.time(np.zeros((1, 8, 8, 3), np.uint8), runs=7, warmup=2)
    assert len(timed["samples_ms"]) == 7
    assert min(timed["samples_ms"]) > 0
    assert 10 < timed["peak_memory_mb"] < 500, "of the child, not of this process"
