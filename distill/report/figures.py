"""The pictures of the report: what a score costs in time, how training went, which classes are taken for which."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from distill.report.point_names import Box, PointName, place_names
from distill.report.svg import ACCENT, BAD, INK, LINE, MUTED, PAPER, drawing, inline
from distill.report.wording import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["confusion_matrix", "loss_curves", "reliability", "score_against_latency", "validation_curves"]

_WIDTH, _HEIGHT = 440, 370  # pixels at full size; narrow, so that text stays readable when a phone shrinks it
_LARGEST, _SMALLEST = 34.0, 5.0  # diameters of markers, in pixels
_NAMED_CLASSES = 24  # more names than this run into each other
_COUNTED_CLASSES = 16
_LEAST_SHARE = 0.005  # of a row of pixels: less is drawn as nothing, or every cell would have a colour

# A stage keeps its look in both training pictures; the student alone carries the accent.
_STAGES: Final[dict[str, tuple[str, str, str]]] = {
    "teacher": ("teacher", INK, ":"),
    "student": ("student", ACCENT, "-"),
    "baseline": ("control", MUTED, "--"),
}
_LEGEND_COLUMNS, _LEGEND_ROW = 3, 19

# No file, no time of its own: these stand as lines across the picture, as what to reach and what to beat.
_REFERENCES: Final = ("teacher", "student", "control")


class _Point(NamedTuple):
    name: str
    runtime: str
    size: int | None
    latency_ms: float
    score: Mapping[str, float]


def score_against_latency(rows: Sequence[Mapping[str, Any]], title: str) -> str | None:
    """Scores over p50 latency at one thread, the area of a marker proportional to the file.

    Teacher, student and control that were scored but not timed are drawn as lines across. None if nothing is timed.

    Args:
        rows: of the report.
        title: split and metric, such as `test mIoU`.
    """
    points = [p for p in map(_point, rows) if p is not None]
    if not points:
        return None
    timed = {p.name for p in points}
    lines = [r for r in rows if r["name"] in _REFERENCES and r["name"] not in timed and r["score"] is not None]
    with drawing():
        figure, axes = _axes(_WIDTH, _HEIGHT, left=36, bottom=46, top=30)
        _scale(axes, points, lines, title)
        axes.set_xlabel("p50 latency at 1 thread, ms an image")
        for row in lines:
            axes.axhline(100 * row["score"]["value"], color=MUTED, linewidth=1.2, linestyle=(0, (5, 3)), zorder=2)
        largest = max((p.size or 0 for p in points), default=0)
        labels = []
        for point in points:
            diameter = _diameter(point.size, largest)
            _mark(axes, point, diameter)
            x, y = axes.transData.transform((point.latency_ms, 100 * point.score["value"]))
            labels.append(PointName(_short(point.name), float(x), float(y), diameter / 2, _colour(point)))
        for row in lines:
            y = axes.transData.transform((points[0].latency_ms, 100 * row["score"]["value"]))[1]
            labels.append(PointName(_short(row["name"]), None, float(y), 0.0, MUTED))
        frame = axes.get_window_extent()
        across = [Box(frame.x0, label.y - 1, frame.x1, label.y + 1) for label in labels if label.x is None]
        place_names(figure, axes, labels, [*across, *(_bar(axes, point) for point in points)])
        return inline(figure, "latency", f"{title} against latency; the numbers are in the comparison table")


def loss_curves(curves: Sequence[Mapping[str, Any]]) -> str | None:
    """Mean training loss by epoch, one line a stage; None without epochs."""
    return _curves(curves, "loss", 1.0, "mean loss of the epoch", "loss", "Training loss by epoch")


def validation_curves(curves: Sequence[Mapping[str, Any]], title: str) -> str | None:
    """The metric on validation by epoch, one line a stage, the epoch that was kept marked; None without epochs."""
    return _curves(
        curves, "validation_score", 100.0, f"validation {title}, %", "validation", f"Validation {title} by epoch"
    )


def confusion_matrix(classes: Sequence[str], counts: Sequence[Sequence[int]], *, in_percent: bool) -> str:
    """Answers by truth: right ones in the accent, wrong ones in red, darker for a larger share of a row.

    Args:
        classes: C names.
        counts: [truth][answer], of images or of pixels.
        in_percent: write shares of a row instead of counts, which are millions where pixels are counted.
    """
    from matplotlib.patches import Rectangle

    number = len(classes)
    named, counted = number <= _NAMED_CLASSES, number <= _COUNTED_CLASSES
    names = [_short(c, 12) for c in classes]
    margin = min(100, 14 + 15 * max(map(len, names), default=0) // 2) if named else 20
    across = (_WIDTH - margin - 14) / max(number, 1)  # pixels a class; a letter takes about 7
    steep = number > 6 or any(3.5 * len(a + b) + 4 > across for a, b in pairwise(names))
    with drawing():
        top, right = (margin + 12, 60) if steep else (46, 14)
        figure, axes = _axes(_WIDTH, _WIDTH - 40, left=margin, bottom=10, top=top, right=right)
        axes.grid(visible=False)
        for row, line in enumerate(counts):
            total = sum(line)
            for column, value in enumerate(line):
                if not value:  # thousands of classes leave most cells empty, and a page that still opens
                    continue
                share = value / total
                if in_percent and share < _LEAST_SHARE:
                    continue
                colour = ACCENT if row == column else BAD
                axes.add_patch(Rectangle((column, row), 1, 1, facecolor=colour, alpha=0.08 + 0.5 * share, linewidth=0))
                if counted:
                    said = f"{100 * share:.0f}" if in_percent else str(value)
                    axes.text(column + 0.5, row + 0.5, said, ha="center", va="center_baseline")
        axes.set(xlim=(0, number), ylim=(number, 0))
        for place in range(number + 1) if named else (0, number):
            axes.axhline(place, color=LINE, linewidth=0.8)
            axes.axvline(place, color=LINE, linewidth=0.8)
        middles = [i + 0.5 for i in range(number)] if named else []
        shown = names if named else []
        axes.set_xticks(middles, shown)
        if steep:
            axes.tick_params(axis="x", labelrotation=45)
            for text in axes.get_xticklabels():
                text.set(ha="left", rotation_mode="anchor")
        axes.set_yticks(middles, shown)
        axes.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
        axes.spines["bottom"].set_visible(False)
        axes.set_title(
            f"answer across, truth down{', %' * in_percent}", y=1.0, pad=max(margin - 10, 26) if steep else 26
        )
        return inline(figure, "confusion", f"Confusion matrix of {number} classes, truth down, answers across")


def reliability(bins: Sequence[tuple[float, float, float]]) -> str:
    """Share of right answers over confidence, the area of a dot proportional to the share of all answers.

    Args:
        bins: mean confidence, share of right answers, share of all answers; all 0..1.
    """
    with drawing():
        figure, axes = _axes(_WIDTH, _HEIGHT, left=44, bottom=46, top=14)
        axes.plot([0, 100], [0, 100], color=LINE, linewidth=1.2, zorder=1)
        for sure, right, share in bins:
            diameter = max(_SMALLEST, _LARGEST * math.sqrt(share))
            colour = BAD if right < sure - 0.1 else ACCENT
            axes.plot(100 * sure, 100 * right, "o", markersize=diameter, color=colour, alpha=0.8, markeredgewidth=0)
        axes.set_xlim(0, 103)
        axes.set_ylim(0, 103)
        axes.set_xlabel("confidence, %")
        axes.set_ylabel("right, %")
        return inline(figure, "reliability", "share of right answers over confidence")


def _curves(
    curves: Sequence[Mapping[str, Any]], key: str, scale: float, title: str, name: str, description: str
) -> str | None:
    if not curves:
        return None
    from matplotlib.ticker import MaxNLocator

    stages = list(dict.fromkeys(line["stage"] for line in curves))
    more = _LEGEND_ROW * (-(-len(stages) // _LEGEND_COLUMNS) - 1)  # pixels for further rows of the legend
    with drawing():
        figure, axes = _axes(_WIDTH, 280 + more, left=44, bottom=44, top=52 + more)
        for number, stage in enumerate(stages):
            lines = [line for line in curves if line["stage"] == stage]
            label, colour, style = _look(stage, number)
            epochs, values = [line["epoch"] for line in lines], [scale * line[key] for line in lines]
            # Without the underscore's meaning of "no entry in the legend" for a hostile name.
            axes.plot(epochs, values, color=colour, linestyle=style, linewidth=2, label=label.lstrip("_") or "?")
            kept = max(range(len(lines)), key=lambda i: (lines[i]["validation_score"], -lines[i]["validation_nll"]))
            axes.plot(epochs[kept], values[kept], "o", color=colour, markersize=7, markeredgecolor=PAPER)
        axes.set_xlabel("epoch")
        axes.set_title(title, pad=26 + more)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.legend(
            loc="lower left", bbox_to_anchor=(-0.02, 0.985), ncols=_LEGEND_COLUMNS, borderaxespad=0.0, handlelength=2.2
        )
        return inline(figure, name, description)


def _look(stage: str, number: int) -> tuple[str, str, Any]:
    """Name, colour and line of a stage; the dots of an ensemble's members lie further and further apart."""
    teacher, _, member = stage.partition(" ")
    if teacher == "teacher" and member:
        return _short(member, 16), INK, (0, (1, 1 + number))
    return _STAGES.get(stage, (_short(stage), MUTED, "-."))


def _axes(width: int, height: int, *, left: int, bottom: int, top: int = 52, right: int = 14) -> tuple[Figure, Axes]:
    """A figure of `width` x `height` pixels with one system of axes, margins in pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 72, height / 72))
    FigureCanvasAgg(figure)  # measures text
    extent = (left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height)
    return figure, figure.add_axes(extent)


def _point(row: Mapping[str, Any]) -> _Point | None:
    single = next((timing for timing in row["latency"] or () if timing["threads"] == 1), None)
    if single is None or row["score"] is None:
        return None
    return _Point(row["name"], row["runtime"], row["bytes"], max(single["p50_ms"], 1e-3), row["score"])


def _scale(axes: Axes, points: Sequence[_Point], lines: Sequence[Mapping[str, Any]], title: str) -> None:
    """Limits that leave room for labels; a logarithmic axis where times differ much."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

    times = [p.latency_ms for p in points]
    low, high = min(times), max(times)
    if high > 4 * low:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.8, high * 1.8)
        decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
        axes.xaxis.set_major_locator(FixedLocator([m * 10.0**d for d in decades for m in (1, 2, 5)]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(0, 1.35 * high)
    scores = [p.score for p in points] + [r["score"] for r in lines]
    bottom, top = 100 * min(s["low"] for s in scores), 100 * max(s["high"] for s in scores)
    room = max(0.12 * (top - bottom), 0.5)
    axes.set_ylim(max(bottom - room, -1.0), min(top + room, 101.0))
    axes.set_title(f"{title}, %, with its 95 % interval", pad=10)


def _mark(axes: Axes, point: _Point, diameter: float) -> None:
    """Filled for files that ship, with the accent for LiteRT; a ring for what runs in PyTorch."""
    colour = _colour(point)
    x, low, middle, high = (point.latency_ms, *(100 * point.score[k] for k in ("low", "value", "high")))
    axes.plot([x, x], [low, high], color=colour, linewidth=1.2, alpha=0.55, zorder=3)
    face: Any = "none" if point.runtime == "PyTorch" else (colour, 0.35)
    axes.plot(x, middle, "o", markersize=diameter, markerfacecolor=face, markeredgecolor=colour, zorder=4)


def _colour(point: _Point) -> str:
    return {"LiteRT": ACCENT, "PyTorch": INK}.get(point.runtime, MUTED)


def _bar(axes: Axes, point: _Point) -> Box:
    """Where the interval of a point is drawn, in pixels."""
    (x, low), (_, high) = axes.transData.transform(
        [(point.latency_ms, 100 * point.score["low"]), (point.latency_ms, 100 * point.score["high"])]
    )
    return Box(x - 1, low, x + 1, high)


def _diameter(size: int | None, largest: int) -> float:
    return max(_SMALLEST, _LARGEST * math.sqrt(size / largest)) if size and largest else _SMALLEST


def _short(name: str, length: int = 24) -> str:
    text = printable(name)
    return text if len(text) <= length else text[: length - 1] + "…"
