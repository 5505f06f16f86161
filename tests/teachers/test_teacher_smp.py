"""Models of segmentation_models_pytorch as teachers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import timm
import torch

from distill.core import plugins
from distill.core.errors import CheckpointError, DistillError, TeacherError, UserError
from distill.core.settings import FitSettings
from distill.core.types import FloatArray
from distill.torch_predictor import TorchPredictor
from teachers.smp import Config, build
from tests.teachers.fitting import fits

ENCODER = "tu-test_resnet"  # timm's own model for tests
CLASSES = ["background", "cat", "dog"]
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
IMAGENET = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def model(name: str = "unet", classes: int = 3, **arguments: Any) -> Any:
    torch.manual_seed(0)
    return smp.create_model(name, ENCODER, None, classes=classes, **arguments).eval()


def said(found: Any) -> FloatArray:
    """[N, h, w, C] of a model itself."""
    mean, std = IMAGENET
    with torch.inference_mode():
        answer: FloatArray = found(((torch.from_numpy(IMAGES) / 255 - mean) / std).permute(0, 3, 1, 2)).numpy()
    return answer.transpose(0, 2, 3, 1)


def saved(path: Path, found: Any) -> Path:
    torch.save(found.state_dict(), path)
    return path


def built(data: list[str] = CLASSES, **settings: Any) -> TorchPredictor:
    found = build(Config(**({"encoder": ENCODER, "image_size": 64} | settings)), data)
    assert isinstance(found, TorchPredictor)
    return found


def error(kind: type[DistillError], data: list[str] = CLASSES, **settings: Any) -> str:
    with pytest.raises(DistillError) as caught:
        built(data, **settings)
    assert type(caught.value) is kind
    return str(caught.value)


@pytest.mark.parametrize("name", ["Unet", "deeplabv3plus", "fpn", "segformer", "linknet"])
def test_a_local_checkpoint_answers_as_the_model_it_came_from(tmp_path: Path, name: str) -> None:
    found = model(name)
    teacher = built(smp=name, checkpoint=saved(tmp_path / "w.pth", found))
    assert (teacher.class_names, teacher.image_size, teacher.any_size) == (tuple(CLASSES), 64, True)
    answer = teacher.predict(IMAGES)
    assert answer.shape == (2, 64, 64, 3) and answer.dtype == np.float32
    np.testing.assert_allclose(answer, said(found), atol=1e-4)
    assert teacher.predict(np.zeros((1, 96, 96, 3), np.uint8)).shape == (1, 96, 96, 3)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("asked for a download")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", refuse)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)
    monkeypatch.setattr("timm.models._builder.load_pretrained", refuse)


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """A folder that `save_pretrained` wrote; its config names weights of the encoder, as those on the hub do."""

    def written(**arguments: Any) -> Path:
        model(**arguments).save_pretrained(tmp_path / "hub")
        config = json.loads((tmp_path / "hub" / "config.json").read_text())
        (tmp_path / "hub" / "config.json").write_text(json.dumps(config | {"encoder_weights": "imagenet"}))
        return tmp_path / "hub"

    return written


def test_a_folder_brings_its_architecture(
    folder: Callable[..., Path], no_network: None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder(name="fpn", classes=3)
    teacher = built(smp=str(path), encoder="resnet50")
    np.testing.assert_allclose(teacher.predict(IMAGES), said(model("fpn")), atol=1e-4)
    assert teacher.network.pretrained
    assert capsys.readouterr().out == ""
    assert {file.name for file in plugins.user_files(Config(smp=str(path)))} == {"config.json", "model.safetensors"}
    assert error(UserError, smp=str(path), checkpoint=path / "model.safetensors") == (
        f"teacher.checkpoint: {path} has its own weights: leave out `checkpoint`"
    )


def test_an_encoder_starts_from_weights_of_a_classifier(tmp_path: Path, no_network: None) -> None:
    torch.manual_seed(1)
    classifier = timm.create_model("test_resnet")
    path = saved(tmp_path / "resnet.pth", classifier)
    teacher = built(smp="unet", encoder_checkpoint=path, fit=FitSettings())
    encoder, given = teacher.network.trained_part().model.state_dict(), classifier.state_dict()
    assert teacher.network.pretrained and set(encoder) < set(given)
    for name, values in encoder.items():
        torch.testing.assert_close(values, given[name], atol=0, rtol=0)
    assert error(UserError, smp="unet", encoder="resnet18", encoder_checkpoint=path, fit=FitSettings()) == (
        "teacher.encoder_checkpoint: is for timm's encoders, called tu-NAME, not for resnet18"
    )
    assert str(path) in error(
        CheckpointError, smp="unet", encoder="tu-test_efficientnet", encoder_checkpoint=path, fit=FitSettings()
    )


@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_one_channel_is_the_second_of_two_classes(folder: Callable[..., Path], activation: str | None) -> None:
    path = folder(classes=1, activation=activation)
    answer = built(smp=str(path), classes=["rest", "cat"]).predict(IMAGES)
    assert answer.shape == (2, 64, 64, 2)
    np.testing.assert_allclose(answer[..., 0], 0)
    np.testing.assert_allclose(answer[..., 1:], said(model(classes=1)), atol=1e-4)
    assert error(TeacherError, ["rest", "cat"], smp=str(path)) == (
        "teacher.classes: the weights have one output, that of the second of two classes: name both, such as"
        " [background, person]"
    )


def test_an_activation_and_a_head_for_the_image_are_left_out(folder: Callable[..., Path]) -> None:
    path = folder(activation="softmax2d", aux_params={"classes": 5})
    plain = said(lambda x: model(activation="softmax2d", aux_params={"classes": 5})(x)[0])
    answer = built(smp=str(path)).predict(IMAGES)
    np.testing.assert_allclose(np.exp(answer) / np.exp(answer).sum(axis=-1, keepdims=True), plain, atol=1e-5)


def test_a_fitted_teacher_keeps_all_but_the_last_layer(tmp_path: Path, folder: Callable[..., Path]) -> None:
    seven = model(classes=7)
    for source in (
        {"smp": "unet", "checkpoint": saved(tmp_path / "w.pth", seven)},
        {"smp": str(folder(classes=7))},
    ):
        teacher = built(["a", "b"], fit=FitSettings(), **source)
        assert teacher.class_names == ("a", "b") and teacher.network.pretrained
        own = teacher.network.backbone.state_dict()
        kept = {k: v for k, v in seven.state_dict().items() if not k.startswith("segmentation_head.")}
        assert all(torch.equal(own[f"model.{key}"], value) for key, value in kept.items())
        assert teacher.network.classifier().weight.shape == (2, 16, 3, 3)
        assert teacher.network.trained_part() is teacher.network.backbone


def test_it_can_be_fitted_and_loaded_again(tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"smp": "unet", "encoder_weights": None, "fit": FitSettings()}
    teacher, again = built(["a", "b"], **settings), built(["a", "b"], **settings)
    assert not teacher.network.pretrained
    assert teacher.network.trained_part() is teacher.network.backbone.get_submodule("model.encoder")
    config = Config(**settings)
    fits(teacher, again, config, IMAGES, tmp_path)


def test_what_it_needs_is_said(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", model())
    assert error(UserError, smp="deeplabv3plu", checkpoint=path).startswith(
        "teacher.smp: found no architecture 'deeplabv3plu' (did you mean 'deeplabv3plus'?); known: unet, "
    )
    assert error(UserError, smp="unet", encoder="resnet5", checkpoint=path) == (
        "teacher.encoder: found no encoder 'resnet5' (did you mean 'resnet50'?); timm's are called tu-NAME"
    )
    assert error(TeacherError, smp="unet") == (
        "teacher: without weights it knows nothing: give `checkpoint`, a model on the hub or `fit: {}`"
    )
    assert error(TeacherError, ["a"], smp="unet", checkpoint=path).startswith(
        "teacher: the weights have 3 classes, the data 1 (a)."
    )
    assert error(CheckpointError, smp="fpn", checkpoint=path).startswith(f"{path} does not fit this model:\n")
    fpn = saved(tmp_path / "fpn.pth", model("fpn"))
    assert error(UserError, smp="fpn", checkpoint=fpn, image_size=50).startswith(
        "teacher.image_size: this model does not take 50 px (RuntimeError: Wrong input shape height=50, width=50."
    )
    (tmp_path / "empty").mkdir()
    assert error(UserError, smp=str(tmp_path / "empty")).startswith(f"teacher.smp: {tmp_path}/empty cannot be loaded (")


def test_folders_are_relative_to_the_config(tmp_path: Path, folder: Callable[..., Path]) -> None:
    path = folder()
    found = Config.model_validate({"smp": "./hub"}, context={"folder": tmp_path})
    assert found.smp == str(path)
    assert Config.model_validate({"smp": "unet"}, context={"folder": tmp_path}).smp == "unet"
    with pytest.raises(ValueError, match=f"found no folder {tmp_path}/no"):
        Config.model_validate({"smp": "./no"}, context={"folder": tmp_path})
