"""Keras models and SavedModels as teachers."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.core import plugins
from distill.core.errors import DistillError, TeacherError, UserError
from distill.core.settings import FitSettings
from distill.core.types import FloatArray, Predictor, softmax
from teachers.keras import Config, build

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs the extra `tensorflow`"),
    # of Keras when it writes: numpy's keyword `copy`
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

CLASSES = ["background", "cat", "dog"]
HALF = {"mean": [0.5] * 3, "std": [0.5] * 3}
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
WEIGHTS = np.random.default_rng(1).normal(0, 2, (3, 3)).astype(np.float32)
"""Class by channel."""


def logits(images: Any = IMAGES) -> FloatArray:
    return (images / np.float32(127.5) - 1) @ WEIGHTS.T


def model(shape: tuple[int | None, ...] = (16, 16, 3), *, image: bool = False, probabilities: bool = False) -> Any:
    import keras

    taken = keras.Input(shape)
    layer = keras.layers.Conv2D(3, 1, use_bias=False)
    answer = layer(taken)
    layer.set_weights([WEIGHTS.T[None, None]])
    if image:
        answer = keras.layers.GlobalAveragePooling2D()(answer)
    if probabilities:
        answer = keras.layers.Softmax()(answer)
    return keras.Model(taken, answer)


def saved(path: Path, found: Any) -> Path:
    if path.suffix:
        found.save(path)
    else:
        found.export(path, verbose=False)
    return path


def open_(path: Path, data: list[str] = CLASSES, **settings: Any) -> Predictor:
    return build(Config(keras=path, **({**HALF} | settings)), data)


def error(kind: type[DistillError], path: Path, **settings: Any) -> str:
    with pytest.raises(DistillError) as caught:
        open_(path, **settings)
    assert type(caught.value) is kind
    return str(caught.value)


@pytest.mark.parametrize("name", ["tiny.keras", "tiny"])
def test_maps_of_a_keras_file_and_of_a_saved_model(tmp_path: Path, name: str) -> None:
    teacher = open_(saved(tmp_path / name, model()))
    assert (teacher.class_names, teacher.image_size, teacher.any_size) == (tuple(CLASSES), 16, False)
    found = teacher.predict(IMAGES)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, logits(), atol=1e-4)


@pytest.mark.parametrize("name", ["tiny.keras", "tiny"])
def test_a_classifier_of_any_size_that_answers_probabilities(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path / name, model((None, None, 3), image=True, probabilities=True))
    teacher = open_(path, image_size=16)
    assert teacher.any_size
    found = softmax(teacher.predict(IMAGES))
    np.testing.assert_allclose(found, softmax(logits().mean(axis=(1, 2))), atol=1e-4)
    large = IMAGES.repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_allclose(softmax(teacher.predict(large)), found, atol=1e-4)
    assert error(UserError, path) == f"teacher.image_size: {name} takes any size: say which, such as 512"


def test_python_code_inside_is_refused(tmp_path: Path) -> None:
    import keras

    taken = keras.Input((16, 16, 3))
    path = saved(tmp_path / "tiny.keras", keras.Model(taken, keras.layers.Lambda(lambda x: x * 2)(taken)))
    told = error(UserError, path)
    assert told.startswith(f"teacher.keras: {path} cannot be loaded (")
    assert "Lambda" in told


def test_only_files_and_folders_that_can_be_read_without_code(tmp_path: Path) -> None:
    (tmp_path / "old.h5").touch()
    with pytest.raises(ValueError, match=r"found old\.h5, expected a \.keras file \(`model\.save\('model\.keras'\)`\)"):
        Config(keras=tmp_path / "old.h5")
    with pytest.raises(ValueError, match=r"found no saved_model\.pb in .*, expected the folder of a SavedModel"):
        Config(keras=tmp_path)
    (tmp_path / "bad.keras").write_bytes(b"not a model")
    assert error(UserError, tmp_path / "bad.keras").startswith(
        f"teacher.keras: {tmp_path}/bad.keras cannot be loaded ("
    )


def test_what_it_needs_is_said(tmp_path: Path) -> None:
    path = saved(tmp_path / "tiny.keras", model())
    assert error(UserError, path, mean=None, std=None) == (
        "teacher.mean: the input of tiny.keras is float32: give the `mean` and `std` it was trained with"
    )
    assert error(UserError, path, fit=FitSettings()) == (
        "teacher.fit: tiny.keras cannot be fitted, only torch models can"
    )
    assert error(TeacherError, path, classes=["a", "b"]).startswith("teacher.keras: tiny.keras answers [N, 16, 16, 3],")


def test_the_digest_counts_the_weights(tmp_path: Path) -> None:
    first, second = saved(tmp_path / "first", model()), model()
    second.layers[-1].set_weights([-WEIGHTS.T[None, None]])
    other = saved(tmp_path / "second", second)
    assert open_(first).digest() == open_(first).digest() != open_(other).digest()
    assert {path.name for path in plugins.user_files(Config(keras=first))} >= {"saved_model.pb", "variables.index"}
    np.testing.assert_allclose(open_(other).predict(IMAGES), -logits(), atol=1e-4)


def test_without_tensorflow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "tiny.keras", model())
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "tensorflow" else real(name, *a))
    assert error(UserError, path) == "teacher.keras: TensorFlow is missing: pip install 'mobile-distill[tensorflow]'"
