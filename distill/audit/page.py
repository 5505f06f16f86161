"""`audit.html`: one page that opens anywhere. No network, no script, every picture inside."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from distill.audit.columns import COLUMNS
from distill.audit.document import Document, Measured
from distill.audit.pictures import SHOWN, SHOWN_PAIRS
from distill.core.overlay import IGNORED_COLOR, class_colors
from distill.report import page, wording

__all__ = ["render"]

_FIGURE: Final = (180, 40)  # width and height of a histogram


def render(
    document: Document, pictures: Mapping[str, bytes], samples: Sequence[tuple[str, Sequence[tuple[str, str]]]]
) -> str:
    """Write the page; names, labels and paths are escaped, and a policy in it forbids to load or run anything.

    Args:
        document: of `audit.json`.
        pictures: JPEG by path.
        samples: title, and paths with captions.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader([Path(__file__).parent, Path(page.__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else wording.printable(value, keep="\n\t"),
    )
    environment.filters.update(percent=wording.percent, count=wording.count, digits=_digits, name=_file_name)
    html: str = environment.get_template("audit.html.j2").render(
        audit=document,
        verdict=_verdict(document),
        findings=document.findings,
        shown=SHOWN,
        shown_pairs=SHOWN_PAIRS,
        addresses={path: _address(data) for path, data in pictures.items()},
        samples=samples,
        histograms={name: _bars(measured) for name, measured in document.measures.items()},
        figure=_FIGURE,
        colours=[f"rgb({r},{g},{b})" for r, g, b in class_colors(len(document.classes)).tolist()],
        ignored=f"rgb{IGNORED_COLOR}",
        masks=any(facts.pixel_shares for facts in document.splits.values()),
        largest=max((n for facts in document.splits.values() for n in facts.by_class.values()), default=1) or 1,
        columns=COLUMNS,
    )
    return html


def _verdict(document: Document) -> str:
    """`2 errors, 1 warning, 3 notes`."""
    parts = []
    for level, number in document.levels.items():
        if number or level == "error":
            parts.append(f"{number or 'no'} {level}{'' if number == 1 else 's'}")
    return ", ".join(parts)


def _bars(measured: Measured) -> list[tuple[float, float, float, float]]:
    """x, y, width and height of each bar of all splits together."""
    totals = [sum(numbers) for numbers in zip(*measured.counts.values(), strict=True)]
    highest, width = max([*totals, 1]), _FIGURE[0] / max(len(totals), 1)
    bars = []
    for number, total in enumerate(totals):
        height = round((_FIGURE[1] - 2) * total / highest, 1)
        height = max(height, 1.0) if total else 0.0
        bars.append((round(number * width, 1), round(_FIGURE[1] - height, 1), round(width - 1, 1), height))
    return bars


def _digits(value: float) -> str:
    return f"{value:.3g}".replace("-", "\N{MINUS SIGN}")


def _file_name(path: str) -> str:
    """The last two parts: the folder often is the class."""
    return "/".join(Path(path).parts[-2:])


def _address(data: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()
