"""The comparison for people: tables on the terminal, a page, and learning curves on one picture."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.core.files import replacing, write_json
from distill.labels.about import figures_table
from distill.report.sheet import Section, write_sheet
from distill.report.wording import NOTHING, between, capitalized, count, megabytes, milliseconds, points, printable

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["describe", "draw_curves", "write"]

_LONGEST = 60  # characters of a value
_WIDTH, _HEIGHT, _DPI = 11.0, 4.2, 120  # inches and pixels an inch


def describe(document: Mapping[str, Any]) -> Iterator[RenderableType]:
    """For the terminal."""
    from rich.text import Text

    yield printable(_headline(document))
    table = figures_table("", *_headings(document))
    table.columns[0].justify = table.columns[1].justify = "left"
    for row in _rows(document):
        table.add_row(*(Text(printable(cell)) for cell in row))
    yield table
    for title, key in _PARTS.items():
        if not document[key]:
            yield f"{title}: no difference"
            continue
        table = figures_table(title, "key", *(printable(run["name"]) for run in document["runs"]))
        for column in table.columns:
            column.justify, column.overflow = "left", "fold"
        for cells in _differences(document, key):
            table.add_row(*(Text(printable(cell)) for cell in cells))
        yield table


def write(document: Mapping[str, Any], folder: Path) -> None:
    """Write compare.json, compare.html and curves.png into a folder."""
    names = [run["name"] for run in document["runs"]]
    draw_curves(document, folder / "curves.png")
    sections = [
        Section("Scores", [_headline(document)], _headings(document), list(_rows(document))),
        Section(
            "Learning curves",
            picture=(folder / "curves.png").read_bytes(),
            alt=f"loss and validation {document['metric']['title']} by epoch of {', '.join(names)}",
        ),
        *(
            Section(title, () if document[key] else ("no difference",), ("key", *names), _differences(document, key))
            for title, key in _PARTS.items()
        ),
    ]
    write_sheet(folder / "compare.html", "Runs compared", _verdict(document), sections)
    write_json(folder / "compare.json", document)


def draw_curves(document: Mapping[str, Any], path: Path) -> None:
    """Loss and validation metric by epoch, a colour a run; students solid, controls dashed. PNG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update({"text.parse_math": False, "axes.spines.top": False, "axes.spines.right": False})
        figure = Figure(figsize=(_WIDTH, _HEIGHT), dpi=_DPI, layout="constrained")
        parts = {
            "loss": ("mean loss of the epoch", 1.0),
            "validation_score": (f"validation {document['metric']['title']}, %", 100.0),
        }
        for axes, (key, (title, scale)) in zip(figure.subplots(1, 2), parts.items(), strict=True):
            for number, run in enumerate(document["runs"]):
                for predictor, style in (("student", "-"), ("control", "--")):
                    own = (c for c in document["curves"] if (c["run"], c["predictor"]) == (run["name"], predictor))
                    lines = [line for line in own if key in line]  # older logs have other columns
                    axes.plot(
                        [line["epoch"] for line in lines],
                        [scale * line[key] for line in lines],
                        style,
                        color=f"C{number % 10}",
                        marker=".",
                        label=printable(f"{run['name']} {predictor}"),
                    )
            axes.set(title=title, xlabel="epoch")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png")


_PARTS = {"Settings that differ": "settings", "Data that differ": "data", "Environment that differs": "environment"}


def _headline(document: Mapping[str, Any]) -> str:
    each = ", ".join(f"{name} has {count(n)}" for name, n in document["images_of_each"].items())
    other = document["other_truth"]
    left_out = f"; {count(other)} more have other truth and were left out" if other else ""
    return (
        f"{count(document['images'])} {document['split']} images that all runs share ({each}{left_out}); differences"
        f" from {document['runs'][0]['name']}, paired by image, with 95 % intervals"
    )


def _verdict(document: Mapping[str, Any]) -> str:
    """What can be said of the students."""
    said = []
    first = document["runs"][0]["name"]
    for row in document["rows"]:
        gap = row["difference"]
        if row["predictor"] == "student" and gap:
            word = "better than" if gap["low"] > 0 else "worse than" if gap["high"] < 0 else "not told apart from"
            said.append(f"{row['run']} is {word} {first} ({points(gap['value'], signed=True)} points, {between(gap)})")
    return "Students: " + "; ".join(said)


def _headings(document: Mapping[str, Any]) -> list[str]:
    metric = capitalized(document["metric"]["title"])
    return ["", "run", f"{metric}, %\n95 % interval", "difference, points\n95 % interval", "MB", "p50 ms\n1 thread"]


def _rows(document: Mapping[str, Any]) -> Iterator[list[str]]:
    before = ""
    for row in document["rows"]:
        gap, score = row["difference"], row["score"]
        yield [
            row["predictor"] if row["predictor"] != before else "",
            row["run"],
            f"{points(score['value'])} ({between(score)})",
            f"{points(gap['value'], signed=True)} ({between(gap)})" if gap else NOTHING,
            megabytes(row["bytes"]),
            milliseconds(row["p50_ms"]),
        ]
        before = row["predictor"]


def _differences(document: Mapping[str, Any], part: str) -> list[list[str]]:
    return [[row["key"], *map(_value, row["values"].values())] for row in document[part]]


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else NOTHING if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
