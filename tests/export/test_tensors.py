"""What a file takes and gives is a setting; the same pixels get the same answers, in every runtime."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from distill.core.files import read_json
from export.isolated import fed_pixels, real_answers
from tests.export.test_runtimes import Kernels, ask
from tests.workplace import Workplace

STEP = 1 / 256  # of a probability in int8


@pytest.fixture(scope="module")
def files(desk: Workplace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The int8 file of one network by each setting, all made in one way."""
    made = {}
    for tensors in ("bytes", "int8", "float"):
        root = tmp_path_factory.mktemp(tensors)
        run = root / "run"
        shutil.copytree(desk.root / "runs/mine", run, ignore=shutil.ignore_patterns("export"))
        config = yaml.safe_load((run / "config.yaml").read_text())
        config["export"]["tensors"] = tensors
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        Workplace(root).run("tflite", "--quantize", "--rung", "1", "--run", "run", module="export")
        made[tensors] = run / "export/student.int8.tflite"
    return made


@pytest.fixture(scope="module")
def pixels(desk: Workplace) -> np.ndarray:
    photos = sorted((desk.root / "pictures").glob("*.png"))[::10]
    return np.stack([np.asarray(Image.open(path).convert("RGB").resize((32, 32))) for path in photos])


def answers(file: Path, shown: np.ndarray, runtime: str, kernels: Kernels, folder: Path) -> np.ndarray:
    made = read_json(file.with_name(file.name + ".json"))
    said = ask(sys.executable, runtime, kernels, file, fed_pixels(shown, made["tensors"]), folder)
    return real_answers(said, made["outputs"][0])


def test_files_take_and_give_what_was_asked(files: dict[str, Path]) -> None:
    facts = {name: read_json(path.with_name(path.name + ".json")) for name, path in files.items()}
    assert {name: (made["inputs"][0]["dtype"], made["outputs"][0]["dtype"]) for name, made in facts.items()} == {
        "bytes": ("uint8", "float32"), "int8": ("int8", "int8"), "float": ("float32", "float32"),
    }  # fmt: skip
    given, answer = facts["int8"]["inputs"][0], facts["int8"]["outputs"][0]
    assert (given["scale"], given["zero_point"]) == (pytest.approx(2 / 255), 0)
    assert (answer["scale"], answer["zero_point"]) == (STEP, -128)
    for made in facts.values():
        assert (made["partitions"], made["outside"]) == (1, {})
        assert made["scores"]["test"]["agreement"] >= 0.95


@pytest.mark.parametrize("tensors", ["int8", "float"])
def test_the_same_pixels_get_the_same_answers(
    files: dict[str, Path], pixels: np.ndarray, tensors: str, tmp_path: Path
) -> None:
    usual = answers(files["bytes"], pixels, "litert", "XNNPACK", tmp_path)
    other = answers(files[tensors], pixels, "litert", "XNNPACK", tmp_path)
    assert np.ptp(usual, axis=0).max() > 0.3, "the images are told apart"
    assert np.abs(usual - other).max() <= STEP


@pytest.mark.parametrize("tensors", ["bytes", "int8", "float"])
def test_another_runtime_answers_within_a_step(
    files: dict[str, Path], pixels: np.ndarray, tensors: str, tmp_path: Path
) -> None:
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("needs the extra `tensorflow`")
    ours = answers(files[tensors], pixels, "litert", "XNNPACK", tmp_path)
    theirs = answers(files[tensors], pixels, "tensorflow", "XNNPACK", tmp_path)
    assert np.abs(ours - theirs).max() <= STEP


def test_verify_shows_each_file_what_it_takes(files: dict[str, Path]) -> None:
    place = Workplace(files["int8"].parents[2])
    said = place.run(
        "verify", str(files["int8"]), "--against", str(files["float"]), "--run", "run", "--json", module="export"
    )
    found = json.loads(said.splitlines()[0])
    assert found["problems"] == []
    assert found["shown"].endswith(", less 128") and found["answers"] == "probabilities"
    assert found["against"]["agreement"] >= 0.97 and found["against"]["max_difference"] <= STEP
    assert found["scores"]["test"]["agreement"] >= 0.95


def test_what_the_gpu_delegate_would_take(files: dict[str, Path], tmp_path: Path) -> None:
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("needs the extra `tensorflow`")
    place = Workplace(files["bytes"].parents[2])
    found = json.loads(place.run("verify", str(files["bytes"]), "--gpu", "--json", module="export").splitlines()[0])
    assert found["gpu"]["compatible"] is True and found["gpu"]["warnings"] == []
    assert found["gpu"]["analyzer"].startswith("TensorFlow 2")
    (tmp_path / "cut.tflite").write_bytes(files["bytes"].read_bytes()[:-9000])
    told = place.run("verify", str(tmp_path / "cut.tflite"), "--gpu", "--json", module="export", expect=3)
    assert json.loads(told.splitlines()[0])["problems"]


def test_the_gpu_check_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distill.core.errors import UserError
    from export.gpu import gpu_compatibility

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'mobile-distill\[tensorflow\]'"):
        gpu_compatibility(tmp_path / "net.tflite")
    with pytest.raises(UserError, match=r"net\.onnx is no TFLite file"):
        gpu_compatibility(tmp_path / "net.onnx")
