"""`distill init` looks at a folder and writes a config that `distill check` accepts."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill.config_file import load_config
from distill.core.errors import ConfigError, DataError, UserError
from distill.init import write_config
from tests.conftest import SaveImage


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
