"""timm students: what is promised of them, and the normalisation folded into the first convolution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from distill.checkpoint import save_weights
from distill.core.errors import CheckpointError, UserError
from distill.students.timm import OFFERED, Config, build
from distill.torch_predictor import TorchPredictor

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SMALL = "mobilenetv2_035"


def trained(name: str = SMALL, classes: int = 5, **arguments: object) -> nn.Module:
    """A model whose every number differs from its initial value, as after training."""
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name, num_classes=classes, **arguments)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
    return model.eval()


def noise(size: int, images: int = 2) -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (images, size, size, 3), dtype=np.uint8))


@pytest.mark.parametrize("name", OFFERED)
def test_parameters_and_macs_are_what_torch_counts(name: str) -> None:
    with torch.device("meta"):  # shapes without numbers: nothing is computed
        model = timm.create_model(name, num_classes=1000).eval()
        parameters = sum(p.numel() for p in model.parameters())
        counter = FlopCounterMode(display=False)
        with counter, torch.inference_mode():
            model(torch.empty(1, 3, 224, 224))
    assert OFFERED[name].params_m == pytest.approx(parameters / 1e6, abs=0.005 + 1e-9)
    assert OFFERED[name].macs_m == pytest.approx(counter.get_total_flops() / 2e6, abs=0.5)
    assert OFFERED[name].why


@pytest.mark.parametrize("name", OFFERED)
def test_every_offered_student_can_be_built_and_probed(name: str) -> None:
    with torch.device("meta"):
        network = build(Config(timm=name, pretrained=False, image_size=64), ["cat", "dog", "owl"]).eval()
        assert network.class_names == ("cat", "dog", "owl")
        assert network.image_size == 64
        assert not network.pretrained
        assert network.classifier().out_features == 3
        images = torch.empty(2, 64, 64, 3, dtype=torch.uint8)
        assert network(images).shape == (2, 3)
        assert network.features(images).shape == (2, network.classifier().in_features)


def test_a_student_is_a_predictor() -> None:
    network = build(Config(timm=SMALL, pretrained=False, image_size=32), ["cat", "dog", "owl"])
    predictor = TorchPredictor(network, "cpu")
    images = noise(32).numpy()
    images.flags.writeable = False  # as Pillow hands them out
    logits = predictor.predict(images)
    assert (predictor.class_names, predictor.image_size) == (("cat", "dog", "owl"), 32)
    assert logits.shape == (2, 3)
    assert logits.dtype == np.float32
    with torch.inference_mode():
        again = network.classifier()(network.features(noise(32)))
    np.testing.assert_allclose(again, logits, atol=1e-5)
    network.train()  # a training loop may leave it so
    np.testing.assert_array_equal(predictor.predict(images), logits)


def test_a_student_takes_raw_bytes_scaled_to_minus_one_to_one() -> None:
    network = build(Config(timm=SMALL, pretrained=False, image_size=32), ["a", "b"])
    bytes_ = torch.arange(0, 256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(1, 16, 16, 3)
    fed = network.normalize(bytes_)
    assert fed.shape == (1, 3, 16, 16)
    np.testing.assert_allclose(fed[0, 0].flatten(), (np.arange(256) - 127.5) / 127.5, atol=1e-6)
    assert torch.equal(network.denormalize(fed), bytes_)


@pytest.mark.parametrize("name", [SMALL, "mobilenetv4_conv_small", "tf_mobilenetv3_small_minimal_100"])
def test_the_folded_normalisation_answers_alike_where_no_padding_is_seen(tmp_path: Path, name: str) -> None:
    """Only zero padding differs, so the first convolution must agree everywhere but in its outer ring."""
    original = trained(name)
    save_weights(original, tmp_path / "weights.safetensors")
    mean, std = (list(values) for values in IMAGENET)
    network = build(
        Config(timm=name, checkpoint=tmp_path / "weights.safetensors", mean=mean, std=std, image_size=32), list("abcde")
    ).eval()
    assert network.pretrained
    images = noise(32)
    scaled = images.permute(0, 3, 1, 2).float() / 255
    old_input = (scaled - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    with torch.inference_mode():
        expected = original.bn1(original.conv_stem(old_input))[:, :, 1:-1, 1:-1]
        found = network.backbone.bn1(network.backbone.conv_stem(network.normalize(images)))[:, :, 1:-1, 1:-1]
        unfolded = original.bn1(original.conv_stem(network.normalize(images)))[:, :, 1:-1, 1:-1]
    # float32 sums of 27 products: a relative error of some 1e-6 of values up to about 5
    assert (expected - found).abs().max() < 2e-5
    assert (expected - unfolded).abs().max() > 0.1  # what a forgotten fold would look like


def test_the_folded_normalisation_gives_the_same_logits_without_padding(tmp_path: Path) -> None:
    """Padding with the old mean's grey makes the fold exact to the border, hence to the logits."""
    original = trained()
    save_weights(original, tmp_path / "weights.safetensors")
    mean, std = (list(values) for values in IMAGENET)
    config = Config(timm=SMALL, checkpoint=tmp_path / "weights.safetensors", mean=mean, std=std, image_size=32)
    network = build(config, list("abcde")).eval()
    images = noise(32)
    scaled = images.permute(0, 3, 1, 2).float() / 255
    old_input = (scaled - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)

    def unpadded(model: nn.Module, fed: torch.Tensor) -> torch.Tensor:
        model.conv_stem.padding = (0, 0)
        return model(fed)

    with torch.inference_mode():
        expected = unpadded(original, old_input)
        found = unpadded(network.backbone, network.normalize(images))
    assert expected.std() > 0.01
    # 50 layers of float32 after inputs that differ by rounding
    np.testing.assert_allclose(found, expected, atol=1e-4 * float(expected.abs().max()) + 1e-5)


def test_weights_trained_on_minus_one_to_one_are_left_as_they_are(tmp_path: Path) -> None:
    original = trained()
    save_weights(original, tmp_path / "weights.safetensors")
    half = [0.5, 0.5, 0.5]
    config = Config(timm=SMALL, checkpoint=tmp_path / "weights.safetensors", mean=half, std=half)
    network = build(config, list("abcde"))
    assert torch.equal(network.backbone.conv_stem.weight, original.conv_stem.weight)
    assert torch.equal(network.backbone.bn1.running_mean, original.bn1.running_mean)


def test_a_student_from_scratch_is_not_folded() -> None:
    torch.manual_seed(0)
    plain = timm.create_model(SMALL, num_classes=2)
    torch.manual_seed(0)
    network = build(Config(timm=SMALL, pretrained=False), ["a", "b"])
    assert torch.equal(network.backbone.conv_stem.weight, plain.conv_stem.weight)


def test_a_checkpoint_of_other_classes_gives_all_but_the_head(tmp_path: Path) -> None:
    original = trained(classes=1000)
    save_weights(original, tmp_path / "weights.safetensors")
    network = build(Config(timm=SMALL, checkpoint=tmp_path / "weights.safetensors"), ["a", "b"])
    assert network.classifier().out_features == 2
    assert torch.equal(network.backbone.conv_head.weight, original.conv_head.weight)


def test_a_checkpoint_of_another_architecture(tmp_path: Path) -> None:
    save_weights(trained("mobilenetv2_050"), tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError) as caught:
        build(Config(timm=SMALL, checkpoint=tmp_path / "weights.safetensors"), ["a", "b"])
    told = str(caught.value)
    assert told.startswith(f"{tmp_path}/weights.safetensors does not fit this model:\n  ")
    assert " of another shape: blocks." in told
    assert " more" in told


def test_a_model_without_a_stem_to_fold_into(tmp_path: Path) -> None:
    name = "test_vit"
    save_weights(timm.create_model(name, num_classes=2, img_size=32), tmp_path / "weights.safetensors")
    config = Config(
        timm=name,
        checkpoint=tmp_path / "weights.safetensors",
        image_size=32,
        mean=list(IMAGENET[0]),
        std=list(IMAGENET[1]),
        model_args={"img_size": 32},
    )
    with pytest.raises(CheckpointError) as caught:
        build(config, ["a", "b"])
    assert str(caught.value).startswith("student: this model has no convolution with batch norm at its input to fold")


@pytest.mark.parametrize(
    ("name", "near"), [("mobilenetv4_conv_smal", "mobilenetv4_conv_small"), ("resnest5d", "resnest50d")]
)
def test_an_unknown_name_gets_a_suggestion(name: str, near: str) -> None:
    with pytest.raises(ValueError, match="timm has no model") as caught:
        Config(timm=name)
    assert f"timm has no model {name!r} (did you mean {near!r}?); known to be fast in int8: mobilenetv4" in str(
        caught.value
    )


def test_arguments_that_the_model_does_not_take() -> None:
    with pytest.raises(UserError, match=r"student\.model_args: mobilenetv2_035 does not take them"):
        build(Config(timm=SMALL, pretrained=False, model_args={"wings": 2}), ["a", "b"])


@pytest.mark.parametrize("name", ["num_classes", "pretrained", "checkpoint_path"])
def test_arguments_that_would_change_the_head_unseen(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} cannot be set here"):
        Config(timm=SMALL, model_args={name: 3})


def test_weights_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("We couldn't connect to 'https://huggingface.co'\nand so on")

    monkeypatch.setattr("timm.models._builder.load_pretrained", refuse)
    with pytest.raises(UserError) as caught:
        build(Config(timm=SMALL), ["a", "b"])
    assert str(caught.value) == (
        "student.timm: the pretrained weights of mobilenetv2_035 cannot be had (OSError: We couldn't connect to"
        " 'https://huggingface.co'). Give student.checkpoint a local file, or set student.pretrained=false to start"
        " from scratch"
    )


def test_the_same_seed_gives_the_same_student() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(4)
        states.append(build(Config(timm=SMALL, pretrained=False), ["a", "b"]).state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
