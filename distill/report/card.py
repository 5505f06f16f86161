"""`report.md`: a model card (Mitchell et al. 2019, arXiv 1810.03993) from the numbers of `report.json`, and no others.

What the tool cannot know, such as what the model is for, is a line that asks for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from distill.data.groups import SMALL
from distill.report import wording

__all__ = ["render"]

_SPECIAL: Final = re.compile(r"([\\`*_{}\[\]<>#|!~&])")
_FILTERS: Final = {
    "capitalized": wording.capitalized,
    "percent": wording.percent,
    "megabytes": wording.megabytes,
    "ms": wording.milliseconds,
    "count": wording.count,
    "duration": wording.duration,
    "trimmed": wording.trimmed,
}


class _Written(str):
    """Markdown that stays as it is."""

    __slots__ = ()


def render(report: Mapping[str, Any]) -> str:
    """Write the card: CommonMark with GitHub's tables.

    Names, labels and paths come from files that anybody may have made: whatever would be markup or HTML is escaped.

    Args:
        report: the document of `report.json`.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(  # noqa: S701 - no HTML; every value is escaped for Markdown below
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_escaped,
    )
    environment.filters.update(_FILTERS, estimate=_estimate, lost=_lost, code=_code, bound=_bound, gate=wording.gate)
    sizes = report["profile"]["sizes"] if report["class_scores"] is None else {}
    text: str = environment.get_template("card.md.j2").render(
        report=report,
        metric=report["metric"]["title"],
        split=report["split"],
        rows=[row for row in report["rows"] if row["status"] == "ok"],
        student=next(row for row in report["rows"] if row["name"] == "student"),
        teacher=next(row for row in report["rows"] if row["name"] == "teacher"),
        small_groups=[row for row in (report["groups"] or {"rows": ()})["rows"] if row["small"]],
        small_classes=[(name, count) for name, count in sizes.items() if count < SMALL],
        least=SMALL,
        images="images" if report["class_scores"] is None else "pixels",
        nothing=wording.NOTHING,
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def _escaped(value: Any) -> str:
    if isinstance(value, _Written):
        return value
    return _SPECIAL.sub(r"\\\1", re.sub(r"\s+", " ", wording.printable(value, keep="\n\t")))


def _code(value: Any) -> _Written:
    """In the typeface of programs; inside it nothing is markup, but a pipe would end a cell."""
    return _Written(f"`{' '.join(wording.printable(value).split()).replace('`', chr(39)).replace('|', chr(92) + '|')}`")


def _estimate(score: Mapping[str, Any] | None) -> str:
    """`70.7 % (66.1 to 74.9)`, or without the bounds where none are known."""
    if not score or score["value"] is None:
        return wording.NOTHING
    known = f" ({wording.between(score)})" if score["low"] is not None else ""
    return f"{wording.percent(score['value'])}{known}"


def _lost(drop: Mapping[str, float] | None) -> str:
    return f"{wording.points(drop['value'])} ({wording.between(drop)})" if drop else wording.NOTHING


def _bound(gate: Mapping[str, Any]) -> str:
    """`0.7012, at least 0.65, at the lower end of the 95 % interval, n = 85`."""
    limit, found = wording.compared(gate["limit"], gate["found"])
    return f"{found}, {gate['relation']} {limit}{', ' if gate['detail'] else ''}{gate['detail']}"
