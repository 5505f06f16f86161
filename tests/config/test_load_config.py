"""Configs that are right: what they mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill.config_file import load_config, recipe_path, recipes
from distill.core.errors import UserError
from tests.config.conftest import SMALL

DESIGN = """\
task: classification
data:
  unlabeled: photos/
  labeled: golden/train        # optional
  validation: golden/val       # small, labelled: calibration, thresholds, model choice
  test: golden/test            # the golden standard: never trained on, never calibrated on
teacher: {timm: convnext_base.fb_in22k_ft_in1k}
student: {timm: mobilenetv4_conv_small, image_size: 224}
gates: {max_size_mb: 4, min_test_accuracy: 0.90, max_int8_drop: 0.01}
"""


def write(folder: Path, text: str, name: str = "teacher.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_the_example_of_the_design(here: Path) -> None:
    config = load_config(write(here, DESIGN))
    assert config.task == "classification"
    assert config.data.unlabeled == here / "photos"
    assert config.data.labeled == here / "golden/train"
    assert config.data.validation == here / "golden/val"
    assert config.data.test == here / "golden/test"
    assert config.teacher.timm == "convnext_base.fb_in22k_ft_in1k"
    assert (config.student.timm, config.student.image_size) == ("mobilenetv4_conv_small", 224)
    gates = config.gates
    assert (gates.max_size_mb, gates.min_test_accuracy, gates.max_int8_drop, gates.max_partitions) == (
        4,
        0.9,
        0.01,
        None,
    )
    assert config.output == here / "runs/teacher"


def test_paths_start_at_the_config_file_not_at_the_current_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(here, SMALL)
    elsewhere = here / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    config = load_config(path)
    assert config.data.labeled == here / "golden/train"
    assert config.output == elsewhere / "runs/teacher"


def test_absolute_and_home_paths(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here / "golden"))
    text = SMALL.replace("golden/train", "~/train") + f"output: {here / 'out'}\n"
    config = load_config(write(here, text))
    assert config.data.labeled == here / "golden/train"
    assert config.output == here / "out"


@pytest.mark.parametrize("written", ["1e-3", "1E-3", "0.001", "1.0e-3", ".1e-2", "+1e-3"])
def test_every_way_to_write_a_number_is_a_number(here: Path, written: str) -> None:
    assert load_config(write(here, f"{SMALL}train: {{lr: {written}}}\n")).train.lr == 0.001


def test_words_that_other_yaml_turns_into_something_else(here: Path) -> None:
    text = SMALL.replace("resnet18}", "resnet18, class_map: {no: a, 1: b, null: c, 2026-11-20: d}}")
    text = text.replace("0.2}", "0.2, classes: [2026-11-20, 12:30:00x, e3]}") + "output: 2026-11-20\n"
    config = load_config(write(here, text))
    assert config.teacher.class_map == {"no": "a", "1": "b", "null": "c", "2026-11-20": "d"}
    assert config.data.classes == ["2026-11-20", "12:30:00x", "e3"]
    assert config.output == here / "2026-11-20"


def test_aliases_are_followed(here: Path) -> None:
    text = SMALL.replace("resnet18}", "resnet18, mean: &half [0.5, 0.5, 0.5], std: *half}")
    config = load_config(write(here, text))
    assert config.teacher.std == [0.5, 0.5, 0.5]


def test_a_byte_order_mark_is_no_part_of_the_first_key(here: Path) -> None:
    assert load_config(write(here, "\ufeff" + SMALL)).seed == 0


def test_several_folders_of_unlabelled_images(here: Path) -> None:
    text = SMALL.replace("{labeled", "{unlabeled: [photos, golden], labeled")
    assert load_config(write(here, text)).data.unlabeled == [here / "photos", here / "golden"]


def test_a_manifest_needs_no_folder(here: Path) -> None:
    text = SMALL.replace("labeled: golden/train, validation: 0.2", "manifest: index.csv")
    assert load_config(write(here, text)).data.manifest == here / "index.csv"


def test_a_config_is_frozen(here: Path) -> None:
    config = load_config(write(here, SMALL))
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 1


def test_a_student_outside_the_short_list_is_known_by_timm(here: Path) -> None:
    for name in ("mobilenetv4_conv_medium", "mobilenetv2_100.ra_in1k", "efficientnet_lite1"):
        assert load_config(write(here, SMALL.replace("mobilenetv2_035", name))).student.timm == name


def test_a_config_that_is_not_there(here: Path) -> None:
    with pytest.raises(UserError, match=r"no\.yaml: cannot be read as UTF-8 text \(.*No such file"):
        load_config(here / "no.yaml")


def test_a_config_that_is_no_text(here: Path) -> None:
    (here / "teacher.yaml").write_bytes(b"\xff\xfe\x00seed")
    with pytest.raises(UserError, match=r"teacher\.yaml: cannot be read as UTF-8 text"):
        load_config(here / "teacher.yaml")


def test_a_recipe_is_found_by_name_and_a_file_comes_first(here: Path) -> None:
    name = next(iter(recipes()))
    assert recipe_path(name) == recipes()[name]
    own = write(here, SMALL, name)
    assert recipe_path(name).resolve() == own


def test_an_unknown_recipe_is_told_with_the_known_ones(here: Path) -> None:
    with pytest.raises(UserError) as caught:
        recipe_path("quickstrt")
    known = ", ".join(recipes())
    assert str(caught.value) == (
        f"found no config file {here / 'quickstrt'} and no recipe 'quickstrt' (did you mean 'quickstart'?);"
        f" recipes: {known}; `distill init FOLDER` writes a config"
    )


@pytest.mark.parametrize("name", sorted(recipes()))
def test_every_recipe_opens_with_what_it_needs_and_names_a_known_teacher_and_student(name: str) -> None:
    header = recipes()[name].read_text(encoding="utf-8").split("\ntask:", 1)[0]
    for word in ("Needs:", "Command:", "Time:", "Expect:"):
        assert word in header
