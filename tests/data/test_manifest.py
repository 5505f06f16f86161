"""Every file's fate: hashed, split, used, or left out with a reason."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.config import DataSettings
from distill.core.errors import DataError
from distill.core.files import sha256_of
from distill.core.progress import Progress
from distill.data.manifest import Manifest, scan
from distill.data.opener import opened
from distill.data.sources import find

from .conftest import ReadMasks, SaveImage, SaveMask, truth

Scan = Callable[..., Manifest]


@pytest.fixture
def read(progress: Progress) -> Scan:
    def scanned(known: Manifest | None = None, **values: object) -> Manifest:
        settings = DataSettings(**values)  # type: ignore[arg-type]
        return scan(find(settings), settings, known, progress)

    return scanned


@pytest.fixture
def photos(tmp_path: Path, save_image: SaveImage) -> Path:
    """4 labelled images of 2 classes, 3 unlabelled ones, 2 of validation, 2 of test, all different."""
    number = 0
    for folder in ("train/cat", "train/cat", "train/dog", "train/dog", "val/cat", "val/dog", "test/cat", "test/dog"):
        save_image(tmp_path / folder / f"{number}.png", number)
        number += 1
    for name in ("x.png", "y.png", "z.png"):
        save_image(tmp_path / "photos" / name, number)
        number += 1
    return tmp_path


def folders(root: Path) -> dict[str, Path]:
    named = {"unlabeled": "photos", "labeled": "train", "validation": "val", "test": "test"}
    return {key: root / name for key, name in named.items()}


def left_out(manifest: Manifest, root: Path) -> dict[str, str]:
    return {os.path.relpath(e.candidate.path, root): e.reason for e in manifest.left_out}


def error(do: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        do()
    return str(caught.value)


def test_every_image_is_used_once_with_its_hash_size_and_split(photos: Path, read: Scan) -> None:
    manifest = read(**folders(photos))
    assert manifest.classes == ("cat", "dog")
    assert manifest.left_out == []
    assert [r.id for r in manifest.records] == sorted(r.id for r in manifest.records)
    assert all(r.id == sha256_of(Path(r.path)) and (r.width, r.height) == (8, 6) for r in manifest.records)
    assert manifest.counts() == {
        "train_labelled": 4,
        "train_unlabelled": 3,
        "validation": 2,
        "test": 2,
        "left_out": 0,
        "classes": ["cat", "dog"],
        "by_class": {
            "train": {"cat": 2, "dog": 2},
            "validation": {"cat": 1, "dog": 1},
            "test": {"cat": 1, "dog": 1},
        },
        "left_out_by_reason": {},
    }
    assert len(manifest.of("train")) == 7
    assert {r.label for r in manifest.of("train", labelled=False)} == {None}


def test_the_size_is_that_of_the_upright_image(photos: Path, read: Scan) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (40, 20)).save(photos / "photos/turned.png", exif=exif)
    (record,) = [r for r in read(**folders(photos)).records if r.path.endswith("turned.png")]
    assert (record.width, record.height) == (20, 40)


def test_nothing_that_was_found_is_missing_from_the_manifest(photos: Path, read: Scan, save_image: SaveImage) -> None:
    (photos / "photos/notes.txt").write_text("dear diary")
    (photos / "photos/empty.jpg").touch()
    (photos / "photos/gone.jpg").symlink_to("nothing")
    os.mkfifo(photos / "photos/pipe.jpg")
    half = save_image(photos / "photos/half.png", 99, size=(64, 64))
    half.write_bytes(half.read_bytes()[:-3000])
    Image.new("L", (3000, 2000)).save(photos / "photos/large.png")
    save_image(photos / "train/loose.png", 77)
    odd = os.fsencode(photos) + b"/photos/caf\xe9.png"
    shutil.copy(photos / "photos/x.png", os.fsdecode(odd))
    manifest = read(**folders(photos), max_megapixels=5)
    found = left_out(manifest, photos)
    damaged = found.pop("photos/half.png")
    assert damaged.startswith("damaged or truncated (")
    assert found == {
        "photos/caf\\xe9.png": "its name is not UTF-8: rename it",
        "photos/empty.jpg": "not an image that Pillow can read",
        "photos/gone.jpg": "cannot be read (No such file or directory)",
        "photos/large.png": "more pixels than data.max_megapixels allows (3000x2000, limit 5 million)",
        "photos/notes.txt": "not an image that Pillow can read",
        "photos/pipe.jpg": "not a file",
        "train/loose.png": "lies beside the class folders, not in one",
    }
    assert len(manifest.entries) == 11 + 8
    assert all((e.split is None) == bool(e.reason) for e in manifest.entries)
    by_reason = manifest.counts()["left_out_by_reason"]
    assert by_reason["not an image that Pillow can read"] == 2
    assert by_reason["more pixels than data.max_megapixels allows"] == 1
    assert sum(by_reason.values()) == manifest.counts()["left_out"] == 8
    assert len(manifest.records) == 11


def test_saved_and_loaded_it_is_the_same(photos: Path, read: Scan, save_image: SaveImage) -> None:
    save_image(photos / "photos/a b\nc 😀.png", 50)
    (photos / "photos/größe.txt").write_text("words")
    save_image(photos / "train/straße, oder/1.png", 51)
    manifest = read(**folders(photos))
    manifest.save(photos / "run/manifest.parquet")
    again = Manifest.load(photos / "run/manifest.parquet")
    assert again.entries == manifest.entries
    assert again.classes == manifest.classes == ("cat", "dog", "straße, oder")
    assert again.records == manifest.records
    assert again.digest() == manifest.digest()


def test_the_same_manifest_gives_the_same_bytes(photos: Path, read: Scan) -> None:
    manifest = read(**folders(photos))
    manifest.save(photos / "a.parquet")
    manifest.save(photos / "b.parquet")
    assert (photos / "a.parquet").read_bytes() == (photos / "b.parquet").read_bytes()


def test_touching_and_renaming_change_nothing(photos: Path, read: Scan) -> None:
    before = read(**folders(photos))
    os.utime(photos / "photos/x.png", ns=(1, 1))
    (photos / "photos/y.png").rename(photos / "photos/renamed.png")
    (photos / "photos").rename(photos / "pictures")
    after = read(**folders(photos) | {"unlabeled": photos / "pictures"})
    assert after.digest() == before.digest()
    assert [r.id for r in after.records] == [r.id for r in before.records]


def test_what_does_change_the_digest(photos: Path, read: Scan, save_image: SaveImage) -> None:
    digests = [read(**folders(photos)).digest()]
    truths = [read(**folders(photos)).digest(truth_only=True)]

    def note() -> None:
        manifest = read(**folders(photos))
        digests.append(manifest.digest())
        truths.append(manifest.digest(truth_only=True))

    save_image(photos / "photos/new.png", 60)
    note()
    (photos / "photos/x.png").unlink()
    note()
    assert len(set(truths)) == 1  # so far only unlabelled images changed
    (photos / "train/cat/0.png").rename(photos / "train/dog/0.png")
    note()
    (photos / "train/dog/0.png").rename(photos / "val/dog/0.png")
    note()
    assert len(set(digests)) == 5
    assert len(set(truths)) == 3
    classes = read(**folders(photos), classes=["dog", "cat"])
    assert classes.classes == ("dog", "cat")
    assert classes.digest() not in digests


def test_known_files_are_not_read_again(photos: Path, read: Scan, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read(**folders(photos))
    new = photos / "photos/new.png"
    shutil.copy(photos / "photos/x.png", new)
    Image.effect_noise((9, 9), 50).save(new)
    asked: list[str] = []
    monkeypatch.setattr("distill.data.manifest.opened", lambda path: asked.append(path) or opened(path))
    after = read(before, **folders(photos))
    assert asked == [str(new)]
    assert {r.id for r in after.records} - {r.id for r in before.records} == {sha256_of(new)}


def test_a_changed_file_is_read_again(photos: Path, read: Scan, save_image: SaveImage) -> None:
    before = read(**folders(photos))
    status = (photos / "photos/x.png").stat()
    save_image(photos / "photos/x.png", 61, size=(20, 10))
    os.utime(photos / "photos/x.png", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    after = read(before, **folders(photos))
    (record,) = [r for r in after.records if r.path.endswith("x.png")]
    assert (record.id, record.width) == (sha256_of(photos / "photos/x.png"), 20)


def test_a_known_file_must_still_obey_the_limit(photos: Path, read: Scan) -> None:
    Image.new("L", (1000, 1000)).save(photos / "photos/large.png")
    before = read(**folders(photos))
    after = read(before, **folders(photos), max_megapixels=0.5)
    assert list(left_out(after, photos)) == ["photos/large.png"]


def test_what_was_left_out_before_gets_another_chance(photos: Path, read: Scan) -> None:
    Image.new("L", (1000, 1000)).save(photos / "photos/large.png")
    before = read(**folders(photos), max_megapixels=0.5)
    assert left_out(read(before, **folders(photos)), photos) == {}


# Copies


def test_of_copies_the_most_precious_use_wins(photos: Path, read: Scan) -> None:
    test, val, train = (photos / name for name in ("test/cat/6.png", "val/dog/5.png", "train/cat/0.png"))
    shutil.copy(test, photos / "train/cat/t.png")
    shutil.copy(test, photos / "photos/t.png")
    shutil.copy(val, photos / "train/dog/v.png")
    shutil.copy(train, photos / "photos/l.png")
    shutil.copy(photos / "photos/x.png", photos / "photos/x again.png")
    manifest = read(**folders(photos))
    assert left_out(manifest, photos) == {
        "train/cat/t.png": f"copy of an image of test: {test}",
        "photos/t.png": f"copy of an image of test: {test}",
        "train/dog/v.png": f"copy of an image of validation: {val}",
        "photos/l.png": f"copy of an image of labeled: {train}",
        "photos/x.png": f"copy of an image of unlabeled: {photos}/photos/x again.png",  # a blank sorts before a dot
    }


def test_copies_with_different_labels_are_all_left_out(photos: Path, read: Scan) -> None:
    shutil.copy(photos / "train/cat/0.png", photos / "train/dog/again.png")
    shutil.copy(photos / "train/cat/0.png", photos / "photos/again.png")
    reason = "copies with different labels: cat and dog"
    assert left_out(read(**folders(photos)), photos) == {
        "train/cat/0.png": reason,
        "train/dog/again.png": reason,
        "photos/again.png": reason,
    }


def test_a_test_image_labelled_otherwise_in_training_is_used_nowhere(photos: Path, read: Scan) -> None:
    shutil.copy(photos / "test/cat/6.png", photos / "train/dog/t.png")
    assert set(left_out(read(**folders(photos)), photos)) == {"test/cat/6.png", "train/dog/t.png"}


def test_damaged_copies_are_no_copies_of_each_other(photos: Path, read: Scan) -> None:
    for name in ("a.jpg", "b.jpg"):
        (photos / "photos" / name).write_text("words")
    assert set(left_out(read(**folders(photos)), photos).values()) == {"not an image that Pillow can read"}


def test_a_loose_file_does_not_push_out_its_copy(photos: Path, read: Scan) -> None:
    shutil.copy(photos / "photos/x.png", photos / "test/x.png")
    assert list(left_out(read(**folders(photos)), photos)) == ["test/x.png"]


def test_a_folder_inside_another_is_read_once(photos: Path, read: Scan) -> None:
    manifest = read(**folders(photos) | {"unlabeled": photos})
    assert manifest.counts()["train_unlabelled"] == 3
    assert len(manifest.records) == 11
    assert manifest.counts()["left_out"] == 8


# Splits


def splits(manifest: Manifest) -> dict[str, str]:
    return {r.id: r.split for r in manifest.records}


def test_shares_of_labelled_images_go_by_content(tmp_path: Path, read: Scan, save_image: SaveImage) -> None:
    for number in range(400):
        save_image(tmp_path / "train" / f"{'cat' if number % 2 else 'dog'}" / f"{number}.png", number, size=(2, 2))
    values = {"labeled": tmp_path / "train", "validation": 0.2, "test": 0.1}
    first = read(**values)
    counted = Counter(splits(first).values())
    # binomial: 80 +- 8 and 40 +- 6; four standard deviations are allowed
    assert abs(counted["validation"] - 80) < 32
    assert abs(counted["test"] - 40) < 24
    for number in range(400, 460):
        save_image(tmp_path / "train/cat" / f"{number}.png", number, size=(2, 2))
    (tmp_path / "train/dog").rename(tmp_path / "train/wolf")
    second = read(**values)
    assert len(second.records) == 460
    assert {id_: split for id_, split in splits(second).items() if id_ in splits(first)} == splits(first)


def test_another_share_of_validation_does_not_move_the_test_set(
    tmp_path: Path, read: Scan, save_image: SaveImage
) -> None:
    for number in range(100):
        save_image(tmp_path / "train" / f"{'cat' if number % 2 else 'dog'}" / f"{number}.png", number, size=(2, 2))
    tests = [
        {r.id for r in read(labeled=tmp_path / "train", validation=share, test=0.3).of("test")} for share in (0.1, 0.4)
    ]
    assert tests[0] == tests[1] != set()


def test_images_of_the_manifest_hide_their_label(tmp_path: Path, read: Scan, save_image: SaveImage) -> None:
    lines = ["path,label,split,labelled,group"]
    for number, (label, split, shown) in enumerate(
        [("cat", "train", 1), ("dog", "train", 1), ("cat", "train", 0), ("cat", "val", 0), ("dog", "test", 0)]
    ):
        save_image(tmp_path / f"{number}.png", number)
        lines.append(f"{number}.png,{label},{split},{shown},g{number}")
    lines.append("missing.png,cat,train,1,")
    (tmp_path / "index.csv").write_text("\n".join(lines))
    manifest = read(manifest=tmp_path / "index.csv")
    by_name = {Path(r.path).stem: r for r in manifest.records}
    assert (by_name["0"].label, by_name["0"].hidden_label, by_name["0"].group) == ("cat", None, "g0")
    assert (by_name["2"].label, by_name["2"].hidden_label) == (None, "cat")
    assert (by_name["3"].label, by_name["3"].split) == ("cat", "validation")
    assert left_out(manifest, tmp_path) == {"missing.png": "cannot be read (No such file or directory)"}
    assert [Path(r.path).stem for r in manifest.of("train", labelled=False)] == ["2"]


# Data that cannot be learnt from


def test_one_class(tmp_path: Path, read: Scan, save_image: SaveImage) -> None:
    for number in range(6):
        save_image(tmp_path / "train/cat" / f"{number}.png", number)
    save_image(tmp_path / "val/cat/9.png", 9)
    told = error(lambda: read(labeled=tmp_path / "train", validation=tmp_path / "val"))
    assert told == "a classifier needs at least two classes, found 1 (cat)"


def test_a_class_only_in_test(photos: Path, read: Scan, save_image: SaveImage) -> None:
    save_image(photos / "test/owl/1.png", 70)
    assert error(lambda: read(**folders(photos))) == (
        "only the test set has the class owl: add such images to `labeled` or `validation`, or name all classes in"
        " data.classes"
    )
    assert read(**folders(photos), classes=["cat", "dog", "owl"]).classes == ("cat", "dog", "owl")


def test_classes_that_the_config_does_not_name(photos: Path, read: Scan) -> None:
    told = error(lambda: read(**folders(photos), classes=["cat", "owl"]))
    assert told == "data.classes lacks dog, found as labels of images"


def test_no_usable_image(tmp_path: Path, read: Scan) -> None:
    for name in ("train/cat/1.jpg", "train/dog/2.jpg", "train/dog/3.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("words")
    (tmp_path / "train/cat/4.jpg").symlink_to("nothing")
    assert error(lambda: read(labeled=tmp_path / "train", validation=0.2)) == (
        "none of the 4 files is a usable image: 3 not an image that Pillow can read; 1 cannot be read"
    )


def test_nothing_left_to_train_on(photos: Path, read: Scan) -> None:
    for number, name in ((4, "cat"), (5, "dog")):
        shutil.copy(photos / f"val/{name}/{number}.png", photos / f"train/{name}/copy.png")
    for name in ("cat/0", "cat/1", "dog/2", "dog/3"):
        (photos / f"train/{name}.png").unlink()
    told = error(lambda: read(labeled=photos / "train", validation=photos / "val"))
    assert told == "no image is left to train on: give data.unlabeled or more data.labeled images"


def test_no_validation_image(photos: Path, read: Scan) -> None:
    told = error(lambda: read(labeled=photos / "train", validation=0.0001))
    assert told == "no validation image: give data.validation a folder, or a larger share of `labeled`"


def test_pixels_play_no_part_in_what_a_copy_is(photos: Path, read: Scan) -> None:
    """The same pixels in another file are another image: only equal bytes are certain."""
    pixels = np.asarray(Image.open(photos / "photos/x.png"))
    Image.fromarray(pixels).save(photos / "photos/same.bmp")
    assert left_out(read(**folders(photos)), photos) == {}


# Masks

ROAD: dict[str, object] = {"values": {0: "background", 1: "road", 2: "sky"}}


@pytest.fixture
def scenes(tmp_path: Path, save_image: SaveImage, save_mask: SaveMask) -> Path:
    """4 labelled images of training, 2 of validation, 2 of test, 2 without masks, all different, 4x3 pixels."""
    number = 0
    for part, count in (("train", 4), ("val", 2), ("test", 2)):
        for _ in range(count):
            save_image(tmp_path / part / "images" / f"{number}.png", number, (4, 3))
            save_mask(
                tmp_path / part / "masks" / f"{number}.png", [[0, 0, 1, 1], [0, number % 2, 2, 1], [255, 0, 0, 0]]
            )
            number += 1
    for name in ("x", "y"):
        save_image(tmp_path / "photos" / f"{name}.png", number, (4, 3))
        number += 1
    return tmp_path


def test_every_mask_is_written_and_named_by_its_record(scenes: Path, read_masks: ReadMasks) -> None:
    manifest = read_masks(ROAD, **folders(scenes))
    assert manifest.left_out == []
    assert {Path(str(r.mask)).parent for r in manifest.records if r.mask} == {scenes / "run/masks"}
    assert truth(manifest, "3") == [[0, 0, 1, 1], [0, 1, 2, 1], [255, 0, 0, 0]]
    assert all(r.label is None and r.hidden_mask is None for r in manifest.records)
    assert [len(manifest.of("train", labelled=known)) for known in (True, False)] == [4, 2]
    assert all(r.mask is None for r in manifest.of("train", labelled=False))
    counts = manifest.counts()
    assert counts["train_labelled"] == 4
    assert counts["train_unlabelled"] == 2
    assert counts["by_class"]["train"] == {"background": 4, "road": 4, "sky": 4}
    shares = counts["pixel_shares"]["validation"]
    assert shares == {"background": 13 / 22, "road": 7 / 22, "sky": 2 / 22}  # of 22 pixels that are not ignored


def test_masks_saved_and_loaded_are_the_same(scenes: Path, read_masks: ReadMasks) -> None:
    manifest = read_masks(ROAD, **folders(scenes))
    manifest.save(scenes / "run/manifest.parquet")
    again = Manifest.load(scenes / "run/manifest.parquet")
    assert again.entries == manifest.entries
    assert again.records == manifest.records
    assert (again.classes, again.digest(), again.counts()) == (manifest.classes, manifest.digest(), manifest.counts())
    moved = (scenes / "run").rename(scenes / "moved")
    there = Manifest.load(moved / "manifest.parquet").of("test")[0].mask
    assert Path(str(there)).is_file()


def test_without_some_images_masks_stay(scenes: Path, read_masks: ReadMasks) -> None:
    manifest = read_masks(ROAD, **folders(scenes))
    fewer = manifest.without({manifest.of("train", labelled=True)[0].id: "shows what a test image shows"})
    assert len(fewer.of("train", labelled=True)) == 3
    assert fewer.counts()["by_class"]["train"]["sky"] == 3


def test_the_digest_changes_with_what_masks_hold(scenes: Path, read_masks: ReadMasks, save_mask: SaveMask) -> None:
    mask = scenes / "train/masks/0.png"
    seen = [read_masks(ROAD, **folders(scenes)).digest()]
    os.utime(mask, ns=(1, 1))
    Image.open(mask).save(mask.with_suffix(".bmp"))
    mask.unlink()
    assert read_masks(ROAD, **folders(scenes)).digest() == seen[0]
    mask.with_suffix(".bmp").unlink()
    for rows in ([[0, 0, 1, 1], [0, 0, 2, 1], [0, 0, 0, 0]], [[0, 0, 1, 1], [0, 0, 2, 1], [0, 0, 0, 1]]):
        save_mask(mask, rows)
        seen.append(read_masks(ROAD, **folders(scenes)).digest())
    seen.append(read_masks({"values": {0: "sky", 1: "road", 2: "background"}}, **folders(scenes)).digest())
    seen.append(read_masks({"values": {0: "background", "1-2": "road"}}, **folders(scenes)).digest())
    assert len(set(seen)) == len(seen)


def test_hidden_masks_count_but_are_not_seen(scenes: Path, read_masks: ReadMasks, save_mask: SaveMask) -> None:
    lines = ["path,mask,split,labelled"]
    for number, split in enumerate(["train", "train", "train", "train", "val", "val", "test", "test"]):
        part = {"train": "train", "val": "val", "test": "test"}[split]
        lines.append(f"{part}/images/{number}.png,{part}/masks/{number}.png,{split},{int(number > 0)}")
    (scenes / "index.csv").write_text("\n".join(lines))
    save_mask(scenes / "train/masks/0.png", [[2] * 4] * 3)
    first = read_masks(ROAD, manifest=scenes / "index.csv")
    (hidden,) = first.of("train", labelled=False)
    assert hidden.mask is None
    assert np.asarray(Image.open(str(hidden.hidden_mask))).tolist() == [[2] * 4] * 3
    assert first.counts()["by_class"]["train"]["sky"] == 3
    save_mask(scenes / "train/masks/0.png", [[1] * 4] * 3)
    second = read_masks(ROAD, manifest=scenes / "index.csv")
    assert second.digest() != first.digest()
    assert second.digest(truth_only=True) == first.digest(truth_only=True)


def test_copies_with_different_masks_are_all_left_out(scenes: Path, read_masks: ReadMasks) -> None:
    shutil.copy(scenes / "train/images/0.png", scenes / "train/images/again.png")
    shutil.copy(scenes / "train/masks/1.png", scenes / "train/masks/again.png")
    shutil.copy(scenes / "train/images/2.png", scenes / "train/images/same.png")
    shutil.copy(scenes / "train/masks/2.png", scenes / "train/masks/same.png")
    reason = "copies with different masks"
    assert left_out(read_masks(ROAD, **folders(scenes)), scenes) == {
        "train/images/0.png": reason,
        "train/images/again.png": reason,
        "train/images/same.png": f"copy of an image of labeled: {scenes}/train/images/2.png",
    }


def test_shares_of_images_with_masks(
    tmp_path: Path, read_masks: ReadMasks, save_image: SaveImage, save_mask: SaveMask
) -> None:
    for number in range(80):
        save_image(tmp_path / "train/images" / f"{number}.png", number, (2, 2))
        if number < 60:
            save_mask(tmp_path / "train/masks" / f"{number}.png", [[0, 1], [1, 2]])
    counts = read_masks(ROAD, labeled=tmp_path / "train", validation=0.3, test=0.2).counts()
    assert counts["train_unlabelled"] == 20
    assert 8 <= counts["validation"] <= 28
    assert counts["validation"] + counts["test"] + counts["train_labelled"] == 60


def test_a_damaged_image_is_left_out_and_its_mask_not_looked_at(scenes: Path, read_masks: ReadMasks) -> None:
    (scenes / "train/images/0.png").write_text("words")
    (scenes / "train/masks/0.png").write_text("words")
    assert left_out(read_masks(ROAD, **folders(scenes)), scenes) == {
        "train/images/0.png": "not an image that Pillow can read"
    }


def test_a_class_that_only_masks_of_the_test_set_have(scenes: Path, read_masks: ReadMasks, save_mask: SaveMask) -> None:
    save_mask(scenes / "test/masks/7.png", [[3] * 4] * 3)
    masks: dict[str, object] = {"values": {0: "background", 1: "road", 2: "sky", 3: "sea", 4: "nowhere"}}
    assert error(lambda: read_masks(masks, **folders(scenes))) == (
        "only the test set has the class sea: add such images to `labeled` or `validation`, or name all classes in"
        " data.classes"
    )
    names = ["background", "road", "sky", "sea", "nowhere"]
    assert read_masks(masks, **folders(scenes), classes=names).classes == tuple(names)


def test_masks_of_one_class(scenes: Path, read_masks: ReadMasks) -> None:
    told = error(lambda: read_masks({"values": {"0-2": "all"}}, **folders(scenes)))
    assert told == "segmentation needs at least two classes, found 1 (all)"


def test_validation_masks_that_say_nothing(scenes: Path, read_masks: ReadMasks, save_mask: SaveMask) -> None:
    for number in (4, 5):
        save_mask(scenes / f"val/masks/{number}.png", [[255] * 4] * 3)
    told = error(lambda: read_masks(ROAD, **folders(scenes)))
    assert told == "no validation image has a mask with a class"
