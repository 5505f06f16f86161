"""Does each classic bug make its check fire, and does none fire where all is well?

A check that never fires is worth nothing, one that fires on healthy runs is switched off by the second user. So both
are counted: every bug of `tests/sanity/planted.py`, one at a time, in a small run whose teacher knows the answers; and
ten healthy runs, every check, both tasks, several students, losses and seeds.

    python benchmarks/planted_bugs.py [--healthy 10]

The healthy runs take most of the time (several minutes on two cores). Last line of stdout: one JSON object with the
keys `caught`, `bugs`, `false_alarms`, `healthy_checks` and `healthy_runs`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # the bugs are those of the tests
from distill.sanity import suite
from tests.sanity import places
from tests.sanity.planted import BUGS

QUICK = [check.name for check in suite.CHECKS if check.quick]
HEALTHY: tuple[tuple[str, bool, tuple[str, ...]], ...] = (
    ("classification", True, ("seed=0",)),
    ("classification", True, ("seed=1", "student.timm=mobilenetv4_conv_small", "train.loss=dkd")),
    ("classification", True, ("seed=2", "student.timm=mobilenetv2_035", "train.loss=js", "train.color=0.3")),
    ("classification", False, ("seed=3", "student.timm=mobilenetv2_050", "student.drop_rate=0.2")),
    ("classification", True, ("seed=4", "train.loss=dist", "train.label_smoothing=0", "student.image_size=48")),
    ("classification", True, ("seed=5", "student.timm=efficientnet_lite0", "train.loss=hard", "train.mixup=0.4")),
    ("segmentation", True, ("seed=6",)),
    ("segmentation", False, ("seed=7", "train.extra={dice: 1.0}")),
    ("segmentation", True, ("seed=8", "student.smp=deeplabv3plus", "train.temperature=2", "train.color=0.2")),
    ("segmentation", True, ("seed=9", "student.encoder=mobilenetv4_conv_small", "train.target_stride=4")),
)
"""Task, whether the student learns from stored answers, changes of the config."""


def main() -> None:
    """Plant, look, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--healthy", type=int, default=len(HEALTHY), help="healthy runs to look at")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        configs = {task: places.prepare(folder, task) for task in places.CONFIGS}
        caught = _planted(folder, configs)
        alarms = _healthy(folder, configs, options.healthy)
    print(json.dumps({"bugs": len(BUGS), "caught": caught, **alarms}))


def _planted(folder: Path, configs: dict[str, Path]) -> int:
    works = {task: places.asked(path) for task, path in configs.items()}
    caught = 0
    print("| bug | task | check that is there for it | what it saw | quick checks that fired, too |")
    print("|---|---|---|---|---|")
    for bug in BUGS:
        with pytest.MonkeyPatch.context() as patch:
            bug.plant(patch)
            settings = works[bug.task].config.train.model_copy(update=bug.train)
            subject = places.looked_at(works[bug.task], folder / "scratch", stored=bug.stored, train=settings)
            results, _ = suite.examine(subject, quick=False, names=[*QUICK, bug.check])
        fired = {result.name: result for result in results if result.status == "failed"}
        found = fired.pop(bug.check, None)
        caught += found is not None
        saw = "**not caught**" if found is None else _cell(found.saw.replace(f"{folder}/", ""))
        print(f"| {bug.name} | {bug.task} | {bug.check} | {saw} | {', '.join(fired)} |", flush=True)
    return caught


def _healthy(folder: Path, configs: dict[str, Path], count: int) -> dict[str, Any]:
    alarms, checks = [], 0
    print("\n| healthy run | passed | skipped | failed | quick checks, s | all, s |")
    print("|---|---|---|---|---|---|")
    for number, (task, stored, changes) in enumerate(HEALTHY[:count]):
        work = places.asked(configs[task], *changes)
        subject = places.looked_at(work, folder / f"healthy-{number}", stored=stored)
        start = time.monotonic()
        results, _ = suite.examine(subject, quick=False)
        seconds = time.monotonic() - start
        failed = [f"{result.name}: {result.saw}" for result in results if result.status == "failed"]
        alarms += failed
        checks += sum(result.status != "skipped" for result in results)
        counts = [sum(result.status == status for result in results) for status in ("passed", "skipped")]
        quick = sum(result.seconds for result in results if result.name in QUICK)
        name = f"{task}, {'stored answers' if stored else 'truth'}, {', '.join(changes)}"
        shown = _cell("; ".join(failed)) or "none"
        print(f"| {name} | {counts[0]} | {counts[1]} | {shown} | {quick:.2f} | {seconds:.1f} |", flush=True)
    print()
    return {"healthy_runs": min(count, len(HEALTHY)), "healthy_checks": checks, "false_alarms": alarms}


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    main()
