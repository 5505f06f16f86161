"""`--dry-run` says what a run will take, writes nothing, and is right in what can be counted."""

from __future__ import annotations

import re
from pathlib import Path

from distill.config_file import load_config
from distill.core.run import Run
from distill.data import sources
from distill.estimate import Estimate, estimate
from tests.workplace import Workplace


def estimated(place: Workplace, *changes: str) -> dict[str, Estimate]:
    config = load_config(place.root / "teacher.yaml", [*changes, f"output={place.root / 'runs/teacher'}"])
    return estimate(config, sources.find(config.data))


def test_dry_run_estimates_every_stage_and_writes_nothing(workplace: Workplace) -> None:
    before = sorted(workplace.root.iterdir())
    output = workplace.run("run", "teacher.yaml", "--dry-run")
    for stage in ("data", "teacher", "labels", "student", "baseline", "export", "benchmark", "report"):
        assert re.search(rf"{stage} .* \d+ (s|min) ", output), output
    assert re.search(r"about \d+ (s|min) on this machine", output)
    assert sorted(workplace.root.iterdir()) == before


def test_what_is_done_costs_nothing(finished: Workplace) -> None:
    output = finished.run("run", "teacher.yaml", "--dry-run", "--set", "export.calibration_images=17")
    rows = {line.split()[1]: line for line in output.splitlines() if line.startswith("│")}
    assert not re.search(r"\d+ s", rows["labels"]) and "done" in rows["labels"]
    assert re.search(r"\d+ s", rows["export"])
    nothing = finished.run("run", "teacher.yaml", "--dry-run")
    assert "about" not in nothing


def test_time_grows_with_the_work(workplace: Workplace) -> None:
    found, more = (
        estimated(workplace),
        estimated(workplace, "train.epochs=40", "labels.views=160", "student.timm=mobilenetv2_035"),
    )
    assert more["labels"].basis == "52,800 views" and found["labels"].basis == "5,280 views"
    assert more["labels"].disk > 9 * found["labels"].disk
    assert more["student"].seconds > 3 * found["student"].seconds
    assert all(e.memory > 50_000_000 for e in found.values())


def test_the_disk_of_the_labels_is_what_they_take(workplace: Workplace, finished: Workplace) -> None:
    folder = Run(finished.root / "runs/teacher").folder("labels")
    taken = sum(path.stat().st_size for path in Path(folder).glob("*.arrow"))
    assert abs(estimated(workplace)["labels"].disk / taken - 1) < 0.1
