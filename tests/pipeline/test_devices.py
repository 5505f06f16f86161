"""Several processes train one network: as one does, and whoever goes on does so whatever the number was before."""

from __future__ import annotations

import os
import re
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from distill import pipeline, stages
from distill.config import RunConfig
from distill.config_file import load_config
from distill.core.errors import DistillError, UserError
from distill.core.launcher import Launched, launched
from distill.core.metrics_log import MetricsLog
from distill.core.progress import Progress
from distill.core.run import Run
from distill.ranks import ALONE, joined, team_of
from tests.workplace import COLOURS

# Frozen batch norm and no dropout: then parts of a batch have the gradient of the whole but for rounding.
CONFIG = """\
data: {labeled: photos/labeled, validation: photos/validation}
teacher: {timm: test_resnet, pretrained: false, image_size: 32}
student: {timm: tf_mobilenetv3_small_minimal_100, pretrained: false, image_size: 32, drop_rate: 0}
train: {epochs: 3, batch_size: 12, lr: 0.001, ema_decay: 0.5, warmup_epochs: 0, batch_norm: frozen, probe: false}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config, photos, and a run whose images are read."""
    root = tmp_path_factory.mktemp("devices")
    rng = np.random.default_rng(3)
    for part, count in {"labeled": 15, "validation": 6}.items():
        for name, colour in COLOURS.items():
            (root / "photos" / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(rng.normal(colour, 45, (32, 40, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / "photos" / part / name / f"{number:03d}.png")
    (root / "teacher.yaml").write_text(CONFIG)
    config = load_config(root / "teacher.yaml", [f"output={root / 'begun'}"])
    pipeline.run(config, Console(quiet=True), until="data")
    return root


def work(place: Path, name: str, progress: Progress, *changes: str) -> stages.Work:
    """A run of its own behind the stage `data`."""
    config: RunConfig = load_config(place / "teacher.yaml", [*changes, f"output={place / name}"])
    shutil.copytree(place / "begun", place / name, dirs_exist_ok=True)
    return stages.Work(config, Run(place / name), progress)


def lines(done: stages.Work) -> list[dict[str, Any]]:
    return MetricsLog(done.run.root / "metrics.jsonl").read()


@pytest.fixture(scope="module")
def alone(place: Path) -> stages.Work:
    done = work(place, "alone", Progress(Console(quiet=True)))
    stages.baseline(done)
    return done


def test_two_processes_learn_what_one_learns(place: Path, alone: stages.Work, progress: Progress) -> None:
    together = work(place, "together", progress, "train.devices=2")
    summary = stages.baseline(together)
    one, two = lines(alone), lines(together)
    assert [line["epoch"] for line in two] == [1, 2, 3]
    for key, tolerance in {"loss": 1e-3, "validation_nll": 5e-3, "validation_score": 0.06}.items():
        np.testing.assert_allclose([line[key] for line in two], [line[key] for line in one], atol=tolerance)
    assert one[0]["loss"] - one[-1]["loss"] > 0.01, "it learnt something, so the figures above say something"
    assert summary["training"]["decisions"]["devices"] == "2 (batch norm frozen)"
    assert not [name for name in ("RANK", "MASTER_PORT", "TORCHELASTIC_RUN_ID") if name in os.environ]


def test_decoded_images_on_disk_teach_the_same(place: Path, alone: stages.Work, progress: Progress) -> None:
    done = work(place, "disk", progress, "data.cache=disk", "train.workers=3")
    summary = stages.baseline(done)
    assert (done.run.root / "decoded/pixels").stat().st_size == 45 * 3 * 32 * 40, "too small to be reduced"
    kept = ("epoch", "loss", "lr", "validation_score", "validation_nll")
    assert [[line[key] for key in kept] for line in lines(done)] == [
        [line[key] for key in kept] for line in lines(alone)
    ]
    assert all(0 <= line["data_wait"] < 1 for line in lines(done))
    said = summary["training"]["decisions"]["workers"]
    assert re.fullmatch(r"3 \(training waited [0-9.]+% of its time for images\)", said), said


def test_neither_devices_nor_threads_nor_the_cache_read_the_images_anew(place: Path) -> None:
    for changes in (["train.devices=2", "train.workers=1"], ["data.cache=disk"], ["data.cache=none"]):
        planned, _ = pipeline.plan(load_config(place / "teacher.yaml", [*changes, f"output={place / 'begun'}"]))
        assert planned[0].done, changes


def test_one_process_goes_on_where_one_of_two_was_killed(place: Path, alone: stages.Work, progress: Progress) -> None:
    def kill() -> None:
        while not (killed.run.root / "baseline/state.pt").exists():
            time.sleep(0.005)
        children = Path("/proc/self/task").glob("*/children")
        helpers = [int(child) for path in children for child in path.read_text().split()]
        (helper,) = [pid for pid in helpers if b"distill.joining" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(helper, signal.SIGKILL)

    killed = work(place, "killed", progress, "train.devices=2", "train.epochs=200", "train.patience=200")
    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(DistillError, match=r"process 1 of the training ended \(signal 9\); the same command goes on"):
        stages.baseline(killed)
    killer.join()
    done = len(lines(killed))
    assert done > 0
    again = work(place, "killed", progress, f"train.epochs={done + 1}", "train.patience=200")
    stages.baseline(again)
    assert [line["epoch"] for line in lines(again)] == list(range(1, done + 2))
    assert lines(again)[:done] == lines(killed)[:done]
    assert lines(again)[-1]["loss"] < lines(alone)[0]["loss"], "it goes on with what was learnt"


def test_batches_too_small_to_share(place: Path, progress: Progress) -> None:
    with pytest.raises(UserError, match="8 devices share batches of 11 images: give each at least 2 by batch_size"):
        stages.baseline(work(place, "small", progress, "train.devices=8"))
    with team_of(None, "auto", 64) as team:
        assert team is ALONE or team.count > 1


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({}, None),
        ({"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}, None),
        (
            {"TORCHELASTIC_RUN_ID": "x", "RANK": "3", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"},
            Launched("torchrun", 3, 4, 2),
        ),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, None),  # a batch script, no step
        (
            {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2"},
            Launched("srun", 5, 8, 4),
        ),
    ],
)
def test_who_was_started_with_others(
    variables: dict[str, str], found: Launched | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith(("SLURM_", "TORCHELASTIC_"))]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert launched() == found


def test_srun_has_to_say_how_many_a_machine_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"):
        monkeypatch.setenv(name, "2")
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_JOB_NAME", "training")
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE", raising=False)
    with pytest.raises(UserError, match="srun: ask for processes by --ntasks-per-node, not by --ntasks"), joined():
        pass
