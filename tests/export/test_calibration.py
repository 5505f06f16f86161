"""Which images set the ranges, and whether two halves of them agree."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch

from distill.core.types import Images
from export.quantize.calibration import LARGEST_GAP, Calibrated, CalibrationSet, balanced, gaps
from tests.test_fake_quantization import settled


def test_rare_classes_give_all_they_have_and_others_share_the_rest() -> None:
    kinds = [("rare", 10.0)] * 2 + [("common", float(n)) for n in range(50)] + [("other", float(n)) for n in range(30)]
    chosen = [kinds[place][0] for place in balanced(kinds, 12)]
    assert {name: chosen.count(name) for name in ("rare", "other", "common")} == {"rare": 2, "other": 5, "common": 5}


def test_each_class_is_taken_from_dark_to_bright() -> None:
    rng = np.random.default_rng(0)
    kinds = [(name, float(bright)) for name in "ab" for bright in rng.permutation(100)]
    for name in "ab":
        bright = sorted(kinds[place][1] for place in balanced(kinds, 20) if kinds[place][0] == name)
        assert len(bright) == 10 and all(10 * n <= each < 10 * (n + 1) for n, each in enumerate(bright))


def test_one_image_a_class_still_spans_brightness() -> None:
    kinds = [(f"class {number}", float(bright)) for number in range(40) for bright in range(0, 250, 10)]
    bright = [kinds[place][1] for place in balanced(kinds, 40)]
    assert len(bright) == 40
    assert min(bright) < 30 and max(bright) > 210 and 90 < np.mean(bright) < 160


def test_of_more_classes_than_images_the_largest_are_kept() -> None:
    kinds = [(f"rare {number}", 10.0) for number in range(20)] + [("a", 1.0)] * 4 + [("b", 2.0)] * 3 + [("c", 3.0)] * 2
    assert {kinds[place][0] for place in balanced(kinds, 3)} == {"a", "b", "c"}


@pytest.mark.parametrize("count", [1, 3, 7, 10, 11])
def test_as_many_as_are_asked_for_and_none_twice(count: int) -> None:
    kinds = [(str(number % 4), float(number)) for number in range(10)]
    chosen = balanced(kinds, count)
    assert chosen == sorted(set(chosen)) and len(chosen) == min(count, 10)


def flat(values: list[int]) -> list[Images]:
    rng = np.random.default_rng(1)
    return [np.clip(rng.normal(value, 20, (1, 32, 32, 3)), 0, 255).astype(np.uint8) for value in values]


def test_halves_that_saw_other_images_are_told_by_tensor() -> None:
    torch.manual_seed(0)
    student = settled(timm.create_model("mobilenetv2_035", num_classes=3), 32)
    alike = gaps(student, flat([120] * 16))
    apart = gaps(student, flat([20, 230] * 8))
    assert max(alike.values()) < max(apart.values())
    assert max(apart.values()) > LARGEST_GAP

    def made(found: dict[str, float]) -> CalibrationSet:
        images = tuple(Calibrated(f"{n:064x}", "a", 100.0) for n in range(16))
        return CalibrationSet(images, tuple(flat([120] * 16)), found)

    worst = max(apart, key=apart.__getitem__).removeprefix("backbone.")
    warning = made(apart).warning()
    assert f"({worst} by " in warning and "export.calibration_images" in warning
    assert next(iter(made(apart).as_dict()["halves"]["beyond"])) == worst
    assert made({"backbone.a": 0.19}).warning() == ""
