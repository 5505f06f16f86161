"""`distill init` looks at a folder and writes a config that `distill check` accepts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.config_file import load_config
from distill.core.errors import ConfigError, DataError, UserError
from distill.init import write_config
from tests.conftest import SaveImage

SHAPES = {"shapes": [{"label": "a, b", "points": [[0, 0], [4, 0], [4, 4]], "shape_type": "polygon"}]}


@pytest.fixture
def save_pair(save_image: SaveImage) -> Callable[[Path, str, object], None]:
    """Saves an image and its mask, rows of numbers or of colours, below a folder."""

    def save(folder: Path, name: str, rows: object) -> None:
        save_image(folder / "images" / f"{name}.png", len(name) + len(str(folder)), size=(2, 2))
        (folder / "masks").mkdir(exist_ok=True)
        Image.fromarray(np.array(rows, np.uint8)).save(folder / "masks" / f"{name}.png")

    return save


def test_class_folders_become_labelled_with_shares(tmp_path: Path, save_image: SaveImage) -> None:
    for number in range(6):
        save_image(tmp_path / "my photos" / ("cat" if number % 2 else "dog: big") / f"{number}.png", number)
    output = tmp_path / "teacher.yaml"
    lines = list(write_config(tmp_path / "my photos", output, replace=False))
    assert lines[0] == "labeled: 6 files in 2 classes (cat, dog: big)"
    config = load_config(output)
    assert config.data.labeled == tmp_path / "my photos"
    assert (config.data.validation, config.data.test) == (0.2, 0.2)
    assert config.teacher.fit is not None


def test_named_parts_are_recognised(tmp_path: Path, save_image: SaveImage) -> None:
    for place in (
        "train/a/1.png",
        "train/b/2.png",
        "val/a/3.png",
        "Test/b/4.png",
        "unlabeled/5.png",
        "unlabeled/6.png",
    ):
        save_image(tmp_path / "set" / place, len(place))
    list(write_config(tmp_path / "set", tmp_path / "c.yaml", replace=False))
    data = load_config(tmp_path / "c.yaml").data
    parts = [tmp_path / "set" / name for name in ("train", "val", "Test", "unlabeled")]
    assert [data.labeled, data.validation, data.test, data.unlabeled] == parts


def test_photos_alone_need_a_validation_folder(tmp_path: Path, save_image: SaveImage) -> None:
    save_image(tmp_path / "photos" / "1.JPG")
    lines = list(write_config(tmp_path / "photos", tmp_path / "c.yaml", replace=False))
    assert any("data.validation" in line for line in lines)
    with pytest.raises(ConfigError, match=r"data\.validation: found no file or folder .*CHANGE-ME"):
        load_config(tmp_path / "c.yaml")


def test_nothing_is_overwritten_or_invented(tmp_path: Path, save_image: SaveImage) -> None:
    save_image(tmp_path / "photos" / "1.png")
    (tmp_path / "c.yaml").write_text("mine")
    with pytest.raises(UserError, match=r"c\.yaml exists already; --force replaces it"):
        list(write_config(tmp_path / "photos", tmp_path / "c.yaml", replace=False))
    assert (tmp_path / "c.yaml").read_text() == "mine"
    list(write_config(tmp_path / "photos", tmp_path / "c.yaml", replace=True))
    assert "data:" in (tmp_path / "c.yaml").read_text()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="found no file in"):
        list(write_config(tmp_path / "empty", tmp_path / "d.yaml", replace=False))
    with pytest.raises(DataError, match="found no folder"):
        list(write_config(tmp_path / "nowhere", tmp_path / "d.yaml", replace=False))


# Masks

SavePair = Callable[[Path, str, object], None]


def test_images_with_masks_become_segmentation(tmp_path: Path, save_pair: SavePair) -> None:
    save_pair(tmp_path / "set", "a", [[0, 3], [3, 255]])
    save_pair(tmp_path / "set", "bb", [[0, 0], [3, 7]])
    save_pair(tmp_path / "set", "ccc", [[0, 0], [0, 0]])
    lines = list(write_config(tmp_path / "set", tmp_path / "c.yaml", replace=False))
    assert lines[0] == "labeled: 3 files, 3 of them images with masks"
    assert "next: give the classes their names in `data`" in lines
    config = load_config(tmp_path / "c.yaml")
    assert config.task == "segmentation"
    assert config.data.labeled == tmp_path / "set"
    assert (config.data.validation, config.data.test) == (0.2, 0.2)
    assert config.data.masks.values == {"0": "background", "3": "class_1", "7": "class_2"}


def test_parts_with_masks_and_a_pool_without(tmp_path: Path, save_pair: SavePair, save_image: SaveImage) -> None:
    save_pair(tmp_path / "set/train", "a", [[0, 255], [255, 0]])
    save_pair(tmp_path / "set/val", "b", [[0, 0], [0, 0]])
    save_image(tmp_path / "set/unlabeled/c.png")
    list(write_config(tmp_path / "set", tmp_path / "c.yaml", replace=False))
    data = load_config(tmp_path / "c.yaml").data
    assert [data.labeled, data.validation, data.test] == [tmp_path / "set/train", tmp_path / "set/val", 0.2]
    assert data.unlabeled == tmp_path / "set/unlabeled"
    assert data.masks.values == {"0": "background", "255": "class_1"}  # black and white: 255 is a class here


def test_coloured_masks_get_their_colours(tmp_path: Path, save_pair: SavePair) -> None:
    save_pair(tmp_path / "set", "a", [[[0, 0, 0], [255, 0, 0]], [[255, 0, 0], [255, 0, 0]]])
    list(write_config(tmp_path / "set", tmp_path / "c.yaml", replace=False))
    masks = load_config(tmp_path / "c.yaml").data.masks
    assert masks.colors == {"#ff0000": "class_0", "#000000": "background"}


def test_annotations_name_their_classes(tmp_path: Path, save_image: SaveImage) -> None:
    for number in range(2):
        save_image(tmp_path / "set" / f"{number}.png", number, (4, 4))
        (tmp_path / "set" / f"{number}.json").write_text(json.dumps(SHAPES))
    list(write_config(tmp_path / "set", tmp_path / "c.yaml", replace=False))
    config = load_config(tmp_path / "c.yaml")
    assert config.task == "segmentation"
    assert config.data.classes == ["background", "a, b"]


def test_masks_nobody_can_read_are_left_to_the_check(tmp_path: Path, save_image: SaveImage) -> None:
    save_image(tmp_path / "set/images/a.png")
    (tmp_path / "set/masks").mkdir()
    (tmp_path / "set/masks/a.png").write_text("words")
    list(write_config(tmp_path / "set", tmp_path / "c.yaml", replace=False))
    assert load_config(tmp_path / "c.yaml").data.masks.values == {}
