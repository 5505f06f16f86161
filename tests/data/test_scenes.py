"""Scenes of the quickstart of segmentation: masks that fit the pixels, parts that share no digit, the same bytes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest
import sklearn.datasets
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion

from distill.core.errors import DataError
from distill.data.scenes import CLASSES, SCENES, write_scenes

LABELLED = ["labeled", "validation", "test"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "images"
    (folder.parent / "images.tmp" / "labeled" / "images").mkdir(parents=True)
    (folder.parent / "images.tmp" / "labeled" / "images" / "half-written.png").write_bytes(b"x")
    write_scenes(folder)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read(folder: Path) -> npt.NDArray[np.uint8]:
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.iterdir())])


def test_each_part_has_its_images_and_no_other_files(scenes: Path) -> None:
    expected = set()
    for part, count in SCENES.items():
        for folder in [f"{part}/images", f"{part}/masks"] if part in LABELLED else [part]:
            expected |= {f"{folder}/{number:04d}.png" for number in range(count)}
    assert set(files(scenes)) == expected
    assert [path.name for path in scenes.parent.iterdir()] == ["images"]


@pytest.mark.parametrize("part", LABELLED)
def test_masks_are_grey_of_the_size_of_their_images_and_show_all_classes(scenes: Path, part: str) -> None:
    images, masks = read(scenes / part / "images"), read(scenes / part / "masks")
    assert images.shape == (*masks.shape, 3)
    assert masks.dtype == np.uint8
    shares = np.bincount(masks.ravel()) / masks.size
    assert len(shares) == len(CLASSES)
    assert shares[0] > 0.7
    assert shares[1:].min() > 0.05
    assert (masks > 0).any(axis=(1, 2)).all()


def test_masks_fit_the_pixels_to_the_outline(scenes: Path) -> None:
    """Digits are brighter than what surrounds them; of a mask that is moved by a pixel this is less true."""
    brightness = read(scenes / "test" / "images").mean(axis=3)
    inside = read(scenes / "test" / "masks") > 0
    plane = np.ones((1, 3, 3), dtype=bool)

    def step(mask: npt.NDArray[np.bool_]) -> float:
        rim, around = mask & ~binary_erosion(mask, plane), binary_dilation(mask, plane) & ~mask
        return float(brightness[rim].mean() - brightness[around].mean())

    exact = step(inside)
    assert exact > 40
    assert all(step(np.roll(inside, by, axis)) < 0.9 * exact for axis in (1, 2) for by in (-1, 1))


@pytest.mark.parametrize("digit", [0, 1])
def test_a_digit_is_shown_in_one_part_and_all_else_is_the_same_bytes(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digit: int
) -> None:
    data = sklearn.datasets.load_digits()
    data.images[np.flatnonzero(data.target == digit)[7]] = 16  # a filled square
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda: data)
    write_scenes(tmp_path / "images")
    before, after = files(scenes), files(tmp_path / "images")
    assert before.keys() == after.keys()
    assert len({name.split("/")[0] for name in before if before[name] != after[name]}) == 1


def test_no_two_images_are_equal(scenes: Path) -> None:
    images = [content for name, content in files(scenes).items() if "/masks/" not in name]
    assert len(set(images)) == sum(SCENES.values())


def test_other_digits_than_expected_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = sklearn.datasets.load_digits()
    few = SimpleNamespace(images=data.images[:200], target=data.target[:200])
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda: few)
    with pytest.raises(DataError, match="scikit-learn gave 21 images of the digit 0, expected at least 178"):
        write_scenes(tmp_path / "images")
    assert list(tmp_path.iterdir()) == []
