"""Asking the teacher about every view, killed or not."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from distill.config import LabelSettings
from distill.core.errors import DistillError, TeacherError
from distill.core.files import sha256_of
from distill.core.progress import Progress
from distill.core.types import FloatArray, ImageRecord, Images, Predictor, softmax
from distill.data.batches import ImageCache
from distill.data.views import ViewPlan, render
from distill.labels import store
from distill.labels.augmented import Augmented
from distill.labels.label import ViewLabelling
from distill.labels.on_ray import label_on_ray
from distill.labels.shards import complete, planned, shard_path
from distill.labels.store import LabelStore
from distill.teaching import same_threads

SaveImage = Callable[..., Path]


class Brightness(Predictor):
    """Answers from the mean of each channel; dies after some batches where told to."""

    def __init__(self, dies_after: int = 1 << 30) -> None:
        self.left, self.sizes, self.room = dies_after, list[int](), 1 << 30

    @property
    def class_names(self) -> tuple[str, ...]:
        return ("red", "green", "blue", "dark")

    @property
    def image_size(self) -> int:
        return 8

    def predict(self, images: Images) -> FloatArray:
        if self.left == 0:
            raise KeyboardInterrupt
        if len(images) > self.room:
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            )
        self.left -= 1
        self.sizes.append(len(images))
        means = images.astype(np.float32).mean(axis=(1, 2)) / 32
        # as in real networks, an answer depends a little on the batch it is in
        means = means * np.float32(1 + 1e-7 * len(images))
        return np.concatenate([means, np.full((len(images), 1), 3.0, np.float32)], axis=1)

    def digest(self) -> str:
        return "brightness"


def labelling(
    records: list[ImageRecord],
    folder: Path,
    teacher: Predictor,
    *,
    views: int = 3,
    batch_size: int = 7,
    mirror: bool = True,
    earlier: Path | None = None,
) -> ViewLabelling:
    plan = ViewPlan("center_crop", 0.4, mirror, 0.2, 5)
    return ViewLabelling(
        teacher,
        records,
        folder,
        LabelSettings(views=views, top_k=2),
        cache=ImageCache(100),
        plan=plan,
        batch_size=batch_size,
        fingerprint="same",
        facts={"teacher": {"digest": teacher.digest()}, "precision": "float32 (set)", "view_plan": asdict(plan)},
        earlier=earlier,
    )


@pytest.fixture
def records(tmp_path: Path, save_image: SaveImage) -> list[ImageRecord]:
    paths = [save_image(tmp_path / "photos" / f"{n}.png", n, size=(12, 10 + n)) for n in range(10)]
    made = [ImageRecord(sha256_of(p), str(p), 12, 10 + n, "train", None) for n, p in enumerate(paths)]
    return sorted(made, key=lambda record: record.id)


@pytest.fixture
def ask(records: list[ImageRecord], progress: Progress, monkeypatch: pytest.MonkeyPatch) -> Callable[..., LabelStore]:
    monkeypatch.setattr(store, "_VIEWS_A_SHARD", 12)

    def asked(folder: Path, teacher: Predictor, **settings: Any) -> LabelStore:
        labelling(settings.pop("records", records), folder, teacher, **settings).label(progress)
        return LabelStore(folder)

    return asked


@pytest.mark.parametrize("mirror", [True, False])
def test_the_store_holds_what_the_teacher_says_of_exactly_these_views(
    tmp_path: Path, records: list[ImageRecord], ask: Callable[..., LabelStore], mirror: bool
) -> None:
    teacher = Brightness()
    labels = ask(tmp_path / "labels", teacher, mirror=mirror)
    assert len(labels) == 30
    cache, plan = ImageCache(100), ViewPlan("center_crop", 0.4, mirror, 0.2, 5)
    for record in records:
        found, targets = labels.read(np.full(3, labels.position(record.id)), np.arange(3))
        for index, (view, target) in enumerate(zip(found, targets, strict=True)):
            assert view == plan.stored(record.id, index, record.width, record.height)
            probabilities = softmax(teacher.predict(render(cache.get(record), view, 8)[np.newaxis]))[0]
            assert target.argmax() == probabilities.argmax()
            top = np.argsort(-probabilities)[:2]
            np.testing.assert_allclose(target[top], probabilities[top], atol=1e-3)
    assert labels.facts["teacher"] == {"digest": "brightness"}
    assert labels.facts["class_names"] == list(teacher.class_names)


def test_batches_have_the_asked_size_and_begin_anew_with_each_shard(
    tmp_path: Path, ask: Callable[..., LabelStore]
) -> None:
    teacher = Brightness()
    ask(tmp_path / "labels", teacher, batch_size=7)
    assert teacher.sizes == [7, 5, 7, 5, 6]  # shards of 4, 4 and 2 images of 3 views
    small = Brightness()
    ask(tmp_path / "small", small, batch_size=1)
    assert small.sizes == [1] * 30


def test_out_of_memory_halves_the_batch_for_good(tmp_path: Path, ask: Callable[..., LabelStore]) -> None:
    teacher = Brightness()
    teacher.room = 3
    labels = ask(tmp_path / "labels", teacher, batch_size=8)
    assert teacher.sizes == [2] * 15
    assert labels.facts["batch_size"] == 2
    interrupted = Brightness(dies_after=8)
    interrupted.room = 3
    with pytest.raises(KeyboardInterrupt):
        ask(tmp_path / "killed", interrupted, batch_size=8)
    roomy = Brightness()  # after an interruption there may be more memory: the batch stays, and so do the bytes
    ask(tmp_path / "killed", roomy, batch_size=8)
    assert set(roomy.sizes) == {2}
    for path in (tmp_path / "labels").iterdir():
        assert (tmp_path / "killed" / path.name).read_bytes() == path.read_bytes()


def test_what_an_earlier_store_holds_is_not_asked_again(
    tmp_path: Path, records: list[ImageRecord], ask: Callable[..., LabelStore]
) -> None:
    first = ask(tmp_path / "first", Brightness(), records=records[1:8])
    teacher = Brightness()
    labels = ask(tmp_path / "grown", teacher, earlier=tmp_path / "first")
    assert teacher.sizes == [3, 6]  # of shards of 4, 4 and 2 images the first lacks one, the third both
    assert labels.facts["taken_over"] == 7
    assert labels.is_about(record.id for record in records)
    for record in records[1:8]:
        for mine, theirs in zip(labels.about([record.id])[1:], first.about([record.id])[1:], strict=True):
            np.testing.assert_array_equal(mine, theirs)
    anew = ask(tmp_path / "anew", Brightness())
    np.testing.assert_allclose(labels.targets(1), anew.targets(1), atol=1e-3)

    with pytest.raises(KeyboardInterrupt):  # killed, it ends with the same bytes
        ask(tmp_path / "killed", Brightness(dies_after=1), earlier=tmp_path / "first")
    ask(tmp_path / "killed", Brightness(), earlier=tmp_path / "first")
    grown = {path.name: path.read_bytes() for path in (tmp_path / "grown").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "killed").iterdir()} == grown

    fewer = Brightness()  # nothing is new
    assert ask(tmp_path / "fewer", fewer, records=records[2:5], earlier=tmp_path / "grown").images == 3
    assert fewer.sizes == []


@pytest.mark.parametrize("change", [{"views": 4}, {"mirror": False}])
def test_views_of_another_kind_are_asked_anew(
    tmp_path: Path, ask: Callable[..., LabelStore], change: dict[str, Any]
) -> None:
    ask(tmp_path / "first", Brightness())
    teacher = Brightness()
    labels = ask(tmp_path / "second", teacher, earlier=tmp_path / "first", **change)
    assert sum(teacher.sizes) == len(labels)
    assert labels.facts["taken_over"] == 0


def test_a_damaged_earlier_store_is_passed_over(tmp_path: Path, ask: Callable[..., LabelStore]) -> None:
    ask(tmp_path / "first", Brightness())
    shard_path(tmp_path / "first", 1).unlink()
    assert ask(tmp_path / "second", Brightness(), earlier=tmp_path / "first").facts["taken_over"] == 0


def test_not_even_one_view_fits(tmp_path: Path, ask: Callable[..., LabelStore]) -> None:
    teacher = Brightness()
    teacher.room = 0
    with pytest.raises(TeacherError, match="the teacher does not fit in memory, even for one view"):
        ask(tmp_path / "labels", teacher)


def test_a_batch_that_an_older_version_kept_stays(tmp_path: Path, ask: Callable[..., LabelStore]) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/plan.json").write_text('{"batch_size": 2}')
    assert planned(tmp_path / "labels") is None
    teacher = Brightness()
    ask(tmp_path / "labels", teacher, batch_size=8)
    assert teacher.sizes == [2] * 15
    assert planned(tmp_path / "labels") == 3


def test_threads_are_those_that_a_labelling_began_with(tmp_path: Path) -> None:
    import torch

    before = torch.get_num_threads()
    with same_threads(tmp_path) as threads:
        assert threads == torch.get_num_threads() == before
    (tmp_path / "plan.json").write_text(f'{{"batch_size": 2, "threads": {before + 1}}}')
    with same_threads(tmp_path) as threads:
        assert threads == torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_parts_are_asked_in_the_batches_that_were_settled(
    tmp_path: Path, records: list[ImageRecord], progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_VIEWS_A_SHARD", 12)
    folder = tmp_path / "labels"

    def by(room: int) -> tuple[Brightness, ViewLabelling]:
        teacher = Brightness()
        teacher.room = room
        return teacher, labelling(records, folder, teacher, batch_size=20)

    small, first = by(room=7)
    first.settle(progress)
    assert small.sizes == [5]  # 20 and 10 do not fit
    roomy, second = by(room=100)
    second.settle(progress)  # it is settled
    assert roomy.sizes == []
    with progress.task("labelling", second.extent.of([1, 2])) as task:
        second.label_part([1, 2], task)
    assert roomy.sizes == [5, 5, 2, 5, 1]
    assert [path.name for path in sorted(folder.glob("*.arrow"))] == ["shard-00001.arrow", "shard-00002.arrow"]
    assert not complete(folder)
    _, tiny = by(room=4)
    with (
        pytest.raises(TeacherError, match=r"out of memory with 5 views a batch, .* set teacher\.batch_size to 2"),
        progress.task("labelling", 12) as task,
    ):
        tiny.label_part([0], task)
    assert not complete(folder)
    with progress.task("labelling", 12) as task:
        second.label_part([0], task)
    assert complete(folder)
    assert LabelStore(folder).facts["batch_size"] == 5


class Died(Exception):
    """Of a worker."""


class OneProcess:
    """What labelling asks of Ray, one call after another; workers die of the shards that they are told to die of."""

    def __init__(self, deaths: list[int]) -> None:
        kinds = dict.fromkeys(("RayActorError", "WorkerCrashedError", "OutOfMemoryError"), Died)
        never = type("Never", (Exception,), {})
        self.exceptions = SimpleNamespace(**kinds, RayError=never, RayTaskError=never)
        self.deaths, self.started, self.ended = deaths, 0, 0

    def is_initialized(self) -> bool:
        return True

    def nodes(self) -> list[dict[str, object]]:
        return [{"Alive": True, "Resources": {"CPU": 2.0}}, {"Alive": False, "Resources": {"CPU": 99.0}}]

    def remote(self, kind: Callable[..., object]) -> object:
        def start(*given: object) -> object:
            self.started += 1
            worker = kind(*given)
            return SimpleNamespace(
                settle=SimpleNamespace(remote=functools.partial(getattr, worker, "settle")),
                label=SimpleNamespace(remote=lambda number: lambda: self._label(worker, number)),
            )

        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=start))

    def _label(self, worker: object, number: int) -> object:
        if number in self.deaths:
            self.deaths.remove(number)
            raise Died("of old age")
        return worker.label(number)

    def wait(self, asked: list[object], **_: object) -> tuple[list[object], list[object]]:
        return asked[-1:], asked[:-1]

    def get(self, asked: Callable[[], object]) -> object:
        return asked()

    def kill(self, worker: object) -> None:
        self.ended += 1


@pytest.mark.parametrize(("deaths", "started"), [([], 2), ([1], 3), ([0, 1, 2, 2], 6)])
def test_workers_that_die_are_replaced_and_their_shards_made_again(
    tmp_path: Path,
    ask: Callable[..., LabelStore],
    records: list[ImageRecord],
    progress: Progress,
    monkeypatch: pytest.MonkeyPatch,
    deaths: list[int],
    started: int,
) -> None:
    ask(tmp_path / "whole", Brightness())
    ray = OneProcess(deaths)
    monkeypatch.setitem(sys.modules, "ray", ray)
    (tmp_path / "labels").mkdir()
    label_on_ray(tmp_path / "labels", lambda: labelling(records, tmp_path / "labels", Brightness()), 2, progress)
    assert ray.ended == started - 2 and ray.started <= started and ray.deaths == []
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "labels").iterdir()} == whole


def test_a_shard_that_three_workers_died_of_ends_the_labelling(
    tmp_path: Path, records: list[ImageRecord], progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_VIEWS_A_SHARD", 12)
    monkeypatch.setitem(sys.modules, "ray", OneProcess([1, 1, 1]))
    with pytest.raises(DistillError, match="3 workers died at shard 1; Ray says of the last: of old age"):
        label_on_ray(tmp_path, lambda: labelling(records, tmp_path, Brightness()), 2, progress)
    assert not (tmp_path / "store.json").exists()


def test_another_error_is_not_taken_for_a_lack_of_memory(tmp_path: Path, ask: Callable[..., LabelStore]) -> None:
    class Broken(Brightness):
        def predict(self, images: Images) -> FloatArray:
            raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        ask(tmp_path / "labels", Broken())


def test_a_mirrored_teacher_averages_both_answers(tmp_path: Path, ask: Callable[..., LabelStore]) -> None:
    class Left(Brightness):
        """Answers from the left half alone."""

        def predict(self, images: Images) -> FloatArray:
            return super().predict(images[:, :, :4])

    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    teacher = Augmented(Left(), mirror=True, scales=[1.0])
    expected = (softmax(Left().predict(images)) + softmax(Brightness().predict(images[:, :, 4:]))) / 2
    np.testing.assert_allclose(softmax(teacher.predict(images)), expected, rtol=1e-5)
    np.testing.assert_allclose(
        softmax(teacher.predict_all(lambda _: iter([images[:3], images[3:]]))), expected, rtol=1e-5
    )
    assert teacher.passes == 2
    assert teacher.digest() != Left().digest()
    assert len(ask(tmp_path / "labels", teacher)) == 30


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
