"""Matplotlib figures as SVG that belongs to the page: its font, its colours in light and dark, no reference outside."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ACCENT", "BAD", "FONT_SIZE", "INK", "LINE", "MUTED", "PAPER", "drawing", "inline"]

# Matplotlib knows no CSS variables, so figures are drawn in colours that nobody would choose, and each is replaced by
# the page's own where it stands in a style.
INK: Final = "#010101"
MUTED: Final = "#020202"
LINE: Final = "#030303"
ACCENT: Final = "#040404"
BAD: Final = "#050505"
PAPER: Final = "#060606"
_CSS = {INK: "--ink", MUTED: "--muted", LINE: "--line", ACCENT: "--accent", BAD: "--bad", PAPER: "--paper"}

FONT_SIZE: Final = 13.0

_SETTINGS: Final[Any] = {  # matplotlib types its keys since 3.11; as strings before
    "svg.fonttype": "none",  # real text: searchable, in the page's font, glyphs of any script
    "svg.hashsalt": "mobile-distill",  # same report, same bytes
    "text.parse_math": False,  # a class named `$1` is a name
    "figure.dpi": 72.0,  # one unit is one pixel at full size
    "font.size": FONT_SIZE,
    "axes.titlesize": FONT_SIZE,
    "axes.titlelocation": "left",
    "axes.titlecolor": MUTED,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.minor.size": 0.0,
    "ytick.major.size": 0.0,
    "ytick.minor.size": 0.0,
    "legend.frameon": False,
    "legend.labelcolor": INK,
}


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Draw with the page's settings, whatever the user's matplotlibrc says; what was set before returns afterwards."""
    import matplotlib as mpl

    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        # The browser draws the text; that matplotlib's font, used for measuring, lacks a script matters to nobody.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from", category=UserWarning)
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support", category=UserWarning)
        yield


def inline(figure: Figure, name: str, description: str) -> str:
    """The figure as an `<svg>` element to stand inside HTML.

    Args:
        figure: drawn inside `drawing()`.
        name: unique on the page; goes before every id.
        description: what the picture shows, for those who do not see it.
    """
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(stream.getvalue())  # noqa: S314 - matplotlib's own output
    for child in [c for c in root if c.tag.endswith("metadata") or c.find("{*}style") is not None]:
        root.remove(child)  # a licence form with addresses, and a style that would hold for the whole page
    for element in root.iter():
        element.tag = element.tag.partition("}")[2] or element.tag
        attributes = {key.partition("}")[2] or key: value for key, value in element.attrib.items()}
        if "style" in attributes:
            attributes["style"] = _restyled(attributes["style"])
        if "id" in attributes:
            attributes["id"] = f"{name}-{attributes['id']}"
        if "href" in attributes:
            attributes["href"] = attributes["href"].replace("#", f"#{name}-", 1)
        if "clip-path" in attributes:
            attributes["clip-path"] = attributes["clip-path"].replace("#", f"#{name}-", 1)
        element.attrib.clear()
        element.attrib.update(attributes)
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.attrib.update({"role": "img", "aria-label": description, "class": f"figure {name}"})
    return ElementTree.tostring(root, encoding="unicode")


def _restyled(style: str) -> str:
    style = re.sub(r"font-family: [^;]*;? ?", "", style)
    return re.sub(r"#0\d0\d0\d\b", lambda m: f"var({_CSS[m[0]]})" if m[0] in _CSS else m[0], style)
