"""Killed, stopped, out of room: the same command goes on, and ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.workplace import Workplace

FILES = "export.files=[tflite-int8]"  # one conversion is enough here; the finished run has them all

# In each stage, a file that appears in its middle.
MOMENTS = [
    "data/started.json",
    "teacher/state.pt",
    "labels/shard-00000.arrow",
    "student/state.pt",
    "baseline/state.pt",
    "export/student.int8.tflite.log",
    "benchmark/started.json",
]


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"{path} never appeared"
        time.sleep(0.005)


def test_killed_in_every_stage_it_ends_with_the_same_labels_weights_and_scores(
    workplace: Workplace, finished: Workplace
) -> None:
    run, undisturbed = (place.root / "runs/teacher" for place in (workplace, finished))
    for moment in MOMENTS:
        process = workplace.start("run", "teacher.yaml", "--set", FILES)
        wait_for(run / moment, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    workplace.run("run", "teacher.yaml", "--set", FILES)

    shards = sorted(p.name for p in (undisturbed / "labels").glob("*.arrow"))
    assert len(shards) == 2
    same = [f"labels/{name}" for name in shards]
    same += [f"{stage}/weights.safetensors" for stage in ("teacher", "student", "baseline")]
    same += ["export/student.int8.tflite"]
    for name in same:
        assert (run / name).read_bytes() == (undisturbed / name).read_bytes(), name

    def scores(root: Path) -> object:
        manifest = json.loads((root / "export/student.int8.tflite.json").read_text())
        return manifest["scores"], [
            json.loads((root / s / "stage.json").read_text())["summary"]["scores"]
            for s in ("teacher", "student", "baseline")
        ]

    assert scores(run) == scores(undisturbed)
    epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [e["epoch"] for e in epochs if e["stage"] == "student"] == [1, 2, 3, 4]
    assert not list(run.rglob("*.tmp")), "half-written files stay behind"


def test_a_labelling_killed_ten_times_at_random_ends_with_the_same_bytes(workplace: Workplace) -> None:
    """64 views an image fill six shards, so kills fall before, between and behind them."""
    more = ("run", "teacher.yaml", "--set", "labels.views=64", "--until", "labels")
    workplace.run("run", "teacher.yaml", "--set", "labels.views=64", "--until", "teacher")
    undisturbed, killed = (workplace.root / "runs" / name for name in ("teacher", "killed"))
    shutil.copytree(undisturbed, killed)
    start = time.monotonic()
    workplace.run(*more)
    took, moments = time.monotonic() - start, random.Random(7)
    for _ in range(10):
        process = workplace.start(*more, "--set", "output=runs/killed")
        with contextlib.suppress(subprocess.TimeoutExpired):  # it may end sooner than the first one did
            process.communicate(timeout=moments.uniform(0.3, 1.0) * took)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    workplace.run(*more, "--set", "output=runs/killed")
    shards = sorted(p.name for p in (undisturbed / "labels").glob("*.arrow"))
    assert len(shards) == 6
    for name in (*shards, "store.json"):
        assert (killed / "labels" / name).read_bytes() == (undisturbed / "labels" / name).read_bytes(), name
    assert not list(killed.rglob("*.tmp"))


def test_ctrl_c_stops_cleanly(workplace: Workplace) -> None:
    long = ("--set", "train.epochs=500", "--set", "train.patience=500")  # else it may end before the signal arrives
    process = workplace.start("run", "teacher.yaml", "--until", "student", *long)
    wait_for(workplace.root / "runs/teacher/student/state.pt", process)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "stopped; finished work is kept, the same command goes on" in output
    assert "Traceback" not in output


def test_a_full_disk_is_one_message_and_loses_nothing(workplace: Workplace) -> None:
    workplace.run("run", "teacher.yaml", "--until", "data")
    manifest = (workplace.root / "runs/teacher/data/manifest.parquet").read_bytes()
    done = subprocess.run(
        [sys.executable, "-m", "distill", "run", "teacher.yaml", "--until", "teacher"],
        cwd=workplace.root,
        capture_output=True,
        text=True,
        check=False,
        # No file may grow beyond 1 MB, less than a checkpoint takes: writing fails as on a full disk.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)),
    )
    assert done.returncode == 2, done.stderr
    assert "no room left to write" in done.stderr and "the same command goes on" in done.stderr
    assert "Traceback" not in done.stderr
    assert (workplace.root / "runs/teacher/data/manifest.parquet").read_bytes() == manifest
    assert not list((workplace.root / "runs").rglob("*.tmp"))


def test_two_runs_do_not_share_a_folder(workplace: Workplace) -> None:
    first = workplace.start("run", "teacher.yaml", "--until", "teacher")
    wait_for(workplace.root / "runs/teacher/teacher/started.json", first)
    assert f"is in use by process {first.pid} on" in workplace.run("run", "teacher.yaml", expect=2)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()


def test_a_vanished_image_is_named(workplace: Workplace) -> None:
    photos = workplace.root / "photos"
    target = photos.readlink()
    photos.unlink()
    subprocess.run(["cp", "-r", str(target), str(photos)], check=True)
    workplace.run("run", "teacher.yaml", "--until", "teacher")
    # Same listing, so the stage `data` stays done: the name is there, the content is not an image any more.
    victim = photos / "unlabeled/red007.png"
    status = victim.stat()
    victim.write_bytes(b"x" * status.st_size)
    os.utime(victim, ns=(status.st_atime_ns, status.st_mtime_ns))
    output = workplace.run("run", "teacher.yaml", "--until", "labels", expect=2)
    assert "red007.png was fine when the run began, now: not an image" in output.replace("\n", "")
