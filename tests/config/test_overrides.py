"""`--set a.b=value`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from distill.config import RunConfig
from distill.config_file import load_config
from tests.config.conftest import SMALL

Mistakes = Callable[..., list[str]]


@pytest.fixture
def load(here: Path) -> Callable[..., RunConfig]:
    def loaded(*overrides: str, text: str = SMALL) -> RunConfig:
        (here / "teacher.yaml").write_text(text)
        return load_config(here / "teacher.yaml", overrides)

    return loaded


def test_values_are_yaml(load: Callable[..., RunConfig]) -> None:
    config = load(
        "train.epochs=3",
        "train.lr=1e-3",
        "benchmark.threads=[1, 4]",
        "gates={max_size_mb: 2}",
        "teacher.fit={}",
        "data.classes=[cat, dog=2]",
    )
    assert (config.train.epochs, config.train.lr) == (3, 0.001)
    assert config.benchmark.threads == [1, 4]
    assert config.gates.max_size_mb == 2
    assert config.teacher.fit is not None
    assert config.data.classes == ["cat", "dog=2"]


def test_the_last_one_wins_and_the_file_is_beaten(load: Callable[..., RunConfig]) -> None:
    assert load("seed=2", "seed=3", text=f"{SMALL}seed: 1\n").seed == 3


def test_a_number_names_an_entry_of_a_list(here: Path, load: Callable[..., RunConfig]) -> None:
    (here / "a.safetensors").touch()
    text = SMALL.replace("{timm: resnet18}", "{ensemble: [{timm: resnet18, checkpoint: null}, {timm: resnet34}]}")
    config = load(
        "teacher.ensemble.0.checkpoint=a.safetensors",
        "teacher.ensemble.1={timm: resnet50}",
        "teacher.ensemble.1.fit.epochs=3",
        "benchmark.threads.1=4",
        text=f"{text}benchmark: {{threads: [1, 2]}}\n",
    )
    first, second = config.teacher.ensemble
    assert first.checkpoint == here / "a.safetensors"
    assert (second.timm, second.fit.epochs) == ("resnet50", 3)
    assert config.benchmark.threads == [1, 4]


def test_an_empty_value_takes_a_value_back(load: Callable[..., RunConfig]) -> None:
    assert load("gates.max_size_mb=", text=f"{SMALL}gates: {{max_size_mb: 4}}\n").gates.max_size_mb is None


def test_a_section_that_the_file_leaves_empty(load: Callable[..., RunConfig]) -> None:
    assert load("train.epochs=3", text=f"{SMALL}train:\n").train.epochs == 3


def test_a_needed_key_can_come_from_the_command_line(load: Callable[..., RunConfig]) -> None:
    text = SMALL.replace("labeled: golden/train, validation: 0.2", "manifest: null")
    assert load("data.manifest=index.csv", text=text).data.manifest == Path.cwd() / "index.csv"


def test_paths_start_at_the_current_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = here / "elsewhere"
    (elsewhere / "mine/train").mkdir(parents=True)
    (elsewhere / "more").mkdir()
    (here / "teacher.yaml").write_text(SMALL)
    monkeypatch.chdir(elsewhere)
    config = load_config(
        here / "teacher.yaml", ["data.labeled=mine/train", "data.unlabeled=[more, ../photos]", "output=out"]
    )
    assert config.data.labeled == elsewhere / "mine/train"
    assert config.data.unlabeled == [elsewhere / "more", here / "photos"]
    assert config.output == elsewhere / "out"


WRONG = [
    ("train.epochs", "train.epochs: expected key=value, for example train.epochs=3"),
    ("=3", "=3: expected key=value, for example train.epochs=3"),
    ("train..epochs=3", "train..epochs=3: expected key=value, for example train.epochs=3"),
    ("train.epochs=many", "train.epochs: found 'many', expected a whole number"),
    ("train.epochs=[1", "train.epochs: found '[1', expected a whole number"),
    ("train.epochs=", "train.epochs: found nothing, expected a whole number"),
    ("data.labeled=nope", "data.labeled: found no file or folder {here}/nope"),
    ("data.unlabeled=[photos, nope]", "data.unlabeled.1: found no file or folder {here}/nope"),
    ("labels.view=3", "labels.view: unknown key (did you mean 'views'?); known: views, top_k, grid, engine, workers"),
    ("seed=0x_", "seed: found '0x_', expected a whole number"),
    ("seed=&a [*a]", "seed: found '&a [*a]', expected a whole number"),
    (
        "labels={view: 3}",
        "labels.view: unknown key (did you mean 'views'?); known: views, top_k, grid, engine, workers",
    ),
    ("data.validation=2", "data.validation: found 2, expected a path or a number below 1"),
    ("teacher.timm.name=x", "teacher.timm.name: `timm` is no section: nothing can be set below it"),
    (
        "seed=!!python/object/apply:os.system ['touch pwned']",
        "seed: found \"!!python/object/apply:os.system ['touch pwned']\", expected a whole number",
    ),
]


ENTRY = "is a list: expected the number of an entry"
IN_LISTS = [
    ("seed.0=1", "seed.0: `seed` is no section: nothing can be set below it"),
    ("teacher.ensemble.2.timm=a", f"teacher.ensemble.2.timm: `ensemble` {ENTRY}, 0 to 1"),
    ("teacher.ensemble.-1.timm=a", f"teacher.ensemble.-1.timm: `ensemble` {ENTRY}, 0 to 1"),
    ("teacher.ensemble.timm=a", f"teacher.ensemble.timm: `ensemble` {ENTRY}, 0 to 1"),
    ("benchmark.threads.0=1", f"benchmark.threads.0: `threads` {ENTRY}, but it is empty"),
    ("teacher.ensemble.1.checkpoint=no.pt", "teacher.ensemble.1.checkpoint: found no file or folder {here}/no.pt"),
]


@pytest.mark.parametrize(("override", "sentence"), IN_LISTS, ids=[override for override, _ in IN_LISTS])
def test_a_wrong_override_in_a_list(here: Path, mistakes: Mistakes, override: str, sentence: str) -> None:
    text = SMALL.replace("{timm: resnet18}", "{ensemble: [{timm: resnet18}, {timm: resnet34}]}") + "seed: 1\n"
    if "threads" in override:
        text += "benchmark: {threads: []}\n"
    assert mistakes(text, [override])[-1] == f"--set: {sentence.format(here=here)}"


@pytest.mark.parametrize(("override", "sentence"), WRONG, ids=[override for override, _ in WRONG])
def test_a_wrong_override(here: Path, mistakes: Mistakes, override: str, sentence: str) -> None:
    assert mistakes(SMALL, [override]) == [f"--set: {sentence.format(here=here)}"]
    assert not (here / "pwned").exists()


def test_mistakes_of_the_file_come_first(mistakes: Mistakes) -> None:
    assert mistakes(f"{SMALL}seed: -1\n", ["train.epochs=0", "labels.views=0"]) == [
        "teacher.yaml:4: seed: found -1, expected at least 0",
        "--set: labels.views: found 0, expected at least 1",
        "--set: train.epochs: found 0, expected at least 1",
    ]


def test_a_mistake_of_the_file_keeps_its_line_beside_an_override(mistakes: Mistakes) -> None:
    (told,) = mistakes(SMALL.replace(", validation: 0.2", ""), ["data.resize=squash"])
    assert told.startswith("teacher.yaml:1: data: no validation set: ")
