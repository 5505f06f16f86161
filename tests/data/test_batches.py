"""Batches come in order, decoded once, and say so when a file changed meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.core.errors import DataError
from distill.core.files import sha256_of
from distill.core.types import ImageRecord
from distill.data.batches import ImageCache, iterate
from distill.data.views import View, fixed_view, render

SaveImage = Callable[..., Path]


@pytest.fixture
def records(tmp_path: Path, save_image: SaveImage) -> list[ImageRecord]:
    paths = [save_image(tmp_path / f"{number}.png", number, size=(12, 10)) for number in range(7)]
    return [ImageRecord(sha256_of(path), str(path), 12, 10, "train", None) for path in paths]


def whole(record: ImageRecord) -> tuple[View, View]:
    view = fixed_view(record.width, record.height, "center_crop")
    return view, view._replace(flip=True)


@pytest.mark.parametrize("workers", [1, 4])
def test_order_and_pixels(records: list[ImageRecord], workers: int) -> None:
    batches = [[(r, whole(r)) for r in records[at : at + 2]] for at in range(0, 7, 2)]
    found = list(iterate(ImageCache(100), batches, 8, workers))
    assert [batch.shape for batch in found] == [(4, 8, 8, 3)] * 3 + [(2, 8, 8, 3)]
    expected = [render(Image.open(r.path), view, 8) for r in records for view in whole(r)]
    np.testing.assert_array_equal(np.concatenate(found), np.stack(expected))


def test_no_batches() -> None:
    assert list(iterate(ImageCache(100), [], 8, 2)) == []


def test_an_image_is_decoded_once(records: list[ImageRecord], monkeypatch: pytest.MonkeyPatch) -> None:
    opened = count_decodes(monkeypatch)
    cache = ImageCache(100)
    for _ in range(3):
        list(iterate(cache, [[(r, whole(r))] for r in records], 8, 1))
    assert sorted(opened) == [r.path for r in records]


def test_a_full_cache_forgets_what_was_used_longest_ago(
    records: list[ImageRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = count_decodes(monkeypatch)
    cache = ImageCache(100, max_bytes=2 * 12 * 10 * 3)
    for place in (0, 1, 0, 2, 0, 1):
        cache.get(records[place])
    assert [records.index(next(r for r in records if r.path == path)) for path in opened] == [0, 1, 2, 1]


def count_decodes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    from distill.data import batches

    opened: list[str] = []
    real = batches.decode

    def counting(path: str, limit: float) -> Image.Image:
        opened.append(path)
        return real(path, limit)

    monkeypatch.setattr(batches, "decode", counting)
    return opened


def test_a_file_that_vanished(records: list[ImageRecord]) -> None:
    Path(records[3].path).unlink()
    with pytest.raises(DataError) as caught:
        list(iterate(ImageCache(100), [[(r, whole(r))] for r in records], 8, 2))
    assert str(caught.value) == (
        f"{records[3].path} was fine when the run began, now: cannot be read (No such file or directory)."
        " The same command goes on"
    )


def test_a_file_that_changed(records: list[ImageRecord], save_image: SaveImage) -> None:
    save_image(Path(records[2].path), 9, size=(13, 10))
    with pytest.raises(DataError) as caught:
        ImageCache(100).get(records[2])
    assert str(caught.value) == f"{records[2].path} changed while the run worked. The same command reads it anew"


def test_a_reader_that_stops_early_leaves_no_thread_waiting(records: list[ImageRecord]) -> None:
    batches = iterate(ImageCache(100), [[(r, whole(r))] for r in records], 8, 2)
    next(batches)
    batches.close()  # would hang or warn if work were left over
