"""Segmenters: what is promised of them, where their weights come from, and what they answer."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import segmentation_models_pytorch
import timm
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from distill.checkpoint import save_weights
from distill.core.errors import CheckpointError, UserError
from distill.students.smp import OFFERED, Config, build
from distill.torch_predictor import Network, TorchPredictor

SMALL = "test_efficientnet"
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
HEADS = {"deeplabv3plus": 4, "lraspp": 8}  # and how many pixels wide a cell of its answer is
REAL = Path(__file__).parents[3] / "shared/data/weights/mobilenetv2_035_96.imagenet_features.tf_same.safetensors"


def small(head: str, classes: int = 3, **settings: object) -> Network:
    torch.manual_seed(0)
    config = Config.model_validate(
        {"smp": head, "encoder": SMALL, "image_size": 64, "pretrained": False, "decoder_channels": 16, **settings}
    )
    return build(config, [f"class {n}" for n in range(classes)]).eval()


def trained(module: nn.Module) -> nn.Module:
    """Every number differs from its initial value, as after training."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                (tensor.uniform_(0.5, 1.5) if name.endswith(("var", "weight")) else tensor.normal_(0, 0.2))
    return module.eval()


def noise(size: int = 64, images: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (images, size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize(("head", "encoder"), OFFERED)
def test_parameters_and_macs_are_what_torch_counts(head: str, encoder: str) -> None:
    config = Config(smp=head, encoder=encoder, pretrained=False)
    with torch.device("meta"):  # shapes without numbers: nothing is computed
        network = build(config, [f"class {n}" for n in range(21)]).eval()
        counter = FlopCounterMode(display=False)
        with counter, torch.inference_mode():
            logits = network(torch.empty(1, 256, 256, 3, dtype=torch.uint8))
    assert logits.shape == (1, 21, 256 // HEADS[head], 256 // HEADS[head])
    facts = OFFERED[head, encoder]
    parameters = sum(p.numel() for p in network.parameters())
    assert facts.params_m == pytest.approx(parameters / 1e6, abs=0.005 + 1e-9)
    assert facts.macs_m == pytest.approx(counter.get_total_flops() / 2e6, abs=0.5)
    assert facts.why


@pytest.mark.parametrize(("head", "stride"), HEADS.items())
def test_a_segmenter_is_a_predictor_of_maps(head: str, stride: int) -> None:
    network = small(head)
    images = noise()
    answers = TorchPredictor(network, "cpu").predict(images)
    assert network.answers_maps
    assert answers.dtype == np.float32 and answers.shape == (2, 64 // stride, 64 // stride, 3)
    assert answers.flags.c_contiguous
    with torch.inference_mode():
        logits = network(torch.from_numpy(images))
    np.testing.assert_array_equal(answers[1, 3, 5], logits[1, :, 3, 5].numpy())
    layer = network.classifier()
    assert isinstance(layer, nn.Conv2d) and layer.out_channels == 3 and layer.kernel_size == (1, 1)


@pytest.mark.parametrize("head", HEADS)
def test_what_is_answered_follows_the_image(head: str) -> None:
    """A bright square moves, and the cells that change most move with it."""
    network = small(head).train()
    with torch.no_grad():
        for _ in range(20):  # batch norms get to know their inputs
            network(torch.from_numpy(noise(images=4)))
    predictor = TorchPredictor(network, "cpu")
    blank = np.full((1, 64, 64, 3), 90, np.uint8)
    places = []
    for left, top in ((0, 40), (40, 0)):
        marked = blank.copy()
        marked[0, top : top + 24, left : left + 24] = 255
        change = np.abs(predictor.predict(marked) - predictor.predict(blank)).sum(axis=-1)[0]
        cells = np.indices(change.shape).reshape(2, -1) / len(change)
        places.append((cells * change.reshape(-1)).sum(axis=1) / change.sum())
    (row_a, column_a), (row_b, column_b) = places
    assert row_a > row_b + 0.05 and column_a + 0.05 < column_b


@pytest.mark.parametrize("classifier", ["of 1000 classes", "missing"])
@pytest.mark.parametrize("head", HEADS)
def test_an_encoder_starts_from_a_classifiers_weights(tmp_path: Path, head: str, classifier: str) -> None:
    whole = trained(timm.create_model(SMALL, num_classes=1000 if classifier == "of 1000 classes" else 0))
    save_weights(whole, tmp_path / "weights.safetensors")
    network = small(head, checkpoint=tmp_path / "weights.safetensors", mean=[0.5] * 3, std=[0.5] * 3)
    encoder = network.backbone.encoder.model.state_dict()
    assert len(encoder) > 50
    for name, values in encoder.items():
        assert torch.equal(values, whole.state_dict()[name]), name
    assert network.pretrained
    assert network.trained_part() is network.backbone.encoder


def test_weights_of_another_encoder_or_of_half_of_one_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(timm.create_model("mobilenetv2_035"), path)
    with pytest.raises(CheckpointError, match=r"(?s)does not fit this model:.*of another shape: blocks\."):
        small("lraspp", checkpoint=path)
    state = timm.create_model(SMALL).state_dict()
    del state["blocks.0.0.conv.weight"]
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"1 missing: blocks\.0\.0\.conv\.weight"):
        small("lraspp", checkpoint=path)


@pytest.mark.parametrize("head", HEADS)
def test_a_whole_segmenter_starts_from_its_weights(tmp_path: Path, head: str) -> None:
    first = small(head)
    trained(first.backbone)
    save_weights(first.backbone, tmp_path / "weights.safetensors")
    settings = {"checkpoint": tmp_path / "weights.safetensors", "mean": [0.5] * 3, "std": [0.5] * 3}
    same, other = small(head, **settings), small(head, classes=5, **settings)
    np.testing.assert_array_equal(
        TorchPredictor(same, "cpu").predict(noise()), TorchPredictor(first, "cpu").predict(noise())
    )
    fresh = [
        name
        for name, values in other.backbone.state_dict().items()
        if not torch.equal(values, first.backbone.state_dict()[name])
    ]
    assert fresh and all("segmentation_head" in name or "classifier" in name for name in fresh)
    assert same.trained_part() is same.backbone


def test_weights_of_smp_itself_fit(tmp_path: Path) -> None:
    theirs = segmentation_models_pytorch.DeepLabV3Plus(
        f"tu-{SMALL}", encoder_weights=None, decoder_channels=16, classes=3
    )
    save_weights(trained(theirs), tmp_path / "weights.safetensors")
    ours = small("deeplabv3plus", checkpoint=tmp_path / "weights.safetensors").backbone
    assert torch.equal(ours.decoder.block2[0][1].weight, theirs.decoder.block2[0][1].weight)
    assert torch.equal(ours.segmentation_head[0].bias, theirs.segmentation_head[0].bias)


def test_the_normalisation_of_an_encoders_weights_is_folded(tmp_path: Path) -> None:
    """Only zero padding differs, so the first convolution agrees everywhere but in its outer ring."""
    whole = trained(timm.create_model(SMALL))
    save_weights(whole, tmp_path / "weights.safetensors")
    network = small("lraspp", checkpoint=tmp_path / "weights.safetensors", **IMAGENET)
    images = torch.from_numpy(noise())
    mean, std = (torch.tensor(IMAGENET[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    encoder = network.backbone.encoder.model
    with torch.inference_mode():
        expected = whole.bn1(whole.conv_stem((images.permute(0, 3, 1, 2) / 255 - mean) / std))[:, :, 1:-1, 1:-1]
        found = encoder.bn1(encoder.conv_stem(network.normalize(images)))[:, :, 1:-1, 1:-1]
    assert (expected - found).abs().max() < 1e-5 * expected.abs().max()


def test_a_segmenter_from_scratch_answers_evenly() -> None:
    """Training sets the classifier to zero; what LR-ASPP adds from its skip is then near nothing."""
    network = small("lraspp")
    for values in network.classifier().parameters():
        nn.init.zeros_(values)
    answers = TorchPredictor(network, "cpu").predict(noise())
    assert 0 < np.ptp(answers, axis=-1).max() < 1


def test_lraspp_is_the_paper_s_head_in_another_order() -> None:
    """Classes are computed before the resizing, which changes nothing but the work."""
    network = small("lraspp")
    head = network.backbone
    images = network.normalize(torch.from_numpy(noise()))
    with torch.inference_mode():
        *_, low, _, high = head.encoder(images)
        gated = head.project(high) * head.gate(high)
        large = F.interpolate(gated, size=low.shape[-2:], mode="bilinear", align_corners=False)
        expected = head.classifier(large) + head.low_classifier(low)
        found = head(images)
    assert low.shape[-1] == 8 and high.shape[-1] == 4
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"image_size": 250}, "Input should be a multiple of 16"),
        ({"smp": "unet"}, "Input should be 'deeplabv3plus' or 'lraspp'"),
        (
            {"encoder": "mobilenetv4_conv_smal"},
            r"timm has no model 'mobilenetv4_conv_smal' \(did you mean",
        ),
        ({"model_args": {"num_classes": 3}}, "num_classes cannot be set here"),
    ],
)
def test_mistakes_in_the_config(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        Config.model_validate({"smp": "lraspp", "encoder": SMALL, **changes})


@pytest.mark.parametrize("encoder", ["test_vit", "vgg11"])
def test_an_encoder_without_maps_of_these_strides(encoder: str) -> None:
    with pytest.raises(UserError, match=rf"^student\.encoder: {encoder} gives no maps of strides 4, 8 and 16"):
        small("lraspp", encoder=encoder)


def test_arguments_that_the_encoder_does_not_take() -> None:
    with pytest.raises(UserError, match=rf"student\.model_args: {SMALL} does not take them"):
        small("lraspp", model_args={"wings": 2})


def test_weights_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("We couldn't connect to 'https://huggingface.co'\nand so on")

    monkeypatch.setattr("timm.models._builder.load_pretrained", refuse)
    with pytest.raises(UserError, match=rf"^student\.encoder: the pretrained weights of {SMALL} cannot be had"):
        small("deeplabv3plus", pretrained=True)


@pytest.mark.parametrize("head", HEADS)
def test_the_same_seed_gives_the_same_student(head: str) -> None:
    first, second = (small(head).state_dict() for _ in range(2))
    assert all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.mark.parametrize("head", HEADS)
def test_the_real_features_are_taken(head: str) -> None:
    if not REAL.exists():
        message = f"real data are not beside the checkout: {REAL}"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    half = {"mean": [0.5] * 3, "std": [0.5] * 3, "model_args": {"pad_type": "same"}}
    network = small(head, encoder="mobilenetv2_035", checkpoint=REAL, **half)
    whole = timm.create_model("mobilenetv2_035", num_classes=0, pad_type="same").eval()
    from safetensors.torch import load_file

    whole.load_state_dict(load_file(REAL), strict=False)
    images = network.normalize(torch.from_numpy(noise()))
    with torch.inference_mode():
        expected = whole.blocks[:3](whole.bn1(whole.conv_stem(images)))  # stride 8: nothing is dilated yet
        found = network.backbone.encoder(images)[3]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("encoder", ["mobileone_s0", "convnext_atto"])
def test_what_has_no_single_stem_to_fold_into_is_refused(tmp_path: Path, encoder: str) -> None:
    path = tmp_path / "encoder.safetensors"
    save_weights(timm.create_model(encoder), path)
    with pytest.raises(
        CheckpointError, match=r"no convolution with batch norm at its input|calls its weights otherwise"
    ):
        small("lraspp", encoder=encoder, checkpoint=path)
