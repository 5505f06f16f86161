"""A teacher made of teachers: each member is checked as a teacher is, and a saved config is the same again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from distill.config import RunConfig
from distill.config_file import load_config, recipes, save_config
from distill.core import plugins
from tests.config.conftest import SMALL

Mistakes = Callable[..., list[str]]

TEACHERS = ", ".join(plugins.names("teachers"))
TWO = "{timm: a}, {timm: b}"


def section(text: str) -> str:
    return SMALL.replace("{timm: resnet18}", text)


def load(here: Path, text: str) -> RunConfig:
    (here / "teacher.yaml").write_text(text)
    return load_config(here / "teacher.yaml")


def test_members_are_teachers_like_any_other(here: Path) -> None:
    (here / "a.safetensors").touch()
    (here / "own_member").mkdir()
    (here / "own_member/red.py").write_text(
        "from distill.core.settings import TeacherSettings\n\n\n"
        "class Config(TeacherSettings):\n    depth: int = 3\n\n\n"
        "def build(config, class_names): ...\n"
    )
    teacher = load(
        here,
        section(
            "{ensemble: [{timm: a, checkpoint: a.safetensors, fit: {}}, {own_member.red: x, depth: 5},"
            " {python: 'm:f', image_size: 32, class_map: {x: y}}], weights: [2, 1, 0.5], memory: in_turn,"
            " batch_size: 4, test_time_augmentation: mirror}"
        ),
    ).teacher
    first, second, third = teacher.ensemble
    assert (first.timm, first.checkpoint, first.fit.epochs) == ("a", here / "a.safetensors", 30)
    assert second.depth == 5
    assert plugins.user_files(second) == [here / "own_member/red.py"]
    assert (third.python, third.class_map) == ("m:f", {"x": "y"})
    assert (teacher.weights, teacher.memory, teacher.batch_size) == ([2, 1, 0.5], "in_turn", 4)


def test_it_survives_being_saved(here: Path) -> None:
    (here / "a.safetensors").touch()
    (here / "own_saved").mkdir()
    (here / "own_saved/red.py").write_text(
        "from distill.core.settings import TeacherSettings\n\n\nclass Config(TeacherSettings): ...\n\n\n"
        "def build(config, class_names): ...\n"
    )
    members = "[{timm: a, checkpoint: a.safetensors, fit: {epochs: 2}}, {own_saved.red: x, classes: ['no', '1e3']}]"
    config = load(here, section(f"{{ensemble: {members}, weights: [2, 1], precision: bfloat16}}"))
    (here / "deep").mkdir()
    save_config(config, here / "deep/config.yaml")
    again = load_config(here / "deep/config.yaml")
    assert again.teacher == config.teacher
    assert [type(member) for member in again.teacher.ensemble] == [type(member) for member in config.teacher.ensemble]
    save_config(again, here / "again.yaml")
    assert (here / "again.yaml").read_bytes() == (here / "deep/config.yaml").read_bytes()


WRONG = [
    ("ensemble: a", ".ensemble: found 'a', expected a list"),
    ("ensemble:", ".ensemble: found nothing, expected a list"),
    ("ensemble: []", ".ensemble: found 0 teachers, expected at least 2"),
    ("ensemble: [{timm: a}]", ".ensemble: found 1 teacher, expected at least 2"),
    (
        "ensemble: [{timm: a}, resnet18]",
        ".ensemble.1: expected one kind of teacher and its name, for example {timm: NAME}",
    ),
    (
        "ensemble: [{timm: a}, {fit: {}}]",
        ".ensemble.1: which teacher? Its kind and name are missing, for example {timm: NAME}",
    ),
    (
        "ensemble: [{timm: a}, {tim: a}]",
        f".ensemble.1.tim: found no teacher 'tim' (did you mean 'timm'?); known: {TEACHERS}",
    ),
    (
        "ensemble: [{timm: a, python: 'a:b'}, {timm: b}]",
        ".ensemble.0: found several kinds of teacher (timm, python), expected one",
    ),
    (
        f"ensemble: [{{timm: a}}, {{ensemble: [{TWO}]}}]",
        ".ensemble.1.ensemble: several teachers cannot be one of several: list them here themselves",
    ),
    (
        "ensemble: [{timm: a, checkpoint: no.pth}, {timm: b}]",
        ".ensemble.0.checkpoint: found no file or folder {here}/no.pth",
    ),
    ("ensemble: [{timm: a, fit: {epochs: 0}}, {timm: b}]", ".ensemble.0.fit.epochs: found 0, expected at least 1"),
    ("ensemble: [{timm: a}, {python: 'a:b'}]", ".ensemble.1.image_size: this key is needed"),
    (
        "ensemble: [{timm: a, batch_size: 8}, {timm: b}]",
        ".ensemble.0.batch_size: is said once for all teachers: put it beside `ensemble`",
    ),
    (
        "ensemble: [{timm: a, precision: bfloat16}, {timm: b}]",
        ".ensemble.0.precision: is said once for all teachers: put it beside `ensemble`",
    ),
    (
        "ensemble: [{timm: a, test_time_augmentation: mirror}, {timm: b}]",
        ".ensemble.0.test_time_augmentation: is said once for all teachers: put it beside `ensemble`",
    ),
    (f"ensemble: [{TWO}], fit: {{}}", ".fit: is said of each teacher: put `fit` into the members of `ensemble`"),
    (
        f"ensemble: [{TWO}], classes: [x]",
        ".classes: is said of each teacher: put `classes` into the members of `ensemble`",
    ),
    (
        f"ensemble: [{TWO}], class_map: {{a: b}}",
        ".class_map: is said of each teacher: put `class_map` into the members of `ensemble`",
    ),
    (
        f"ensemble: [{TWO}], unmapped: x",
        ".unmapped: is said of each teacher: put `unmapped` into the members of `ensemble`",
    ),
    (f"ensemble: [{TWO}], weights: [1]", ".weights: found 1 for 2 teachers, expected one for each"),
    (f"ensemble: [{TWO}], weights: [1, 0]", ".weights.1: found 0, expected a number above 0"),
    (f"ensemble: [{TWO}], weights: [1, .inf]", ".weights.1: found inf, expected a finite number"),
    (f"ensemble: [{TWO}], weights: [.nan, 1]", ".weights.0: found nan, expected a finite number"),
    (f"ensemble: [{TWO}], weights: 2", ".weights: found 2, expected a list"),
    (
        f"ensemble: [{TWO}], memory: inturn",
        ".memory: found 'inturn', expected 'together' or 'in_turn' (did you mean 'in_turn'?)",
    ),
    (f"ensemble: [{TWO}], timm: c", ": found several kinds of teacher (ensemble, timm), expected one"),
    (f"ensembel: [{TWO}]", f".ensembel: found no teacher 'ensembel' (did you mean 'ensemble'?); known: {TEACHERS}"),
]


@pytest.mark.parametrize(("keys", "sentence"), WRONG, ids=[keys for keys, _ in WRONG])
def test_a_wrong_ensemble(here: Path, mistakes: Mistakes, keys: str, sentence: str) -> None:
    assert mistakes(section(f"{{{keys}}}")) == [f"teacher.yaml:2: teacher{sentence.replace('{here}', str(here))}"]


def test_all_mistakes_at_once_each_with_its_line(here: Path, mistakes: Mistakes) -> None:
    told = mistakes(
        """\
data: {labeled: golden/train, validation: 0.2}
teacher:
  ensemble:
    - timm: resnet18
      chekpoint: a.pt
      fit:
        epoch: 3
    - tim: resnet34
      batch_size: 8
    - not_there.at_all: x
    - timm: resnet50
      checkpoint: a.pt
      batch_size: 0
      mean: [0.5]
  weights: [1, 2]
  fit: {}
student: {timm: mobilenetv2_035}
trian: {}
"""
    )
    assert [line.split(": ", 2)[:2] for line in told] == [
        ["teacher.yaml:5", "teacher.ensemble.0.chekpoint"],
        ["teacher.yaml:7", "teacher.ensemble.0.fit.epoch"],
        ["teacher.yaml:8", "teacher.ensemble.1.tim"],
        ["teacher.yaml:10", "teacher.ensemble.2.not_there.at_all"],
        ["teacher.yaml:12", "teacher.ensemble.3.checkpoint"],
        ["teacher.yaml:13", "teacher.ensemble.3.batch_size"],
        ["teacher.yaml:14", "teacher.ensemble.3.mean"],
        ["teacher.yaml:15", "teacher.weights"],
        ["teacher.yaml:16", "teacher.fit"],
        ["teacher.yaml:18", "trian"],
    ]
    assert told[0].endswith("image_size, mean, std, model_args")
    assert "unknown key (did you mean 'checkpoint'?); known: classes, class_map," in told[0]
    assert "unknown key (did you mean 'epochs'?); known: epochs, batch_size," in told[1]
    assert told[7].endswith("found 2 for 4 teachers, expected one for each")


def test_a_recipe_takes_its_checkpoints_from_the_command_line(here: Path) -> None:
    for name in ("a.safetensors", "b.safetensors", "s.safetensors"):
        (here / name).touch()
    config = load_config(
        recipes()["trashnet-ensemble"],
        [
            "data.manifest=index.csv",
            "teacher.ensemble.0.checkpoint=a.safetensors",
            "teacher.ensemble.1.checkpoint=b.safetensors",
            "student.checkpoint=s.safetensors",
        ],
    )
    assert [member.checkpoint.name for member in config.teacher.ensemble] == ["a.safetensors", "b.safetensors"]
