"""A benchmark document as a table for the terminal."""

from __future__ import annotations

from typing import Any

from rich.table import Table

__all__ = ["benchmark_table"]


def benchmark_table(document: dict[str, Any]) -> Table:
    """Rows of a benchmark, in the order of the document."""
    device = document["device"]
    table = Table(title=f"{device['model']}, {device['cores']} cores, batch 1", title_justify="left")
    for heading in ("file", "threads", "p50 ms", "p90", "p99", "load ms", "peak MB", "size MB", "parts", "accuracy"):
        table.add_column(heading, justify="left" if heading == "file" else "right", no_wrap=True)
    for row in document["rows"]:
        numbers = [row["p50_ms"], row["p90_ms"], row["p99_ms"], row["load_ms"]]
        table.add_row(
            row["name"],
            str(row["threads"]),
            *(f"{number:.2f}" for number in numbers),
            f"{row['peak_memory_mb']:.0f}",
            f"{row['bytes'] / 1e6:.2f}",
            "-" if row["partitions"] is None else str(row["partitions"]),
            f"{row['accuracy']:.3f}",
        )
    return table
