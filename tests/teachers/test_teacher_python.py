"""A user's callable as teacher: what it returns is checked, what it raises is told."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from distill.core import plugins
from distill.core.errors import DistillError, TeacherError, UserError
from distill.core.settings import FitSettings
from distill.core.types import Predictor
from teachers.python import Config, build

CLASSES = ["red", "green", "blue"]
IMAGES = np.stack([np.full((8, 8, 3), colour, np.uint8) for colour in ([200, 10, 10], [10, 200, 10])])

SOURCE = """\
import numpy as np


def colours(images):
    assert images.dtype == np.uint8 and images.shape[1:] == (8, 8, 3)
    return images.mean(axis=(1, 2)) / 10


class Model:
    @staticmethod
    def shares(images):
        means = images.mean(axis=(1, 2))
        return means / means.sum(axis=1, keepdims=True)


def listed(images):
    return colours(images).tolist()


def flat(images):
    return colours(images)[:, 0]


def narrow(images):
    return colours(images)[:, :2]


def short(images):
    return colours(images)[:1]


def nothing(images):
    return None


def ragged(images):
    return [[1, 2, 3], [1, 2]]


def words(images):
    return [["a", "b", "c"]] * len(images)


def infinite(images):
    return colours(images) / np.array([1, 1, np.inf]) - np.array([0, 0, np.inf])


def negative(images):
    return np.array([[1.5, -0.5, 0.0]] * len(images))


def fails(images):
    raise KeyError("no such layer")


weights = [1, 2, 3]
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    name = "a_colour_model"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    sys.modules.pop(name, None)


@pytest.fixture
def teacher(module: str) -> Callable[..., Predictor]:
    def built(name: str, **settings: object) -> Predictor:
        return build(Config(python=f"{module}:{name}", image_size=8, **settings), CLASSES)

    return built


def error(do: Callable[..., object], *arguments: object, **named: object) -> DistillError:
    with pytest.raises(DistillError) as caught:
        do(*arguments, **named)
    return caught.value


@pytest.mark.parametrize("name", ["colours", "listed"])
def test_logits_are_handed_on(teacher: Callable[..., Predictor], name: str) -> None:
    predictor = teacher(name)
    assert predictor.class_names == tuple(CLASSES)
    assert predictor.image_size == 8
    found = predictor.predict(IMAGES)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[20, 1, 1], [1, 20, 1]])


def test_probabilities_become_logits(teacher: Callable[..., Predictor]) -> None:
    found = teacher("Model.shares", probabilities=True).predict(IMAGES)
    np.testing.assert_allclose(
        np.exp(found), [[200 / 220, 10 / 220, 10 / 220], [10 / 220, 200 / 220, 10 / 220]], rtol=1e-5
    )


def test_a_probability_of_zero_is_a_finite_logit(teacher: Callable[..., Predictor]) -> None:
    black_but_red = np.zeros((1, 8, 8, 3), np.uint8)
    black_but_red[..., 0] = 255
    assert np.isfinite(teacher("Model.shares", probabilities=True).predict(black_but_red)).all()


def test_its_own_classes(teacher: Callable[..., Predictor]) -> None:
    assert teacher("colours", classes=["r", "g", "b"]).class_names == ("r", "g", "b")


ANSWERS = [
    ("flat", {}, "returned shape (2,), expected (2, 3), or (2, h, w, 3) for pixels"),
    ("narrow", {}, "returned shape (2, 2), expected (2, 3), or (2, h, w, 3) for pixels"),
    ("short", {}, "returned shape (1, 3), expected (2, 3), or (2, h, w, 3) for pixels"),
    ("nothing", {}, "returned shape (), expected (2, 3), or (2, h, w, 3) for pixels"),
    ("infinite", {}, "returned values that are not finite"),
    ("colours", {"probabilities": True}, "returned rows that are no probabilities"),
    ("negative", {"probabilities": True}, "returned rows that are no probabilities"),
    ("fails", {}, "raised KeyError: 'no such layer'"),
    ("words", {}, "raised ValueError: could not convert string to float: 'a'"),
]


@pytest.mark.parametrize(("name", "settings", "sentence"), ANSWERS, ids=[f"{a[0]} {a[1]}" for a in ANSWERS])
def test_a_wrong_answer(
    module: str, teacher: Callable[..., Predictor], name: str, settings: dict[str, bool], sentence: str
) -> None:
    found = error(teacher(name, **settings).predict, IMAGES)
    assert type(found) is TeacherError
    assert str(found) == f"teacher.python: {module}:{name} {sentence}"


def test_a_ragged_answer(module: str, teacher: Callable[..., Predictor]) -> None:
    found = error(teacher("ragged").predict, IMAGES)
    assert str(found).startswith(f"teacher.python: {module}:ragged raised ValueError: setting an array element")


def test_a_name_that_the_module_lacks(module: str, teacher: Callable[..., Predictor]) -> None:
    for name in ("colors", "Model.parts", "colours.x.y"):
        found = error(teacher, name)
        assert type(found) is UserError
        assert str(found) == f"teacher.python: the module {module} has no {name!r}"


def test_what_is_not_callable(module: str, teacher: Callable[..., Predictor]) -> None:
    assert str(error(teacher, "weights")) == f"teacher.python: {module}:weights is not callable"


def test_a_module_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = error(build, Config(python="not.there:f", image_size=8), CLASSES)
    assert (
        str(found)
        == f"cannot import 'not.there' (ModuleNotFoundError: No module named 'not'); looked in {tmp_path} first"
    )


def test_it_cannot_be_fitted(module: str, teacher: Callable[..., Predictor]) -> None:
    found = error(teacher, "colours", fit=FitSettings())
    assert str(found) == "teacher.fit: a Python callable cannot be fitted, only torch models can"


def test_its_source_is_watched(module: str, tmp_path: Path) -> None:
    config = Config(python=f"{module}:colours", image_size=8)
    assert plugins.user_files(config) == [tmp_path / f"{module}.py"]


@pytest.mark.parametrize("text", ["model", "model:", ":f", "a b:f", "a:b:c", "a-b:f"])
def test_what_is_no_module_and_name(text: str) -> None:
    with pytest.raises(ValueError, match="expected `module:name` of a callable, for example my_model:predict"):
        Config(python=text, image_size=8)
