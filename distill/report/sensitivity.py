"""One small picture a perturbation: the score from level to level, with a line a predictor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from distill.report.svg import ACCENT, INK, drawing, inline
from distill.report.wording import printable, trimmed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MARGINS", "look", "sensitivity_curves"]

_WIDTH, _HEIGHT = 330, 190  # pixels at full size: three fill the page, one a phone
_LEFT, _RIGHT = 34, 4

MARGINS: Final = {"left": _LEFT / _WIDTH, "right": _RIGHT / _WIDTH}
"""Shares of the width beside the axes: the photos stand under them, each below its level."""

_LOOKS: Final[dict[str, Any]] = {
    "teacher": {"color": INK, "linestyle": (0, (1, 2)), "linewidth": 1.4},
    "student": {"color": INK, "linestyle": (0, (5, 3)), "linewidth": 1.4},
    "file": {"color": ACCENT, "linestyle": "-", "linewidth": 2.0},
}


def look(name: str) -> str:
    """How the line of a predictor is drawn: as that of the teacher, the student, or of a file."""
    return name if name in _LOOKS else "file"


def sensitivity_curves(kinds: Sequence[Mapping[str, Any]]) -> list[str]:
    """A picture for each perturbation, all on one scale.

    Args:
        kinds: of `report.json`'s `perturbation`.
    """
    scores = [score for kind in kinds for one in kind["series"] for score in one["scores"]]
    bottom, top = 100 * min(s["low"] for s in scores), 100 * max(s["high"] for s in scores)
    limits = max(bottom - 3, -1.0), min(top + 3, 101.0)
    return [_curve(number, kind, limits) for number, kind in enumerate(kinds)]


def _curve(number: int, kind: Mapping[str, Any], limits: tuple[float, float]) -> str:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with drawing():
        figure = Figure(figsize=(_WIDTH / 72, _HEIGHT / 72))
        FigureCanvasAgg(figure)
        left, right = MARGINS["left"], MARGINS["right"]
        axes = figure.add_axes((left, 22 / _HEIGHT, 1 - left - right, 1 - 30 / _HEIGHT))
        levels = kind["levels"]
        for one in kind["series"]:
            _line(axes, look(one["name"]), one["scores"])
        axes.set(xlim=(-0.5, len(levels) - 0.5), ylim=limits)
        axes.set_xticks(range(len(levels)), ["as it is" if level is None else trimmed(level) for level in levels])
        axes.tick_params(axis="x", length=0)
        ends = ", ".join(
            f"{printable(one['name'])} {100 * one['scores'][0]['value']:.0f} to {100 * one['scores'][-1]['value']:.0f}"
            for one in kind["series"]
        )
        return inline(figure, f"worse-{number}", f"Score in percent by level of {printable(kind['name'])}: {ends}")


def _line(axes: Axes, how: str, scores: Sequence[Mapping[str, float]]) -> None:
    places = list(range(len(scores)))
    axes.plot(places, [100 * s["value"] for s in scores], marker="o", markersize=4, **_LOOKS[how])
    if how == "file":  # the others' intervals are as wide, and three bands would be a blur
        low, high = ([100 * s[end] for s in scores] for end in ("low", "high"))
        axes.fill_between(places, low, high, color=ACCENT, alpha=0.13, linewidth=0)
