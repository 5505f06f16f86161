"""A search for people: its trials, the best first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from distill.labels.about import figures_table
from distill.report.wording import NOTHING, duration, points, printable

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["describe"]

_SHOWN = 10


def describe(document: Mapping[str, Any]) -> Iterator[RenderableType]:
    """For the terminal."""
    from rich.text import Text

    rows = sorted(document["trials"], key=lambda row: (row["score"] is None, -(row["score"] or 0), row["trial"]))
    keys = list(dict.fromkeys(key for row in rows for key in row["settings"]))
    table = figures_table(
        f"Trials, the best first ({len(rows)} in all)",
        "trial",
        f"validation {document['metric']['title']}, %",
        *(key.rpartition(".")[2] for key in keys),
        "time",
    )
    for row in rows[:_SHOWN]:
        cells = [
            str(row["trial"]),
            row["state"] if row["score"] is None else points(row["score"]),
            *(str(row["settings"].get(key, NOTHING)) for key in keys),
            NOTHING if row["seconds"] is None else duration(row["seconds"]),
        ]
        table.add_row(*(Text(printable(cell)) for cell in cells))
    yield table
    if document["best"] is None:
        yield "no trial has finished"
        return
    yield (
        f"best: trial {document['best']['trial']}. Validation chose it among others, so its score flatters; the test"
        " set has the last word:"
    )
    yield f"distill run {printable(document['recipe'])}"
