"""The table for the terminal."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from distill.report.table import comparison_table


def printed(report: dict[str, Any], width: int = 100) -> list[str]:
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(comparison_table(report))
    return stream.getvalue().splitlines()


def test_every_row_on_one_line_of_100_characters(report: dict[str, Any]) -> None:
    report["rows"][0]["name"] = "a-name-that-is-much-too-long-for-a-column-of-a-table"
    lines = printed(report)
    assert max(map(len, lines)) <= 100
    shown = [line.split() for line in lines if " to " in line]
    assert [line[0] for line in shown[1:]] == [row["name"] for row in report["rows"]][1:]
    int8 = next(line for line in lines if "tflite-int8" in line)
    assert " ".join(int8.split()) == "tflite-int8 0.56 69.8 (65.3 to 74.3) 0.2 (\N{MINUS SIGN}0.5 to 1.0) 1.24 1"
    assert not any("…" in line for line in lines if "a-name" not in line)


@pytest.mark.parametrize("width", [60, 80])
def test_narrow_terminal_loses_no_number(report: dict[str, Any], width: int) -> None:
    text = "\n".join(printed(report, width))
    for number in ("9.15", "75.6", "71.1", "80.1", "0.2", "21.4"):
        assert number in text


def test_rejected_and_absent_rows_say_why(report: dict[str, Any]) -> None:
    report["rows"][1].update(status="absent", reason="baseline: false", score=None, bytes=None)
    report["rows"][7].update(status="rejected", reason="largest difference 0.41, allowed 0.1", latency=None, drop=None)
    text = "\n".join(line.rstrip() for line in printed(report))
    assert "control absent: baseline: false" in text
    assert "onnx-int8 rejected: largest difference 0.41, allowed 0.1" in text


def test_names_steer_neither_rich_nor_the_terminal(report: dict[str, Any]) -> None:
    report["rows"][3].update(name="[bold]x[/]\x1b[31m", status="rejected", reason="[/red]\x1b]0;title\x07")
    text = "\n".join(printed(report))
    assert "[bold]x[/]\N{REPLACEMENT CHARACTER}[31m" in text
    assert "[/red]\N{REPLACEMENT CHARACTER}]0;title" in text
    assert "\x1b" not in text


def test_column_is_named_by_split_and_metric(report: dict[str, Any]) -> None:
    report.update(split="validation", metric={"key": "miou", "title": "mIoU"})
    lines = printed(report)
    assert "validation mIoU, %" in " ".join(lines[0:2])
    assert max(map(len, lines)) <= 100
