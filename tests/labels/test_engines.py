"""Labels written by several processes: the same bytes as by one, also where a worker dies."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from distill.core.errors import RunFolderError, UserError
from distill.core.progress import Progress
from distill.labels.on_ray import Part, _Worker, label_on_ray, part_of_cluster
from distill.labels.share import Share
from tests.workplace import Workplace, write_shapes

TEACHER = """\
import os
import signal
from pathlib import Path

import numpy as np

from distill.labels import maps, store

store._VIEWS_A_SHARD, maps.IMAGES_A_SHARD = 120, 16  # several shards of few images, in every process
COLOURS = np.array([[40, 160, 60], [180, 50, 40], [120, 60, 170]], np.float32)
calls = 0


def images(pixels):
    return answer(pixels.mean((1, 2)))


def cells(pixels):
    return answer(pixels.reshape(-1, 8, 4, 8, 4, 3).mean((2, 4)))


def answer(colours):
    global calls
    calls += 1
    if Path("dies").exists() and calls == int(Path("dies").read_text()):
        Path("dies").unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    if Path("breaks").exists() and len(colours) == 7:
        raise ValueError("a batch of 7")
    distances = np.square(colours[..., None, :] - COLOURS).sum(-1) / 3000
    return -distances * (1 + 1e-3 * len(colours))  # as in real networks, an answer depends on the batch it is in
"""

CONFIG = """\
task: TASK
data: {unlabeled: FOLDER/unlabeled, validation: FOLDER/validation}
teacher: {python: "colours:PREDICT", image_size: 32, batch_size: 7}
student: STUDENT
"""

CLUSTER = """\
import sys

import ray

for attempt in range(3):
    try:
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=sys.argv[1])
        break
    except Exception:  # Ray gives its processes 30 s, which a busy machine may not have
        if attempt == 2:
            raise
        ray.shutdown()
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
ray.shutdown()
"""

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None and "CI" not in os.environ, reason="ray is not installed"
)


def _place(root: Path, folder: str, config: dict[str, str]) -> Workplace:
    text = CONFIG.replace("FOLDER", folder)
    for key, value in config.items():
        text = text.replace(key, value)
    (root / "teacher.yaml").write_text(text)
    (root / "colours.py").write_text(TEACHER)
    place = Workplace(root)
    place.run("run", "teacher.yaml", "--until", "labels", "--set", "output=runs/local")
    return place


@pytest.fixture(scope="module")
def classified(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Workplace:
    """300 unlabelled photos, labelled by one process, two views each: 5 shards."""
    root = tmp_path_factory.mktemp("classified")
    (root / "photos").symlink_to(photos)
    student = "{timm: tf_mobilenetv3_small_minimal_100, pretrained: false, image_size: 32}\nlabels: {views: 2}"
    return _place(root, "photos", {"TASK": "classification", "PREDICT": "images", "STUDENT": student})


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """The same of 60 images with maps: 4 shards."""
    root = tmp_path_factory.mktemp("masked")
    write_shapes(root / "shapes")
    student = "{smp: deeplabv3plus, encoder: mobilenetv4_conv_small, pretrained: false, image_size: 32}"
    config = {"TASK": "segmentation", "PREDICT": "cells", "STUDENT": student}
    return _place(root, "shapes", config | {"validation}": "validation, classes: [background, disc, square]}"})


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two CPUs, named by RAY_ADDRESS, with a token of their own."""
    folder = tempfile.mkdtemp(prefix="ray-")  # pytest's own are too long for the sockets in it
    secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **secret, "RAY_USAGE_STATS_ENABLED": "0"},
    )
    assert process.stdin is not None and process.stdout is not None
    with pytest.MonkeyPatch.context() as patch:
        try:
            address = process.stdout.readline().strip()
            assert address
            for key, value in {**secret, "RAY_ADDRESS": address}.items():
                patch.setenv(key, value)
            yield
        finally:
            process.communicate()
            shutil.rmtree(folder, ignore_errors=True)


def _labels(place: Workplace, name: str) -> dict[str, bytes]:
    """The store's files; `stage.json` says when and how long."""
    folder = place.root / "runs" / name / "labels"
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in {"stage.json"}}


def _same_as_by_one_process(place: Workplace, name: str, shards: int) -> None:
    ours, theirs = _labels(place, "local"), _labels(place, name)
    assert sum(file.endswith(".arrow") for file in ours) == shards
    assert sorted(theirs) == sorted(ours)
    assert [file for file in ours if theirs[file] != ours[file]] == []


def _by_ray(place: Workplace, name: str, expect: int = 0) -> str:
    arguments = ("--until", "labels", "--engine", "ray", "--set", "labels.workers=2", "--set", f"output=runs/{name}")
    return place.run("run", "teacher.yaml", *arguments, expect=expect)


@needs_ray
def test_two_workers_write_what_one_process_writes(classified: Workplace, cluster: None) -> None:
    told = _by_ray(classified, "ray")
    assert "300 images" in told and "died" not in told
    _same_as_by_one_process(classified, "ray", 5)
    told = classified.run("run", "teacher.yaml", "--until", "labels", "--set", "output=runs/ray")
    assert "Nothing to do" in told  # who did the work is no part of the fingerprint


@needs_ray
def test_what_a_killed_worker_was_at_is_written_by_another(masked: Workplace, cluster: None) -> None:
    (masked.root / "dies").write_text("5")  # after the batch that settles, three a shard: in the middle of one
    told = _by_ray(masked, "killed")
    assert "a worker died at shard" in told
    assert not (masked.root / "dies").exists()
    _same_as_by_one_process(masked, "killed", 4)


@needs_ray
def test_what_a_worker_cannot_do_is_said_as_by_one_process(classified: Workplace, cluster: None) -> None:
    (classified.root / "breaks").touch()
    told = _by_ray(classified, "broken", expect=2)
    (classified.root / "breaks").unlink()
    assert "error: teacher.python: colours:images raised ValueError: a batch of 7" in " ".join(told.split())


def test_without_ray(tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"`labels.engine: ray` needs Ray: pip install 'mobile-distill\[ray\]'"):
        label_on_ray(tmp_path, pytest.fail, None, progress)


def test_a_machine_that_does_not_see_the_run_folder(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError) as error:
        _Worker(tmp_path / "absent", tmp_path, pytest.fail).settle()
    told = f" sees no folder {tmp_path}/absent: every machine of the Ray cluster must see the run folder and the images"
    assert told in str(error.value)


def test_shares_at_once_then_the_whole(classified: Workplace) -> None:
    arguments = ("run", "teacher.yaml", "--set", "output=runs/shares")
    shares = [classified.start(*arguments, "--until", "labels", "--shard", f"{n}/2") for n in (1, 2)]
    told = [share.communicate(timeout=900)[0] for share in shares]
    assert [share.returncode for share in shares] == [0, 0], told
    assert "share 1/2: 3 label shards" in told[0] and "share 2/2: 2 label shards" in told[1]
    folder = classified.root / "runs/shares/labels"
    assert not (folder / "store.json").exists()
    written = {path: path.stat().st_mtime_ns for path in folder.glob("*.arrow")}
    classified.run(*arguments, "--until", "labels")
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.arrow")} == written
    _same_as_by_one_process(classified, "shares", 5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--shard", "1/2", "--engine", "ray"],
            "--shard: found `labels.engine: ray`, which shares the work out by itself",
        ),
        (["--shard", "1/2", "--until", "student"], "--shard writes labels and nothing else"),
        (["--shard", "1/2", "--dry-run"], "--shard writes labels and nothing else"),
    ],
)
def test_what_cannot_be_shared(classified: Workplace, arguments: list[str], said: str) -> None:
    told = classified.run("run", "teacher.yaml", *arguments, "--set", "output=runs/none", expect=2)
    assert said in " ".join(told.split())
    assert not (classified.root / "runs/none").exists()


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "1/0", "-1/2", "1/2/3", "a/b", "1.5/2", "1/²"])
def test_no_share(text: str) -> None:
    with pytest.raises(UserError, match="--shard: found "):
        Share.parse(text)


@pytest.mark.parametrize("total", [1, 2, 3, 7, 9])
def test_shares_are_every_shard_once(total: int) -> None:
    parts = [Share.parse(f"{number}/{total}").of(7) for number in range(1, total + 1)]
    assert sorted(number for part in parts for number in part) == list(range(7))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


HEAD = {"CPU": 0.0, "memory": 1e9}
BOX = {"CPU": 8.0, "memory": 1e9}
TWO_GPUS = {"CPU": 12.0, "GPU": 2.0}


@pytest.mark.parametrize(
    ("nodes", "workers", "part"),
    [
        ([BOX], None, Part(1, 8, 0)),
        ([BOX], 2, Part(2, 4, 0)),
        ([HEAD, BOX, BOX], None, Part(2, 8, 0)),
        ([BOX, BOX], 3, Part(3, 4, 0)),  # a worker does not span machines: 16 / 3 would leave the third without a place
        ([HEAD, TWO_GPUS, TWO_GPUS], None, Part(4, 6, 1)),
        ([BOX, TWO_GPUS], None, Part(2, 6, 1)),  # where there are GPUs, nobody works without
        ([TWO_GPUS], 1, Part(1, 12, 1)),
        ([TWO_GPUS], 4, Part(4, 3, 0.5)),
    ],
)
def test_how_a_cluster_is_shared_out(nodes: Sequence[dict[str, float]], workers: int | None, part: Part) -> None:
    assert part_of_cluster(nodes, workers) == part


@pytest.mark.parametrize(
    ("nodes", "workers", "found"),
    [
        ([HEAD], None, "0 CPUs and 0 GPUs on 1 machine of the Ray cluster, no room for 1 worker with"),
        ([BOX, BOX], 17, "16 CPUs and 0 GPUs on 2 machines of the Ray cluster, no room for 17 workers"),
        ([{"CPU": 0.0, "GPU": 1.0}, BOX], None, "8 CPUs and 1 GPU on 2 machines of the Ray cluster, no room for 1"),
    ],
)
def test_a_cluster_without_room(nodes: Sequence[dict[str, float]], workers: int | None, found: str) -> None:
    with pytest.raises(UserError) as error:
        part_of_cluster(nodes, workers)
    assert str(error.value).startswith(f"labels.workers: found {found}")
