"""The label store: small, exact, and loud when it is damaged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from distill.core.errors import StoreError
from distill.core.types import FloatArray
from distill.data.views import View, ViewPlan
from distill.labels import store as store_module
from distill.labels.shards import kind_of, shard_path
from distill.labels.store import LabelStore, Shard, finish, images_a_shard, write_shard

PLAN = ViewPlan("center_crop", 0.4, True, 0.3, 0)


def image_of(number: int) -> str:
    return f"{number:016x}" + "f" * 48


def answers_of(number: int, views: int, classes: int) -> FloatArray:
    answers: FloatArray = np.random.default_rng(number).dirichlet(np.full(classes, 0.2), size=views).astype(np.float32)
    return answers


def shard_of(numbers: Sequence[int], views: int, k: int, classes: int) -> Shard:
    drawn = [PLAN.stored(image_of(n), index, 640, 480) for n in numbers for index in range(views)]
    answers = np.concatenate([answers_of(n, views, classes) for n in numbers])
    return Shard.of([image_of(n) for n in numbers], drawn, answers, k)


def build(folder: Path, shards: Sequence[Shard], views: int, k: int, classes: int) -> LabelStore:
    for number, shard in enumerate(shards):
        write_shard(shard_path(folder, number), shard, classes, "same")
    images = sum(len(shard.images) for shard in shards)
    facts = {"views": views, "top_k": k, "classes": classes, "images": images, "shards": len(shards)}
    finish(folder, {**facts, "fingerprint": "same"})
    return LabelStore(folder)


@pytest.fixture
def two_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(store_module, "_VIEWS_A_SHARD", 12)
    build(tmp_path, [shard_of(range(4), 3, 2, 5), shard_of(range(4, 6), 3, 2, 5)], views=3, k=2, classes=5)
    return tmp_path


def error(folder: Path) -> str:
    with pytest.raises(StoreError) as caught:
        LabelStore(folder).check()
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_what_was_written_is_read(two_shards: Path) -> None:
    store = LabelStore(two_shards)
    assert len(store) == 18
    assert (store.views, store.classes, store.images) == (3, 5, 6)
    for number in (5, 0, 3):
        assert store.image(store.position(image_of(number))) == image_of(number)[:16]
        answers = answers_of(number, 3, 5)
        views, targets = store.read(np.full(3, store.position(image_of(number))), np.arange(3))
        assert views == [PLAN.stored(image_of(number), index, 640, 480) for index in range(3)]
        assert targets.dtype == np.float32
        top = np.argsort(-answers, axis=1)[:, :2]
        np.testing.assert_allclose(
            np.take_along_axis(targets, top, 1), np.take_along_axis(answers, top, 1), rtol=2e-3, atol=1e-3
        )
        entropy = -(answers * np.log(np.maximum(answers, 1e-30))).sum(axis=1)
        for index in range(3):
            place = store.position(image_of(number))
            np.testing.assert_array_equal(store.targets(index)[place], targets[index])
            assert store.entropy(index)[place] == pytest.approx(entropy[index], rel=1e-3, abs=1e-3)


def test_what_was_said_of_one_view_of_each_image(two_shards: Path) -> None:
    store = LabelStore(two_shards)
    for number in range(store.shards):
        whole = store.shard(number)
        for index in range(store.views):
            said = store.said(number, index)
            for name in ("ids", "probabilities", "tail", "entropy"):
                assert np.array_equal(getattr(said, name), getattr(whole, name)[index :: store.views])


def test_a_store_is_about_its_images_in_their_order(two_shards: Path) -> None:
    store = LabelStore(two_shards)
    images = [store.image(place) for place in range(store.images)]
    assert store.is_about(iter(images))
    for others in (images[:-1], [*images, images[0]], [*images[:-2], images[-1], images[-2]], []):
        assert not store.is_about(others)


def test_the_same_answers_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_shard(tmp_path / name, shard_of(range(10), 4, 3, 8), 8, "same")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    write_shard(tmp_path / "b", shard_of(range(1, 11), 4, 3, 8), 8, "same")
    assert (tmp_path / "a").read_bytes() != (tmp_path / "b").read_bytes()


def test_a_shard_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    shard = shard_of(range(2), 2, 3, 8)
    with pytest.raises(ValueError, match="multiple of the list_size"):
        write_shard(tmp_path / "a", shard._replace(tail=shard.tail[:-1]), 8, "same")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("k", "classes"), [(1, 2), (2, 2), (10, 10), (10, 1000), (3, 4), (5, 256), (5, 257)])
def test_every_target_is_a_probability(tmp_path: Path, k: int, classes: int) -> None:
    store = build(tmp_path, [shard_of(range(20), 2, k, classes)], views=2, k=k, classes=classes)
    targets = np.concatenate([store.targets(index) for index in range(2)])
    assert targets.shape == (40, classes)
    np.testing.assert_allclose(targets.sum(axis=1, dtype=np.float64), 1, atol=1e-6)
    assert targets.min() >= 0
    answers = np.stack([answers_of(n, 2, classes)[index] for index in range(2) for n in range(20)])
    assert (targets.argmax(axis=1) == answers.argmax(axis=1)).all()


def one(answer: Sequence[float], k: int) -> Shard:
    return Shard.of([image_of(1)], [View(0, 0, 8, 8, True)], np.array([answer], np.float32), k)


def target_of(store: LabelStore) -> FloatArray:
    return store.read(np.zeros(1, np.int64), np.zeros(1, np.int64))[1][0]


def test_the_tail_is_spread_evenly_over_all_other_classes(tmp_path: Path) -> None:
    store = build(tmp_path, [one([0.25, 0.0, 0.1, 0.5, 0.15, 0.0], 2)], views=1, k=2, classes=6)
    np.testing.assert_array_equal(target_of(store), np.float32([0.25, 0.0625, 0.0625, 0.5, 0.0625, 0.0625]))


def test_without_other_classes_the_top_is_scaled_to_one(tmp_path: Path) -> None:
    store = build(tmp_path, [one([0.2001, 0.7999], 2)], views=1, k=2, classes=2)
    found = target_of(store)
    assert found.sum() == pytest.approx(1, abs=1e-7)
    np.testing.assert_allclose(found, [0.2001, 0.7999], atol=1e-3)
    views, _ = store.read(np.zeros(1, np.int64), np.zeros(1, np.int64))
    assert views == [View(0, 0, 8, 8, True)]


def test_equal_probabilities_come_in_the_order_of_the_classes() -> None:
    assert one([0.2, 0.3, 0.2, 0.3], 3).ids.tolist() == [[1, 3, 0]]


@pytest.mark.parametrize("views", [1, 8])
def test_a_view_takes_less_than_64_bytes_at_k_10(tmp_path: Path, views: int) -> None:
    count = images_a_shard(views)
    assert count == 4096 // views
    store = build(tmp_path, [shard_of(range(count), views, 10, 1000)], views=views, k=10, classes=1000)
    # 8 box, 1/8 flip, 3 colours, 20 ids, 20 probabilities, 2 tail, 2 entropy, 8 an image, and the file's description
    assert 55.125 + 8 / views <= store.bytes_on_disk / len(store) < 64


def test_an_image_that_the_store_does_not_know(two_shards: Path) -> None:
    with pytest.raises(StoreError) as caught:
        LabelStore(two_shards).position(image_of(99))
    assert str(caught.value) == "the label store holds nothing about image 0000000000000063: it is stale"


@pytest.mark.parametrize("damage", ["cut", "empty", "words", "footer", "value"])
def test_a_damaged_shard_is_named(two_shards: Path, damage: str) -> None:
    path = shard_path(two_shards, 1)
    content = path.read_bytes()
    middle = content.rindex(shard_of(range(4, 6), 3, 2, 5).tail.tobytes())
    changed = {
        "cut": content[: len(content) // 2],
        "empty": b"",
        "words": b"dear diary",
        "footer": content[:-10] + b"\xff" * 4 + content[-6:],
        "value": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
    }
    path.write_bytes(changed[damage])
    told = error(two_shards)
    assert told.startswith(f"{path} is damaged (")
    assert told.endswith(f"): delete the folder {two_shards} and run the same command again")


def test_damage_to_the_frame_is_an_error_and_ends_no_process(two_shards: Path) -> None:
    """Every byte in front of the columns and behind them; of a negative length Arrow would abort."""
    path, told = shard_path(two_shards, 1), set[str]()
    content, before = path.read_bytes(), LabelStore(two_shards).targets(0)
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 0x80
        path.unlink()  # the one that is mapped stays as it is
        path.write_bytes(damaged)
        try:
            store = LabelStore(two_shards)
            store.check()
        except StoreError as error:
            told.add(str(error).split(" (")[0])
        else:
            np.testing.assert_array_equal(store.targets(0), before)  # bytes that mean nothing
    assert f"{path} is damaged" in told


def test_every_flipped_bit_of_the_answers_is_noticed(two_shards: Path) -> None:
    """Reading an answer out of a damaged shard is an error too, not only `check`."""
    path = shard_path(two_shards, 0)
    content = path.read_bytes()
    found = content.rindex(shard_of(range(4), 3, 2, 5).probabilities.tobytes())
    path.write_bytes(content[:found] + bytes([content[found] ^ 0x10]) + content[found + 1 :])
    store = LabelStore(two_shards)
    store.read(np.array([5]), np.array([0]))  # of the other shard
    with pytest.raises(StoreError, match=r"shard-00000.arrow is damaged \(its checksum does not match\)"):
        store.read(np.array([0]), np.array([0]))


def test_a_missing_shard_is_named(two_shards: Path) -> None:
    shard_path(two_shards, 0).unlink()
    assert error(two_shards) == (
        f"{shard_path(two_shards, 0)} is missing: delete the folder {two_shards} and run the same command again"
    )


def test_a_shard_of_another_labelling_is_named(two_shards: Path) -> None:
    write_shard(shard_path(two_shards, 1), shard_of(range(4, 6), 3, 2, 5), 5, "other")
    assert error(two_shards) == (
        f"{shard_path(two_shards, 1)} belongs to another labelling: delete the folder {two_shards} and run the same"
        " command again"
    )


def test_a_shard_of_another_length(two_shards: Path) -> None:
    write_shard(shard_path(two_shards, 1), shard_of(range(4, 5), 3, 2, 5), 5, "same")
    assert error(two_shards) == (
        f"{two_shards}: found 5 images, expected 6: delete the folder {two_shards} and run the same command again"
    )


def test_an_unfinished_store(tmp_path: Path) -> None:
    write_shard(shard_path(tmp_path, 0), shard_of(range(2), 1, 2, 3), 3, "same")
    told = error(tmp_path)
    assert told.startswith(f"{tmp_path}: no finished label store (")
    assert told.endswith("; `distill run` makes it")


def test_a_store_older_than_maps_is_one_of_views(two_shards: Path) -> None:
    facts = json.loads((two_shards / "store.json").read_text())
    assert facts.pop("kind") == kind_of(two_shards) == "views"
    (two_shards / "store.json").write_text(json.dumps(facts))
    assert kind_of(two_shards) == "views"
    assert len(LabelStore(two_shards)) == 18


@pytest.mark.parametrize(("key", "value"), [("classes", 0), ("classes", 3), ("top_k", 1), ("views", 2)])
def test_a_description_of_other_answers_than_there_are(two_shards: Path, key: str, value: int) -> None:
    facts = json.loads((two_shards / "store.json").read_text())
    (two_shards / "store.json").write_text(json.dumps({**facts, key: value}))
    with pytest.raises(StoreError, match=r"store\.json says"):
        LabelStore(two_shards).targets(0)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"views": 3}'])
def test_a_damaged_description(two_shards: Path, content: str) -> None:
    (two_shards / "store.json").write_text(content)
    assert error(two_shards).startswith(f"{two_shards}: no finished label store (")
