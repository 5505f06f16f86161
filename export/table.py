"""A benchmark document, and the ways in which an int8 file was tried, as tables for the terminal."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table

from export.phone.table import phone_table

__all__ = ["benchmark_table", "instruction_table", "ladder_table"]


def benchmark_table(document: dict[str, Any]) -> Table:
    """Rows of a benchmark, in the order of the document."""
    if document["device"]["name"] == "adb":
        return phone_table(document)
    if "instructions" in document["rows"][0]:
        return instruction_table(document)
    device, score = document["device"], document["metric"]["title"]
    table = Table(
        title=f"{device['model']}, {device['cores']} cores, batch 1, milliseconds; score: {score}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for heading in ("file", "thr.", "p50 ms", "p90", "p99", "load", "MB used", "MB file", "parts", "score"):
        table.add_column(heading, justify="left" if heading == "file" else "right", no_wrap=heading == "file")
    for row in document["rows"]:
        numbers = [row["p50_ms"], row["p90_ms"], row["p99_ms"]]
        table.add_row(
            row["name"],
            str(row["threads"]),
            *(f"{number:.2f}" for number in numbers),
            f"{row['load_ms']:.0f}",
            f"{row['peak_memory_mb']:.0f}",
            f"{row['bytes'] / 1e6:.2f}",
            "-" if row["partitions"] is None else str(row["partitions"]),
            f"{row['score']:.3f}",
        )
    return table


def instruction_table(document: dict[str, Any]) -> Table:
    """Rows of an emulated device, which has no clock."""
    table = Table(
        title=f"{document['device']['model']}: instructions an inference, batch 1, one thread",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for heading in ("file", "core", "million", "spread", "answers", "MB file", "parts", "score"):
        left = heading in {"file", "core"}
        table.add_column(heading, justify="left" if left else "right", no_wrap=left)
    for row in document["rows"]:
        samples = row["samples"]
        table.add_row(
            row["name"],
            row["core"],
            f"{row['instructions'] / 1e6:.2f}",
            f"{(max(samples) - min(samples)) / row['instructions']:.1e}",
            "the same" if row["same_bytes"] else f"± {row['largest_difference']:.0e}",
            f"{row['bytes'] / 1e6:.2f}",
            "-" if row["partitions"] is None else str(row["partitions"]),
            f"{row['score']:.3f}",
        )
    table.caption = (
        "Instructions are no time: cores need different numbers of cycles for them, and waiting for memory is not in"
        " it. They compare files and versions of the runtime. answers: against this machine's, all bytes or the largest"
        " difference."
    )
    return table


def ladder_table(ladder: dict[str, Any], metric: dict[str, str]) -> Table:
    """A row for each way that was tried; the one that was kept is marked."""
    table = Table(
        title=f"int8, at most {ladder['limit']:g} {metric['title']} lost on validation",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for heading in ("", "rung", "MB", "time", "parts", "agrees", "lost", ""):
        table.add_column(heading, justify="left" if heading in {"", "rung"} else "right", overflow="fold")
    for row in ladder["rungs"]:
        drop, ratio = row["drop"], row["latency_ratio"]
        table.add_row(
            ">" if row["rung"] == ladder["chosen"] else "",
            f"{row['rung']} {row['title']}",
            f"{row['bytes'] / 1e6:.2f}",
            "-" if ratio is None else f"{ratio:.2f}",
            "-" if row["partitions"] is None else str(row["partitions"]),
            f"{row['agreement']:.3f}",
            f"{drop['value']:.3f} [{drop['low']:.3f}, {drop['high']:.3f}]",
            row["lacking"],
        )
    table.caption = "time: share of that of the float32 file; lost: with its paired 95 % interval"
    return table
