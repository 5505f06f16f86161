"""`distill eval`: another test set, without what training has shown, each answer asked for once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from distill.core.run import Run
from distill.core.task import build_task
from distill.data.batches import ImageCache
from distill.data.manifest import Manifest
from distill.evaluate import evaluate
from distill.torch_predictor import TorchPredictor
from distill.trained_student import load_student
from tests.audit.conftest import photo, save
from tests.golden.conftest import Command, write_scene
from tests.workplace import COLOURS, Workplace

Document = Callable[..., dict[str, Any]]


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Eight new photos by day and night."""
    number = 100
    for name in ("cat", "dog"):
        for light in ("day", "night"):
            for _ in range(2):
                number += 1
                save(photo(number), tmp_path / "other" / name / light / f"{number}.png")
    return tmp_path / "other"


def stamps(run: Run) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(run.folder("eval").rglob("*.parquet"))}


def test_other_images_are_scored_without_those_of_training(
    run: Run, other: Path, document: Document, command: Command, tmp_path: Path
) -> None:
    shutil.copy(tmp_path / "train/cat/1.png", other / "cat" / "copied.png")
    save(ImageOps.mirror(Image.open(tmp_path / "val/dog/15.png")).resize((48, 40)), other / "dog" / "small.png")
    found = document("eval", "--run", "run", "--data", "other", "--groups", "folder")
    assert found == json.loads((run.root / "eval/other/eval.json").read_text())
    leaks = {Path(leak["path"]).name: (Path(leak["of"]).name, leak["split"]) for leak in found["leaks"]}
    assert leaks == {"copied.png": ("1.png", "train"), "small.png": ("15.png", "validation")}
    (row,) = found["rows"]
    assert (row["name"], row["images"], found["images"]) == ("student", 8, 8)
    manifest = Manifest.load(run.root / "eval/other/data/manifest.parquet")
    network, _ = load_student(run)
    task = build_task("classification", ("cat", "dog"))
    score, _ = evaluate(TorchPredictor(network), task, manifest.of("test"), ImageCache(100), "squash")
    accuracy = row["profile"]["figures"]["accuracy"]
    assert accuracy == {"value": score.accuracy.value, "low": score.accuracy.low, "high": score.accuracy.high}
    assert row["own"] == run.summary("student")["scores"]["test"]["accuracy"]
    groups = [(group["name"], group["images"], group["small"]) for group in found["groups"]["rows"]]
    assert groups == [("day", 4, True), ("night", 4, True)]
    said = command("eval", "--run", "run", "--data", "other", "--groups", "folder")
    assert "left out: 2 images show what a training or validation image of the run shows" in said
    assert "copied.png" in said and "4 images, few" in said


def test_the_same_data_is_asked_about_once(run: Run, other: Path, document: Document) -> None:
    first = document("eval", "--run", "run", "--data", "other")
    before = stamps(run)
    again = document("eval", "--run", "run", "--data", "other", "--groups", "folder")
    assert stamps(run) == before and first["groups"] is None and again["groups"]
    (other / "cat/day/101.png").rename(other / "cat/day/renamed.png")  # the same images
    assert document("eval", "--run", "run", "--data", "other")["rows"] == first["rows"]
    answers = str(run.root / "eval/other/student/predictions/test.parquet")
    assert stamps(run)[answers] == before[answers]
    save(photo(300), other / "dog/day/new.png")
    assert document("eval", "--run", "run", "--data", "other")["images"] == 9
    assert stamps(run)[answers] != before[answers]


def test_a_manifest_gives_its_test_rows_and_groups(run: Run, other: Path, document: Document, command: Command) -> None:
    rows = [f"other/{p.relative_to(other)},{p.parts[-3]},{p.parts[-2]}" for p in sorted(other.rglob("*.png"))]
    (other.parent / "plain.csv").write_text("\n".join(["path,label,light", *rows]))
    found = document("eval", "--run", "run", "--data", "plain.csv", "--groups", "light")
    assert [group["name"] for group in found["groups"]["rows"]] == ["light=day", "light=night"]
    splits = [f"{row},{'test' if number else 'train'}" for number, row in enumerate(rows)]
    (other.parent / "split.csv").write_text("\n".join(["path,label,light,split", *splits]))
    assert document("eval", "--run", "run", "--data", "split.csv")["images"] == 7
    assert "lacks the column lamp" in command(
        "eval", "--run", "run", "--data", "plain.csv", "--groups", "lamp", expect=2
    )


def test_mistakes(run: Run, other: Path, command: Command) -> None:
    def told(*arguments: object) -> str:
        return command("eval", "--run", "run", *arguments, expect=2)

    assert "--data: found no file or folder" in told("--data", "nowhere")
    (other.parent / "empty").mkdir()
    assert "--data: found no sub-folder" in told("--data", "empty")
    assert "--on: the run has no tflite-int8; it has student" in told("--data", "other", "--on", "tflite-int8")
    for name in ("../other", "..", "a/b", "/"):
        assert "a name without folders" in told("--data", "other", "--name", name)
    save(photo(200), other / "horse" / "1.png")
    save(photo(201), other / "cow" / "1.png")
    assert "classes that are none of cat, dog: cow: 1 image horse: 1 image" in told("--data", "other")
    for name in ("horse", "cow"):
        shutil.rmtree(other / name)
    command("eval", "--run", "run", "--data", "other")
    other.rename(other.parent / "elsewhere")
    (other.parent / "deep").mkdir()
    (other.parent / "elsewhere").rename(other.parent / "deep/other")
    assert "has answers about" in told("--data", "deep/other")
    command("eval", "--run", "run", "--data", "deep/other", "--name", "second")
    assert (run.root / "eval/second/eval.json").exists()
    assert "training has shown what all 12 images" in told("--data", "train")


def test_masks(masked: Run, document: Document, command: Command, tmp_path: Path) -> None:
    for number in (101, 102):
        write_scene(tmp_path / "other", number)
    shutil.copy(tmp_path / "train/images/1.png", tmp_path / "other/images")
    shutil.copy(tmp_path / "train/masks/1.png", tmp_path / "other/masks")
    found = document("eval", "--run", "run", "--data", "other")
    (row,) = found["rows"]
    assert row["images"] == 2 and set(row["profile"]["figures"]) >= {"miou", "boundary_f"}
    assert [Path(leak["path"]).name for leak in found["leaks"]] == ["1.png"]
    save(Image.fromarray(np.full((80, 96), 7, np.uint8)), tmp_path / "other/masks/101.png")
    assert "no class for the value 7" in command("eval", "--run", "run", "--data", "other", expect=2)


def test_files_answer_in_a_process_of_their_own(finished: Workplace, tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    shutil.copytree(finished.root / "runs/teacher", tmp_path / "run", ignore=shutil.ignore_patterns("labels"))
    rng = np.random.default_rng(8)
    for name, colour in COLOURS.items():
        for number in range(4):
            pixels = np.clip(rng.normal(colour, 45, (32, 40, 3)), 0, 255).astype(np.uint8)
            save(Image.fromarray(pixels), tmp_path / "other" / name / f"{number}.png")
    asked = ("eval", "--run", "run", "--data", "other", "--on", "tflite-int8", "--on", "student", "--teacher")
    place.run(*asked)
    found = json.loads((tmp_path / "run/eval/other/eval.json").read_text())
    assert [row["name"] for row in found["rows"]] == ["teacher", "student", "tflite-int8"]
    assert all(row["profile"]["figures"]["accuracy"]["value"] > 0.5 for row in found["rows"])
    assert found["rows"][1]["drop"] is None and found["rows"][2]["drop"]["low"] <= found["rows"][2]["drop"]["value"]
