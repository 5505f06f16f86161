"""ONNX files as teachers: any layout, any task; what the shapes do not tell is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from distill.core import plugins
from distill.core.errors import DistillError, TeacherError, UserError
from distill.core.settings import FitSettings
from distill.core.types import FloatArray, Images, Predictor, softmax
from teachers.onnx import Config, build

CLASSES = ["background", "cat", "dog"]
WEIGHTS = np.random.default_rng(1).normal(0, 2, (3, 3)).astype(np.float32)
"""Of a convolution of 1x1: class by channel."""
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
Side = int | str | None


def write(
    path: Path,
    shape: Sequence[Side],
    *,
    nhwc: bool = False,
    dtype: int = TensorProto.FLOAT,
    weights: FloatArray = WEIGHTS,
    image: bool = False,
    activation: str | None = None,
    more: Sequence[onnx.NodeProto] = (),
    answer: tuple[str, int] = ("answer", TensorProto.FLOAT),
    external: bool = False,
) -> Path:
    """A linear classifier of pixels, or of an image's mean."""
    nodes, x = [], "image"

    def then(kind: str, *others: str, **attributes: Any) -> None:
        nonlocal x
        nodes.append(helper.make_node(kind, [x, *others], [f"{len(nodes)}"], **attributes))
        x = f"{len(nodes) - 1}"

    if dtype != TensorProto.FLOAT:
        then("Cast", to=TensorProto.FLOAT)
    if nhwc:
        then("Transpose", perm=[0, 3, 1, 2])
    then("Conv", "weights")
    if image:
        then("GlobalAveragePool")
        then("Flatten")
    elif nhwc:
        then("Transpose", perm=[0, 2, 3, 1])
    if activation == "Softmax":
        then("Softmax", axis=1 if image or not nhwc else 3)
    elif activation is not None:
        then(activation)
    then("Identity")
    nodes[-1].output[0] = "answer"
    kernel = numpy_helper.from_array(weights.reshape(*weights.shape, 1, 1), "weights")
    graph = helper.make_graph(
        [*nodes, *more],
        "tiny",
        [helper.make_tensor_value_info("image", dtype, shape)],
        [helper.make_tensor_value_info(*answer, None)],
        [kernel],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path, save_as_external_data=external, size_threshold=0, location=f"{path.name}.data")
    return path


def logits(images: Images, weights: FloatArray = WEIGHTS) -> FloatArray:
    return ((images / np.float32(255) - np.float32(MEAN)) / np.float32(STD)) @ weights.T


def open_(path: Path, data: list[str] = CLASSES, **settings: Any) -> Predictor:
    settings = {"mean": MEAN, "std": STD} | settings
    return build(Config(onnx=path, **settings), data)


def error(kind: type[DistillError], path: Path, data: list[str] = CLASSES, **settings: Any) -> str:
    with pytest.raises(DistillError) as caught:
        open_(path, data, **settings)
    assert type(caught.value) is kind
    return str(caught.value)


@pytest.mark.parametrize(("batch", "nhwc"), [(1, False), (3, False), (None, False), ("N", True), (1, True), (2, True)])
def test_maps_in_either_layout_and_any_batch(tmp_path: Path, batch: Side, nhwc: bool) -> None:
    shape = [batch, 16, 16, 3] if nhwc else [batch, 3, 16, 16]
    teacher = open_(write(tmp_path / "a.onnx", shape, nhwc=nhwc))
    assert (teacher.class_names, teacher.image_size, teacher.any_size) == (tuple(CLASSES), 16, False)
    found = teacher.predict(IMAGES)
    assert found.dtype == np.float32 and found.shape == (5, 16, 16, 3)
    np.testing.assert_allclose(found, logits(IMAGES), atol=1e-4)


@pytest.mark.parametrize("nhwc", [False, True])
def test_a_classifier(tmp_path: Path, nhwc: bool) -> None:
    shape = [None, 16, 16, 3] if nhwc else [None, 3, 16, 16]
    found = open_(write(tmp_path / "a.onnx", shape, nhwc=nhwc, image=True)).predict(IMAGES)
    np.testing.assert_allclose(found, logits(IMAGES).mean(axis=(1, 2)), atol=1e-4)


def test_open_sides_take_any_size(tmp_path: Path) -> None:
    path = write(tmp_path / "a.onnx", [None, 3, "H", "W"])
    teacher = open_(path, image_size=16)
    assert (teacher.image_size, teacher.any_size) == (16, True)
    large = np.repeat(IMAGES, 6, axis=1).repeat(6, axis=2)
    np.testing.assert_allclose(teacher.predict(large), logits(large), atol=1e-4)
    assert error(UserError, path) == "teacher.image_size: a.onnx takes any size: say which, such as 512"


@pytest.mark.parametrize("output", ["auto", "probabilities"])
@pytest.mark.parametrize("image", [True, False])
def test_probabilities_become_logits(tmp_path: Path, image: bool, output: str) -> None:
    path = write(tmp_path / "a.onnx", [1, 3, 16, 16], activation="Softmax", image=image)
    expected = logits(IMAGES).mean(axis=(1, 2)) if image else logits(IMAGES)
    expected = expected - np.log(np.exp(expected).sum(axis=-1, keepdims=True))
    found = open_(path, output=output).predict(IMAGES)
    likely = expected > -12
    np.testing.assert_allclose(found[likely], expected[likely], atol=1e-3)
    assert np.isfinite(found).all()


def test_values_from_0_to_1_that_do_not_sum_to_one_are_asked_about(tmp_path: Path) -> None:
    path = write(tmp_path / "a.onnx", [1, 3, 16, 16], activation="Sigmoid")
    told = error(UserError, path)
    assert told.startswith("teacher.output: a.onnx answers noise with ") and "say whether these are `prob" in told
    chances = 1 / (1 + np.exp(-logits(IMAGES)))
    found = open_(path, output="probabilities").predict(IMAGES)
    np.testing.assert_allclose(softmax(found), chances / chances.sum(axis=-1, keepdims=True), atol=1e-4)
    np.testing.assert_allclose(open_(path, output="logits").predict(IMAGES), chances, atol=1e-4)


def test_weights_that_were_left_behind(tmp_path: Path) -> None:
    path = write(tmp_path / "a.onnx", [1, 3, 16, 16], external=True)
    (tmp_path / "a.onnx.data").unlink()
    assert error(UserError, path) == (f"teacher.onnx: {path} keeps weights in a.onnx.data, which is not beside it")


def test_what_is_said_to_be_probabilities_is_looked_at(tmp_path: Path) -> None:
    told = error(UserError, write(tmp_path / "a.onnx", [1, 3, 16, 16]), output="probabilities")
    assert told.startswith("teacher.output: found 'probabilities', but a.onnx answers noise with -")


@pytest.mark.parametrize("activation", ["Sigmoid", None])
def test_one_channel_is_the_second_of_two_classes(tmp_path: Path, activation: str | None) -> None:
    path = write(tmp_path / "a.onnx", [1, 3, 16, 16], weights=WEIGHTS[:1], activation=activation)
    found = open_(path, ["x"], classes=["rest", "cat"]).predict(IMAGES)
    assert found.shape == (5, 16, 16, 2)
    difference, expected = found[..., 1] - found[..., 0], logits(IMAGES, WEIGHTS[:1])[..., 0]
    sure = np.abs(expected) < 6
    np.testing.assert_allclose(difference[sure], expected[sure], atol=1e-2)
    assert error(UserError, path, ["rest", "cat"]) == (
        "teacher.classes: a.onnx answers one channel, that of the second of two classes: name both, such as"
        " [background, person]"
    )


def test_bytes_go_in_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.onnx", [1, 16, 16, 3], nhwc=True, dtype=TensorProto.UINT8)
    found = open_(path, mean=None, std=None).predict(IMAGES)
    np.testing.assert_allclose(found, IMAGES.astype(np.float32) @ WEIGHTS.T, rtol=1e-4, atol=1e-2)
    assert error(UserError, path) == "teacher.mean: a.onnx takes bytes 0..255: leave out `mean` and `std`"


def test_half_precision(tmp_path: Path) -> None:
    path = write(tmp_path / "a.onnx", [1, 3, 16, 16], dtype=TensorProto.FLOAT16)
    np.testing.assert_allclose(open_(path).predict(IMAGES), logits(IMAGES), atol=0.05)


def test_floats_need_mean_and_std(tmp_path: Path) -> None:
    path = write(tmp_path / "a.onnx", [1, 3, 16, 16])
    assert error(UserError, path, mean=None, std=None) == (
        "teacher.mean: the input of a.onnx is float32: give the `mean` and `std` it was trained with"
    )
    with pytest.raises(ValueError, match="found one of `mean` and `std`, expected both or none"):
        Config(onnx=path, mean=MEAN)


def test_layouts_that_shapes_do_not_tell(tmp_path: Path) -> None:
    path = write(tmp_path / "a.onnx", [None] * 4)
    assert error(UserError, path, image_size=16) == (
        "teacher.layout: the input of a.onnx is [?, ?, ?, ?]: say `nchw` or `nhwc` (channels first or last)"
    )
    np.testing.assert_allclose(open_(path, image_size=16, layout="nchw").predict(IMAGES), logits(IMAGES), atol=1e-4)
    square = write(tmp_path / "b.onnx", [1, 3, 16, 16], weights=np.vstack([WEIGHTS] * 6)[:16])
    names = [f"c{n}" for n in range(16)]
    assert error(UserError, square, names) == (
        "teacher.layout: b.onnx answers [N, 16, 16, 16] about 16 channels: say `nchw` or `nhwc` (channels first or"
        " last)"
    )
    found = open_(square, names, layout="nchw").predict(IMAGES)
    np.testing.assert_allclose(found[..., :3], logits(IMAGES), atol=1e-4)


WRONG_SHAPES = [
    ([1, 1, 16, 16], "the input of a.onnx is [1, 1, 16, 16], expected RGB images [N, 3, H, W] or [N, H, W, 3]"),
    ([1, 3, 16, 12], "a.onnx takes images of [16, 12] pixels, expected a square"),
]


@pytest.mark.parametrize(("shape", "sentence"), WRONG_SHAPES)
def test_inputs_that_are_no_square_images(tmp_path: Path, shape: list[Side], sentence: str) -> None:
    weights = WEIGHTS[:, : int(str(shape[1]))]
    assert error(TeacherError, write(tmp_path / "a.onnx", shape, weights=weights)) == f"teacher.onnx: {sentence}"


def test_another_size_than_the_files(tmp_path: Path) -> None:
    path = write(tmp_path / "a.onnx", [1, 3, 16, 16])
    assert error(UserError, path, image_size=32) == "teacher.image_size: found 32, but a.onnx takes 16 px alone"


def test_answers_of_another_number_of_classes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.onnx", [1, 3, 16, 16])
    assert error(TeacherError, path, ["a", "b"]) == (
        "teacher.onnx: a.onnx answers [N, 3, 16, 16], expected 2 channels (a, b), at the end or behind the batch. Name"
        " its classes in teacher.classes"
    )
    assert open_(path, ["a", "b"], classes=["x", "y", "z"]).class_names == ("x", "y", "z")


def test_places_of_classes_are_no_answer(tmp_path: Path) -> None:
    place = helper.make_node("ArgMax", ["answer"], ["place"], axis=1, keepdims=0)
    path = write(tmp_path / "a.onnx", [1, 3, 16, 16], more=[place], answer=("place", TensorProto.INT64))
    assert error(TeacherError, path) == (
        "teacher.onnx: a.onnx answers int64 [N, 16, 16], places of classes as it seems. Export it so that it ends in"
        " logits or probabilities"
    )


def test_one_of_several_outputs(tmp_path: Path) -> None:
    path = write(tmp_path / "a.onnx", [1, 3, 16, 16])
    model = onnx.load(path)
    model.graph.node.append(helper.make_node("Neg", ["answer"], ["aux"]))
    model.graph.output.append(helper.make_tensor_value_info("aux", TensorProto.FLOAT, None))
    onnx.save(model, path)
    assert error(UserError, path) == "teacher.output_name: a.onnx answers answer, aux: say which holds the classes"
    assert error(UserError, path, output_name="out") == (
        "teacher.output_name: found 'out', but a.onnx answers answer, aux"
    )
    np.testing.assert_allclose(open_(path, output_name="aux").predict(IMAGES), -logits(IMAGES), atol=1e-4)


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    path = write(tmp_path / "a.onnx", [1, 3, 16, 16], activation="Sqrt")
    assert error(TeacherError, path) == "teacher.onnx: a.onnx answers noise with values that are not finite"


def test_what_is_no_onnx_file(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(UserError) as caught:
        open_(path)
    assert str(caught.value).startswith(f"teacher.onnx: {path} is no ONNX file (")


def test_a_lack_of_memory_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage `labels` then asks about fewer images at once."""
    teacher = open_(write(tmp_path / "a.onnx", [None, 3, 16, 16]))

    def fails(*_: object) -> None:
        raise RuntimeError(said)

    monkeypatch.setattr("teachers.onnx._Session.run", fails)
    said = "Failed to allocate memory for requested buffer of size 1"
    with pytest.raises(MemoryError, match=said):
        teacher.predict(IMAGES)
    said = "Invalid dimension"
    with pytest.raises(TeacherError) as caught:
        teacher.predict(IMAGES)
    assert str(caught.value) == (
        "teacher.onnx: a.onnx does not run on [5, 3, 16, 16] (RuntimeError: Invalid dimension)"
    )


def test_it_cannot_be_fitted(tmp_path: Path) -> None:
    told = error(UserError, write(tmp_path / "a.onnx", [1, 3, 16, 16]), fit=FitSettings())
    assert told == "teacher.fit: a.onnx cannot be fitted, only torch models can"


def test_the_digest_counts_all_that_decides(tmp_path: Path) -> None:
    path = write(tmp_path / "a.onnx", [1, 3, 16, 16])
    other = write(tmp_path / "b.onnx", [1, 3, 16, 16], weights=WEIGHTS * 2)
    same = write(tmp_path / "c.onnx", [1, 3, 16, 16])
    found = [
        open_(path).digest(),
        open_(other).digest(),
        open_(path, mean=[0, 0, 0]).digest(),
        open_(path, classes=["x", "y", "z"]).digest(),
    ]
    assert len(set(found)) == 4
    assert open_(same).digest() == found[0] == open_(path).digest()


def test_weights_beside_the_file_count_too(tmp_path: Path) -> None:
    path = write(tmp_path / "a.onnx", [1, 3, 16, 16], external=True)
    before = open_(path).digest()
    assert plugins.user_files(Config(onnx=path)) == [tmp_path / "a.onnx.data"]
    weights = (tmp_path / "a.onnx.data").read_bytes()
    (tmp_path / "a.onnx.data").write_bytes(np.frombuffer(weights, np.float32).__neg__().tobytes())
    np.testing.assert_allclose(open_(path).predict(IMAGES), -logits(IMAGES), atol=1e-4)
    assert open_(path).digest() != before


def test_the_licence_is_what_the_file_states(tmp_path: Path) -> None:
    path = write(tmp_path / "a.onnx", [None, 16, 16, 3], nhwc=True)
    assert open_(path).license is None
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"license": "mit"})
    onnx.save(model, path)
    assert open_(path).license == "mit"
