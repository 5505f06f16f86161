"""The store of maps: small, as exact as it says, and loud when it is damaged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from distill.core.dense import scale_map
from distill.core.errors import StoreError
from distill.core.types import FloatArray, softmax
from distill.labels import maps
from distill.labels.maps import STEP, Entry, MapStore, finish, kept_classes, of_size, stored_size, write_shard
from distill.labels.shards import kind_of, shard_path
from distill.labels.store import LabelStore
from distill.labels.store import finish as finish_views

GRID = 8


def image_of(number: int) -> str:
    return f"{number:016x}" + "f" * 48


def map_of(number: int, classes: int, grid: int = GRID, spread: float = 4.0) -> FloatArray:
    """A smooth map of probabilities, some of them near the fence."""
    coarse = np.random.default_rng(number).normal(0, spread, (4, 4, classes)).astype(np.float32)
    return softmax(scale_map(coarse, grid, grid))


def full_of(number: int, height: int, width: int, classes: int) -> FloatArray:
    return scale_map(map_of(number, classes), height, width)


def entry_of(number: int, classes: int, k: int, height: int = 12, width: int = 10) -> Entry:
    pixels = full_of(number, height, width, classes)
    return Entry.of(map_of(number, classes), pixels.argmax(axis=-1).astype(np.uint8), pixels.max(axis=-1), k)


def build(folder: Path, parts: Sequence[Sequence[Entry]], classes: int, k: int, grid: int = GRID) -> MapStore:
    number = 0
    for place, entries in enumerate(parts):
        write_shard(shard_path(folder, place), [image_of(number + n) for n in range(len(entries))], entries, "same")
        number += len(entries)
    facts = {"grid": grid, "top_k": k, "classes": classes, "images": number, "shards": len(parts)}
    finish(folder, {**facts, "fingerprint": "same"})
    return MapStore(folder)


@pytest.fixture
def two_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(maps, "IMAGES_A_SHARD", 3)
    entries = [entry_of(n, 6, 4) for n in range(5)]
    build(tmp_path, [entries[:3], entries[3:]], 6, 4)
    return tmp_path


def error(folder: Path) -> str:
    with pytest.raises(StoreError) as caught:
        MapStore(folder).check()
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_what_was_written_is_read(two_shards: Path) -> None:
    store = MapStore(two_shards)
    assert (len(store), store.grid, store.classes) == (5, GRID, 6)
    assert kind_of(two_shards) == "maps"
    for number in (4, 0, 3):
        place = store.position(image_of(number))
        assert store.image(place) == image_of(number)[:16]
        pixels = full_of(number, 12, 10, 6)
        mask, confidence = store.hard(place)
        assert mask.dtype == confidence.dtype == np.uint8
        np.testing.assert_array_equal(mask, pixels.argmax(axis=-1))
        np.testing.assert_allclose(confidence / 255, pixels.max(axis=-1), atol=1.5 / 255 + 1e-6)
        assert store.mean_confidence()[place] == pytest.approx(float(pixels.max(axis=-1).mean()), abs=1e-6)
        soft, truth = store.soft(place), map_of(number, 6)
        assert soft.dtype == np.float32 and soft.shape == (GRID, GRID, 6)
        top = np.argsort(-truth, axis=-1)[..., :4]
        taken, expected = np.take_along_axis(soft, top, -1), np.take_along_axis(truth, top, -1)
        assert (
            np.abs(taken - expected).max() <= 2 * STEP
        )  # a step of rounding, and what an unkept class gets of the tail


@pytest.mark.parametrize(("classes", "k"), [(2, 1), (3, 2), (5, 4), (21, 4), (21, 1), (255, 4)])
@pytest.mark.parametrize("spread", [0.0, 0.3, 4.0, 40.0])
def test_what_is_kept_is_off_by_a_step_at_most(tmp_path: Path, classes: int, k: int, spread: float) -> None:
    truth = map_of(7, classes, 32, spread)
    pixels = np.zeros((2, 2), np.uint8), np.ones((2, 2), np.float32)
    store = build(tmp_path, [[Entry.of(truth, *pixels, k)]], classes, k, grid=32)
    ids, steps = store.kept(0)
    expected = np.take_along_axis(truth, ids.astype(np.int64), -1)
    off = np.abs(steps * STEP - expected)[steps > 0]
    assert off.max() <= STEP * (1 + 1e-5)
    tail = 1 - np.sort(truth, axis=-1)[..., -k:].sum(axis=-1, dtype=np.float64)
    np.testing.assert_allclose(1 - steps.sum(axis=-1, dtype=np.int64) * STEP, tail, atol=0.5 * STEP + 1e-6)
    soft = store.soft(0)
    np.testing.assert_allclose(soft.sum(axis=-1, dtype=np.float64), 1, atol=1e-6)
    assert soft.min() >= 0
    if classes == k + 1:  # nothing is left out
        assert np.abs(soft - truth).max() <= STEP * (1 + 1e-5)
    best = np.sort(truth, axis=-1)
    clear = best[..., -1] - best[..., -2] > 2 * STEP
    np.testing.assert_array_equal(soft.argmax(axis=-1)[clear], truth.argmax(axis=-1)[clear])


def test_the_tail_is_spread_evenly_over_all_other_classes(tmp_path: Path) -> None:
    truth = np.broadcast_to(np.float32([0.1, 0.0, 0.6, 0.2, 0.1, 0.0]), (2, 2, 6))
    pixels = np.zeros((2, 2), np.uint8), np.ones((2, 2), np.float32)
    store = build(tmp_path, [[Entry.of(truth, *pixels, 2)]], 6, 2, grid=2)
    np.testing.assert_allclose(store.soft(0)[1, 0], [0.05, 0.05, 0.6, 0.2, 0.05, 0.05], atol=STEP)
    sure = np.broadcast_to(np.float32([0.0, 1.0, 0.0]), (2, 2, 3))
    other = build(tmp_path / "sure", [[Entry.of(sure, *pixels, 2)]], 3, 2, grid=2)
    np.testing.assert_array_equal(other.soft(0), sure)


def test_equal_probabilities_come_in_the_order_of_the_classes(tmp_path: Path) -> None:
    truth = np.broadcast_to(np.float32([0.25, 0.25, 0.25, 0.25]), (2, 2, 4))
    pixels = np.zeros((2, 2), np.uint8), np.ones((2, 2), np.float32)
    ids, steps = build(tmp_path, [[Entry.of(truth, *pixels, 3)]], 4, 3, grid=2).kept(0)
    assert ids[0, 0].tolist() == [0, 1, 2]
    assert steps[0, 0].tolist() == [64, 64, 63]


@pytest.mark.parametrize(("top_k", "classes", "kept"), [(10, 21, 4), (2, 21, 2), (10, 2, 1), (10, 4, 3), (10, 1, 1)])
def test_as_many_classes_are_kept_as_say_something(top_k: int, classes: int, kept: int) -> None:
    assert kept_classes(top_k, classes) == kept


def test_the_same_answers_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_shard(tmp_path / name, [image_of(1)], [entry_of(1, 6, 4)], "same")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    write_shard(tmp_path / "b", [image_of(1)], [entry_of(2, 6, 4)], "same")
    assert (tmp_path / "a").read_bytes() != (tmp_path / "b").read_bytes()


def test_a_smooth_map_takes_few_bytes(tmp_path: Path) -> None:
    mask, confidence = np.zeros((256, 384), np.uint8), np.ones((256, 384), np.float32)
    entries = [Entry.of(map_of(n, 2, 64), mask, confidence, 1) for n in range(4)]
    store = build(tmp_path, [entries], 2, 1, grid=64)
    sizes = store.sizes()
    assert sizes == tuple(sum(len(getattr(entry, name)) for entry in entries) for name in sizes._fields)
    assert sizes.soft / 4 < 0.6 * 64 * 64 * 2  # of an id and a probability a cell
    assert sum(sizes) < store.bytes_on_disk < sum(sizes) + 4096


@pytest.mark.parametrize(
    ("size", "stored"),
    [((640, 480), (640, 480)), ((1024, 7), (1024, 7)), ((4000, 3000), (1024, 768)), ((3, 9000), (1, 1024))],
)
def test_large_masks_are_stored_smaller(size: tuple[int, int], stored: tuple[int, int]) -> None:
    assert stored_size(*size) == stored


def test_another_size_takes_the_nearest_pixel() -> None:
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert of_size(pixels, 6, 2).tolist() == [[0, 0, 1, 1, 2, 2], [3, 3, 4, 4, 5, 5]]
    assert of_size(pixels, 1, 1).tolist() == [[4]]
    assert of_size(pixels, 3, 2) is pixels


def test_a_store_of_the_other_kind_is_refused(two_shards: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        LabelStore(two_shards)
    assert str(caught.value) == (
        f"{two_shards} is a label store of maps, expected one of views: delete the folder {two_shards} and run the same"
        " command again"
    )
    views = tmp_path / "views"
    finish_views(views, {"views": 1, "top_k": 1, "classes": 2, "images": 0, "shards": 0, "fingerprint": "same"})
    assert kind_of(views) == "views"
    assert error(views).startswith(f"{views} is a label store of views, expected one of maps: ")


def test_an_image_that_the_store_does_not_know(two_shards: Path) -> None:
    with pytest.raises(StoreError) as caught:
        MapStore(two_shards).position(image_of(99))
    assert str(caught.value) == "the label store holds nothing about image 0000000000000063: it is stale"


def test_a_shard_of_another_labelling_is_named(two_shards: Path) -> None:
    write_shard(shard_path(two_shards, 1), [image_of(n) for n in (3, 4)], [entry_of(n, 6, 4) for n in (3, 4)], "other")
    assert error(two_shards) == (
        f"{shard_path(two_shards, 1)} belongs to another labelling: delete the folder {two_shards} and run the same"
        " command again"
    )


@pytest.mark.parametrize("damage", ["cut", "empty", "words", "value"])
def test_a_damaged_shard_is_named(two_shards: Path, damage: str) -> None:
    path = shard_path(two_shards, 1)
    content = path.read_bytes()
    middle = content.rindex(entry_of(4, 6, 4).mask)
    changed = {
        "cut": content[: len(content) // 2],
        "empty": b"",
        "words": b"dear diary",
        "value": content[: middle + 50] + bytes([content[middle + 50] ^ 1]) + content[middle + 51 :],
    }
    path.write_bytes(changed[damage])
    told = error(two_shards)
    assert told.startswith(f"{path} is damaged (")
    assert told.endswith(f"): delete the folder {two_shards} and run the same command again")
    if damage == "value":
        store = MapStore(two_shards)
        store.soft(0)  # of the other shard
        with pytest.raises(StoreError, match=r"shard-00001.arrow is damaged \(its checksum does not match\)"):
            store.soft(3)


def test_damage_anywhere_is_an_error_and_ends_no_process(two_shards: Path) -> None:
    """Every byte in turn; one that means nothing changes no answer."""
    path, told = shard_path(two_shards, 1), set[str]()
    content, whole = path.read_bytes(), MapStore(two_shards)
    before = [(whole.soft(place), *whole.hard(place)) for place in (3, 4)]
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 0x80
        path.unlink()  # the one that is mapped stays as it is
        path.write_bytes(damaged)
        try:
            store = MapStore(two_shards)
            store.check()
        except StoreError as error:
            told.add(str(error).split(" (")[0])
        else:
            for number, answers in zip((3, 4), before, strict=True):
                for found, expected in zip((store.soft(number), *store.hard(number)), answers, strict=True):
                    np.testing.assert_array_equal(found, expected)
    assert f"{path} is damaged" in told


def test_what_no_teacher_said_is_an_error_though_its_checksum_holds(tmp_path: Path) -> None:
    good = entry_of(1, 6, 4)
    path = shard_path(tmp_path, 0)
    store = build(tmp_path, [[good._replace(soft=good.soft[:-5]), good._replace(mask=b"no picture")]], 6, 4)
    with pytest.raises(StoreError, match=f"{path} is damaged"):
        store.soft(0)
    with pytest.raises(StoreError, match=f"{path} is damaged"):
        store.hard(1)
