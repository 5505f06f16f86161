"""Fake quantization says what the written file says, and lets gradients through."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from torch import nn

from distill.call_graph import call_graph, weight_layers
from distill.core.files import read_json
from distill.core.run import Run
from distill.core.types import ImageRecord, Images
from distill.data.batches import ImageCache
from distill.data.manifest import Manifest
from distill.data.views import fixed_view, render
from distill.fake_quantization import (
    Int8Backbone,
    fake_quantized,
    measured_ranges,
    rounded_weights,
    signal_to_noise,
)
from distill.torch_predictor import Network
from distill.trained_student import load_student
from export.formats.tflite import TFLite
from export.isolated import FilePredictor
from export.quantize.plan import minimum_and_maximum
from tests.workplace import Workplace

HALF = (0.5, 0.5, 0.5)


def noise(count: int, size: int) -> list[Images]:
    return list(np.random.default_rng(1).integers(0, 256, (count, 1, size, size, 3), dtype=np.uint8))


@torch.no_grad()
def logits(network: Network, images: list[Images]) -> torch.Tensor:
    answer: torch.Tensor = network(torch.from_numpy(np.concatenate(images)))
    return answer


def settled(backbone: nn.Module, size: int, classes: int = 5) -> Network:
    """With the batch-norm statistics that its random weights give."""
    network = Network(backbone, [str(n) for n in range(classes)], size, HALF, HALF, pretrained=False)
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    logits(network, noise(16, size))
    return network.eval()


def test_it_answers_as_the_written_file(finished: Workplace) -> None:
    run = Run(finished.root / "runs/teacher")
    student, card = load_student(run)
    made = read_json(run.folder("export") / "student.int8.tflite.json")
    assert made["ladder"]["chosen"] == 1
    records = {record.id: record for record in Manifest.load(run.folder("data") / "manifest.parquet").records}
    cache = ImageCache(100)

    def shown(record: ImageRecord) -> Images:
        view = fixed_view(record.width, record.height, card["resize"])
        return render(cache.get(record), view, student.image_size)[None]

    plan = minimum_and_maximum(
        student, [shown(records[name]) for name in made["calibration"]], TFLite().float_layers(student)
    )
    fake = fake_quantized(plan.student, plan.float_layers, plan.measured)
    images = [shown(record) for record in list(records.values())[:80]]
    with FilePredictor(run.folder("export") / made["file"], "tflite", card["class_names"]) as file:
        said = torch.from_numpy(file.predict(np.concatenate(images)))
    exact, simulated = (torch.log_softmax(logits(network, images), dim=1) for network in (student, fake))
    lost = signal_to_noise(exact, said)
    assert 10 < lost < 45, "int8 is neither broken nor float"
    assert signal_to_noise(exact, simulated) == pytest.approx(lost, abs=3)
    assert signal_to_noise(said, simulated) > lost + 1, "nearer to the file than the student is"


@pytest.mark.parametrize("name", ["mobilenetv2_035", "mobilenetv3_small_100", "mobilenetv4_conv_small"])
def test_what_is_rounded(name: str) -> None:
    torch.manual_seed(3)
    network = settled(timm.create_model(name, num_classes=5), 32)
    images = noise(8, 32)
    ranges = measured_ranges(network, images)
    everything = {layer.name for layer in weight_layers(network)}
    exact = logits(network, images)
    rounded = logits(fake_quantized(network, (), ranges), images)
    assert signal_to_noise(exact, rounded) < 60
    fake = fake_quantized(network, everything, ranges)
    backbone = fake.backbone
    assert isinstance(backbone, Int8Backbone)
    calls = call_graph(network)
    between = [
        call.name
        for call in calls
        if not call.fused and call.users and all(calls[user].layer for user in call.users) and call.name in everything
    ]
    assert between and set(between).isdisjoint(backbone.names), "between float layers nothing is rounded"
    backbone.only = set()
    torch.testing.assert_close(logits(fake, images), exact)


def test_a_batch_norm_and_an_activation_belong_to_their_layer() -> None:
    network = settled(timm.create_model("mobilenetv2_035", num_classes=5), 32)
    calls = call_graph(network)
    assert [call.kind for call in calls[:3]] == ["conv2d", "batch_norm", "hardtanh"]
    assert [call.fused for call in calls[:3]] == [True, True, False]
    assert {call.name for call in calls[:3]} == {"backbone.conv_stem"}
    sums = [call for call in calls if call.name.startswith("add ")]
    assert len(sums) == 10 and all(len(call.inputs) == 2 for call in sums)
    assert [layer.name for layer in weight_layers(network)] == [call.layer for call in calls if call.layer]


def test_weights_are_rounded_as_they_will_be_folded() -> None:
    weights, scale = torch.tensor([[0.5, -1.27, 0.013], [2.0, 0.9, 0.0]]), torch.tensor([2.0, 0.0])
    rounded = rounded_weights(weights, scale)
    steps = torch.tensor([[1.27 / 127], [2.0 / 127]])
    torch.testing.assert_close(rounded / steps, (weights / steps).round())
    assert not torch.equal(rounded, weights)


def test_ranges_and_weights_learn() -> None:
    torch.manual_seed(3)
    network = settled(timm.create_model("mobilenetv2_035", num_classes=5), 32)
    images = noise(8, 32)
    ranges = measured_ranges(network, images)
    wide = {name: (low * 8, high * 8) for name, (low, high) in ranges.items()}
    exact, shown = logits(network, images), torch.from_numpy(np.concatenate(images))
    fake = fake_quantized(network, (), wide)
    assert isinstance(fake.backbone, Int8Backbone)
    fake.backbone.learn_ranges()
    before = signal_to_noise(exact, logits(fake, images))
    optimizer = torch.optim.AdamW(fake.parameters(), lr=3e-4)
    for _ in range(25):
        (fake(shown) - exact).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert signal_to_noise(exact, logits(fake, images)) > before + 3
    learned = fake.backbone.ranges
    ratios = [learned[name][1] / wide[name][1] for name in fake.backbone.names if wide[name][1]]
    assert np.median(ratios) < 0.95, "an end moves by 3 % a step at most, and those that are too wide come in"
    assert signal_to_noise(exact, logits(network, images)) > 200, "the network itself is left as it is"
