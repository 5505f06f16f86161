"""timm teachers: their weights are all there and their classes known, or there is no teacher."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

from distill.checkpoint import save_weights
from distill.core.errors import CheckpointError, DistillError, TeacherError, UserError
from distill.core.settings import FitSettings
from teachers.timm import Config, build

TINY = "test_resnet"  # 0.5 M parameters, 160 px: timm's own model for tests


def saved(folder: Path, classes: int = 3, name: str = TINY, seed: int = 0) -> tuple[nn.Module, Path]:
    torch.manual_seed(seed)
    model: nn.Module = timm.create_model(name, num_classes=classes).eval()
    path = folder / "weights.safetensors"
    save_weights(model, path)
    return model, path


def error(config: Config, classes: list[str], kind: type[DistillError]) -> str:
    with pytest.raises(DistillError) as caught:
        build(config, classes)
    assert type(caught.value) is kind
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_local_checkpoint_answers_as_the_model_it_came_from(tmp_path: Path) -> None:
    model, path = saved(tmp_path)
    mean, std = [0.1, 0.2, 0.3], [0.9, 0.8, 0.7]
    teacher = build(Config(timm=TINY, checkpoint=path, image_size=32, mean=mean, std=std), ["cat", "dog", "owl"])
    assert teacher.class_names == ("cat", "dog", "owl")
    assert teacher.image_size == 32
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    fed = (
        torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - torch.tensor(mean).view(1, 3, 1, 1)
    ) / torch.tensor(std).view(1, 3, 1, 1)
    with torch.inference_mode():
        expected = model(fed)
    found = teacher.predict(images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-4 * float(expected.abs().max()) + 1e-6)


def test_size_and_normalisation_default_to_what_timm_knows(tmp_path: Path) -> None:
    model, path = saved(tmp_path)
    teacher = build(Config(timm=TINY, checkpoint=path), ["a", "b", "c"])
    assert teacher.image_size == model.default_cfg["input_size"][-1]
    np.testing.assert_allclose(teacher.network.mean.expand(3), np.array(model.default_cfg["mean"]) * 255, rtol=1e-6)
    np.testing.assert_allclose(teacher.network.std.expand(3), np.array(model.default_cfg["std"]) * 255, rtol=1e-6)


def test_a_transformer_gets_its_positions_for_the_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_weights(timm.create_model("test_vit", num_classes=2, img_size=64), tmp_path / "vit.safetensors")
    teacher = build(Config(timm="test_vit", checkpoint=tmp_path / "vit.safetensors", image_size=64), ["a", "b"])
    assert teacher.predict(np.zeros((1, 64, 64, 3), np.uint8)).shape == (1, 2)


def test_imagenet_weights_bring_imagenet_names(tmp_path: Path) -> None:
    _, path = saved(tmp_path, classes=1000)
    teacher = build(Config(timm=TINY, checkpoint=path), ["cat", "dog"])
    assert len(teacher.class_names) == 1000
    assert teacher.class_names[281] == "tabby, tabby cat"


def test_names_given_for_the_weights(tmp_path: Path) -> None:
    _, path = saved(tmp_path, classes=4)
    teacher = build(Config(timm=TINY, checkpoint=path, classes=["w", "x", "y", "z"]), ["cat", "dog"])
    assert teacher.class_names == ("w", "x", "y", "z")


def test_without_weights_there_is_no_teacher() -> None:
    told = error(Config(timm=TINY, pretrained=False), ["a", "b"], TeacherError)
    assert told == "teacher: without weights it knows nothing: give `checkpoint`, `pretrained: true` or `fit: {}`"


def test_a_teacher_to_be_fitted_may_start_from_nothing() -> None:
    teacher = build(Config(timm=TINY, pretrained=False, fit=FitSettings(), image_size=32), ["a", "b"])
    assert teacher.class_names == ("a", "b")
    assert not teacher.network.pretrained


def test_a_fitted_teacher_keeps_all_but_the_head_of_its_checkpoint(tmp_path: Path) -> None:
    model, path = saved(tmp_path, classes=1000)
    teacher = build(Config(timm=TINY, checkpoint=path, fit=FitSettings()), ["a", "b"])
    assert teacher.network.pretrained
    assert teacher.network.classifier().out_features == 2
    own = teacher.network.backbone.state_dict()
    head = model.default_cfg["classifier"]
    assert all(torch.equal(own[key], value) for key, value in model.state_dict().items() if not key.startswith(head))


def test_another_number_of_classes_is_an_error_never_a_random_head(tmp_path: Path) -> None:
    _, path = saved(tmp_path, classes=7)
    told = error(Config(timm=TINY, checkpoint=path), ["cat", "dog"], TeacherError)
    assert told == (
        "teacher: the weights have 7 classes, the data 2 (cat, dog). Name the weights' classes in teacher.classes and"
        " map them by teacher.class_map, or train a new classifier with `fit: {}`"
    )


def test_names_that_do_not_count_what_the_weights_have(tmp_path: Path) -> None:
    _, path = saved(tmp_path, classes=7)
    told = error(Config(timm=TINY, checkpoint=path, classes=["a", "b"]), ["a", "b"], CheckpointError)
    assert told.splitlines()[0] == f"{path} does not fit this model:"
    assert told.splitlines()[1].startswith(
        "  2 of another shape: fc.bias: found (7,), expected (2,), fc.weight: found (7, "
    )


def test_a_checkpoint_without_a_head(tmp_path: Path) -> None:
    model, path = saved(tmp_path)
    state = {key: value for key, value in model.state_dict().items() if not key.startswith("fc.")}
    torch.save(state, path)
    told = error(Config(timm=TINY, checkpoint=path), ["a", "b", "c"], CheckpointError)
    assert "  2 missing: fc.bias, fc.weight" in told.splitlines()


def test_a_checkpoint_of_another_architecture(tmp_path: Path) -> None:
    _, path = saved(tmp_path, name="test_efficientnet")
    for config in (Config(timm=TINY, checkpoint=path), Config(timm=TINY, checkpoint=path, fit=FitSettings())):
        lines = error(config, ["a", "b", "c"], CheckpointError).splitlines()
        assert lines[0] == f"{path} does not fit this model:"
        assert " missing: conv1.0.weight, " in lines[1]
        assert " not part of this model: " in lines[2]


def pretend_to_download(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm's own rule for weights of other classes: it leaves the head as it was drawn at random, and says nothing."""

    def load(model: nn.Module, **_: object) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(0.5)

    monkeypatch.setattr("timm.models._builder.load_pretrained", load)


def test_pretrained_weights_of_other_classes_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_to_download(monkeypatch)
    told = error(Config(timm=TINY, classes=["a", "b"]), ["a", "b"], TeacherError)
    assert told == (
        f"teacher.classes names 2 classes, but the pretrained weights of {TINY} have 1000: timm would give it a random"
        " classifier. Use `fit: {}` to train one, or `class_map` to choose among its own"
    )


def test_pretrained_weights_keep_their_own_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_to_download(monkeypatch)
    teacher = build(Config(timm=TINY), ["cat", "dog"])
    assert len(teacher.class_names) == 1000
    assert teacher.network.classifier().out_features == 1000
    assert teacher.license == "apache-2.0", "as timm states it of these weights"
    assert build(Config(timm=TINY, pretrained=False, fit=FitSettings()), ["cat", "dog"]).license is None


@pytest.mark.parametrize("name", ["num_classes", "pretrained", "checkpoint_path"])
def test_arguments_that_would_give_a_random_head_unseen(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} cannot be set here"):
        Config(timm=TINY, model_args={name: 3})


def test_arguments_that_the_model_does_not_take(tmp_path: Path) -> None:
    _, path = saved(tmp_path)
    for config in (
        Config(timm=TINY, checkpoint=path, model_args={"wings": 2}),
        Config(timm=TINY, pretrained=False, fit=FitSettings(), model_args={"wings": 2}),
    ):
        told = error(config, ["a", "b", "c"], UserError)
        assert told.startswith(f"teacher.model_args: {TINY} does not take them (")


def test_an_unknown_model_gets_a_suggestion() -> None:
    told = error(Config(timm="convnext_bas.fb_in22k"), ["a", "b"], UserError)
    assert told == "teacher.timm: timm has no model 'convnext_bas.fb_in22k' (did you mean 'convnext_base'?)"
    assert error(Config(timm="zzzzqqqq"), ["a", "b"], UserError) == "teacher.timm: timm has no model 'zzzzqqqq'"


def test_an_unknown_tag() -> None:
    told = error(Config(timm=f"{TINY}.nobody_in9k", fit=FitSettings()), ["a", "b"], UserError)
    assert "Invalid pretrained tag (nobody_in9k)" in told


def test_weights_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("We couldn't connect to 'https://huggingface.co'\nand so on")

    monkeypatch.setattr("timm.models._builder.load_pretrained", refuse)
    assert error(Config(timm=TINY), ["a", "b"], UserError) == (
        f"teacher.timm: the pretrained weights of {TINY} cannot be had (OSError: We couldn't connect to"
        " 'https://huggingface.co'). Give teacher.checkpoint a local file"
    )
