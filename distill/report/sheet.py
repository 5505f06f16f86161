"""A plain page: headings, sentences, tables and pictures in one file, for what is no report of a run."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from distill.core.files import write_text
from distill.report.wording import printable

__all__ = ["Section", "write_sheet"]


@dataclass(frozen=True)
class Section:
    """A part of the page; what is empty is not shown.

    Args:
        title: its heading.
        text: sentences, a paragraph each.
        headings: of the table's columns.
        rows: of the table, as text; the first column is a name, the others are figures.
        marked: numbers of the rows that are alarms.
        svg: a figure made by `distill.report.svg.inline`.
        picture: a PNG or JPEG.
        alt: what picture or figure shows, for those who do not see it.
    """

    title: str
    text: Sequence[str] = ()
    headings: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    marked: frozenset[int] = field(default_factory=frozenset)
    svg: str = ""
    picture: bytes = b""
    alt: str = ""


def write_sheet(path: Path, title: str, verdict: str, sections: Sequence[Section], *, bad: bool = False) -> None:
    """Write the page, atomically. Nothing is loaded from outside and no script runs; text is escaped.

    Args:
        path: of the HTML file.
        title: of the page.
        verdict: one sentence that says it all.
        sections: what follows.
        bad: whether the verdict is one.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else printable(value, keep="\n\t"),
    )
    html = environment.get_template("sheet.html.j2").render(
        title=title,
        verdict=verdict,
        bad=bad,
        sections=sections,
        markup=Markup,
        address=_address,
    )
    write_text(path, html)


def _address(image: bytes) -> str:
    kind = "png" if image.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"
