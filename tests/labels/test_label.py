"""Asking the teacher about every view, killed or not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import final

import numpy as np
import pytest

from distill.config import LabelSettings
from distill.core.files import sha256_of
from distill.core.progress import Progress
from distill.core.types import FloatArray, ImageRecord, Images, Predictor, softmax
from distill.data.batches import ImageCache
from distill.data.views import render, stored_view
from distill.labels import store
from distill.labels.label import label
from distill.labels.store import LabelStore, shard_path

SaveImage = Callable[..., Path]


@final
class Brightness(Predictor):
    """Answers from the mean of each channel; dies after some batches where told to."""

    def __init__(self, dies_after: int = 1 << 30) -> None:
        self.left, self.sizes = dies_after, list[int]()

    @property
    def class_names(self) -> tuple[str, ...]:
        return ("red", "green", "blue", "dark")

    @property
    def image_size(self) -> int:
        return 8

    def predict(self, images: Images) -> FloatArray:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        self.sizes.append(len(images))
        means = images.astype(np.float32).mean(axis=(1, 2)) / 32
        return np.concatenate([means, np.full((len(images), 1), 3.0, np.float32)], axis=1)


@pytest.fixture
def records(tmp_path: Path, save_image: SaveImage) -> list[ImageRecord]:
    paths = [save_image(tmp_path / "photos" / f"{n}.png", n, size=(12, 10 + n)) for n in range(10)]
    made = [ImageRecord(sha256_of(p), str(p), 12, 10 + n, "train", None) for n, p in enumerate(paths)]
    return sorted(made, key=lambda record: record.id)


@pytest.fixture
def ask(records: list[ImageRecord], progress: Progress, monkeypatch: pytest.MonkeyPatch) -> Callable[..., LabelStore]:
    monkeypatch.setattr(store, "IMAGES_A_SHARD", 4)

    def asked(folder: Path, teacher: Predictor, views: int = 3, batch_size: int = 7, mirror: bool = True) -> LabelStore:
        label(
            teacher,
            records,
            folder,
            LabelSettings(views=views, top_k=2),
            cache=ImageCache(100),
            resize="center_crop",
            mirror=mirror,
            min_area=0.4,
            seed=5,
            batch_size=batch_size,
            facts={"teacher": "brightness"},
            progress=progress,
        )
        return LabelStore(folder)

    return asked


@pytest.mark.parametrize("mirror", [True, False])
def test_the_store_holds_what_the_teacher_says_of_exactly_these_views(
    tmp_path: Path, records: list[ImageRecord], ask: Callable[..., LabelStore], mirror: bool
) -> None:
    teacher = Brightness()
    labels = ask(tmp_path / "labels", teacher, mirror=mirror)
    assert len(labels) == 30
    cache = ImageCache(100)
    for record in records:
        for index in range(3):
            size = (record.width, record.height)
            view = stored_view(record.id, index, *size, "center_crop", seed=5, min_area=0.4, mirror=mirror)
            assert labels.view(record.id, index) == view
            probabilities = softmax(teacher.predict(render(cache.get(record), view, 8)[np.newaxis]))[0]
            target = labels.target(record.id, index)
            assert target.argmax() == probabilities.argmax()
            top = np.argsort(-probabilities)[:2]
            np.testing.assert_allclose(target[top], probabilities[top], atol=1e-3)
    assert labels.facts["teacher"] == "brightness"
    assert labels.facts["class_names"] == list(teacher.class_names)


def test_batches_hold_whole_images_and_at_most_the_asked_size(tmp_path: Path, ask: Callable[..., LabelStore]) -> None:
    teacher = Brightness()
    ask(tmp_path / "labels", teacher, batch_size=7)
    assert teacher.sizes == [6, 6, 6, 6, 6]  # shards of 4, 4 and 2 images, 2 images of 3 views in a batch
    small = Brightness()
    ask(tmp_path / "small", small, batch_size=1)
    assert set(small.sizes) == {3}


@pytest.mark.parametrize("batches", range(5))
def test_interrupted_anywhere_it_ends_with_the_same_bytes(
    tmp_path: Path, ask: Callable[..., LabelStore], batches: int
) -> None:
    ask(tmp_path / "whole", Brightness())
    with pytest.raises(KeyboardInterrupt):
        ask(tmp_path / "killed", Brightness(dies_after=batches))
    assert not (tmp_path / "killed/store.json").exists()
    second = Brightness()
    ask(tmp_path / "killed", second)
    assert sum(second.sizes) == 30 - 12 * (batches // 2)  # finished shards are not asked about again
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == names
    for name in names:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert shard_path(tmp_path / "whole", 2).exists()
