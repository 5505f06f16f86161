"""What each stage takes for 1, 4 and 16 times the images: processor time, peak memory, and how they grow.

Each stage is `distill run --until STAGE` in a process of its own, on synthetic images of 64 px with tiny networks, so
that what is done for each image is the stage's own work and not the networks'. The stage `data` alone, which does least
for an image, gets `--more` times as many.

- Time is processor time of the process and all that it starts, which compute with one thread each, since threads that
  wait for one another count as working. Of `--rounds`, in which all sizes take turns, the least counts: whatever else
  runs on the machine only adds to it.
- A stage has a fixed cost (imports, building networks, converting a file), which 24 images show nearly alone. So the
  exponent is k of the curve t = fixed + each * n ** k that comes nearest to all four times. Where less than a quarter
  of the longest is more than the shortest, the stage hardly grows, the curve would be noise, and the exponent is the
  plain log4(t16 / t4).
- Memory is the largest resident set of any one process. Its exponent is the plain log4(m16 / m4): 0 is flat.

    python benchmarks/scaling.py [--task classification|segmentation] [--images 250] [--more 8] [--rounds 2]

Last line of stdout: one JSON object; `stages` has `name`, `time_exponent` and `memory_exponent` of each.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from _tiny import CONFIGS, write_images
from rich.console import Console
from rich.table import Table

from distill.pipeline import STAGES

_FACTORS = (1, 4, 16)
_FEWEST = 24
_SIDE = 64
_SHARES = {"labeled": 0.25, "validation": 0.125, "test": 0.125, "unlabeled": 0.5}
_GROWS = 0.25  # of the time for most images, behind what is fixed


class Cost(NamedTuple):
    """Of one process and what it started."""

    cpu_s: float
    wall_s: float
    peak_mb: float


def main() -> None:
    """Measure, then fit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=sorted(CONFIGS), default="classification")
    parser.add_argument("--images", type=int, default=250, help="at 1x")
    parser.add_argument("--more", type=int, default=8, help="times as many for the stage data alone")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    sizes = [_FEWEST, *(factor * options.images for factor in _FACTORS)]
    counts = dict.fromkeys(STAGES, sizes) | {"data": [_FEWEST, *(size * options.more for size in sizes[1:])]}

    def measured(place: int) -> dict[str, Cost]:
        with tempfile.TemporaryDirectory() as root:
            found = _stages(Path(root), options.task, sizes[place], STAGES)
        with tempfile.TemporaryDirectory() as root:
            found |= _stages(Path(root), options.task, counts["data"][place], STAGES[:1])
        return found

    rounds = [[measured(place) for place in range(len(sizes))] for _ in range(options.rounds)]
    costs = {
        stage: [
            Cost(*map(min, zip(*(each[place][stage] for each in rounds), strict=True))) for place in range(len(sizes))
        ]
        for stage in STAGES
    }
    table = Table("stage", "images", "processor time, s", "exponent", "peak memory, MB", "exponent")
    rows = []
    for stage in STAGES:
        time_exponent = exponent(counts[stage], [cost.cpu_s for cost in costs[stage]])
        memory_exponent = math.log(costs[stage][-1].peak_mb / costs[stage][-2].peak_mb, 4)
        cells = [" / ".join(f"{value:{how}}" for value in values) for values, how in (
            (counts[stage], "d"), ([c.cpu_s for c in costs[stage]], ".1f"), ([c.peak_mb for c in costs[stage]], ".0f"),
        )]  # fmt: skip
        table.add_row(stage, *cells[:2], f"{time_exponent:.2f}", cells[2], f"{memory_exponent:.2f}")
        rows.append(
            {
                "name": stage,
                "time_exponent": round(time_exponent, 3),
                "memory_exponent": round(memory_exponent, 3),
                "images": counts[stage],
                "cpu_s": [round(cost.cpu_s, 2) for cost in costs[stage]],
                "wall_s": [round(cost.wall_s, 2) for cost in costs[stage]],
                "peak_mb": [round(cost.peak_mb) for cost in costs[stage]],
            }
        )
    Console(width=140).print(table)
    print(json.dumps({"stages": rows, "task": options.task}))


def exponent(images: list[int], seconds: list[float]) -> float:
    """How time grows: k of the fixed + each * images ** k that comes nearest to what was measured."""
    if seconds[-1] - seconds[0] < _GROWS * seconds[-1]:
        return math.log(seconds[-1] / seconds[-2], images[-1] / images[-2])
    tried = np.arange(0.05, 3.0, 0.01)
    columns = [np.stack([np.ones(len(images)), (np.array(images) / images[-1]) ** k], axis=1) for k in tried]
    misses = [np.linalg.lstsq(column, np.array(seconds), rcond=None)[1].sum() for column in columns]
    return float(tried[int(np.argmin(misses))])


def _stages(place: Path, task: str, images: int, stages: tuple[str, ...]) -> dict[str, Cost]:
    """What each of these stages costs, one after another in one run folder."""
    counts = {part: max(6, round(share * images)) for part, share in _SHARES.items()}
    write_images(place / "images", task, counts, _SIDE)
    (place / "teacher.yaml").write_text(CONFIGS[task])
    costs = {}
    for stage in stages:
        costs[stage] = _cost(place, stage)
        print(f"{images} images, {stage}: {costs[stage]}", file=sys.stderr, flush=True)
    return costs


def _cost(place: Path, stage: str) -> Cost:
    start = time.monotonic()
    with (place / "log.txt").open("ab") as log:
        command = [sys.executable, "-m", "distill", "run", "teacher.yaml", "--until", stage]
        alone = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, cwd=place, stdout=log, stderr=log, start_new_session=True, env=alone)
    _, status, used = os.wait4(process.pid, 0)  # with all that it waited for
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(
            f"{stage} ended with exit code {process.returncode}:\n{(place / 'log.txt').read_text()[-3000:]}"
        )
    unit = 1e6 if sys.platform == "darwin" else 1e3
    return Cost(used.ru_utime + used.ru_stime, time.monotonic() - start, used.ru_maxrss / unit)


if __name__ == "__main__":
    main()
