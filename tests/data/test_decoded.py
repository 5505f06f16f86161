"""Images decoded once into a file: the views of the originals but for rounding, and whole or made anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.core.errors import DataError, UserError
from distill.core.files import sha256_of
from distill.core.types import ImageRecord
from distill.data.batches import ImageCache, Loader
from distill.data.decoded import DecodedImages
from distill.data.views import ViewPlan, fixed_view, render

PLAN = ViewPlan("center_crop", 0.5, True, 0.1, 0)


@pytest.fixture
def records(tmp_path: Path) -> list[ImageRecord]:
    """Smooth pictures of several sizes and shapes."""
    made = []
    for number, (width, height) in enumerate([(331, 250), (160, 241), (40, 30), (97, 612)]):
        down, across = np.mgrid[:height, :width]
        waves = [np.sin(across / (9 + number)) + np.cos(down / 13), np.sin((across + down) / 17), np.cos(across / 7)]
        path = tmp_path / f"{number}.png"
        Image.fromarray((np.stack(waves, axis=-1) * 60 + 128).clip(0, 255).astype(np.uint8)).save(path)
        made.append(ImageRecord(sha256_of(path), str(path), width, height, "train", None))
    return made


def views(record: ImageRecord) -> list:
    drawn = [PLAN.random(record.id, index, record.width, record.height) for index in range(6)]
    return [fixed_view(record.width, record.height, "center_crop"), *drawn]


def test_views_are_those_of_the_files_but_for_rounding(records: list[ImageRecord], tmp_path: Path) -> None:
    cache = ImageCache(100)
    decoded = DecodedImages(records, tmp_path / "decoded", cache, size=32, min_crop=0.5)
    originals = sum(3 * r.width * r.height for r in records)
    assert (tmp_path / "decoded/pixels").stat().st_size == decoded.bytes < originals / 2
    for again in (False, True):
        for record in records:
            found = decoded.cut(record, views(record), 32)
            exact = cache.cut(record, views(record), 32)
            for one, other in zip(found, exact, strict=True):
                difference = np.abs(one.astype(int) - other.astype(int))
                assert difference.mean() < 1.5 and difference.max() <= 12, (record.path, again)
    small = records[2]  # nothing to reduce
    np.testing.assert_array_equal(decoded.cut(small, views(small), 32), cache.cut(small, views(small), 32))
    decoded.close()


def test_files_are_read_once(records: list[ImageRecord], tmp_path: Path) -> None:
    folder = tmp_path / "decoded"
    first = DecodedImages(records, folder, ImageCache(100), size=32, min_crop=0.5)
    seen = [first.cut(record, views(record), 32) for record in records]
    for record in records:
        Path(record.path).unlink()
    again = DecodedImages(records, folder, ImageCache(100), size=32, min_crop=0.5)
    for decoded in (first, again):  # also what another process has written
        np.testing.assert_array_equal(seen, [decoded.cut(record, views(record), 32) for record in records])
    other = DecodedImages(records, folder, ImageCache(100), size=48, min_crop=0.5)
    with pytest.raises(DataError, match=r"0\.png was fine when the run began, now: cannot be read"):
        other.cut(records[0], views(records[0]), 48)


def test_what_is_damaged_is_decoded_anew(records: list[ImageRecord], tmp_path: Path) -> None:
    folder = tmp_path / "decoded"
    one = DecodedImages(records, folder, ImageCache(100), size=32, min_crop=0.5)
    seen = [one.cut(record, views(record), 32) for record in records]
    with (folder / "pixels").open("r+b") as stream:
        stream.seek(one.bytes // 2)
        stream.write(b"\xff\x00\xff\x00")
    two = DecodedImages(records, folder, ImageCache(100), size=32, min_crop=0.5)
    np.testing.assert_array_equal(seen, [two.cut(record, views(record), 32) for record in records])
    (folder / "decoded.json").write_text("{")
    three = DecodedImages(records, folder, ImageCache(100), size=32, min_crop=0.5)
    np.testing.assert_array_equal(seen, [three.cut(record, views(record), 32) for record in records])


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path: Path) -> None:
    many = [ImageRecord(f"{n:064x}", "nowhere.png", 60_000, 60_000, "train", None) for n in range(20_000)]
    with pytest.raises(UserError, match=r"data.cache: disk takes 216000\.1 GB in .*decoded, which has .* GB free"):
        DecodedImages(many, tmp_path / "decoded", ImageCache(100), size=60_000, min_crop=1)
    assert not list((tmp_path / "decoded").iterdir())


def test_a_loader_says_how_long_it_was_waited_for_and_takes_more_threads(
    records: list[ImageRecord], save_image: Callable[..., Path]
) -> None:
    class Slow:
        """A tenth of a second an image, as a camera's photos take."""

        def cut(self, record, views, size):
            import time

            time.sleep(0.1)
            return [render(ImageCache(100).decode(record), view, size) for view in views]

    batches = [[(record, [fixed_view(record.width, record.height, "squash")]) for record in records]] * 8
    loader, fixed = Loader("auto", most=3), Loader(1)
    pixels = [list(each.load(Slow(), batches, 8)) for each in (loader, fixed)]
    np.testing.assert_array_equal(*pixels)
    assert loader.workers == 3 and fixed.workers == 1
    assert 0 < loader.waited_s < fixed.waited_s
