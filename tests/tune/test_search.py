"""A search on tiny images: trials share what the teacher said, the same call goes on, the best becomes a recipe."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from distill.config_file import load_config
from distill.core.errors import UserError
from distill.search.show import describe
from distill.search.study import Budget, search
from tests.workplace import prepare

optuna = pytest.importorskip("optuna")

_CHANGES = [
    "student={timm: test_resnet, pretrained: false, image_size: 32}",
    "teacher.fit.epochs=4",
    "labels.views=2",
    "train.batch_size=64",
    "train.epochs=1",
]
_SPACE = ["train.lr=1e-4..1e-2:log", "train.mixup=0,0.2"]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    return prepare(tmp_path_factory.mktemp("tune"), photos).root / "teacher.yaml"


@pytest.fixture(scope="module")
def folder(config: Path) -> Path:
    _search(config, 2, config.parent / "search")
    return config.parent / "search"


def _search(config: Path, trials: int | None, folder: Path, space: list[str] | None = None, **more: object) -> dict:
    budget = Budget(trials, more.pop("minutes", None))  # type: ignore[arg-type]
    changes = [*_CHANGES, *more.pop("changes", [])]  # type: ignore[misc]
    return search(config, changes, _SPACE if space is None else space, budget, folder, Console(quiet=True))


def test_trials_share_what_the_teacher_said(folder: Path) -> None:
    document = json.loads((folder / "trials.json").read_text())
    assert [trial["state"] for trial in document["trials"]] == ["complete"] * 2
    shared = folder / "shared/labels/shard-00000.arrow"
    for trial in document["trials"]:
        run = Path(trial["run"])
        assert shared.samefile(run / "labels/shard-00000.arrow")
        stage = json.loads((run / "student/stage.json").read_text())
        assert trial["score"] == stage["summary"]["scores"]["validation"]["accuracy"]["value"]
        settings = load_config(run / "config.yaml")
        assert settings.train.lr == trial["settings"]["train.lr"]
        assert settings.train.mixup == float(trial["settings"]["train.mixup"])
    assert len({trial["settings"]["train.lr"] for trial in document["trials"]}) == 2


def test_the_best_is_a_recipe(folder: Path) -> None:
    document = json.loads((folder / "trials.json").read_text())
    best = max(document["trials"], key=lambda trial: trial["score"])
    assert document["best"]["score"] == best["score"]
    recipe = folder / "teacher-tuned.yaml"
    assert document["recipe"] == str(recipe)
    found = load_config(recipe)
    assert found.train.lr == document["best"]["settings"]["train.lr"] and found.train.epochs == 1
    assert found.output == Path.cwd() / "runs/teacher-tuned"
    assert re.match(
        r"# teacher-tuned: the best of \d trials of `distill tune`, validation accuracy", recipe.read_text()
    )


def test_the_same_call_goes_on(config: Path, folder: Path) -> None:
    before = json.loads((folder / "trials.json").read_text())["trials"][:2]
    assert _search(config, 2, folder)["trials"] == before
    # a worker that was killed leaves a trial behind; the next one goes on with it
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{folder / 'study.db'}")
    distributions = study.trials[0].distributions
    left = study.ask(distributions)
    document = _search(config, 3, folder)
    assert [trial["state"] for trial in document["trials"]] == ["complete"] * 3
    assert document["trials"][:2] == before and left.number == 2
    assert float(document["trials"][2]["settings"]["train.lr"]) == pytest.approx(left.params["train.lr"], rel=1e-3)
    lines = [part for part in describe(document) if isinstance(part, str)]
    assert lines[-1] == f"distill run {folder / 'teacher-tuned.yaml'}"


def test_time_ends_a_search(config: Path, folder: Path) -> None:
    """The first trial is always begun, the second would end too late."""
    before = len(json.loads((folder / "trials.json").read_text())["trials"])
    assert len(_search(config, None, folder, minutes=1e-4)["trials"]) == before + 1


def test_trials_that_fail_are_told(config: Path, folder: Path) -> None:
    broken = folder.with_name("broken")
    (broken / "shared").parent.mkdir()
    (broken / "shared").symlink_to(folder / "shared")
    with pytest.raises(UserError, match=r"all of 3 trials failed; the last one: .*the loss is no number any more"):
        _search(config, 5, broken, ["train.lr=1e30,1e31"])


@pytest.mark.parametrize(
    ("space", "told"),
    [
        (["train.min_crop=0.2,0.4"], "train.min_crop decides what the teacher is asked"),
        (["labels.views=2,4"], "labels.views decides what the teacher is asked"),
        (["train.lr=1e-3,fast"], "expected .* number"),
        (["train.lrr=1,2"], "lrr"),
    ],
)
def test_mistakes_show_before_anything_is_trained(config: Path, tmp_path: Path, space: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        _search(config, 1, tmp_path / "out", space)
    assert not (tmp_path / "out/shared/data").exists()


def test_a_folder_holds_one_search(config: Path, folder: Path) -> None:
    with pytest.raises(UserError, match="holds a search with other ranges or choices; choose another --out"):
        _search(config, 3, folder, ["train.lr=1e-4..1e-3:log"])
    with pytest.raises(UserError, match="holds a search with other settings"):
        _search(config, 3, folder, changes=["train.epochs=2"])
