"""Hugging Face models for semantic segmentation as teachers, from folders that `save_pretrained` wrote."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distill.core import plugins
from distill.core.errors import DistillError, TeacherError, UserError
from distill.core.settings import FitSettings
from distill.torch_predictor import TorchPredictor
from teachers.transformers import Config, build
from tests.teachers.fitting import fits

pytestmark = pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="needs the extra `hf`")

OWN = ["wall", "sky", "tree", "cat"]
NAMES = {"id2label": dict(enumerate(OWN)), "label2id": {name: place for place, name in enumerate(OWN)}}
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
IMAGENET = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def settings_of(kind: str, **changes: Any) -> Any:
    """The smallest model of a kind."""
    import transformers as hf

    names = NAMES | changes
    match kind:
        case "segformer":
            sides = {"hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 1, 2, 4], "depths": [1] * 4}
            return hf.SegformerConfig(**sides, decoder_hidden_size=16, **names)
        case "upernet":
            stages = [f"stage{n}" for n in range(1, 5)]
            backbone = hf.ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, out_features=stages)
            return hf.UperNetConfig(
                backbone_config=backbone, hidden_size=16, auxiliary_channels=8, auxiliary_in_channels=16, **names
            )
        case "beit":
            layers = {"num_hidden_layers": 4, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 32}
            return hf.BeitConfig(image_size=64, patch_size=16, out_indices=[1, 2, 3, 4], **layers, **names)
        case _:
            return hf.MobileNetV2Config(depth_multiplier=0.35, image_size=64, output_stride=16, **names)


Write = Callable[..., tuple[Path, Any]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(kind: str = "segformer", processor: Any = None, **changes: Any) -> tuple[Path, Any]:
        from transformers import AutoModelForSemanticSegmentation

        torch.manual_seed(0)
        model = AutoModelForSemanticSegmentation.from_config(settings_of(kind, **changes)).eval()
        for layer in model.modules():
            if isinstance(layer, torch.nn.Conv2d) and layer.out_channels == len(OWN):
                torch.nn.init.normal_(layer.weight)
        model.save_pretrained(tmp_path / kind)
        if processor is not None:
            processor.save_pretrained(tmp_path / kind)
        return tmp_path / kind, model

    return written


def built(path: Path, classes: list[str] = OWN, **settings: Any) -> TorchPredictor:
    found = build(Config(transformers=str(path), **settings), classes)
    assert isinstance(found, TorchPredictor)
    return found


def error(kind: type[DistillError], path: Path | str, **settings: Any) -> str:
    with pytest.raises(DistillError) as caught:
        build(Config(transformers=str(path), **settings), ["a", "b"])
    assert type(caught.value) is kind
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "cells", "any_size"), [("segformer", 16, True), ("upernet", 64, True), ("beit", 16, False), ("m", 4, True)]
)
def test_it_answers_as_the_model_in_the_folder(write: Write, kind: str, cells: int, any_size: bool) -> None:
    path, model = write(kind)
    teacher = built(path, ["a", "b"], image_size=64)
    assert (teacher.class_names, teacher.any_size) == (tuple(OWN), any_size)
    found = teacher.predict(IMAGES)
    assert found.shape == (2, cells, cells, 4) and found.dtype == np.float32
    mean, std = IMAGENET
    with torch.inference_mode():
        expected = model(pixel_values=((torch.from_numpy(IMAGES) / 255 - mean) / std).permute(0, 3, 1, 2)).logits
    np.testing.assert_allclose(found, expected.permute(0, 2, 3, 1), atol=1e-4 * float(expected.abs().max()) + 1e-6)
    if any_size:
        assert teacher.predict(np.zeros((1, 96, 96, 3), np.uint8)).shape == (1, cells * 3 // 2, cells * 3 // 2, 4)


def test_size_and_normalisation_are_those_it_was_trained_with(write: Write) -> None:
    import transformers as hf

    processor = hf.SegformerImageProcessor(
        size={"height": 96, "width": 96}, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6]
    )
    path, _ = write(processor=processor)
    teacher = built(path)
    assert teacher.image_size == 96
    np.testing.assert_allclose(teacher.network.mean.expand(3) / 255, [0.1, 0.2, 0.3], rtol=1e-6)
    np.testing.assert_allclose(teacher.network.std.expand(3) / 255, [0.4, 0.5, 0.6], rtol=1e-6)
    given = built(path, image_size=64, mean=[0.5] * 3, std=[0.25] * 3)
    assert given.image_size == 64
    assert given.network.std.expand(3).tolist() == pytest.approx([63.75] * 3)
    said = json.loads((path / "preprocessor_config.json").read_text())
    (path / "preprocessor_config.json").write_text(json.dumps(said | {"do_normalize": False, "size": 128}))
    plain = built(path)
    assert plain.image_size == 128
    np.testing.assert_allclose(plain.network.mean.expand(3), 0)
    np.testing.assert_allclose(plain.network.std.expand(3), 255)


def test_models_of_blue_green_red(write: Write) -> None:
    import transformers as hf

    plain, _ = write("m", hf.MobileNetV2ImageProcessor(size={"shortest_edge": 64}))
    teacher = built(plain)
    expected, before = teacher.predict(IMAGES[..., ::-1].copy()), teacher.digest()
    said = json.loads((plain / "preprocessor_config.json").read_text())
    flipped = said | {"image_processor_type": "MobileViTImageProcessor", "do_flip_channel_order": True}
    (plain / "preprocessor_config.json").write_text(json.dumps(flipped | {"do_normalize": True}))
    found = built(plain)
    np.testing.assert_allclose(found.predict(IMAGES), expected, atol=1e-5)
    assert found.digest() != before


def test_weights_without_names(write: Write) -> None:
    path, _ = write(id2label={n: f"LABEL_{n}" for n in range(4)}, label2id={f"LABEL_{n}": n for n in range(4)})
    assert built(path, list("abcd"), image_size=64).class_names == tuple("abcd")
    assert error(TeacherError, path, image_size=64).startswith(
        "teacher: the weights have 4 classes, the data 2 (a, b)."
    )
    assert built(path, classes=list("wxyz"), image_size=64).class_names == tuple("wxyz")
    assert error(TeacherError, path, classes=["a"]).startswith(
        "teacher.classes names 1 classes, but the weights have 4"
    )


@pytest.mark.parametrize("kind", ["segformer", "upernet"])
def test_a_fitted_teacher_gets_a_new_last_layer_alone(
    write: Write, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path, model = write(kind)
    capfd.readouterr()
    teacher = built(path, ["x", "y", "z"], image_size=64, fit=FitSettings())
    assert capfd.readouterr() == ("", "")
    assert teacher.class_names == ("x", "y", "z") and teacher.network.pretrained
    own = teacher.network.backbone.state_dict()
    other = [k for k, v in model.state_dict().items() if not torch.equal(own[f"model.{k}"], v)]
    assert {key.rpartition(".")[0] for key in other} <= {"decode_head.classifier", "auxiliary_head.classifier"}
    assert "decode_head.classifier.weight" in other


def test_it_can_be_fitted_and_loaded_again(write: Write, tmp_path: Path) -> None:
    path, _ = write()
    config = Config(transformers=str(path), image_size=64, fit=FitSettings())
    torch.manual_seed(0)
    fits(build(config, ["a", "b"]), build(config, ["a", "b"]), config, IMAGES, tmp_path)


def test_weights_drawn_at_random_are_refused(tmp_path: Path, write: Write) -> None:
    """An encoder alone, as nvidia/mit-b0 is: it can be fitted, and answers nothing by itself."""
    import transformers as hf

    hf.SegformerForImageClassification(settings_of("segformer")).save_pretrained(tmp_path / "encoder")
    told = error(TeacherError, tmp_path / "encoder", image_size=64)
    assert told.startswith(f"teacher.transformers: {tmp_path}/encoder lacks decode_head.batch_norm.bias, ")
    assert told.endswith(" more, which would be drawn at random: use `fit: {}` to train a new classifier")
    teacher = built(tmp_path / "encoder", ["a"], image_size=64, fit=FitSettings())
    assert teacher.class_names == ("a",)
    assert teacher.network.trained_part() is teacher.network.backbone.get_submodule("model.segformer")
    path, model = write()
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("segformer.stages.0.")}
    model.save_pretrained(path, state_dict=state)
    assert "lacks segformer." in error(TeacherError, path, image_size=64, fit=FitSettings())


def test_what_it_needs_is_said(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, model = write()
    assert {file.name for file in plugins.user_files(Config(transformers=str(path)))} == {
        "config.json",
        "model.safetensors",
    }
    (tmp_path / "pickled").mkdir()
    model.config.save_pretrained(tmp_path / "pickled")
    torch.save(model.state_dict(), tmp_path / "pickled" / "pytorch_model.bin")
    told = error(UserError, tmp_path / "pickled")
    assert told.startswith(f"teacher.transformers: {tmp_path}/pickled cannot be loaded (OSError: ")
    assert told.endswith(
        "Give the name of a model for semantic segmentation with safetensors, or a folder that `save_pretrained` wrote"
    )
    with pytest.raises(ValueError, match="found no folder"):
        Config(transformers=str(tmp_path / "no"))
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "transformers" else real(name, *a)
    )
    assert error(UserError, path) == ("teacher.transformers: the package is missing: pip install 'mobile-distill[hf]'")


def test_a_name_on_the_hub_is_looked_for_in_the_cache(write: Write, tmp_path: Path, monkeypatch: Any) -> None:
    """The layout in which huggingface_hub keeps what it downloaded."""
    path, _ = write()
    entry = tmp_path / "hub" / "models--tiny--segformer"
    (entry / "snapshots").mkdir(parents=True)
    (entry / "refs").mkdir()
    path.rename(entry / "snapshots" / ("a" * 40))
    (entry / "refs" / "main").write_text("a" * 40)
    (entry / ".no_exist" / ("a" * 40)).mkdir(parents=True)
    (entry / ".no_exist" / ("a" * 40) / "preprocessor_config.json").touch()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("transformers.utils.hub.is_offline_mode", lambda: True)
    for module in ("huggingface_hub.constants.HF_HUB_CACHE", "transformers.utils.hub.constants.HF_HUB_CACHE"):
        monkeypatch.setattr(module, str(tmp_path / "hub"))
    config = Config(transformers="tiny/segformer", image_size=64)
    assert plugins.user_files(config) == []
    assert build(config, ["a"]).class_names == tuple(OWN)


@pytest.mark.parametrize(
    ("card", "stated"),
    [
        (None, None),
        ("---\nlicense: apache-2.0\n---\n# A model\n", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: for-research\n---\n", "for-research"),
        ("---\nlicense: [mit, cc-by-4.0]\n---\n", "mit, cc-by-4.0"),
        ("# A model without a header\n", None),
        ("---\nlicense: {[}\n---\n", None),
    ],
)
def test_the_licence_is_what_the_card_states(write: Write, card: str | None, stated: str | None) -> None:
    path, _ = write()
    if card is not None:
        (path / "README.md").write_text(card)
    assert built(path, image_size=64).license == stated
