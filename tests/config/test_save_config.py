"""What is written reads back as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from distill.config_file import load_config, save_config
from tests.config.conftest import SMALL
from tests.config.test_load_config import DESIGN

SEGMENTATION = """\
task: segmentation
data:
  labeled: golden/train
  validation: golden/val
  masks: {values: {3: "no", 0-2: b, 255: "no"}, colors: {"#0000ff": c}, ignore: [9, "#ffffff"], background: null}
teacher: {torchvision: deeplabv3_resnet50, fit: {}}
student: {smp: deeplabv3plus, encoder: mobilenetv4_conv_small}
labels: {grid: 32}
trust: {min_confidence: 0.5, below: weigh}
train: {extra: {lovasz: 0.5, dice: 1}, target_stride: 2}
export: {output: class_map, upsample: true}
gates: {min_test_miou: 0.5}
"""


@pytest.mark.parametrize("text", [DESIGN, SMALL, SEGMENTATION], ids=["design", "small", "segmentation"])
def test_round_trip(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (here / "teacher.yaml").write_text(text)
    config = load_config(here / "teacher.yaml", ["train.lr=1e-3", "output=deep/run"])
    (here / "deep/run").mkdir(parents=True)
    save_config(config, here / "deep/run/config.yaml")
    monkeypatch.chdir(here / "photos")  # neither the current folder nor the place of the file may matter
    again = load_config(here / "deep/run/config.yaml")
    assert again.model_dump() == config.model_dump()
    assert type(again.teacher) is type(config.teacher)


def test_values_of_masks_keep_their_order_and_their_words(here: Path) -> None:
    (here / "teacher.yaml").write_text(SEGMENTATION)
    config = load_config(here / "teacher.yaml")
    assert list(config.data.masks.values.items()) == [("3", "no"), ("0-2", "b"), ("255", "no")]
    assert config.data.masks.named() == ["no", "b", "c"]
    save_config(config, here / "config.yaml")
    again = load_config(here / "config.yaml").data.masks
    assert list(again.values.items()) == list(config.data.masks.values.items())
    assert (again.ignore, again.background) == ([9, "#ffffff"], None)
    numbers = load_config(here / "teacher.yaml", ["data.masks={values: {0: a, 1: b}}"]).data.masks
    assert numbers.values == {"0": "a", "1": "b"}
    assert (numbers.ignore, numbers.background) == ([255], "background")


def test_words_that_look_like_numbers_stay_words(here: Path) -> None:
    words = [
        "1e3",
        "1e-3",
        "001",
        "no",
        "null",
        "~",
        "1.5",
        "2026-11-20",
        "0x10",
        "straße",
        "a: b",
        "",
        " ",
        "#x",
        "12:30",
    ]
    listed = ", ".join(f"'{word}'" for word in words)
    (here / "teacher.yaml").write_text(SMALL.replace("0.2}", f"0.2, classes: [{listed}]}}"))
    config = load_config(here / "teacher.yaml")
    assert config.data.classes == words
    save_config(config, here / "config.yaml")
    assert load_config(here / "config.yaml").data.classes == words


def test_words_of_the_command_line_are_written_as_plain_words(here: Path) -> None:
    (here / "teacher.yaml").write_text(SMALL)
    config = load_config(here / "teacher.yaml", ["student.timm=mobilenetv2_050", "data.classes=[cat, dog]"])
    save_config(config, here / "config.yaml")
    plain = yaml.safe_load((here / "config.yaml").read_text())
    assert plain["student"]["timm"] == "mobilenetv2_050"
    assert plain["data"]["classes"] == ["cat", "dog"]


def test_every_default_is_spelt_out(here: Path) -> None:
    (here / "teacher.yaml").write_text(SMALL)
    config = load_config(here / "teacher.yaml")
    save_config(config, here / "config.yaml")
    plain = yaml.safe_load((here / "config.yaml").read_text())
    assert set(plain) == set(type(config).model_fields)
    assert set(plain["train"]) == set(type(config.train).model_fields)
    assert plain["train"]["epochs"] == config.train.epochs


def test_the_same_config_gives_the_same_bytes(here: Path) -> None:
    (here / "teacher.yaml").write_text(SMALL)
    config = load_config(here / "teacher.yaml")
    save_config(config, here / "a.yaml")
    save_config(load_config(here / "a.yaml", [f"output={config.output}"]), here / "b.yaml")
    assert (here / "a.yaml").read_bytes() == (here / "b.yaml").read_bytes()
