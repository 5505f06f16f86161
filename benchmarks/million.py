"""Opening, sampling and summarising a run of 1,000,000 images: the manifest and the label store.

A manifest row is some 200 bytes as columns (the hash, 64, and the path make most of it) and ten times that as objects
with their strings, so records are made when they are asked for. The label store is mapped: what is read of it counts as
memory here, though the system may take it back at any time.

The run is synthetic, written by the writers that the stages use, without one photo. All is then done in a fresh
process. The peak is that of the whole process so far, so a step that adds nothing needed no more than those before.

    python benchmarks/million.py [--images 1000000 --views 4 --classes 100]

Last line of stdout: one JSON object with the keys `seconds`, `cpu_seconds` and `peak_mb`, of everything but the making.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from distill.core.memory import peak_bytes
from distill.core.run import Run
from distill.data.candidate import Candidate
from distill.data.manifest import Entry, Manifest
from distill.data.views import ViewPlan
from distill.labels import stat
from distill.labels.shards import shard_path
from distill.labels.store import Shard, finish, images_a_shard, write_shard

_READS = 10_000
_AT_ONCE = 64  # views of a training step
_WIDTH, _HEIGHT = 640, 480


def main() -> None:
    """Make the run, then look at it from another process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--views", type=int, default=4, help="of an image")
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--look-at", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.look_at is not None:
        print(json.dumps(list(_look(options.look_at))))
        return
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "run"
        start = time.perf_counter()
        peak = _make(folder, options.images, options.views, options.classes)
        made: dict[str, Any] = {"what": "made (not counted)", "seconds": time.perf_counter() - start, "peak_mb": peak}
        made["cpu_seconds"] = time.process_time()
        sizes = {part: _mb_of(folder / part) for part in ("data", "labels")}
        found = subprocess.run(
            [sys.executable, __file__, "--look-at", str(folder)], stdout=subprocess.PIPE, check=True, text=True
        )
    steps = json.loads(found.stdout.splitlines()[-1])
    table = Table(
        "step", "s", "processor, s", "peak so far, MB", title=f"{options.images:,} images, {options.views} views each"
    )
    for step in (made, *steps):
        table.add_row(step["what"], f"{step['seconds']:.2f}", f"{step['cpu_seconds']:.2f}", f"{step['peak_mb']:,.0f}")
    Console().print(table)
    Console().print(f"manifest {sizes['data']:.0f} MB, label store {sizes['labels']:.0f} MB on disk")
    total = {key: round(sum(step[key] for step in steps), 2) for key in ("seconds", "cpu_seconds")}
    total["peak_mb"] = round(max(step["peak_mb"] for step in steps))
    print(json.dumps({**total, "steps": steps, "mb_on_disk": sizes, "images": options.images, "views": options.views}))


def _make(folder: Path, images: int, views: int, classes: int) -> float:
    """A run whose stages `data` and `labels` are done; peak memory in MB."""
    run = Run.create(folder)
    rng = np.random.default_rng(0)
    names = [f"class{number:03d}" for number in range(classes)]
    run.begin("data", "made")
    manifest = Manifest(list(_entries(images, names, rng)), names)
    manifest.save(run.folder("data") / "manifest.parquet")
    run.finish("data", "made", 0.0, {**manifest.counts(), "digest": manifest.digest()})
    run.begin("labels", "made")
    _write_store(run.folder("labels"), [r.id for r in manifest.of("train")], views, names, rng)
    run.finish("labels", "made", 0.0, {})
    return _peak_mb()


def _entries(images: int, names: list[str], rng: np.random.Generator) -> Iterator[Entry]:
    """Nine in ten to train on, one in ten of them labelled; some cannot be used."""
    for number in range(images):
        label = names[number % len(names)]
        origin = ("test", "validation", "labeled")[number % 20] if number % 20 < 3 else "unlabeled"
        split = {"test": "test", "validation": "validation"}.get(origin, "train")
        path = f"/photos/of/a/large/collection/{origin}/{number // 1000:06d}/{number:012d}.jpg"
        known = label if origin != "unlabeled" else None
        found = Candidate(path, origin, known, False, None, 100_000 + number, 1_700_000_000_000_000_000 + number)  # type: ignore[arg-type]
        if number % 1000 == 999:
            yield Entry(found, "", 0, 0, None, "not an image that Pillow can read")
        else:
            yield Entry(found, rng.bytes(32).hex(), _WIDTH, _HEIGHT, split, "")  # type: ignore[arg-type]


def _write_store(folder: Path, ids: list[str], views: int, names: list[str], rng: np.random.Generator) -> None:
    """A store whose answers repeat from shard to shard; its images do not."""
    a_shard = images_a_shard(views)
    plan = ViewPlan("center_crop", 0.4, True, 0.2, 0)
    drawn = [plan.stored(ids[0], index, _WIDTH, _HEIGHT) for index in range(views)] * a_shard
    answers = rng.dirichlet(np.full(len(names), 0.05), size=a_shard * views).astype(np.float32)
    full = Shard.of(ids[:a_shard], drawn, answers, 10)
    shards = [ids[at : at + a_shard] for at in range(0, len(ids), a_shard)]
    for number, part in enumerate(shards):
        rows = slice(0, len(part) * views)
        values = (full.views[rows], full.ids[rows], full.probabilities[rows], full.tail[rows], full.entropy[rows])
        write_shard(shard_path(folder, number), Shard(part, *values), len(names), "made")
    facts = {"classes": len(names), "views": views, "top_k": full.ids.shape[1], "images": len(ids)}
    said = {"teacher": {"name": "none", "image_size": 224, "digest": "0" * 64}, "precision": "float32", "batch_size": 1}
    facts |= {"shards": len(shards), "fingerprint": "made", "class_names": names, "view_plan": {}}
    finish(folder, {**facts, **said})


def _look(folder: Path) -> Iterator[dict[str, Any]]:
    """All steps in order, each with its time and the peak so far."""
    run, rng = Run(folder), np.random.default_rng(1)
    kept: dict[str, Any] = {}

    def step(what: str, work: Callable[[], Any]) -> dict[str, Any]:
        start, processor = time.perf_counter(), time.process_time()
        kept[what] = work()
        seconds, processor = time.perf_counter() - start, time.process_time() - processor
        return {"what": what, "seconds": seconds, "cpu_seconds": processor, "peak_mb": _peak_mb()}

    def sample() -> int:
        manifest, drawn = kept["manifest opened"], 0
        for split in ("train", "validation", "test"):
            records = manifest.of(split)
            drawn += sum(records[place].width for place in rng.integers(0, len(records), _READS).tolist())
        return drawn

    def views() -> None:
        store = kept["label store opened"].store
        places, indices = rng.integers(0, store.images, _READS), rng.integers(0, store.views, _READS)
        for at in range(0, _READS, _AT_ONCE):
            store.read(places[at : at + _AT_ONCE], indices[at : at + _AT_ONCE])

    yield {"what": "Python and imports", "seconds": 0.0, "cpu_seconds": time.process_time(), "peak_mb": _peak_mb()}
    yield step("manifest opened", lambda: Manifest.load(run.folder("data") / "manifest.parquet"))
    yield step(f"{_READS:,} records drawn of each split", sample)
    yield step("manifest counted by split and class", kept["manifest opened"].counts)
    yield step("manifest's digest", kept["manifest opened"].digest)
    yield step("every record seen once", lambda: sum(r.width for r in kept["manifest opened"].records))
    kept.pop("manifest opened")
    yield step("label store opened", lambda: stat.open_labels(run))
    yield step(f"{_READS:,} views read, {_AT_ONCE} at a time", views)
    yield step("`distill labels stat`", lambda: stat.gather(kept["label store opened"], {}))


def _peak_mb() -> float:
    return peak_bytes() / 1e6


def _mb_of(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


if __name__ == "__main__":
    main()
