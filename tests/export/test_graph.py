"""What an exported graph answers: probabilities, logits or a class map, coarse or as large as the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from distill.core.dense import scale_map
from distill.core.types import softmax
from distill.torch_predictor import Network, TorchPredictor
from export.graph import ForBytes, ForNormalized, Output

CLASSES = ("sky", "road", "car", "dog")
HALF = (0.5, 0.5, 0.5)


def segmenter() -> Network:
    """32 px to maps of 8x8 cells."""
    torch.manual_seed(0)
    return Network(nn.Conv2d(3, 4, 4, stride=4), CLASSES, 32, HALF, HALF, pretrained=False, answers_maps=True).eval()


def classifier() -> Network:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 4))
    return Network(layers, CLASSES, 32, HALF, HALF, pretrained=False).eval()


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)


def run(network: Network, images: np.ndarray, output: Output, *, upsample: bool = False) -> np.ndarray:
    """Both graphs on the same images; they must say the same."""
    taken = torch.from_numpy(images)
    with torch.inference_mode():
        first = ForBytes(network, output, upsample=upsample)(taken)
        second = ForNormalized(network, output, upsample=upsample)((taken.float() - 127.5) / 127.5)
    assert first.dtype == second.dtype
    torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-5)
    return first.numpy()


@pytest.mark.parametrize("network", [segmenter(), classifier()], ids=["maps", "images"])
def test_probabilities_and_logits_are_those_of_the_student(network: Network, images: np.ndarray) -> None:
    expected = TorchPredictor(network, "cpu").predict(images)
    logits, probabilities = run(network, images, "logits"), run(network, images, "probabilities")
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    np.testing.assert_allclose(probabilities, softmax(expected), atol=1e-5)
    assert probabilities.dtype == np.float32


def test_a_class_map_names_the_most_likely_class_of_each_cell(images: np.ndarray) -> None:
    network = segmenter()
    found = run(network, images, "class_map")
    assert found.dtype == np.uint8 and found.shape == (2, 8, 8)
    np.testing.assert_array_equal(found, TorchPredictor(network, "cpu").predict(images).argmax(axis=-1))
    assert len(np.unique(found)) > 1


def test_maps_are_upsampled_as_maps_are_scaled_everywhere_else(images: np.ndarray) -> None:
    """The logits are, before the softmax; the app that scales them itself sees the same."""
    network = segmenter()
    expected = scale_map(TorchPredictor(network, "cpu").predict(images), 32, 32)
    np.testing.assert_allclose(run(network, images, "logits", upsample=True), expected, atol=1e-4)
    np.testing.assert_allclose(run(network, images, "probabilities", upsample=True), softmax(expected), atol=1e-4)
    classes = run(network, images, "class_map", upsample=True)
    assert classes.shape == (2, 32, 32)
    assert (classes == expected.argmax(axis=-1)).mean() > 0.999  # ties may fall either way


def test_answers_about_images_have_nothing_to_upsample(images: np.ndarray) -> None:
    network = classifier()
    np.testing.assert_array_equal(
        run(network, images, "probabilities", upsample=True), run(network, images, "probabilities")
    )
