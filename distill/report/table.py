"""The comparison for the terminal: the rows of the page, the columns that fit 100 characters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from distill.report.wording import NOTHING, between, megabytes, milliseconds, points, printable

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["comparison_table"]


def comparison_table(report: Mapping[str, Any]) -> Table:
    """One line a row of the report, for `Console.print`.

    Args:
        report: the document of `report.json`.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    scored = printable(f"{report['split']} {report['metric']['title']}")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, caption_justify="left", caption_style="")
    # Where it is narrow, names are cut and numbers are wrapped: a number without its last digits is another number.
    table.add_column("", overflow="ellipsis", no_wrap=True, max_width=26)
    for title in ("MB", f"{scored}, %\n95 % interval", "drop, points\n95 % interval", "p50 ms\n1 thread"):
        table.add_column(title, justify="right", overflow="fold")
    table.add_column("parti-\ntions", justify="right")
    remarks = []
    for row in report["rows"]:
        score, drop = row["score"], row["drop"]
        single = next((timing for timing in row["latency"] or () if timing["threads"] == 1), None)
        bad = row["status"] == "rejected"
        # Text, not str: brackets in a name would be markup.
        table.add_row(
            Text(printable(row["name"]), style="red" if bad else ""),
            megabytes(row["bytes"]),
            f"{points(score['value'])} ({between(score)})" if score else NOTHING,
            f"{points(drop['value'])} ({between(drop)})" if drop else NOTHING,
            milliseconds(single["p50_ms"] if single else None),
            NOTHING if row["partitions"] is None else str(row["partitions"]),
        )
        if row["status"] != "ok":
            remark = f"{row['name']} {row['status']}" + (f": {row['reason']}" if row["reason"] else "")
            remarks.append(Text(printable(remark), style="red" if bad else "dim"))
    if remarks:
        table.caption = Text("\n").join(remarks)
    return table
