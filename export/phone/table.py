"""What was measured on a phone, as a table for the terminal."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

__all__ = ["phone_table"]

_HEADINGS = ("file", "in", "cores", "thr.", "p50 ms", "p90", "p99", "load", "MB used", "parts", "score")
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
        words = place < _WORDS
        table.add_column(heading, justify="left" if words else "right", no_wrap=words, overflow="fold")
    noted = list(dict.fromkeys(remark for row in document["rows"] for remark in row["remarks"]))
    remarks = [f"*{number} {remark}" for number, remark in enumerate(noted, 1)]
    for row in document["rows"]:
        memory, parts = row["peak_memory_mb"], row["partitions"]
        table.add_row(
            Text(" ".join([row["name"], *(f"*{noted.index(remark) + 1}" for remark in row["remarks"])])),
            Text("app" if row["way"] == "app" else "shell"),  # the binary's name would take a sixth of the line
            Text(row["cores"]),
            str(row["threads"]),
            f"{row['p50_ms']:.2f}" if row["p50_ms"] is not None else f"~{row['mean_ms']:.2f}",
            *("-" if row[key] is None else f"{row[key]:.2f}" for key in ("p90_ms", "p99_ms")),
            f"{row['load_ms']:.0f}",
            "-" if memory is None else f"{memory:.0f}",
            "-" if parts is None else str(parts),
            f"{row['score']:.3f}",
        )
    if any(row["p50_ms"] is None for row in document["rows"]):
        remarks.append("~ a mean: this benchmark_model tells no median")
    answers = {(row["name"], row["way"]): row["answers"] for row in document["rows"] if row["answers"]}
    for (name, way), found in answers.items():
        same = "bit for bit" if found["bit_equal"] else f"within {found['max_difference']:.2g}"
        remarks.append(f"{name}, {way}: answers as here, {same}, over {found['images']} images")
    remarks += [f"not timed: {each['name']}, {each['way']}: {each['reason']}" for each in device["failures"]]
    table.caption = Text("\n".join(remarks)) if remarks else None
    return table
