"""What vanishes or is damaged under a run, and who works in its folder: one sentence, or nothing at all."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from distill import stages
from distill.checkpoint import read_state
from distill.core.errors import CheckpointError, DataError, DistillError
from distill.core.files import sha256_of
from distill.core.metrics_log import MetricsLog
from distill.core.progress import Progress
from distill.core.run import Run
from distill.core.settings import TrainSettings
from distill.core.types import ImageRecord
from distill.data.batches import ImageCache
from distill.data.views import ViewPlan
from distill.examples import Truth
from distill.losses import build_loss, of_rows
from distill.students.timm import Config, build
from distill.tasks.classification import Classification
from distill.train import train
from tests.conftest import SaveImage

CLASSES = ("cat", "dog")


@pytest.fixture
def records(tmp_path: Path, save_image: SaveImage) -> list[ImageRecord]:
    found = []
    for number in range(8):
        path = save_image(tmp_path / f"photos/{number}.png", number, (32, 32))
        split = "validation" if number % 4 == 3 else "train"
        found.append(ImageRecord(sha256_of(path), str(path), 32, 32, split, CLASSES[number % 2]))
    return sorted(found, key=lambda record: record.id)


@pytest.fixture
def learn(tmp_path: Path, records: list[ImageRecord], progress: Progress) -> Callable[[int], Path]:
    """Trains to an epoch, behind whatever there is, and gives the folder."""

    def go_on(epochs: int) -> Path:
        torch.manual_seed(0)
        network = build(Config(timm="test_efficientnet", pretrained=False, image_size=32), CLASSES)
        known = [record for record in records if record.split == "train"]
        plan = ViewPlan("center_crop", 0.5, True, 0.1, 0)
        settings = TrainSettings(epochs=epochs, batch_size=4, ema_decay=0.9, warmup_epochs=1, lr=1e-3)
        train(
            network, Truth(known, CLASSES, plan, epoch_size=6, label_smoothing=0.0),
            [record for record in records if record.split == "validation"], Classification(CLASSES), settings,
            of_rows(build_loss("kl", 1.0)), tmp_path / "student", stage="student", seed=0, cache=ImageCache(1),
            resize="center_crop", metrics=MetricsLog(tmp_path / "metrics.jsonl"), progress=progress,
        )  # fmt: skip
        return tmp_path / "student"

    return go_on


def test_a_damaged_or_deleted_checkpoint_is_a_sentence_and_never_other_weights(learn: Callable[[int], Path]) -> None:
    folder = learn(2)
    kept = folder.with_name("kept")
    shutil.copytree(folder, kept)
    names = ["state.pt", *sorted(path.name for path in folder.glob("*-*.safetensors"))]
    assert len(names) == 3
    for name in names:
        for spoil in (spoilt_in_the_middle, Path.unlink):
            if (name, spoil) == ("state.pt", Path.unlink):
                continue  # nothing says that a training was under way, so it begins
            spoil(folder / name)
            with pytest.raises(CheckpointError, match=f"{name}.*(damaged|missing)"):
                learn(3)
            shutil.rmtree(folder)
            shutil.copytree(kept, folder)


def spoilt_in_the_middle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def test_a_checkpoint_that_a_kill_left_behind_its_time_is_removed(learn: Callable[[int], Path]) -> None:
    """Killed between writing the state and removing what it no longer names."""
    folder = learn(2)
    wanted = {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
    for name in ("last-0001.safetensors", "last-0003.safetensors", "best-0009.safetensors"):
        shutil.copy(folder / "weights.safetensors", folder / name)
    learn(2)
    assert {path.name: path.read_bytes() for path in folder.glob("*.safetensors")} == wanted
    assert read_state(folder / "weights.safetensors")


def test_an_image_that_vanishes_under_a_run_is_named(records: list[ImageRecord]) -> None:
    cache = ImageCache(1)
    cache.get(records[0])
    Path(records[0].path).unlink()
    Path(records[1].path).unlink()
    assert cache.get(records[0]).size == (32, 32)  # it was read before
    with pytest.raises(DataError, match=r"was fine when the run began, now: .*The same command goes on"):
        cache.get(records[1])


def test_an_exporter_that_dies_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    run = subprocess.run

    def killed(*_: object, **more: object) -> subprocess.CompletedProcess[bytes]:
        return run(["sh", "-c", "kill -9 $$"], **more)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(subprocess, "run", killed)
    with pytest.raises(DistillError, match="`export files` was ended by signal 9; the same command goes on"):
        stages.forward(["files", "--run", "runs/one"])


def test_the_clock_may_jump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages are timed by a clock that only goes forward, and times of files decide nothing but which run is latest."""
    run = Run.create(tmp_path / "run")
    run.begin("data", "one")
    os.utime(run.folder("data") / "started.json", (2**32, 2**32))
    monkeypatch.setattr("time.gmtime", lambda: (1970, 1, 1, 0, 0, 0, 3, 1, 0))
    run.finish("data", "one", 1.0, {})
    assert run.done("data", "one") is not None
