"""`recipe:` fills in what the config does not say, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from distill.config_file import load_config, save_config
from distill.recipe import RECIPES, RecipeName
from tests.config.conftest import SMALL

Mistakes = Callable[..., list[str]]


@pytest.mark.parametrize("name", get_args(RecipeName))
def test_a_recipe_sets_what_is_not_said(here: Path, name: RecipeName) -> None:
    (here / "teacher.yaml").write_text(f"{SMALL}recipe: {name}\ntrain: {{epochs: 7}}\n")
    config = load_config(here / "teacher.yaml")
    assert config.recipe == name and config.train.epochs == 7
    for section, settings in RECIPES[name].items():
        for key, value in settings.items():
            assert getattr(getattr(config, section), key) == value
    save_config(config, here / "again.yaml")
    assert load_config(here / "again.yaml").model_dump(exclude={"output"}) == config.model_dump(exclude={"output"})


def test_without_a_word_it_is_auto(here: Path) -> None:
    (here / "teacher.yaml").write_text(SMALL)
    silent = load_config(here / "teacher.yaml")
    (here / "teacher.yaml").write_text(f"{SMALL}recipe: auto\n")
    assert load_config(here / "teacher.yaml").model_dump() == silent.model_dump()
    assert silent.recipe == "auto"


def test_what_is_said_wins(here: Path) -> None:
    (here / "teacher.yaml").write_text(f"{SMALL}recipe: kl-t4\ntrain: {{temperature: 2}}\n")
    assert load_config(here / "teacher.yaml").train.temperature == 2
    assert load_config(here / "teacher.yaml", ["train.loss=js"]).train.loss == "js"


def test_an_unknown_recipe(mistakes: Mistakes) -> None:
    (told,) = mistakes(f"{SMALL}recipe: dists\n")
    assert told.startswith("teacher.yaml:4: recipe: found 'dists', expected 'auto', ")
    assert told.endswith(" (did you mean 'dist'?)")


@pytest.mark.parametrize("text", ["recipe: [dist]", "recipe:", "recipe: 3"])
def test_a_recipe_that_is_no_name(mistakes: Mistakes, text: str) -> None:
    (told,) = mistakes(f"{SMALL}{text}\n")
    assert told.startswith("teacher.yaml:4: recipe: found ")


def test_a_section_of_another_form_is_told_once(mistakes: Mistakes) -> None:
    (told,) = mistakes(f"{SMALL}recipe: dist\ntrain: 7\n")
    assert told == "teacher.yaml:5: train: found 7, expected keys and values"
