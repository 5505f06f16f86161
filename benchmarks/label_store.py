"""Opening and reading a label store of a million views.

Opening maps the shards and reads their descriptions; a checksum is compared when a shard is first touched, so 10,000
random reads over 245 shards pay for all of them once: 60 MB at 1 GB/s. A read is a binary search over 8 bytes an image
and some slices of the mapped file.

    python benchmarks/label_store.py [--views 16 --classes 1000]

Last line of stdout: one JSON object with the keys `bytes_per_view`, `open_s` and `random_reads_s`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from distill.data.views import ViewPlan
from distill.labels.shards import shard_path
from distill.labels.store import LabelStore, Shard, finish, images_a_shard, write_shard

_VIEWS = 1_000_000
_READS = 10_000


def main() -> None:
    """Write a store, then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=int, default=16, help="of an image")
    parser.add_argument("--classes", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        images = _write(folder, options.views, options.classes)
        start = time.perf_counter()
        store = LabelStore(folder)
        open_s = time.perf_counter() - start
        rng = np.random.default_rng(1)
        places, indices = rng.integers(0, images, _READS), rng.integers(0, options.views, _READS)
        start = time.perf_counter()
        for place, index in zip(places, indices, strict=True):
            store.read(np.array([place]), np.array([index]))
        one_by_one_s = time.perf_counter() - start
        start = time.perf_counter()
        store.read(places, indices)
        at_once_s = time.perf_counter() - start
        size = store.bytes_on_disk / len(store)
        table = Table(
            "views", "classes", "bytes a view", "opening, s", f"{_READS:,} random reads, s", "the same in one, s"
        )
        row = (f"{len(store):,}", str(options.classes), f"{size:.1f}", f"{open_s:.3f}", f"{one_by_one_s:.3f}")
        table.add_row(*row, f"{at_once_s:.3f}")
    Console().print(table)
    found = {"bytes_per_view": round(size, 2), "open_s": round(open_s, 4), "random_reads_s": round(one_by_one_s, 4)}
    print(json.dumps({**found, "views": images * options.views, "settings": vars(options)}))


def _write(folder: Path, views: int, classes: int) -> int:
    """A store of a million views; its answers repeat from shard to shard, its images do not."""
    images, a_shard = _VIEWS // views, images_a_shard(views)
    rng = np.random.default_rng(0)
    ids = sorted(rng.bytes(32).hex() for _ in range(images))
    plan = ViewPlan("center_crop", 0.4, True, 0.2, 0)
    drawn = [plan.stored(ids[0], index, 640, 480) for index in range(views)] * a_shard
    answers = rng.dirichlet(np.full(classes, 0.05), size=a_shard * views).astype(np.float32)
    full = Shard.of(ids[:a_shard], drawn, answers, 10)
    shards = [ids[at : at + a_shard] for at in range(0, images, a_shard)]
    for number, part in enumerate(shards):
        rows = slice(0, len(part) * views)
        values = (full.views[rows], full.ids[rows], full.probabilities[rows], full.tail[rows], full.entropy[rows])
        write_shard(shard_path(folder, number), Shard(part, *values), classes, "benchmark")
    facts = {"classes": classes, "views": views, "top_k": 10, "images": images, "shards": len(shards)}
    finish(folder, {**facts, "fingerprint": "benchmark"})
    return images


if __name__ == "__main__":
    main()
