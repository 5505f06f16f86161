"""torchvision's segmentation models as teachers: their weights are all there and their classes known, or they raise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from torch.nn import functional

from distill.core.errors import CheckpointError, DistillError, TeacherError, UserError
from distill.core.known_classes import KNOWN_CLASSES
from distill.core.settings import FitSettings
from distill.core.types import softmax
from distill.teaching import as_labeller
from distill.torch_predictor import TorchPredictor
from teachers.torchvision import Config, build
from tests.teachers.fitting import fits

SMALL = "lraspp_mobilenet_v3_large"  # 3.2 M parameters: the smallest there is
DEEP = "deeplabv3_mobilenet_v3_large"
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
NAMES = ["background", "person"]


def saved(path: Path, name: str = SMALL, classes: int = 21, **arguments: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    model: torch.nn.Module = torchvision.models.get_model(
        name, weights=None, weights_backbone=None, num_classes=classes, **arguments
    ).eval()
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.out_channels == classes:
            torch.nn.init.normal_(layer.weight)
    torch.save(model.state_dict(), path)
    return model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.pth"
    saved(path)
    return path


def built(config: Config, classes: list[str] = NAMES) -> TorchPredictor:
    found = build(config, classes)
    assert isinstance(found, TorchPredictor)
    return found


def error(kind: type[DistillError], config: Config, classes: list[str] = NAMES) -> str:
    with pytest.raises(DistillError) as caught:
        build(config, classes)
    assert type(caught.value) is kind
    return str(caught.value)


@pytest.mark.parametrize("name", [SMALL, DEEP])
def test_a_local_checkpoint_answers_as_the_model_it_came_from(tmp_path: Path, name: str) -> None:
    model = saved(tmp_path / "w.pth", name)
    teacher = built(Config(torchvision=name, checkpoint=tmp_path / "w.pth", image_size=64))
    assert teacher.class_names == tuple(KNOWN_CLASSES["voc"])
    assert (teacher.image_size, teacher.any_size) == (64, True)
    found = teacher.predict(IMAGES)
    cells = 4 if name == DEEP else 8
    assert found.shape == (2, cells, cells, 21) and found.dtype == np.float32
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.inference_mode():
        expected = model(((torch.from_numpy(IMAGES) / 255 - mean) / std).permute(0, 3, 1, 2))["out"]
        enlarged = functional.interpolate(torch.from_numpy(found).permute(0, 3, 1, 2), size=64, mode="bilinear")
    np.testing.assert_allclose(enlarged, expected, atol=2e-3 * float(expected.abs().max()))


def test_a_checkpoint_with_an_auxiliary_head(tmp_path: Path) -> None:
    """torchvision's own files hold one, which only training needs."""
    saved(tmp_path / "aux.pth", DEEP, aux_loss=True)
    with_head = torch.load(tmp_path / "aux.pth", weights_only=True)
    assert any(key.startswith("aux_classifier.") for key in with_head)
    teacher = built(Config(torchvision=DEEP, checkpoint=tmp_path / "aux.pth", image_size=64))
    assert not any("aux" in key for key in teacher.network.state_dict())
    torch.save({k: v for k, v in with_head.items() if not k.startswith("aux_classifier.")}, tmp_path / "bare.pth")
    bare = built(Config(torchvision=DEEP, checkpoint=tmp_path / "bare.pth", image_size=64))
    assert bare.digest() == teacher.digest()


def test_size_and_normalisation_default_to_what_torchvision_says(checkpoint: Path) -> None:
    teacher = built(Config(torchvision=SMALL, checkpoint=checkpoint))
    assert teacher.image_size == 520
    given = built(Config(torchvision=SMALL, checkpoint=checkpoint, image_size=96, mean=[0.1] * 3, std=[0.2] * 3))
    assert (given.image_size, given.network.mean.expand(3).tolist()) == (96, pytest.approx([25.5] * 3))
    assert given.predict(np.zeros((1, 128, 128, 3), np.uint8)).shape == (1, 16, 16, 21)


def test_voc_becomes_person_and_background_at_several_sizes(checkpoint: Path) -> None:
    config = Config(
        torchvision=SMALL,
        checkpoint=checkpoint,
        image_size=64,
        class_map={"person": "person"},
        unmapped="background",
        test_time_augmentation="mirror",
        test_time_scales=[0.5, 1, 1.5],
    )
    teacher = built(config)
    person = softmax(teacher.predict(IMAGES))[..., KNOWN_CLASSES["voc"].index("person")]
    alone = config.model_copy(update={"test_time_augmentation": "none", "test_time_scales": [1.0]})
    np.testing.assert_allclose(softmax(as_labeller(teacher, NAMES, alone).predict(IMAGES))[..., 1], person, atol=1e-5)
    labeller = as_labeller(teacher, NAMES, config)
    assert labeller.passes == 6
    answer = softmax(labeller.predict_all(lambda size: [IMAGES.repeat(2, axis=1).repeat(2, axis=2)[:, :size, :size]]))
    assert answer.shape == (2, 12, 12, 2)


@pytest.fixture
def downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], torch.nn.Module]:
    """What a download would bring: the state that is then loaded by torchvision's own code."""

    def prepare(name: str) -> torch.nn.Module:
        model = saved(tmp_path / "w.pth", name, **({} if name == SMALL else {"aux_loss": True}))
        state = torch.load(tmp_path / "w.pth", weights_only=True)
        monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: dict(state))
        return model

    return prepare


@pytest.mark.parametrize(
    ("name", "weights"), [(SMALL, "default"), (SMALL, "COCO_WITH_VOC_LABELS_V1"), (DEEP, "default")]
)
def test_pretrained_weights_bring_their_classes(
    downloaded: Callable[[str], torch.nn.Module], name: str, weights: str
) -> None:
    model = downloaded(name)
    teacher = built(Config(torchvision=name, weights=weights, image_size=64))
    assert teacher.class_names == tuple(KNOWN_CLASSES["voc"])
    assert teacher.network.pretrained
    own = teacher.network.backbone.state_dict()
    kept = {f"model.{key}": value for key, value in model.state_dict().items() if not key.startswith("aux")}
    assert own.keys() == kept.keys()
    assert all(torch.equal(own[key], value) for key, value in kept.items())


def test_no_backbone_is_downloaded_beside_a_checkpoint(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("asked for a download")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    built(Config(torchvision=SMALL, checkpoint=checkpoint, image_size=64))
    built(Config(torchvision=SMALL, checkpoint=checkpoint, image_size=64, fit=FitSettings()))
    built(Config(torchvision=SMALL, weights="none", image_size=64, fit=FitSettings()))


def test_it_can_be_fitted_and_loaded_again(checkpoint: Path, tmp_path: Path) -> None:
    config = Config(torchvision=SMALL, checkpoint=checkpoint, image_size=64, fit=FitSettings())
    teacher = built(config)
    assert teacher.class_names == tuple(NAMES)
    before = torch.load(checkpoint, weights_only=True)
    own = teacher.network.backbone.state_dict()
    heads = ("classifier.low_classifier.", "classifier.high_classifier.")
    assert all(torch.equal(own[f"model.{k}"], v) for k, v in before.items() if not k.startswith(heads))
    np.testing.assert_array_equal(teacher.predict(IMAGES), np.zeros((2, 8, 8, 2)))
    assert teacher.network.pretrained
    fits(teacher, built(config), config, IMAGES, tmp_path)


def test_what_it_needs_is_said(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert error(UserError, Config(torchvision="deeplabv3_resnet5")).startswith(
        "teacher.torchvision: torchvision has no segmentation model 'deeplabv3_resnet5' (did you mean"
        " 'deeplabv3_resnet50'?); known: deeplabv3_mobilenet_v3_large, "
    )
    assert error(UserError, Config(torchvision=SMALL, weights="coco")).startswith(
        "teacher.weights: found 'coco', expected 'default', 'none' or one of COCO_WITH_VOC_LABELS_V1"
    )
    assert error(TeacherError, Config(torchvision=SMALL, weights="none")) == (
        "teacher: without weights it knows nothing: give `checkpoint`, `weights: default` or `fit: {}`"
    )
    assert error(TeacherError, Config(torchvision=SMALL, checkpoint=checkpoint, classes=["a", "b"])).startswith(
        "teacher.classes names 2 classes, but the weights have 21 outputs, expected 21 names."
    )
    saved(tmp_path / "seven.pth", classes=7)
    seven = Config(torchvision=SMALL, checkpoint=tmp_path / "seven.pth", image_size=64)
    assert error(TeacherError, seven).startswith(
        "teacher: the weights have 7 classes, the data 2 (background, person). Name the weights' classes in"
        " teacher.classes"
    )
    own = list("abcdefg")
    assert built(seven.model_copy(update={"classes": own})).class_names == tuple(own)
    assert built(seven, own).class_names == tuple(own)
    told = error(CheckpointError, Config(torchvision=DEEP, checkpoint=checkpoint)).splitlines()
    assert told[0] == f"{checkpoint} does not fit this model:"

    def refuse(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    assert error(UserError, Config(torchvision=SMALL)) == (
        "teacher.torchvision: the weights LRASPP_MobileNet_V3_Large_Weights.COCO_WITH_VOC_LABELS_V1 cannot be had"
        " (URLError: <urlopen error no network>). Give teacher.checkpoint a local file"
    )
