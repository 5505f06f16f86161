"""Each mistake has one clear message, exit code 2, and no traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
from PIL import Image
from safetensors.torch import save_file

from tests.workplace import Workplace


def missing_folder(root: Path) -> list[str]:
    return ["--set", "data.unlabeled=nowhere"]


def empty_folder(root: Path) -> list[str]:
    (root / "empty").mkdir()
    return ["--set", "data.unlabeled=empty"]


def one_class(root: Path) -> list[str]:
    for part in ("one", "one-val"):
        (root / part / "cat").mkdir(parents=True)
        Image.new("RGB", (8, 8), "red" if part == "one" else "blue").save(root / part / "cat" / "a.png")
    return ["--set", "data={labeled: one, validation: one-val}"]


def no_validation(root: Path) -> list[str]:
    return ["--set", "data={unlabeled: photos/unlabeled}"]


def only_in_test(root: Path) -> list[str]:
    folder = root / "more" / "zebra"
    folder.mkdir(parents=True)
    Image.new("RGB", (8, 8), "white").save(folder / "z.png")
    return ["--set", "data.test=more"]


def unknown_teacher(root: Path) -> list[str]:
    return ["--set", "teacher={tim: resnet18}"]


def unknown_model(root: Path) -> list[str]:
    return ["--set", "teacher={timm: resnet_18, pretrained: false, fit: {}}"]


def other_architecture(root: Path) -> list[str]:
    save_file(timm.create_model("resnet10t", num_classes=3).state_dict(), root / "other.safetensors")
    return ["--set", "teacher={timm: mobilenetv2_035, checkpoint: other.safetensors, image_size: 32}"]


def no_weights(root: Path) -> list[str]:
    return ["--set", "teacher={timm: test_resnet, pretrained: false, image_size: 32}"]


def output_is_a_file(root: Path) -> list[str]:
    (root / "taken").write_text("mine")
    return ["--set", "output=taken"]


def output_below_a_file(root: Path) -> list[str]:
    (root / "taken").write_text("mine")
    return ["--set", "output=taken/run"]


def output_holds_other_things(root: Path) -> list[str]:
    (root / "full").mkdir()
    (root / "full" / "thesis.txt").write_text("mine")
    return ["--set", "output=full"]


def output_not_writable(root: Path) -> list[str]:
    return ["--set", "output=/proc/distill-run"]  # not even root can make a folder there


def other_version(root: Path) -> list[str]:
    (root / "runs/teacher").mkdir(parents=True)
    (root / "runs/teacher/run.json").write_text(json.dumps({"format": 99, "version": "9.0"}))
    return []


def teacher_at_chance(root: Path) -> list[str]:
    (root / "coin.py").write_text("import numpy as np\ndef toss(images):\n    return np.ones((len(images), 3))\n")
    return ["--set", 'teacher={python: "coin:toss", image_size: 32}']


def teacher_of_other_classes(root: Path) -> list[str]:
    (root / "coin.py").write_text("import numpy as np\ndef toss(images):\n    return np.ones((len(images), 2))\n")
    return ["--set", 'teacher={python: "coin:toss", image_size: 32, classes: [cat, dog]}']


@pytest.mark.parametrize(
    ("prepare", "sentence"),
    [
        (missing_folder, "data.unlabeled: found no file or folder"),
        (empty_folder, "data.unlabeled: found no file in"),
        (one_class, "a classifier needs at least two classes, found 1 (cat)"),
        (no_validation, "no validation set: give `validation` a folder"),
        (only_in_test, "only the test set has the class zebra"),
        (unknown_teacher, "did you mean 'timm'?"),
        (unknown_model, "timm has no model 'resnet_18' (did you mean 'resnet18'?)"),
        (other_architecture, "other.safetensors does not fit this model"),
        (no_weights, "without weights it knows nothing"),
        (output_is_a_file, "taken is a file, expected a folder"),
        (output_below_a_file, "taken is a file, expected a folder"),
        (output_holds_other_things, "holds files that no run made"),
        (output_not_writable, "cannot write to /proc/distill-run"),
        (other_version, "was made by another version (format 99"),
        (teacher_at_chance, "the teacher knows no more than chance: balanced accuracy 0.333"),
        (teacher_of_other_classes, "its classes (cat, dog) are not those of the data (green, red, violet)"),
    ],
)
def test_mistake(workplace: Workplace, prepare: Callable[[Path], list[str]], sentence: str) -> None:
    changes = prepare(workplace.root)
    output = workplace.run("run", "teacher.yaml", *changes, expect=2)
    assert sentence in " ".join(output.split())
    assert output.count("error:") == 1
    assert "Traceback" not in output


def test_a_mistake_loses_no_finished_work(workplace: Workplace) -> None:
    workplace.run("run", "teacher.yaml", "--until", "data")
    done = (workplace.root / "runs/teacher/data/stage.json").read_bytes()
    workplace.run("run", "teacher.yaml", *unknown_model(workplace.root), expect=2)
    assert (workplace.root / "runs/teacher/data/stage.json").read_bytes() == done


def test_damaged_images_are_left_out_and_named(workplace: Workplace, photos: Path) -> None:
    folder = workplace.root / "pool"
    folder.mkdir()
    for source in sorted((photos / "unlabeled").glob("red00*.png")):
        (folder / source.name).write_bytes(source.read_bytes())
    (folder / "cut.PNG").write_bytes((photos / "unlabeled/red050.png").read_bytes()[:300])
    (folder / "notes.txt").write_text("not an image")
    output = workplace.run("run", "teacher.yaml", "--set", "data.unlabeled=pool", "--until", "data")
    assert "left out: 1 x not an image that Pillow can read" in output
    assert "left out: 1 x damaged or truncated" in output
    assert "10 unlabelled" in output


@pytest.mark.parametrize("command", [["report"], ["export", "tflite"], ["bench"]])
def test_commands_without_a_run_say_so(workplace: Workplace, command: list[str]) -> None:
    output = workplace.run(*command, expect=2)
    assert "found no run in runs" in output and "Traceback" not in output


def test_export_of_an_unfinished_run_says_what_to_do(workplace: Workplace) -> None:
    workplace.run("run", "teacher.yaml", "--until", "data")
    assert "the stage student is not finished" in workplace.run("export", "tflite", expect=2).replace("\n", " ")
