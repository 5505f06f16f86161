"""A network that somebody brings, with a folder of images, gets files that are proven as those of a run are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distill.core.errors import RunFolderError, UserError
from distill.core.files import read_json
from distill.core.progress import Progress
from distill.trained_student import load_student
from export.bring import Brought, bring, channels, parse_shape
from tests.conftest import MINE
from tests.export import brought_net
from tests.export.test_lifted import CONSTANTS, NODES, write_onnx
from tests.workplace import Workplace

SHAPE = (1, 3, 32, 32)


def test_the_file_is_proven_against_the_float_network(desk: Workplace) -> None:
    run = desk.root / "runs/mine"
    made = read_json(run / "export/student.int8.tflite.json")
    assert made["labels"] == ["green", "red", "violet", "other", "none"]
    assert made["metric"] == {"key": "accuracy", "title": "accuracy against the float network"}
    assert set(made["scores"]) == {"validation", "test"} and made["scores"]["test"]["images"] == 100
    for score in made["scores"].values():
        assert score["accuracy"]["value"] == pytest.approx(score["agreement"]) and score["agreement"] >= 0.95
    assert made["partitions"] == 1 and made["outside"] == {}
    assert made["ladder"]["limit"] == 0.02 and max(each["rung"] for each in made["ladder"]["rungs"]) <= 3
    exact = read_json(run / "export/student.float32.tflite.json")
    assert exact["scores"]["test"]["agreement"] == 1 and exact["scores"]["test"]["max_difference"] < 1e-3


def test_calibration_images_are_written_down_and_are_not_judged_by(desk: Workplace) -> None:
    import pyarrow.parquet

    run = desk.root / "runs/mine"
    chosen = read_json(run / "export/calibration.json")
    ids = [each["sha256"] for each in chosen["images"]]
    assert read_json(run / "export/student.int8.tflite.json")["calibration"] == ids
    split = {row["id"]: row["split"] for row in pyarrow.parquet.read_table(run / "data/manifest.parquet").to_pylist()}
    assert {split[image] for image in ids} == {"train"}
    classes = [each["class"] for each in chosen["images"]]
    assert set(classes) == {"green", "red", "violet"} and min(map(classes.count, set(classes))) >= 20
    assert chosen["halves"]["tensors"] >= 6


def test_the_same_command_finds_its_files(desk: Workplace) -> None:
    path = desk.root / "runs/mine/export/student.int8.tflite"
    before = path.stat().st_mtime_ns
    told = desk.run("tflite", "--quantize", *MINE, module="export")
    assert path.stat().st_mtime_ns == before and "accuracy against the float network" in told


def test_verify_and_bench_take_it_as_a_run(desk: Workplace) -> None:
    file = "runs/mine/export/student.int8.tflite"
    said = desk.run("verify", file, "--run", "runs/mine", "--layers", "--json", module="export")
    found = json.loads(said.splitlines()[0])
    assert found["problems"] == []
    assert found["scores"]["test"]["agreement"] >= 0.95
    named = [layer["name"] for layer in found["layers"]]
    assert sorted(named) == ["add 0", "back", "deep.0", "expand.0", "head", "project.0", "stem.0"]
    noise = [layer["snr_db"] for layer in found["layers"]]
    assert noise == sorted(noise) and 10 < noise[0] < 60
    table = desk.run("bench", "--run", "runs/mine", "--file", "tflite-int8", module="export")
    assert "accuracy against the float network" in " ".join(table.split())


def test_layers_of_a_float_file_are_those_of_the_network(desk: Workplace) -> None:
    """All of them far above their error: each tensor is compared with the one that it is."""
    file = "runs/mine/export/student.float32.tflite"
    said = desk.run("verify", file, "--run", "runs/mine", "--layers", "--json", module="export")
    layers = json.loads(said.splitlines()[0])["layers"]
    assert len(layers) == 7 and {layer["dtype"] for layer in layers} == {"float32"}
    assert all(layer["snr_db"] is None or layer["snr_db"] > 80 for layer in layers), "None: the same"
    told = desk.run("verify", file, "--layers", module="export", expect=2)
    assert "add --run" in told


def test_rung_4_has_nothing_to_learn_from(desk: Workplace) -> None:
    told = desk.run("tflite", "--quantize", "--rung", "4", "--run", "runs/mine", module="export", expect=2)
    assert "a network that was brought has none" in told


def brought(place: Workplace, model: str, **changes: Any) -> Brought:
    given: dict[str, Any] = {"weights": None, "shape": SHAPE, "mean": (0.45,) * 3, "std": (0.22,) * 3}
    return Brought(model, images=place.root / "pictures", **{**given, **changes})


def answers_of(root: Path) -> np.ndarray:
    import pyarrow.parquet

    found: list[list[float]] = pyarrow.parquet.read_table(root / "student/predictions/test.parquet")[
        "logits"
    ].to_pylist()
    return np.array(found)


def test_function_and_program_are_one_network(
    desk: Workplace, tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(desk.root)
    torch.export.save(torch.export.export(brought_net.small(3), (torch.zeros(*SHAPE),)), tmp_path / "net.pt2")
    bring(brought(desk, str(tmp_path / "net.pt2"), shape=None), tmp_path / "of_program", progress)
    np.testing.assert_array_equal(answers_of(tmp_path / "of_program"), answers_of(desk.root / "runs/mine"))
    moved = tmp_path / "moved"
    (tmp_path / "of_program").rename(moved)
    (tmp_path / "net.pt2").unlink()
    from distill.core.run import Run

    student, card = load_student(Run(moved))
    assert student.image_size == 32 and card["class_names"] == ["0", "1", "2", "3", "4"]


def test_an_onnx_file_is_asked_in_its_own_runtime(desk: Workplace, tmp_path: Path, progress: Progress) -> None:
    path = write_onnx(tmp_path / "net.onnx", NODES, CONSTANTS | {"sizes": np.array([1, 8, 16, 16])}, "N", 32)
    run = bring(brought(desk, str(path)), tmp_path / "run", progress)
    compared = read_json(run.root / "student/brought.json")["compared"]
    assert compared["images"] == 8 and 0 < compared["max_difference"] < 1e-4 < compared["largest_answer"]


def test_a_network_of_pixels_is_judged_by_its_own_masks(
    desk: Workplace, tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(desk.root)
    run = bring(brought(desk, "my_net:pixels"), tmp_path / "run", progress)
    from distill.tasks.segmentation import Segmentation

    task = Segmentation(["0", "1", "2"])
    score = task.score(task.load_answers(run.root / "student/predictions/test.parquet"))
    assert score.as_dict()["miou"]["value"] == 1
    assert "task: segmentation" in (run.root / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("model", "changes", "sentence"),
    [
        ("my_net", {}, r"--model: found 'my_net', expected module:function, or a file"),
        ("my_net:nothing", {}, r"the module my_net has no 'nothing'"),
        ("my_net:broken", {}, r"my_net:broken raised RuntimeError: no weights here"),
        ("no_such_module:net", {}, r"cannot import 'no_such_module'"),
        ("absent.onnx", {}, r"there is no file absent\.onnx"),
        ("my_net:small", {"shape": None}, r"--example: the shape of the network's input is missing"),
        ("my_net:small", {"images": Path("runs")}, r"holds 0 different images that can be read, at least 12"),
        ("my_net:small", {"weights": Path("labels.txt")}, r"neither a safetensors nor a torch file"),
    ],
)
def test_mistakes_are_named(
    desk: Workplace,
    tmp_path: Path,
    progress: Progress,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    changes: dict[str, Any],
    sentence: str,
) -> None:
    monkeypatch.chdir(desk.root)
    given = brought(desk, model)
    with pytest.raises(UserError, match=sentence):
        bring(Brought(**{**given.__dict__, **changes}), tmp_path / "run", progress)


def test_a_run_that_was_trained_is_left_alone(desk: Workplace, tmp_path: Path, progress: Progress) -> None:
    (tmp_path / "config.yaml").write_text("teacher: {timm: resnet50}\n")
    with pytest.raises(RunFolderError, match="is a run that was trained here: export it with --run, or choose another"):
        bring(brought(desk, "my_net:small"), tmp_path, progress)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_numbers_and_shapes_of_the_command_line() -> None:
    assert channels("0.485, 0.456,0.406", "--mean") == (0.485, 0.456, 0.406)
    assert channels("1/255", "--std") == (1 / 255,) * 3
    assert parse_shape("1x3x224x224") == (1, 3, 224, 224)
    for text, flag in (("a", "--mean"), ("1,2", "--mean"), ("0", "--std"), ("1/0", "--std")):
        with pytest.raises(UserError, match=rf"{flag}: found '{text}', expected one number"):
            channels(text, flag)
    for text in ("3x224x224", "1x3x224x192", "1x224x224x3", "big"):
        with pytest.raises(UserError, match=f"--example: found '{text}', expected 1x3xSxS"):
            parse_shape(text)


def test_normalisation_is_never_guessed(desk: Workplace) -> None:
    told = desk.run("tflite", "--model", "my_net:small", "--images", "pictures", module="export", expect=2)
    assert "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225" in told and "--std 1/255" in told
    told = desk.run("tflite", "--images", "pictures", module="export", expect=2)
    assert "--images belongs to a network that you bring: add --model" in told
