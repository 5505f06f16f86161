"""What was measured on a phone, as a table for the terminal."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

__all__ = ["phone_table"]

_HEADINGS = ("file", "run by", "cores", "thr.", "p50 ms", "p90", "p99", "load", "MB used", "parts", "score")
_WORDS = 3  # headings whose cells are words


def phone_table(document: dict[str, Any]) -> Table:
    """Rows of a benchmark on a phone, in its order, with every remark below.

    Args:
        document: see `export.bench.benchmark`.
    """
    device = document["device"]
    about = [
        device["model"],
        f"Android {device['android']}",
        device["soc"] or "SoC unknown",
        f"{device['cores']} cores",
    ]
    table = Table(
        title=Text(f"{', '.join(about)}; batch 1, milliseconds; score: {document['metric']['title']}"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption_justify="left",
        caption_style="",
    )
    for place, heading in enumerate(_HEADINGS):
        table.add_column(heading, justify="left" if place < _WORDS else "right", overflow="fold")
    remarks = [f"* {_title(row)}: {remark}" for row in document["rows"] for remark in row["remarks"]]
    for row in document["rows"]:
        memory, parts = row["peak_memory_mb"], row["partitions"]
        table.add_row(
            Text(row["name"] + (" *" if row["remarks"] else "")),
            Text(row["way"]),
            Text(row["cores"]),
            str(row["threads"]),
            f"{row['p50_ms']:.2f}" if row["p50_ms"] is not None else f"mean {row['mean_ms']:.2f}",
            *("-" if row[key] is None else f"{row[key]:.2f}" for key in ("p90_ms", "p99_ms")),
            f"{row['load_ms']:.0f}",
            "-" if memory is None else f"{memory:.0f}",
            "-" if parts is None else str(parts),
            f"{row['score']:.3f}",
        )
    answers = {(row["name"], row["way"]): row["answers"] for row in document["rows"] if row["answers"]}
    for (name, way), found in answers.items():
        same = "bit for bit" if found["bit_equal"] else f"within {found['max_difference']:.2g}"
        remarks.append(f"{name}, {way}: answers as here, {same}, over {found['images']} images")
    remarks += [f"not timed: {each['name']}, {each['way']}: {each['reason']}" for each in device["failures"]]
    table.caption = Text("\n".join(remarks)) if remarks else None
    return table


def _title(row: dict[str, Any]) -> str:
    return f"{row['name']}, {row['way']}, {row['threads']} thr., cores {row['cores']}"
