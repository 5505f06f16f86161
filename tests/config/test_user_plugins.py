"""A user's own module as teacher, by its dotted path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from distill.config_file import load_config, save_config
from distill.core import plugins
from tests.config.conftest import SMALL

Mistakes = Callable[..., list[str]]

MODULE = '''\
"""Knows two colours."""

from distill.core.settings import TeacherSettings


class Config(TeacherSettings):
    """A teacher of our own."""

    depth: int = 3
    """How deep."""


def build(config, class_names):
    return config.depth, tuple(class_names)
'''


@pytest.fixture
def own(here: Path, request: pytest.FixtureRequest) -> str:
    """A module in the current folder; each test has one of another name, for Python keeps what it imported."""
    package = f"own_{request.node.name}"
    (here / package).mkdir()
    (here / package / "colours.py").write_text(MODULE)
    return f"{package}.colours"


def test_it_is_a_plugin_like_any_other(here: Path, own: str) -> None:
    (here / "teacher.yaml").write_text(
        SMALL.replace("{timm: resnet18}", f"{{{own}: default, depth: 5, batch_size: 4}}")
    )
    config = load_config(here / "teacher.yaml")
    assert (config.teacher.depth, config.teacher.batch_size) == (5, 4)
    assert plugins.build(config.teacher, ["red", "green"]) == (5, ("red", "green"))
    assert plugins.user_files(config.teacher) == [here / f"{own.replace('.', '/')}.py"]
    assert plugins.user_files(config.student) == plugins.user_files(config.data) == []


def test_it_survives_being_saved(here: Path, own: str) -> None:
    (here / "teacher.yaml").write_text(SMALL.replace("{timm: resnet18}", f"{{{own}: default, depth: 5}}"))
    config = load_config(here / "teacher.yaml")
    save_config(config, here / "config.yaml")
    again = load_config(here / "config.yaml")
    assert again.teacher == config.teacher


def test_its_keys_are_checked(mistakes: Mistakes, own: str) -> None:
    (told,) = mistakes(SMALL.replace("{timm: resnet18}", f"{{{own}: x, dept: 5}}"))
    assert told.startswith("teacher.yaml:2: teacher.dept: unknown key (did you mean 'depth'?); known: classes,")
    assert told.endswith(f"depth, {own}")


def test_a_module_that_is_not_there(here: Path, mistakes: Mistakes) -> None:
    assert mistakes(SMALL.replace("{timm: resnet18}", "{not_there.at_all: x}")) == [
        "teacher.yaml:2: teacher.not_there.at_all: cannot import 'not_there.at_all' (ModuleNotFoundError: No module"
        f" named 'not_there'); looked in {here} first"
    ]


def test_a_module_that_fails(here: Path, mistakes: Mistakes) -> None:
    (here / "breaks").mkdir()
    (here / "breaks/now.py").write_text("1 / 0\n")
    assert mistakes(SMALL.replace("{timm: resnet18}", "{breaks.now: x}")) == [
        "teacher.yaml:2: teacher.breaks.now: cannot import 'breaks.now' (ZeroDivisionError: division by zero);"
        f" looked in {here} first"
    ]


def test_a_module_that_is_no_plugin(here: Path, mistakes: Mistakes) -> None:
    (here / "half").mkdir()
    (here / "half/done.py").write_text("class Config: ...\n")
    assert mistakes(SMALL.replace("{timm: resnet18}", "{half.done: x}")) == [
        "teacher.yaml:2: teacher.half.done: half.done: a plugin of teachers defines Config and build; this module lacks"
        " build"
    ]
