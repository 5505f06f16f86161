"""Ways to int8, on networks made so that plain minimum and maximum does badly."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch

from distill.call_graph import weight_layers
from distill.core.types import Images
from distill.fake_quantization import fake_quantized, signal_to_noise
from distill.torch_predictor import Network
from export.quantize import plan as plans
from export.quantize.equalization import equalize
from export.quantize.plan import Int8Plan, keep_noisy_layers_float, minimum_and_maximum, search_ranges
from tests.test_fake_quantization import logits, noise, settled

IMAGES = noise(40, 32)


def answers(plan: Int8Plan) -> torch.Tensor:
    return logits(fake_quantized(plan.student, plan.float_layers, {**plan.measured, **plan.ranges}), IMAGES)


def student() -> Network:
    torch.manual_seed(3)
    return settled(timm.create_model("mobilenetv2_035", num_classes=5), 32)


def widen(network: Network, norm: str, channel: int, readers: tuple[str, ...], factor: float) -> None:
    """Make a channel wide, and let the layers behind it read it the less: float answers stay."""
    with torch.no_grad():
        for part in (network.get_parameter(f"{norm}.weight"), network.get_parameter(f"{norm}.bias")):
            part[channel] *= factor
        for reader in readers:
            network.get_parameter(f"{reader}.weight")[:, channel] /= factor


def test_a_wide_channel_of_a_projection_is_equalized() -> None:
    plain = student()
    network = student()
    widen(network, "backbone.blocks.6.0.bn3", 3, ("backbone.conv_head",), 200.0)
    exact = logits(plain, IMAGES)
    torch.testing.assert_close(logits(network, IMAGES), exact, atol=1e-3, rtol=1e-3)
    even = equalize(network, IMAGES)
    torch.testing.assert_close(logits(even, IMAGES), exact, atol=1e-3, rtol=1e-3)
    assert signal_to_noise(exact, logits(network, IMAGES)) > 60, "left as it is"
    found = [
        signal_to_noise(exact, answers(minimum_and_maximum(each, IMAGES, frozenset())))
        for each in (network, even, plain)
    ]
    assert found[1] > found[0] + 2
    assert found[1] > found[2] - 1


def test_residual_streams_move_together() -> None:
    """All that a stage adds up takes one factor a channel, or sums would mix scales."""
    network = student()
    even = equalize(network, IMAGES)
    exact = logits(network, IMAGES)
    assert signal_to_noise(exact, logits(even, IMAGES)) > 90
    factors = [
        even.get_parameter(f"backbone.blocks.3.{n}.bn3.weight")
        / network.get_parameter(f"backbone.blocks.3.{n}.bn3.weight")
        for n in range(4)
    ]
    assert factors[0].max() > 1.01
    for factor in factors[1:]:
        torch.testing.assert_close(factor, factors[0])


def test_relu6_is_left_alone() -> None:
    network = student()
    even = equalize(network, IMAGES)
    for name in ("backbone.bn1", "backbone.blocks.3.1.bn1", "backbone.blocks.3.1.bn2"):
        torch.testing.assert_close(even.get_parameter(f"{name}.weight"), network.get_parameter(f"{name}.weight"))


def test_ranges_are_cut_where_the_logits_gain() -> None:
    network = student()
    with torch.no_grad():  # a channel that is rarely awake, and then very wide
        network.get_parameter("backbone.blocks.2.1.bn3.weight")[:] *= torch.linspace(0.2, 6, 8).exp()[
            torch.arange(len(network.get_parameter("backbone.blocks.2.1.bn3.weight"))) % 8
        ]
    exact = logits(network, IMAGES)
    first = minimum_and_maximum(network, IMAGES, frozenset())
    second = search_ranges(network, IMAGES, frozenset())
    assert first.ranges == {} and second.snr_db is not None
    assert signal_to_noise(exact, answers(second)) > signal_to_noise(exact, answers(first))
    for name, (low, high) in second.ranges.items():
        assert second.measured[name][0] <= low <= high <= second.measured[name][1]


@pytest.mark.parametrize(("share", "worth", "reads"), [(0.6, -100.0, True), (0.6, 100.0, False), (0.0, -100.0, False)])
def test_what_reads_a_float_first_block_stays_float_where_that_pays(
    monkeypatch: pytest.MonkeyPatch, share: float, worth: float, reads: bool
) -> None:
    first = frozenset({"backbone.conv_stem", "backbone.blocks.0.0.conv_dw", "backbone.blocks.0.0.conv_pw"})
    monkeypatch.setattr(plans, "FIRST_BLOCK_SHARE", share)
    monkeypatch.setattr(plans, "_WORTH_DB", worth)
    found = search_ranges(student(), IMAGES, first)
    assert found.float_layers == (first | {"backbone.blocks.1.0.conv_pw"} if reads else first)


def test_the_noisiest_layers_stay_float_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    network = student()
    widen(network, "backbone.blocks.6.0.bn3", 3, ("backbone.conv_head",), 200.0)
    exact = logits(network, IMAGES)
    before = minimum_and_maximum(network, IMAGES, frozenset())
    monkeypatch.setattr(plans, "MOST_IN_FLOAT", 0.6)
    after = keep_noisy_layers_float(network, before)
    assert {"backbone.blocks.6.0.conv_pwl", "backbone.conv_head"} <= after.float_layers
    macs = {layer.name: layer.macs for layer in weight_layers(network)}
    assert sum(macs[name] for name in after.float_layers) <= 0.6 * sum(macs.values())
    assert signal_to_noise(exact, answers(after)) > signal_to_noise(exact, answers(before)) + 2
    monkeypatch.setattr(plans, "MOST_IN_FLOAT", 0.0)
    assert keep_noisy_layers_float(network, before) is before


def test_images_are_halved_without_overlap() -> None:
    images: list[Images] = [np.full((1, 2, 2, 3), n, np.uint8) for n in range(9)]
    evens, odds = plans._halves(images)
    assert sorted([*evens[:, 0, 0, 0].tolist(), *odds[:, 0, 0, 0].tolist()]) == list(range(9))
