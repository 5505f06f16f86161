"""`export verify`: any file gets a verdict, and a file of a run is compared with its student."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from tests.workplace import Workplace


@pytest.fixture
def made(finished: Workplace) -> Path:
    """The exported files of a finished run."""
    return finished.root / "runs/teacher/export"


def verify(place: Workplace, *arguments: Path | str, expect: int = 0) -> dict[str, Any]:
    said = place.run("verify", *map(str, arguments), "--json", module="export", expect=expect)
    document: dict[str, Any] = json.loads(said.splitlines()[0])
    return document


def test_a_file_against_the_run_it_came_from_and_another_file(finished: Workplace, made: Path) -> None:
    found = verify(
        finished, made / "student.int8.tflite", "--run", "runs/teacher", "--against", made / "student.float32.tflite"
    )
    manifest = json.loads((made / "student.int8.tflite.json").read_text())
    assert found["problems"] == []
    assert (found["answers"], found["partitions"], found["outside"]) == ("probabilities", 1, {})
    assert found["shown"] == "60 images of runs/teacher"
    for split, score in manifest["scores"].items():
        assert {key: found["scores"][split][key] for key in score} == score
    assert 0.9 <= found["against"]["agreement"] <= 1
    assert 0 < found["against"]["max_difference"] < 0.5 and 5 < found["against"]["snr_db"] < 60
    table = finished.run("verify", str(made / "student.onnx.absent.onnx"), module="export", expect=2)
    assert "there is no such file" in table


def test_two_runtimes_on_photos_of_a_folder(finished: Workplace, made: Path) -> None:
    found = verify(
        finished, made / "student.float32.onnx", "--against", made / "student.float32.tflite", "--images", "photos/test"
    )
    assert found["problems"] == []
    assert found["shown"] == "36 images of photos/test"
    assert found["against"]["agreement"] == 1 and found["against"]["max_difference"] < 1e-4
    told = finished.run("verify", str(made / "student.float32.onnx"), module="export")
    assert "16 made-up images" in " ".join(told.split()) and "no problem found" in told


def test_a_file_that_answers_otherwise_is_a_problem(finished: Workplace, made: Path, tmp_path: Path) -> None:
    model = onnx.load(made / "student.float32.onnx")
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 2:
            values = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(-values, tensor.name))
    onnx.save(model, tmp_path / "turned.onnx")
    found = verify(
        finished,
        tmp_path / "turned.onnx",
        "--against",
        made / "student.float32.onnx",
        "--images",
        "photos/test",
        expect=3,
    )
    (problem,) = found["problems"]
    assert problem.startswith("student.float32.onnx: names the same class on 0.")


def several_inputs(path: Path) -> Path:
    a, b, c = (helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 3)) for name in "abc")
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["c"])], "sum", [a, b], [c])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def test_what_cannot_be_asked_is_still_described(finished: Workplace, tmp_path: Path) -> None:
    found = verify(finished, several_inputs(tmp_path / "sum.onnx"), expect=3)
    assert [tensor["name"] for tensor in found["inputs"]] == ["a", "b"]
    assert found["problems"] == ["it opens, but was not asked: it has 2 inputs and 1 outputs, expected one of each"]


def test_what_is_no_file_of_a_model(finished: Workplace, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    told = finished.run("verify", str(tmp_path / "notes.txt"), module="export", expect=2)
    assert "expected a file that ends with .onnx or .tflite" in told


def damaged(content: bytes, kind: str, rng: random.Random) -> bytes:
    changed = bytearray(content)
    if kind == "bits":
        for _ in range(200):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del changed[rng.randrange(len(changed)) :]
    elif kind == "swapped":
        first, second = (rng.randrange(len(changed) - 4096) for _ in range(2))
        changed[first : first + 4096], changed[second : second + 4096] = (
            changed[second : second + 4096],
            changed[first : first + 4096],
        )
    elif kind == "magic":
        changed[:8] = rng.randbytes(8)
    elif kind == "giant":
        for _ in range(20):
            place = rng.randrange(len(changed) - 8) & ~3
            changed[place : place + 4] = (2**31 - 1).to_bytes(4, "little")
    elif kind == "empty":
        changed.clear()
    return bytes(changed)


@pytest.mark.parametrize("name", ["student.int8.tflite", "student.float32.onnx"])
@pytest.mark.parametrize("kind", ["bits", "cut", "swapped", "magic", "giant", "empty"])
def test_a_damaged_file_gets_a_verdict(finished: Workplace, made: Path, tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    path.write_bytes(damaged((made / name).read_bytes(), kind, random.Random(kind)))
    process = finished.start("verify", str(path), "--json", module="export")
    told, _ = process.communicate(timeout=60)
    assert process.returncode in {0, 3}, told
    found = json.loads(told.splitlines()[0])
    assert (process.returncode == 3) == bool(found["problems"])
    if kind != "swapped":  # bytes of weights that change places leave a model that answers
        assert found["problems"] and "Traceback" not in told


def test_made_twice_the_bytes_are_the_same(finished: Workplace, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished.root / "runs/teacher", run, ignore=shutil.ignore_patterns("tensorboard"))
    path = run / "export/student.int8.tflite"
    manifest = path.with_name(path.name + ".json")
    before, proof = path.read_bytes(), json.loads(manifest.read_bytes())
    manifest.unlink()
    finished.run("tflite", "--quantize", "--run", str(run), module="export")
    assert path.read_bytes() == before
    again = json.loads(manifest.read_bytes())
    for document in (again, proof):
        document["load_ms"] = 0
        for rung in document["ladder"]["rungs"]:
            rung["seconds"] = rung["latency_ratio"] = 0
    assert again == proof
