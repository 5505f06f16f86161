"""The shift that rounded weights give a layer's mean output is taken back by its bias."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from torch import nn

from distill.core.types import Images
from distill.torch_predictor import Network
from export.quantize.bias_correction import correct_bias


@pytest.fixture(scope="module")
def images() -> list[Images]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (1, 32, 32, 3), dtype=np.uint8) for _ in range(40)]


@pytest.fixture(scope="module")
def student(images: list[Images]) -> Network:
    """A MobileNetV2 with random weights and the batch-norm statistics that these give."""
    torch.manual_seed(0)
    network = Network(
        timm.create_model("mobilenetv2_035", num_classes=5), "abcde", 32, (0.5,) * 3, (0.5,) * 3, pretrained=False
    )
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.3, 1.2)
            module.bias.data.normal_(0, 0.5)
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.from_numpy(np.concatenate(images)))
    return network.eval()


def fold_and_round(network: Network, images: list[Images]) -> Network:
    """Int8 weights as a quantizer makes them: batch norm folded in, symmetric by output channel."""
    import copy

    rounded = copy.deepcopy(network)
    modules = list(rounded.backbone.modules())
    for place, module in enumerate(modules):
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            norm = next(
                (m for m in modules[place + 1 :] if isinstance(m, (nn.BatchNorm2d, nn.Conv2d, nn.Linear))), None
            )
            scale = torch.ones(module.weight.shape[0])
            if isinstance(norm, nn.BatchNorm2d):
                scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
            shape = (-1, *[1] * (module.weight.ndim - 1))
            folded = module.weight.data * scale.view(shape)
            step = (folded.flatten(1).abs().amax(1) / 127).view(shape)
            module.weight.data = torch.round(folded / step) * step / scale.view(shape)
    return rounded


@torch.no_grad()
def logits(network: Network, images: list[Images]) -> torch.Tensor:
    answer: torch.Tensor = network(torch.from_numpy(np.concatenate(images)))
    return answer


def test_rounded_weights_answer_nearer_to_the_student(student: Network, images: list[Images]) -> None:
    exact = logits(student, images)
    plain = (logits(fold_and_round(student, images), images) - exact).square().mean().sqrt()
    corrected = (logits(fold_and_round(correct_bias(student, images), images), images) - exact).square().mean().sqrt()
    assert corrected < 0.8 * plain


def test_the_mean_answer_is_that_of_the_student(student: Network, images: list[Images]) -> None:
    """The last layer's mean is restored to the last digit, whatever went wrong before it."""
    exact = logits(student, images).mean(dim=0)
    found = logits(fold_and_round(correct_bias(student, images), images), images).mean(dim=0)
    torch.testing.assert_close(found, exact, atol=1e-3, rtol=0)
    plain = logits(fold_and_round(student, images), images).mean(dim=0)
    assert (plain - exact).abs().max() > 5e-3, "without the correction it moved"


def test_a_float_classifier_keeps_its_bias(student: Network, images: list[Images]) -> None:
    exact, own = logits(student, images).mean(dim=0), student.classifier().bias
    corrected = correct_bias(student, images, float_layers={"backbone.classifier"})
    torch.testing.assert_close(corrected.classifier().bias, own, atol=0, rtol=0)
    rounded = fold_and_round(corrected, images)
    rounded.classifier().weight.data = student.classifier().weight.data
    apart = (logits(rounded, images).mean(dim=0) - exact).abs().max()
    rounded.classifier().bias.data = correct_bias(student, images).classifier().bias.data
    assert (logits(rounded, images).mean(dim=0) - exact).abs().max() > apart


def test_float_layers_in_front_keep_their_biases(student: Network, images: list[Images]) -> None:
    front = {"backbone.conv_stem", "backbone.blocks.0.0.conv_dw"}
    corrected = correct_bias(student, images, float_layers=front)
    for norm in ("backbone.bn1", "backbone.blocks.0.0.bn1"):
        torch.testing.assert_close(corrected.get_parameter(f"{norm}.bias"), student.get_parameter(f"{norm}.bias"))
    rounded = fold_and_round(corrected, images)
    for layer in front:
        rounded.get_submodule(layer).load_state_dict(student.get_submodule(layer).state_dict())
    exact = logits(student, images).mean(dim=0)
    torch.testing.assert_close(logits(rounded, images).mean(dim=0), exact, atol=1e-3, rtol=0)


def test_only_biases_change_and_the_student_stays(student: Network, images: list[Images]) -> None:
    before = {key: value.clone() for key, value in student.state_dict().items()}
    corrected = correct_bias(student, images).state_dict()
    assert all(torch.equal(before[key], value) for key, value in student.state_dict().items())
    changed = {key for key, value in corrected.items() if not torch.equal(before[key], value)}
    assert changed and all(key.endswith(".bias") for key in changed)


def test_a_layer_without_bias_gets_one(images: list[Images]) -> None:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.Flatten(), nn.Linear(4 * 30 * 30, 2, bias=False))
    network = Network(backbone, "ab", 32, (0.5,) * 3, (0.5,) * 3, pretrained=False).eval()
    corrected = correct_bias(network, images)
    assert [m.bias is not None for m in corrected.backbone if not isinstance(m, nn.Flatten)] == [True, True]
    exact = logits(network, images).mean(dim=0)
    torch.testing.assert_close(logits(fold_and_round(corrected, images), images).mean(dim=0), exact, atol=1e-4, rtol=0)
