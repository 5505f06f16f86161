"""Perturbed photos, heat maps and the strip through training, without a training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distill.core.progress import Progress
from distill.core.types import FloatArray, ImageRecord, Images, Predictor
from distill.data.batches import ImageCache
from distill.looking import grad_cam
from distill.perturbation import KINDS, kinds_for, perturbed, sensitivity
from distill.strip import Strip, varied
from distill.students.timm import Config, build
from distill.tasks.classification import Classification
from distill.tasks.segmentation import Segmentation

NAMES = ("dark", "light")


class Brightness(Predictor):
    """Light is what is brighter than mid-grey."""

    class_names = NAMES
    image_size = 32

    def predict(self, images: Images) -> FloatArray:
        mean = images.mean(axis=(1, 2, 3), dtype=np.float32) - 127.5
        return np.stack([-mean, mean], axis=1) / 20

    def digest(self) -> str:
        return "brightness"


class BrightPixels(Brightness):
    def predict(self, images: Images) -> FloatArray:
        mean = images[:, ::4, ::4].mean(axis=-1, dtype=np.float32) - 127.5
        return np.stack([-mean, mean], axis=-1)


@pytest.fixture
def records(tmp_path: Path) -> list[ImageRecord]:
    made = []
    for number in range(12):
        label = NAMES[number % 2]
        low = 150 if label == "light" else 40
        pixels = np.random.default_rng(number).integers(low, low + 60, (40, 48, 3), dtype=np.uint8)
        path = tmp_path / f"{number}.png"
        Image.fromarray(pixels).save(path)
        made.append(ImageRecord(f"{number:x}" * 64, str(path), 48, 40, "test", label))
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_a_perturbed_photo_has_its_size_and_goes_further_with_each_level(kind) -> None:
    fine = np.random.default_rng(2).normal(0, 12, (200, 240, 3))
    wide = np.add.outer(np.arange(200), np.arange(240))[..., None] / 4 + 60
    image = Image.fromarray((wide + fine).clip(0, 255).astype(np.uint8))
    apart = []
    for level in KINDS[kind].values:
        changed = perturbed(image, kind, level, seed=1)
        assert (changed.size, changed.mode) == (image.size, "RGB")
        assert np.array_equal(changed, perturbed(image, kind, level, seed=1))
        apart.append(float(np.abs(np.asarray(changed, np.float32) - np.asarray(image, np.float32)).mean()))
    assert min(apart) > 0
    if kind != "brightness":  # whose levels go from dark to light
        assert apart == sorted(apart)


def test_scores_say_what_a_predictor_cannot_bear(records: list[ImageRecord], progress: Progress) -> None:
    task, cache = Classification(NAMES), ImageCache(100)
    rows = sensitivity(Brightness(), task, records, cache, "center_crop", progress)
    value = {(row["kind"], row["level"]): row["score"]["value"] for row in rows}
    assert value["none", 0.0] == 1.0
    assert value["blur", 4.0] == value["noise", 64.0] == value["rotation", 45.0] == 1.0
    assert value["brightness", 0.25] == value["brightness", 0.5] == 0.5  # all are dark
    assert len(rows) == 1 + sum(len(levels.values) for levels in KINDS.values())
    json.dumps(rows)


def test_masks_are_not_moved_away_from_their_photos() -> None:
    assert set(kinds_for(Segmentation(NAMES))) == {"blur", "noise", "brightness", "jpeg"}


def test_the_heat_map_lies_where_the_class_is() -> None:
    torch.manual_seed(0)
    network = build(Config(timm="tf_mobilenetv3_small_minimal_100", pretrained=False, image_size=64), NAMES)
    backbone = network.backbone
    # Features that are the colours of a 4x4 grid; class 0 is what is red, class 1 what is blue.
    backbone.forward_features = lambda x: torch.nn.functional.adaptive_avg_pool2d(x, 4).relu()
    backbone.forward_head = lambda maps: maps.mean(dim=(2, 3))[:, [0, 2]]
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:16, :16, 0], pixels[48:, 48:, 2] = 255, 255
    red, blue = grad_cam(network, pixels, [0, 1])
    assert red.shape == (64, 64) and red.max() == pytest.approx(1, abs=0.01)
    assert red[8, 8] > 0.9 and red[40:, 40:].max() < 0.1
    assert blue[56, 56] > 0.9 and blue[:24, :24].max() < 0.1


def test_the_strip_asks_the_same_images_after_each_epoch_and_goes_on(
    records: list[ImageRecord], tmp_path: Path
) -> None:
    folder, cache = tmp_path / "strip", ImageCache(100)
    assert [r.label for r in varied(records, 4)] == ["dark", "light", "dark", "light"]
    first = Strip(folder, records, cache, "center_crop")
    for epoch in (1, 2, 3):
        first(epoch, Brightness())
    again = Strip(folder, records[::-1], cache, "center_crop")
    again(3, Brightness())  # epoch 3 was lost before its checkpoint was written
    strip = json.loads((folder / "strip.json").read_text())
    assert [each["epoch"] for each in strip["epochs"]] == [1, 2, 3]
    assert len(strip["images"]) == 8 and {image["truth"] for image in strip["images"]} == set(NAMES)
    for image, answer in zip(strip["images"], strip["epochs"][0]["answers"], strict=True):
        assert answer["answer"] == image["truth"] and answer["confidence"] == answer["truth_probability"] > 0.5
    with Image.open(folder / "images.png") as drawn:
        assert drawn.size == (8 * 32, 32)


def test_the_strip_of_masks_is_pictures(records: list[ImageRecord], tmp_path: Path) -> None:
    Strip(tmp_path / "strip", records[:2], ImageCache(100), "squash")(1, BrightPixels())
    strip = json.loads((tmp_path / "strip/strip.json").read_text())
    assert strip["epochs"] == [{"epoch": 1, "picture": "epoch-0001"}]
    with Image.open(tmp_path / "strip/epoch-0001.png") as drawn:
        assert drawn.size == (64, 32)
