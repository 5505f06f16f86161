"""`metrics.jsonl` after kills and resumes."""

from __future__ import annotations

import json
from pathlib import Path

from distill.core.metrics_log import MetricsLog


def test_a_resumed_training_replaces_its_own_later_epochs_only(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    assert log.read() == []
    for stage in ("teacher", "student"):
        for epoch in (1, 2, 3):
            log.add(stage, epoch, {"loss": epoch / 8})
    log.keep("student", 1)
    log.add("student", 2, {"loss": 9.0})
    assert [(line["stage"], line["epoch"], line["loss"]) for line in log.read()] == [
        ("teacher", 1, 0.125),
        ("teacher", 2, 0.25),
        ("teacher", 3, 0.375),
        ("student", 1, 0.125),
        ("student", 2, 9.0),
    ]
    log.keep("teacher", 0)
    assert [line["stage"] for line in log.read()] == ["student", "student"]


def test_a_line_that_a_kill_left_half_written_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    log.add("student", 1, {"loss": 1.5})
    with path.open("a") as stream:
        stream.write('{"stage": "student", "epo')
    assert [line["epoch"] for line in log.read()] == [1]
    log.keep("student", 1)
    log.add("student", 2, {"loss": 1.0})
    assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [1, 2]
