"""Statistics of images, shares of classes, and the choice of what would teach most."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from distill.drift.choose import Space, most_instructive
from distill.drift.classes import class_shares
from distill.drift.looks import STATISTICS, statistics_of


def _named(images: np.ndarray) -> list[dict[str, float]]:
    return [dict(zip(STATISTICS, row.tolist(), strict=True)) for row in statistics_of(images)]


def test_statistics_move_as_their_names_say() -> None:
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(60, 180, (64, 64, 3), dtype=np.uint8)).filter(ImageFilter.GaussianBlur(1))
    pixels = np.asarray(photo)
    dark = (pixels // 2).astype(np.uint8)
    soft = np.asarray(photo.filter(ImageFilter.GaussianBlur(2)))
    red = pixels.copy()
    red[..., 2] //= 2
    plain, darker, blurred, warm = _named(np.stack([pixels, dark, soft, red]))
    assert abs(darker["brightness"] - plain["brightness"] / 2) < 0.01
    assert abs(darker["sharpness"] - plain["sharpness"]) < 0.05 and darker["contrast"] < 0.6 * plain["contrast"]
    assert blurred["sharpness"] < plain["sharpness"] - 0.5 and abs(blurred["brightness"] - plain["brightness"]) < 0.01
    assert warm["warmth"] > plain["warmth"] + 0.15 and warm["saturation"] > plain["saturation"]
    black = _named(np.zeros((1, 8, 8, 3), np.uint8))[0]
    assert all(np.isfinite(list(black.values())))


def test_shares_of_classes_are_told_through_the_confusions() -> None:
    confusion = [[80, 20, 0], [10, 80, 10], [0, 30, 70]]
    mixing = np.array(confusion) / 100
    rng = np.random.default_rng(0)

    def answers(shares: list[float], images: int) -> np.ndarray:
        truth = rng.choice(3, images, p=shares)
        return np.eye(3, dtype=np.float32)[[rng.choice(3, p=mixing[t]) for t in truth]]

    rows = class_shares("abc", confusion, answers([1 / 3] * 3, 600), answers([0.6, 0.4, 0], 600), by_image=True)
    assert rows is not None
    assert [row.change for row in rows] == ["more frequent", "", "left out"]
    assert all(row.now[1] - 0.02 <= true <= row.now[2] + 0.02 for row, true in zip(rows, (0.6, 0.4, 0), strict=True))
    same = class_shares("abc", confusion, answers([1 / 3] * 3, 600), answers([1 / 3] * 3, 200), by_image=True)
    assert same is not None and [row.change for row in same] == ["", "", ""]


def test_a_student_that_tells_nothing_apart_gives_no_shares() -> None:
    half = np.full((20, 2), 0.5, np.float32)
    assert class_shares("ab", [[5, 5], [5, 5]], half, half, by_image=True) is None
    assert class_shares("ab", [[5, 5], [0, 0]], half, half, by_image=True) is None


def test_hard_images_that_differ_are_chosen() -> None:
    rng = np.random.default_rng(0)

    def kind(place: int, count: int) -> np.ndarray:
        return (3 * np.eye(8)[place] + rng.normal(0, 0.2, (count, 8))).astype(np.float32)

    known = np.concatenate([kind(0, 40), kind(1, 40)])
    new = np.concatenate([kind(0, 10), kind(2, 10), kind(3, 10)])
    hardness = np.full(30, 0.5, np.float32)
    hardness[[4, 14, 25]] = (1.0, 1.0, 0.9)
    space = Space(known, new)
    chosen = most_instructive(space, hardness, 30)
    assert chosen[:2] == [14, 25] and sorted(chosen) == list(range(30))
    novelty, far = space.novelty()
    assert (novelty[10:] > far).all() and (novelty[:10] < novelty[10:].min()).all()
    copies = Space(known, np.repeat(new[[10, 20]], 5, axis=0))
    assert {place // 5 for place in most_instructive(copies, np.ones(10, np.float32), 2)} == {0, 1}
