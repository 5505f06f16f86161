"""ONNX files: what they say of themselves, and that ONNX Runtime on phones can read them."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

import distill
from distill.core.files import read_json
from tests.workplace import Workplace


@pytest.fixture(params=["float32", "int8"])
def file(finished: Workplace, request: pytest.FixtureRequest) -> Path:
    return finished.root / f"runs/teacher/export/student.{request.param}.onnx"


def test_its_properties_say_what_the_manifest_says(file: Path) -> None:
    model, manifest = onnx.load(file), read_json(file.with_name(file.name + ".json"))
    said = {each.key: each.value for each in model.metadata_props}
    assert json.loads(said["labels"]) == manifest["labels"] == ["green", "red", "violet"]
    assert said["description"] == model.doc_string == manifest["description"]
    assert said["version"] == manifest["weights_sha256"]
    assert said["task"] == "classification"
    assert json.loads(said["normalization"]) == {"mean": 127.5, "std": 127.5, "by": "file"}
    assert json.loads(said["teacher"]) == {key: v for key, v in manifest["teacher"].items() if v is not None}
    assert "bytes 0 to 255" in said["input"] and said["output"].startswith("Probabilities for the image")


def test_it_is_whole_and_every_shape_follows(file: Path) -> None:
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    found = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    known = {each.name: each.type.tensor_type.shape for each in (*found.graph.value_info, *found.graph.output)}
    made = {name for node in found.graph.node for name in node.output}
    assert made <= known.keys()
    assert all(side.dim_value > 0 for shape in known.values() for side in shape.dim), "a side is left open"


def test_runtimes_on_phones_read_it(file: Path) -> None:
    """ONNX Runtime up to 1.17 refuses IR versions from 10 on; opset 18 came with IR version 8, in ONNX 1.13."""
    model = onnx.load(file)
    assert model.ir_version == 8
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 18)]
    assert {node.domain for node in model.graph.node} == {""}


def test_it_tells_nothing_of_the_machine_it_was_made_on(file: Path, finished: Workplace) -> None:
    content = file.read_bytes()
    for private in (Path(distill.__file__).parents[1], finished.root, Path.home()):
        assert str(private).encode() not in content
    assert b"stack_trace" not in content and b".py" not in content
