"""Which mask is whose: folders as people keep them, and what is ambiguous in them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from distill.config import DataSettings
from distill.data.layouts import find_pairs, layout_of
from distill.data.sources import find, listing

from .conftest import refused


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def pairs(folder: Path, origin: str = "labeled") -> dict[str, str]:
    """Each image and its mask, or where it went without one."""
    found = {}
    for c in find_pairs(folder, origin):  # type: ignore[arg-type]
        mask = c.mask and (c.mask.item or os.path.relpath(c.mask.path, folder))
        found[os.path.relpath(c.path, folder)] = c.reason or mask or f"({c.origin})"
    return found


def coco(*names: str) -> str:
    return json.dumps(
        {"images": [{"id": n, "file_name": name} for n, name in enumerate(names)], "annotations": [], "categories": []}
    )


def test_images_and_masks_of_the_same_names(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "images/b.JPG", "images/deep/a.jpg", "images/x.y.jpg", "images/z.jpg")
    touch(
        tmp_path, "masks/a.png", "masks/b.bmp", "masks/deep/a.png", "masks/x.y.png", "masks/lost.png", "masks/.DS_Store"
    )
    assert layout_of(tmp_path) == "masks"
    assert pairs(tmp_path) == {
        "images/a.jpg": "masks/a.png",
        "images/b.JPG": "masks/b.bmp",
        "images/deep/a.jpg": "masks/deep/a.png",
        "images/x.y.jpg": "masks/x.y.png",
        "images/z.jpg": "(unlabeled)",
        "masks/lost.png": "a mask whose image is missing",
    }
    assert pairs(tmp_path, "test")["images/z.jpg"] == "has no mask"


@pytest.mark.parametrize("mask", ["a_mask.png", "a-mask.png", "a_label.png", "a_seg.gif", "a.jpg.png"])
def test_usual_endings_of_masks(tmp_path: Path, mask: str) -> None:
    touch(tmp_path, "images/a.jpg", f"masks/{mask}")
    assert pairs(tmp_path) == {"images/a.jpg": f"masks/{mask}"}


def test_the_folders_of_voc(tmp_path: Path) -> None:
    touch(tmp_path, "JPEGImages/a.jpg", "SegmentationClass/a.png", "SegmentationObject/a.png", "labelmap.txt")
    (candidate,) = find_pairs(tmp_path, "test")
    assert candidate.mask is not None
    assert candidate.mask.path == f"{tmp_path}/SegmentationClass/a.png"
    assert candidate.mask.labelmap == f"{tmp_path}/labelmap.txt"


def test_a_file_beside_an_image_is_not_its_mask(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "images/a.txt", "masks/a.png")
    assert pairs(tmp_path) == {"images/a.jpg": "masks/a.png", "images/a.txt": "(unlabeled)"}


@pytest.mark.parametrize(
    "names",
    [
        ["images/a.jpg", "images/a.png", "masks/a.png"],
        ["images/a.jpg", "masks/a.png", "masks/a.bmp"],
    ],
)
def test_it_must_be_clear_which_mask_is_whose(tmp_path: Path, names: list[str]) -> None:
    touch(tmp_path, *names, "images/b.jpg", "masks/b.png")
    first, line = refused(lambda: find_pairs(tmp_path, "labeled")).splitlines()
    assert first == f"data.labeled: {tmp_path} has masks that may be of several images:"
    shown, files = line.split("? ")
    assert shown == "  which goes with which"
    assert sorted(files.split(", ")) == sorted(f"{tmp_path}/{name}" for name in names)


def test_masks_of_other_names(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "masks/1.png")
    assert refused(lambda: find_pairs(tmp_path, "validation")) == (
        f"data.validation: no image in {tmp_path} has a mask; the first image is {tmp_path}/images/a.jpg, the first"
        f" mask {tmp_path}/masks/1.png"
    )


def test_masks_without_images(tmp_path: Path) -> None:
    touch(tmp_path, "masks/1.png")
    told = refused(lambda: find_pairs(tmp_path, "test"))
    assert told == f"data.test: found {tmp_path}/masks, but no {tmp_path}/images for its images"


def test_a_folder_without_masks(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg", "dog/1.jpg", "dog/1.json")
    (tmp_path / "dog/1.json").write_text('{"camera": "x"}')
    assert layout_of(tmp_path) is None
    assert refused(lambda: find_pairs(tmp_path, "labeled")) == (
        f"data.labeled: found no masks in {tmp_path}; expected {tmp_path}/images and {tmp_path}/masks with files of the"
        " same names, or images and a COCO JSON, or images with a LabelMe JSON of the same name beside each"
    )


@pytest.mark.parametrize("place", ["annotations.json", "_annotations.coco.json", "mine.json", "annotations/train.json"])
def test_images_and_one_coco_file(tmp_path: Path, place: str) -> None:
    touch(tmp_path, "images/a.jpg", "images/deep/b.jpg", "images/c.jpg", "readme.json")
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text(coco("a.jpg", "deep/b.jpg", "gone.jpg", "images/c.jpg"))
    assert layout_of(tmp_path) == "coco"
    assert pairs(tmp_path) == {
        "images/a.jpg": "a.jpg",
        "images/c.jpg": "images/c.jpg",
        "images/deep/b.jpg": "deep/b.jpg",
        "images/gone.jpg": "gone.jpg",
    }


def test_a_coco_file_beside_its_images(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "_annotations.coco.json").write_text(coco("a.jpg"))
    assert pairs(tmp_path) == {"a.jpg": "a.jpg", "b.jpg": "(unlabeled)"}
    assert pairs(tmp_path, "test") == {"a.jpg": "a.jpg", "b.jpg": "has no mask"}


def test_several_coco_files(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg")
    for name in ("x.json", "y.json"):
        (tmp_path / name).write_text(coco("a.jpg"))
    told = refused(lambda: find_pairs(tmp_path, "labeled"))
    assert told == f"{tmp_path} has several COCO files ({tmp_path}/x.json, {tmp_path}/y.json): expected one"


def test_a_coco_file_that_leads_elsewhere(tmp_path: Path) -> None:
    touch(tmp_path, "set/images/a.jpg", "secret.jpg")
    (tmp_path / "set/annotations.json").write_text(coco("a.jpg", "../../secret.jpg"))
    told = refused(lambda: find_pairs(tmp_path / "set", "labeled"))
    assert 'images[1].file_name: found "../../secret.jpg", expected a file inside the folder of images' in told


def test_labelme_files_beside_their_images(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "deep/b.png", "c.jpg", "a.txt")
    for name in ("a", "deep/b", "lost"):
        (tmp_path / f"{name}.json").write_text('{"shapes": []}')
    assert layout_of(tmp_path) == "labelme"
    assert pairs(tmp_path) == {
        "a.jpg": "a.json",
        "a.txt": "(unlabeled)",
        "c.jpg": "(unlabeled)",
        "deep/b.png": "deep/b.json",
        "lost.json": "a mask whose image is missing",
    }


def test_a_labelme_file_beside_two_images(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "a.png")
    (tmp_path / "a.json").write_text('{"shapes": []}')
    told = refused(lambda: find_pairs(tmp_path, "labeled"))
    assert told.endswith(f"  which goes with which? {tmp_path}/a.jpg, {tmp_path}/a.png, {tmp_path}/a.json")


def test_names_that_are_no_text(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "images/b.jpg", "masks/b.png")
    for name in (b"images/caf\xe9.jpg", b"masks/caf\xe9.png", b"masks/a.p\xe9ng"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(b"x")
    assert pairs(tmp_path) == {
        "images/a.jpg": "the name of its mask is not UTF-8: rename it",
        "images/b.jpg": "masks/b.png",
        "images/caf\\xe9.jpg": "its name is not UTF-8: rename it",
    }


# What makes a run look at its data again


@pytest.fixture
def listed(tmp_path: Path) -> Callable[[], str]:
    for part in ("train", "val"):
        touch(tmp_path / part, "images/a.jpg", "images/b.jpg", "masks/a.png", "masks/b.png", "labelmap.txt")
    settings = DataSettings(labeled=tmp_path / "train", validation=tmp_path / "val")
    return lambda: listing(find(settings, "segmentation"))


def test_the_listing_changes_with_every_file(tmp_path: Path, listed: Callable[[], str]) -> None:
    seen = [listed()]
    assert listed() == seen[0]
    for change in (
        lambda: (tmp_path / "train/masks/a.png").write_bytes(b"yy"),
        lambda: os.utime(tmp_path / "train/masks/a.png", ns=(5, 5)),
        lambda: (tmp_path / "train/labelmap.txt").write_bytes(b"yy"),
        (tmp_path / "train/labelmap.txt").unlink,
        lambda: (tmp_path / "val/masks/b.png").rename(tmp_path / "val/masks/b_mask.png"),
        (tmp_path / "train/images/b.jpg").unlink,
    ):
        change()
        seen.append(listed())
    assert len(set(seen)) == len(seen)
