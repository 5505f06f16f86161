"""The label store: small, exact, and loud when it is damaged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from distill.core.errors import StoreError
from distill.data.views import View, stored_view
from distill.labels.store import IMAGES_A_SHARD, LabelStore, Row, finish, shard_path, write_shard


def image_of(number: int) -> str:
    return f"{number:016x}" + "f" * 48


def rows_for(images: Sequence[int], views: int, k: int, classes: int, size: tuple[int, int] = (640, 480)) -> list[Row]:
    rows = []
    for number in images:
        for index in range(views):
            rng = np.random.default_rng([number, index])
            probabilities = rng.dirichlet(np.full(classes, 0.2)).astype(np.float32)
            order = np.argsort(-probabilities, kind="stable")[:k]
            top = probabilities[order].astype(np.float16)
            view = stored_view(image_of(number), index, *size, "center_crop", seed=0, min_area=0.4)
            tail = max(0.0, 1 - float(top.astype(np.float32).sum()))
            rows.append(Row(image_of(number), index, view, order.astype(np.uint16), top, tail))
    return rows


def build(folder: Path, shards: Sequence[Sequence[Row]], views: int, k: int, classes: int) -> LabelStore:
    for number, rows in enumerate(shards):
        write_shard(shard_path(folder, number), rows)
    facts = {"views": views, "top_k": k, "classes": classes, "rows": sum(map(len, shards)), "shards": len(shards)}
    finish(folder, facts)
    return LabelStore(folder)


@pytest.fixture
def two_shards(tmp_path: Path) -> Path:
    build(tmp_path, [rows_for(range(4), 3, 2, 5), rows_for(range(4, 6), 3, 2, 5)], views=3, k=2, classes=5)
    return tmp_path


def error(folder: Path) -> str:
    with pytest.raises(StoreError) as caught:
        LabelStore(folder)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_what_was_written_is_read(two_shards: Path) -> None:
    store = LabelStore(two_shards)
    assert len(store) == 18
    assert (store.views, store.classes) == (3, 5)
    for row in rows_for(range(6), 3, 2, 5):
        assert store.view(row.image, row.number) == row.view
        target = store.target(row.image, row.number)
        assert target.dtype == np.float32
        assert target.shape == (5,)
        np.testing.assert_allclose(target[row.ids], row.probabilities.astype(np.float32), rtol=2e-3)


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_shard(tmp_path / name, rows_for(range(10), 4, 3, 8))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    write_shard(tmp_path / "b", rows_for(range(1, 11), 4, 3, 8))
    assert (tmp_path / "a").read_bytes() != (tmp_path / "b").read_bytes()


def test_a_shard_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    rows = rows_for(range(2), 2, 3, 8)
    uneven = rows[-1]._replace(ids=rows[-1].ids[:1])
    with pytest.raises(ValueError, match="multiple of the list_size"):
        write_shard(tmp_path / "a", [*rows[:-1], uneven])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("k", "classes"), [(1, 2), (2, 2), (10, 10), (10, 1000), (3, 4)])
def test_every_target_is_a_probability(tmp_path: Path, k: int, classes: int) -> None:
    store = build(tmp_path, [rows_for(range(20), 2, k, classes)], views=2, k=k, classes=classes)
    targets = np.stack([store.target(image_of(number), index) for number in range(20) for index in range(2)])
    np.testing.assert_allclose(targets.sum(axis=1, dtype=np.float64), 1, atol=1e-6)
    assert targets.min() >= 0


def test_the_tail_is_spread_evenly_over_all_other_classes(tmp_path: Path) -> None:
    row = Row(
        image_of(1), 0, View(0, 0, 8, 8, False), np.array([3, 0], np.uint16), np.array([0.5, 0.25], np.float16), 0.25
    )
    store = build(tmp_path, [[row]], views=1, k=2, classes=6)
    np.testing.assert_array_equal(store.target(image_of(1), 0), np.float32([0.25, 0.0625, 0.0625, 0.5, 0.0625, 0.0625]))


def test_without_other_classes_the_top_is_scaled_to_one(tmp_path: Path) -> None:
    row = Row(
        image_of(1), 0, View(0, 0, 8, 8, True), np.array([1, 0], np.uint16), np.array([0.75, 0.2], np.float16), 0.05
    )
    store = build(tmp_path, [[row]], views=1, k=2, classes=2)
    np.testing.assert_allclose(store.target(image_of(1), 0), [0.2 / 0.95, 0.75 / 0.95], rtol=1e-3)
    assert store.view(image_of(1), 0) == View(0, 0, 8, 8, True)


def test_fewer_classes_than_k(tmp_path: Path) -> None:
    store = build(tmp_path, [rows_for(range(2), 1, 3, 3)], views=1, k=10, classes=3)
    assert store.target(image_of(0), 0).shape == (3,)


def test_more_than_sixteen_bits_of_pixels(tmp_path: Path) -> None:
    small, large = rows_for([1], 2, 2, 3), rows_for([2], 2, 2, 3, size=(150_000, 1200))
    store = build(tmp_path, [small, large], views=2, k=2, classes=3)
    assert store.view(image_of(2), 0) == large[0].view == View(74_400, 0, 1200, 1200, False)
    huge = rows_for([3], 1, 2, 3, size=(200_000, 80_000))
    assert build(tmp_path / "huge", [huge], views=1, k=2, classes=3).view(image_of(3), 0).width == 80_000
    assert store.view(image_of(1), 1) == small[1].view


def test_a_view_takes_less_than_64_bytes_at_k_10(tmp_path: Path) -> None:
    rows = rows_for(range(IMAGES_A_SHARD), 8, 10, 1000)
    assert len(rows) == 256 * 8
    write_shard(tmp_path / "shard", rows)
    # 8 image, 2 view, 8 box, 1/8 flip, 20 ids, 20 probabilities, 2 tail: 60.1, and the file's own description
    assert 60.125 <= (tmp_path / "shard").stat().st_size / len(rows) < 64


def test_an_image_that_the_store_does_not_know(two_shards: Path) -> None:
    store = LabelStore(two_shards)
    for ask in (store.view, store.target):
        with pytest.raises(StoreError) as caught:
            ask(image_of(99), 0)
        assert str(caught.value) == "the label store holds nothing about image 0000000000000063: it is stale"


@pytest.mark.parametrize("damage", ["cut", "empty", "words", "tail"])
def test_a_damaged_shard_is_named(two_shards: Path, damage: str) -> None:
    path = shard_path(two_shards, 1)
    content = path.read_bytes()
    changed = {
        "cut": content[: len(content) // 2],
        "empty": b"",
        "words": b"dear diary",
        "tail": content[:-10] + b"\xff" * 4 + content[-6:],
    }
    path.write_bytes(changed[damage])
    told = error(two_shards)
    assert told.startswith(f"{path} is damaged (")
    assert told.endswith(f"): delete the folder {two_shards} and run the same command again")


def test_a_missing_shard_is_named(two_shards: Path) -> None:
    shard_path(two_shards, 0).unlink()
    assert error(two_shards) == (
        f"{shard_path(two_shards, 0)} is missing: delete the folder {two_shards} and run the same command again"
    )


def test_a_shard_of_another_length(two_shards: Path) -> None:
    write_shard(shard_path(two_shards, 1), rows_for(range(4, 5), 3, 2, 5))
    assert error(two_shards) == (
        f"{two_shards}: found 15 rows, expected 18: delete the folder {two_shards} and run the same command again"
    )


def test_an_unfinished_store(tmp_path: Path) -> None:
    write_shard(shard_path(tmp_path, 0), rows_for(range(2), 1, 2, 3))
    told = error(tmp_path)
    assert told.startswith(f"{tmp_path}: no finished label store (")
    assert told.endswith("; `distill run` makes it")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"views": 3}'])
def test_a_damaged_description(two_shards: Path, content: str) -> None:
    (two_shards / "store.json").write_text(content)
    assert error(two_shards).startswith(f"{two_shards}: no finished label store (")
