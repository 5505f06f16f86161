"""Copies of held-out photos among the training photos are found, other photos are left in peace."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from distill.core.errors import DataError
from distill.core.files import sha256_of
from distill.core.progress import Progress
from distill.core.types import ImageRecord, Split
from distill.data.batches import ImageCache
from distill.labels import leaks
from distill.labels.leaks import Leak, _Index, find_leaks, fingerprint

TRASHNET = Path(__file__).parents[3] / "shared" / "data" / "trashnet"

Change = Callable[[Image.Image], Image.Image]


def photo(number: int, size: tuple[int, int] = (240, 180)) -> Image.Image:
    """Colour clouds, coarse and fine: the same number shows the same scene, another number another."""
    rng = np.random.default_rng(number)
    scene = np.zeros((size[1], size[0], 3))
    for cells, strength in ((4, 1.0), (9, 0.7), (25, 0.3)):
        noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        scene += strength * np.asarray(noise.resize(size, Image.Resampling.BICUBIC), dtype=np.float64)
    return Image.fromarray((scene / 2).astype(np.uint8))


def on_a_board(colour: str, width: int, height: int) -> Image.Image:
    """A white board, dark at its corners, with one thing in its middle."""
    y, x = np.mgrid[-1:1:180j, -1:1:240j]
    grey = (235 - 60 * (x**2 + y**2)).astype(np.uint8)
    image = Image.fromarray(np.stack([grey, grey, grey], axis=2))
    ImageDraw.Draw(image).ellipse((120 - width, 90 - height, 120 + width, 90 + height), fill=colour)
    return image


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    data = BytesIO()
    image.save(data, "JPEG", quality=quality)
    return Image.open(data).convert("RGB")


def trim(share: float) -> Change:
    def cut(image: Image.Image) -> Image.Image:
        w, h = image.size
        return image.crop((round(share * w), round(share * h), round((1 - share) * w), round((1 - share) * h)))

    return cut


def half(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC)


COPIES: dict[str, Change] = {
    "png": lambda image: image,
    "jpeg": lambda image: jpeg(image, 60),
    "half": half,
    "squashed": lambda image: image.resize((224, 224)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "trimmed": trim(0.02),
    "trimmed by 5 %": trim(0.05),
    "trimmed by 5 %, mirrored": lambda image: trim(0.05)(ImageOps.mirror(image)),
    "mirrored": ImageOps.mirror,
    "upside down": ImageOps.flip,
    "turned": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "turned, trimmed by 5 %": lambda image: trim(0.05)(image.transpose(Image.Transpose.ROTATE_270)),
    "mirrored, half, jpeg": lambda image: jpeg(half(ImageOps.mirror(image)), 60),
    "mirrored, trimmed": lambda image: trim(0.02)(ImageOps.mirror(image)),
}


class Folder:
    """Saves images as PNG files and gives their records."""

    def __init__(self, path: Path) -> None:
        self.path, self.saved = path, 0

    def save(self, image: Image.Image, split: Split = "train") -> ImageRecord:
        self.saved += 1
        path = self.path / f"{self.saved}.png"
        image.save(path)
        return ImageRecord(sha256_of(path), str(path), image.width, image.height, split, None)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def distance(one: Image.Image, other: Image.Image) -> int:
    return bin(fingerprint(one).hash ^ fingerprint(other).hash).count("1")


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_is_found_among_other_photos(folder: Folder, progress: Progress, kind: str) -> None:
    held_out = [folder.save(photo(n), "validation") for n in range(6)] + [folder.save(photo(6), "test")]
    pool = [folder.save(photo(n)) for n in range(10, 16)]
    pool[2:2] = [folder.save(COPIES[kind](photo(6))), folder.save(COPIES[kind](photo(3)))]
    found = find_leaks(pool, held_out, ImageCache(100), progress)
    assert [(leak.image, leak.of, leak.split) for leak in found] == [
        (pool[2].id, held_out[6].id, "test"),
        (pool[3].id, held_out[3].id, "validation"),
    ]
    assert all(leak.distance <= (0 if kind == "png" else 11) for leak in found)


def test_the_held_out_photo_may_be_the_trimmed_one(folder: Folder, progress: Progress) -> None:
    held_out = folder.save(trim(0.05)(photo(1)), "test")
    whole = folder.save(ImageOps.mirror(photo(1)))
    assert [leak.image for leak in find_leaks([whole], [held_out], ImageCache(100), progress)] == [whole.id]


def test_photos_of_one_split_are_not_compared(folder: Folder, progress: Progress) -> None:
    twice = [folder.save(photo(1), "validation"), folder.save(half(photo(1)), "validation")]
    held_out = [*twice, folder.save(trim(0.02)(photo(1)), "test")]
    found = find_leaks(twice, held_out, ImageCache(100), progress)
    assert [(leak.image, leak.split) for leak in found] == [(one.id, "test") for one in twice]


def test_a_mirrored_copy_has_the_distance_of_the_mirrored_photo(folder: Folder, progress: Progress) -> None:
    one, copy = folder.save(photo(1), "test"), folder.save(ImageOps.mirror(photo(1)))
    assert distance(photo(1), ImageOps.mirror(photo(1))) > 11
    assert find_leaks([copy], [one], ImageCache(100), progress) == [Leak(copy.id, one.id, "test", 0)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (on_a_board("black", 30, 30), on_a_board("orange", 30, 30)),
        (on_a_board("darkgreen", 45, 20), on_a_board("darkred", 45, 26)),
        (on_a_board("dimgrey", 24, 24), on_a_board("silver", 26, 26)),
    ],
)
def test_other_things_on_a_white_board_are_no_copies(
    folder: Folder, progress: Progress, one: Image.Image, other: Image.Image
) -> None:
    assert distance(one, other) <= 11, "else the hash alone tells them apart, and this test shows nothing"
    assert find_leaks([folder.save(other)], [folder.save(one, "test")], ImageCache(100), progress) == []
    copy = folder.save(jpeg(half(one), 60))
    assert len(find_leaks([copy], [folder.save(one, "test")], ImageCache(100), progress)) == 1


def test_a_negative_is_no_copy(folder: Folder, progress: Progress) -> None:
    """Its hash has all bits turned; a hash of nearly equal bits must not save it either."""
    one, negative = photo(1), ImageOps.invert(photo(1))
    assert find_leaks([folder.save(negative)], [folder.save(one, "test")], ImageCache(100), progress) == []
    thumbnails = [fingerprint(image).thumbnail for image in (one, negative)]
    assert leaks._likeness(thumbnails[0], np.stack(thumbnails))[1] == 0


def test_empty_pages_are_no_copies_of_each_other(folder: Folder, progress: Progress) -> None:
    pages = [Image.new("RGB", (60, 60), (value,) * 3) for value in (255, 255, 254, 0)]
    pool = [folder.save(page) for page in pages]
    held_out = [folder.save(page, "test") for page in pages]
    assert find_leaks(pool, held_out, ImageCache(100), progress) == []


def test_of_several_the_nearest_is_named_and_a_photo_only_once(folder: Folder, progress: Progress) -> None:
    far, near = folder.save(trim(0.02)(photo(1)), "validation"), folder.save(half(photo(1)), "test")
    assert distance(photo(1), half(photo(1))) < distance(photo(1), trim(0.02)(photo(1))) <= 11
    original = folder.save(photo(1))
    found = find_leaks([original], [far, near], ImageCache(100), progress)
    assert [(leak.of, leak.split) for leak in found] == [(near.id, "test")]


def test_a_nearer_stranger_does_not_hide_the_original(folder: Folder, progress: Progress) -> None:
    """On a white board the hash of another thing may be nearer than that of the original, trimmed at its left."""
    original, stranger = on_a_board("darkgreen", 45, 20), on_a_board("red", 45, 20)
    trimmed = original.crop((7, 0, 240, 180))
    held_out = [folder.save(stranger, "test"), folder.save(trimmed, "validation")]
    assert distance(original, stranger) < distance(original, trimmed) <= 11
    found = find_leaks([folder.save(original)], held_out, ImageCache(100), progress)
    assert [leak.of for leak in found] == [held_out[1].id]


def test_nothing_to_compare(folder: Folder, progress: Progress) -> None:
    gone = ImageRecord("0" * 64, str(folder.path / "gone.png"), 8, 8, "test", None)
    assert find_leaks([], [gone], ImageCache(100), progress) == []
    assert find_leaks([gone], [], ImageCache(100), progress) == []
    with pytest.raises(DataError, match=r"gone\.png was fine when the run began"):
        find_leaks([gone], [gone], ImageCache(100), progress)


def test_more_photos_than_are_held_at_a_time(
    folder: Folder, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaks, "_CHUNK", 3)
    held_out = [folder.save(photo(n, (60, 48)), "test") for n in range(8)]
    pool = [folder.save(half(photo(n, (60, 48)))) for n in range(7, -1, -1)]
    found = find_leaks(pool, held_out, ImageCache(100), progress)
    assert [(leak.image, leak.of) for leak in found] == [(pool[7 - n].id, held_out[n].id) for n in range(7, -1, -1)]


def test_the_index_gives_what_comparing_all_with_all_gives() -> None:
    rng = np.random.default_rng(0)
    kin = rng.integers(0, 1 << 64, 40, dtype=np.uint64)
    flips = np.packbits(rng.random((400, 64)) < 0.15, axis=1).view(np.uint64)[:, 0]
    members = np.concatenate([np.repeat(kin, 10) ^ flips, kin, kin[:1]])  # one twice; 9.6 bits flipped on average
    expected = []
    for row, one in enumerate(kin.tolist()):
        near = [(bin(one ^ other).count("1"), member) for member, other in enumerate(members.tolist())]
        expected += [(row, *pair) for pair in sorted(near) if pair[0] <= 11]
    rows, found, distances = _Index(members).near(kin)
    assert list(zip(rows.tolist(), distances.tolist(), found.tolist(), strict=True)) == expected
    assert 200 < len(expected) < 441 and {d for _, d, _ in expected} > {3, 11}


@pytest.mark.parametrize("spread", [(3, 3, 3, 2), (2, 3, 3, 3), (11, 0, 0, 0), (0, 0, 1, 10)])
def test_eleven_bits_are_found_wherever_they_lie_and_twelve_are_not(spread: Sequence[int]) -> None:
    flip = sum(((1 << count) - 1) << (16 * word) for word, count in enumerate(spread))
    members = np.array([flip, flip | 1 << 15], dtype=np.uint64)
    rows, found, distances = _Index(members).near(np.zeros(1, dtype=np.uint64))
    assert (rows.tolist(), found.tolist(), distances.tolist()) == ([0], [0], [11])


@pytest.fixture(scope="module")
def metal() -> list[ImageRecord]:
    """410 photos of tins, foil and trays."""
    if not (TRASHNET / "index.csv").exists():
        message = f"real data are not beside the checkout: {TRASHNET}"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    splits: dict[str, Split] = {"train": "train", "val": "validation", "test": "test"}
    records = []
    with (TRASHNET / "index.csv").open() as file:
        for row in csv.DictReader(file):
            if row["label"] == "metal":
                path = TRASHNET / row["path"]
                with Image.open(path) as image:
                    records.append(ImageRecord(path.stem, str(path), *image.size, splits[row["split"]], None))
    return records


def test_two_pairs_of_the_real_split_show_one_scene_and_no_others(metal: list[ImageRecord], progress: Progress) -> None:
    """By eye: a tray and a ball of foil, each photographed twice without being moved."""
    parts = [[r for r in metal if r.split == split] for split in ("train", "validation", "test")]
    found = find_leaks(parts[0], parts[1] + parts[2], ImageCache(100), progress)
    pairs = {(leak.image, leak.of, leak.split) for leak in found}
    tray, foil = ("metal120", "metal50", "test"), ("metal122", "metal57", "test")
    assert tray in pairs
    assert pairs <= {tray, foil}  # the ball of foil is 11 bits apart: another JPEG decoder may lose it


@pytest.mark.parametrize(("kind", "least"), [("jpeg", 40), ("mirrored, half, jpeg", 40), ("trimmed", 38)])
def test_copies_of_real_photos(
    metal: list[ImageRecord], folder: Folder, progress: Progress, kind: str, least: int
) -> None:
    chosen = [record for record in metal if record.split != "train"][::3][:40]
    assert len(chosen) == 40
    pool = []
    for record in chosen:
        with Image.open(record.path) as image:
            pool.append(folder.save(COPIES[kind](image.convert("RGB"))))
    found = find_leaks(pool, chosen, ImageCache(100), progress)
    original = {copy.id: record.id for copy, record in zip(pool, chosen, strict=True)}
    assert sum(leak.of == original[leak.image] for leak in found) >= least
    assert all(leak.of == original[leak.image] for leak in found)


def test_held_out_photos_that_were_shown(tmp_path: Path, progress: Progress) -> None:
    """Two copies of one training photo are both found, which `find_leaks` the other way round would not."""

    def written(image: Image.Image, name: str, split: Split) -> ImageRecord:
        path = tmp_path / f"{name}.png"
        image.save(path)
        return ImageRecord(sha256_of(path), str(path), *image.size, split, "cat")

    pool = [written(photo(number), f"train{number}", "train") for number in range(3)]
    copies = [half(photo(1)), ImageOps.mirror(photo(1)), photo(7)]
    held_out = [written(image, f"test{number}", "test") for number, image in enumerate(copies)]
    found = leaks.find_shown(held_out, pool, ImageCache(100), progress)
    assert [(leak.image, leak.of, leak.split) for leak in found] == [(r.id, pool[1].id, "train") for r in held_out[:2]]
    assert leaks.find_shown([], pool, ImageCache(100), progress) == []
