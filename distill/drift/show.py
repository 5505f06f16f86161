"""Saying what `gather` found: on the terminal, as drift.json and drift.html, as a list and a contact sheet."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from distill.core.files import replacing, write_json
from distill.core.types import ImageRecord
from distill.data.batches import ImageCache
from distill.data.views import fixed_view, render
from distill.drift.gather import Found
from distill.labels.about import figures_table
from distill.labels.contact import GREY, INK, RED, Line, Tile, save
from distill.labels.dump import harmless
from distill.report.sheet import Section, write_sheet
from distill.report.wording import NOTHING, count, decimal, percent, points, printable

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["describe", "verdict", "write"]

_SIDE = 160  # pixels of a picture of the contact sheet
_COLUMNS = 6
_CAVEAT = (
    "The tests take images for independent. Near-copies were set aside, but photos of one scene, one film or one day"
    " are still more alike than others: an alarm then says that scenes or days are others, and no more."
)


def verdict(document: dict[str, Any]) -> str:
    """One sentence."""
    moved = [row["name"] for row in document["tests"] if row["alarm"]]
    limit = percent(document["false_alarms"], 0 if document["false_alarms"] * 100 % 1 == 0 else 1)
    if not moved:
        return f"no alarm: no test tells the new images from the reference (chance of a false alarm at most {limit})"
    changed = [f"{row['name']} {row['change']}" for row in document["classes"] or () if row["change"]]
    classes = f"; classes: {', '.join(changed)}" if changed and {"rarer", "more frequent"} & set(moved) else ""
    return f"the images have moved: {', '.join(moved)}{classes} (chance of a false alarm at most {limit})"


def describe(document: dict[str, Any], folder: Path) -> Iterator[RenderableType]:
    """For the terminal."""
    from rich.text import Text

    for line in _facts(document):
        yield printable(line)
    table = figures_table("Tests", "test", "p", "adjusted p", "median then", "now", "")
    table.columns[0].justify = "left"
    for row in _test_rows(document):
        table.add_row(*(Text(cell) for cell in row), style="red" if row[-1] else "")
    yield table
    if document["classes"]:
        table = figures_table("Classes, estimated share in %", "class", "then", "now", "")
        for row in _class_rows(document):
            table.add_row(*(Text(printable(cell)) for cell in row))
        yield table
    yield from map(printable, _notes(document))
    if not document["alarm"]:  # the command ends with the others
        yield Text(verdict(document), style="bold")
    for name in ("drift.html", "drift.json", "teach.csv", "teach.png"):
        yield f"{name.partition('.')[0]}: {folder / name}"


def write(found: Found, folder: Path) -> None:
    """Write drift.json, drift.html, teach.csv and teach.png into a folder."""
    document = found.document
    _write_list(found.chosen, folder / "teach.csv")
    _draw(found, folder / "teach.png")
    sections = [
        Section(
            "Tests",
            [
                *_facts(document),
                "A test is an alarm where its p-value, adjusted by Holm, is at most the limit.",
                _CAVEAT,
            ],
            ("", "p", "adjusted p", "median then", "now", ""),
            _test_rows(document),
            frozenset(n for n, row in enumerate(document["tests"]) if row["alarm"]),
        ),
        Section(
            "Classes",
            _notes(document),
            ("class", "then, %", "now, %", ""),
            _class_rows(document),
            frozenset(n for n, row in enumerate(document["classes"] or ()) if row["change"]),
        ),
        Section(
            "What would teach most",
            ["Hard images that differ from each other and from the reference; teach.csv lists them."],
            picture=(folder / "teach.png").read_bytes(),
            alt="contact sheet of the images that would teach most",
        ),
    ]
    title = f"{document['run']}: have the images moved?"
    write_sheet(folder / "drift.html", title, verdict(document), sections, bad=document["alarm"])
    write_json(folder / "drift.json", document)


def _facts(document: dict[str, Any]) -> list[str]:
    new, reference = document["new"], document["reference"]
    lines = [
        f"{count(new['images'])} new images ({count(new['tested'])} tested, {count(new['copies'])} set aside as copies)"
        f" against {count(reference['tested'])} of {count(reference['images'])} from: {reference['what']}"
    ]
    if new["of_the_run"]:
        lines.append(f"{count(new['of_the_run'])} files are images of the run itself and were left out")
    lines += [f"left out: {number} x {reason}" for reason, number in new["left_out"].items()]
    if not any(row["name"] == "features" for row in document["tests"]):
        lines.append("the student was brought from elsewhere: its features were not compared")
    return lines


def _notes(document: dict[str, Any]) -> list[str]:
    far, teacher, names = document["far"], document["teacher"], {r["name"] for r in document["tests"] if r["alarm"]}
    lines = [
        f"{count(far['images'])} of {count(document['new']['images'])} new images ({percent(far['share'])}) lie farther"
        f" from the reference than {percent(1 - far['expected'], 0)} of its own: there a new kind of thing would be"
    ]
    if document["classes"] is None:
        lines.append("shares of classes were not estimated: the student does not tell them apart well enough")
    elif names - {"rarer", "more frequent", "confidence", "features"}:
        lines.append("shares of classes are estimated as if each class still looked as it did, and the images do not")
    if teacher is not None:
        was, is_ = teacher["agreement_before"], teacher["agreement_now"]
        lines.append(
            f"teacher and student agree on {percent(is_['value'])} [{points(is_['low'])}, {points(is_['high'])}] of"
            f" {count(teacher['images_now'])} new images, then {percent(was['value'])} [{points(was['low'])},"
            f" {points(was['high'])}]"
        )
        lines += [
            f"teacher {pair['teacher']}, student {pair['student']}: {pair['images']} images"
            for pair in teacher["pairs"][:5]
        ]
    return lines


def _test_rows(document: dict[str, Any]) -> list[list[str]]:
    return [
        [
            row["title"],
            decimal(row["p"], 4),
            decimal(row["adjusted_p"], 4),
            *(NOTHING if row[key] is None else decimal(row[key]) for key in ("median_before", "median_now")),
            "alarm" if row["alarm"] else "",
        ]
        for row in document["tests"]
    ]


def _class_rows(document: dict[str, Any]) -> list[list[str]]:
    return [
        [
            row["name"],
            *(f"{points(v)} [{points(low)}, {points(high)}]" for v, low, high in (row["before"], row["now"])),
            row["change"],
        ]
        for row in document["classes"] or ()
    ]


def _write_list(chosen: Sequence[tuple[ImageRecord, dict[str, Any]]], path: Path) -> None:
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["rank", "path", *(chosen[0][1] if chosen else ())])
        for rank, (record, facts) in enumerate(chosen, start=1):
            cells = [f"{v:.4f}" if isinstance(v, float) else harmless(str(v)) for v in facts.values()]
            writer.writerow([rank, harmless(record.path), *cells])


def _draw(found: Found, path: Path) -> None:
    data = found.config.data
    cache = ImageCache(data.max_megapixels)

    def tiles() -> Iterator[Tile]:
        for record, facts in found.chosen:
            seen = render(cache.get(record), fixed_view(record.width, record.height, data.resize), _SIDE)
            yield Tile(Image.fromarray(seen), tuple(_caption(record, facts)))

    save(tiles(), path, count=len(found.chosen), width=_SIDE, height=_SIDE, lines=3, columns=_COLUMNS)


def _caption(record: ImageRecord, facts: dict[str, Any]) -> Iterator[Line]:
    yield f"{percent(facts['confidence'], 0)}  {facts['student']}", INK
    if "teacher" in facts:
        yield f"teacher: {facts['teacher']}", INK if facts["teacher"] == facts["student"] else RED
    yield Path(record.path).name, GREY
