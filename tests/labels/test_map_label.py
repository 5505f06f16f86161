"""Asking the teacher about the pixels of every image, killed or not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.config import LabelSettings
from distill.core.dense import scale_map
from distill.core.errors import TeacherError
from distill.core.files import sha256_of
from distill.core.progress import Progress
from distill.core.types import FloatArray, ImageRecord, Images, Predictor, softmax
from distill.data.batches import ImageCache
from distill.data.views import View, render
from distill.labels import maps
from distill.labels.map_label import MapLabelling, answer_of
from distill.labels.maps import STEP, MapStore
from distill.labels.shards import shard_path

SaveImage = Callable[..., Path]


class Colours(Predictor):
    """Answers each of 5x4 cells from its mean colour; dies after some batches where told to."""

    def __init__(self, dies_after: int = 1 << 30) -> None:
        self.left, self.sizes, self.room = dies_after, list[int](), 1 << 30

    @property
    def class_names(self) -> tuple[str, ...]:
        return ("background", "red", "green", "blue")

    @property
    def image_size(self) -> int:
        return 20

    def predict(self, images: Images) -> FloatArray:
        if self.left == 0:
            raise KeyboardInterrupt
        if len(images) > self.room:
            raise RuntimeError("CUDA out of memory. Tried to allocate 9 bytes")
        self.left -= 1
        self.sizes.append(len(images))
        cells = images.astype(np.float32).reshape(-1, 5, 4, 4, 5, 3).mean(axis=(2, 4)) / 20
        cells = cells * np.float32(1 + 1e-3 * len(images))  # an answer depends on the batch it is in
        return np.concatenate([np.full((*cells.shape[:3], 1), 6.5, np.float32), cells], axis=3)

    def digest(self) -> str:
        return "colours"


@pytest.fixture
def records(tmp_path: Path, save_image: SaveImage) -> list[ImageRecord]:
    paths = [save_image(tmp_path / "photos" / f"{n}.png", n, size=(24, 20 + n)) for n in range(10)]
    made = [ImageRecord(sha256_of(p), str(p), 24, 20 + n, "train", None) for n, p in enumerate(paths)]
    return sorted(made, key=lambda record: record.id)


@pytest.fixture
def ask(records: list[ImageRecord], progress: Progress, monkeypatch: pytest.MonkeyPatch) -> Callable[..., MapStore]:
    monkeypatch.setattr(maps, "IMAGES_A_SHARD", 4)

    def asked(folder: Path, teacher: Predictor, batch_size: int = 3) -> MapStore:
        MapLabelling(
            teacher,
            records,
            folder,
            LabelSettings(grid=6, top_k=10),
            cache=ImageCache(100),
            batch_size=batch_size,
            fingerprint="same",
            facts={"teacher": "colours"},
        ).label(progress)
        return MapStore(folder)

    return asked


def test_the_store_holds_what_the_teacher_says_of_whole_images(
    tmp_path: Path, records: list[ImageRecord], ask: Callable[..., MapStore]
) -> None:
    store = ask(tmp_path / "labels", Colours(), batch_size=1)
    assert (len(store), store.facts["top_k"], store.facts["grid"]) == (10, 3, 6)
    assert store.facts["teacher"] == "colours"
    assert store.facts["class_names"] == ["background", "red", "green", "blue"]
    for record in records:
        whole = View(0, 0, record.width, record.height, False)
        logits = Colours().predict(render(ImageCache(100).get(record), whole, 20)[np.newaxis])
        place = store.position(record.id)
        soft = scale_map(softmax(logits), 6, 6)[0]
        assert np.abs(store.soft(place) - soft).max() <= STEP + 1e-6
        full = scale_map(logits, record.height, record.width)[0]
        mask, confidence = store.hard(place)
        assert mask.shape == (record.height, record.width)
        np.testing.assert_array_equal(mask, full.argmax(axis=-1))
        np.testing.assert_allclose(confidence / 255, softmax(full).max(axis=-1), atol=1.5 / 255 + 1e-5)
    assert len(np.unique(np.concatenate([store.hard(n)[0].ravel() for n in range(10)]))) > 1


def test_batches_have_the_asked_size_and_begin_anew_with_each_shard(
    tmp_path: Path, ask: Callable[..., MapStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = Colours()
    ask(tmp_path / "labels", teacher, batch_size=3)
    assert teacher.sizes == [3, 1, 3, 1, 2]  # shards of 4, 4 and 2 images
    from distill.labels import map_label

    monkeypatch.setattr(map_label, "_HELD", 1)
    parts = Colours()
    ask(tmp_path / "parts", parts, batch_size=3)
    assert parts.sizes == teacher.sizes
    for path in (tmp_path / "labels").iterdir():
        assert (tmp_path / "parts" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("batches", range(6))
def test_interrupted_anywhere_it_ends_with_the_same_bytes(
    tmp_path: Path, ask: Callable[..., MapStore], batches: int
) -> None:
    ask(tmp_path / "whole", Colours())
    if batches < 5:
        with pytest.raises(KeyboardInterrupt):
            ask(tmp_path / "killed", Colours(dies_after=batches))
        assert not (tmp_path / "killed/store.json").exists()
    second = Colours()
    ask(tmp_path / "killed", second)
    if batches < 5:
        assert sum(second.sizes) == 10 - 4 * (batches // 2)  # finished shards are not asked about again
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == names
    for name in names:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert shard_path(tmp_path / "whole", 2).exists()


def test_out_of_memory_halves_the_batch_for_good(tmp_path: Path, ask: Callable[..., MapStore]) -> None:
    tight = Colours()
    tight.room = 2
    store = ask(tmp_path / "tight", tight, batch_size=4)
    assert tight.sizes == [2] * 5
    assert store.facts["batch_size"] == 2
    interrupted = Colours(dies_after=3)
    interrupted.room = 2
    with pytest.raises(KeyboardInterrupt):
        ask(tmp_path / "killed", interrupted, batch_size=4)
    ask(tmp_path / "killed", Colours(), batch_size=4)
    for path in (tmp_path / "tight").iterdir():
        assert (tmp_path / "killed" / path.name).read_bytes() == path.read_bytes()
    nothing = Colours()
    nothing.room = 0
    with pytest.raises(TeacherError, match="the teacher does not fit in memory, even for one view"):
        ask(tmp_path / "none", nothing)


def test_where_memory_runs_out_within_a_shard_all_of_it_is_asked_anew(
    tmp_path: Path, ask: Callable[..., MapStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or its first images would be answered in batches that a labelling killed just then would not make again."""
    from distill.labels import map_label

    class Filling(Colours):
        def predict(self, images: Images) -> FloatArray:
            self.room = 2 if not self.sizes else 1
            return super().predict(images)

    monkeypatch.setattr(map_label, "_HELD", 1)
    teacher, single = Filling(), Colours()
    ask(tmp_path / "labels", teacher, batch_size=2)
    assert teacher.sizes == [2] + [1] * 10
    ask(tmp_path / "single", single, batch_size=1)
    for number in range(3):
        assert (
            shard_path(tmp_path / "labels", number).read_bytes() == shard_path(tmp_path / "single", number).read_bytes()
        )


def test_a_teacher_of_whole_images_is_refused(tmp_path: Path, ask: Callable[..., MapStore]) -> None:
    class Whole(Colours):
        def predict(self, images: Images) -> FloatArray:
            mean: FloatArray = super().predict(images).mean(axis=(1, 2))
            return mean

    with pytest.raises(
        TeacherError, match=r"expected a teacher that answers pixels, \[images, h, w, 4\]; found \[4, 4"
    ):
        ask(tmp_path / "labels", Whole(), batch_size=4)


def test_no_numbers_are_no_answer(tmp_path: Path, ask: Callable[..., MapStore]) -> None:
    class Broken(Colours):
        def predict(self, images: Images) -> FloatArray:
            answers = super().predict(images)
            answers[:, 2, 1, 1] = np.nan
            return answers

    with pytest.raises(TeacherError, match=r"\.png: the teacher's answer has values that are no numbers"):
        ask(tmp_path / "labels", Broken())


def test_logarithms_of_zero_are_answers(records: list[ImageRecord]) -> None:
    logits = np.array([[[0, -np.inf]], [[-np.inf, 0]]], np.float32)
    answer = answer_of(logits, records[0], 2)
    np.testing.assert_allclose(answer.soft[0], [[1, 0], [1, 0]], atol=1e-30)
    np.testing.assert_allclose(answer.soft[1], [[0, 1], [0, 1]], atol=1e-30)
    assert answer.mask[0].max() == 0 and answer.mask[-1].min() == 1


def test_a_cell_of_the_soft_map_is_the_mean_over_its_area(records: list[ImageRecord]) -> None:
    logits = np.random.default_rng(0).normal(0, 3, (16, 12, 3)).astype(np.float32)
    soft = answer_of(logits, records[0], 1).soft
    assert soft.shape == (1, 1, 3)
    np.testing.assert_allclose(soft.sum(), 1, atol=1e-6)
    inner = softmax(logits)[4:12, 3:9].mean(axis=(0, 1))  # bilinear weights: the middle counts most
    assert np.abs(soft[0, 0] - inner).max() < 0.15


@pytest.mark.parametrize(("height", "width"), [(300, 70), (64, 128), (20, 500), (7, 3)])
@pytest.mark.parametrize("cells", [(33, 21), (5, 40), (150, 150)])
def test_tiles_are_parts_of_the_whole(height: int, width: int, cells: tuple[int, int]) -> None:
    logits = np.random.default_rng(1).normal(0, 3, (*cells, 4)).astype(np.float32)
    answer = answer_of(logits, ImageRecord("0" * 64, "", width, height, "train", None), 4)
    full = softmax(scale_map(logits, height, width))
    np.testing.assert_allclose(answer.confidence, full.max(axis=-1), atol=1e-5)
    clear = np.diff(np.sort(full, axis=-1)[..., -2:])[..., 0] > 1e-4
    np.testing.assert_array_equal(answer.mask[clear], full.argmax(axis=-1)[clear])


def test_a_large_photo_gets_a_smaller_mask(tmp_path: Path, progress: Progress) -> None:
    path = tmp_path / "large.png"
    Image.new("RGB", (2048, 512), (200, 10, 10)).save(path)
    record = ImageRecord(sha256_of(path), str(path), 2048, 512, "train", None)
    MapLabelling(
        Colours(),
        [record],
        tmp_path / "labels",
        LabelSettings(grid=4),
        cache=ImageCache(100),
        batch_size=4,
        fingerprint="same",
        facts={},
    ).label(progress)
    mask, confidence = MapStore(tmp_path / "labels").hard(0)
    assert mask.shape == confidence.shape == (256, 1024)
    assert (mask == 1).all() and confidence.min() > 200
