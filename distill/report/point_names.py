"""Names beside the points of a picture, placed so that they cover neither each other nor the points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from distill.report.svg import FONT_SIZE, MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Box", "PointName", "place", "place_names"]

_SWEEPS = 4  # each label again, now that the others stand; more sweeps moved nothing in the reports we have
_GAP = 4.0
_REACH: Final = (0.0, 10.0, 24.0, 42.0, 64.0)  # pixels between a point and its label beyond the gap
_DIRECTIONS = 16
_BROWSER = 1.06  # the page's font is not the one measured here


class PointName(NamedTuple):
    """A text and the point it names, in pixels from the lower left corner.

    Args:
        text: one line.
        x: of the point; None for a line across the whole picture.
        y: of the point.
        radius: of the marker.
        colour: of the text.
    """

    text: str
    x: float | None
    y: float
    radius: float
    colour: str


class Box(NamedTuple):
    """A rectangle in pixels."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """Common area in square pixels."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(width, 0.0) * max(height, 0.0)

    @property
    def area(self) -> float:
        """In square pixels."""
        return (self.right - self.left) * (self.top - self.bottom)


def place_names(figure: Figure, axes: Axes, labels: Sequence[PointName], obstacles: Sequence[Box]) -> None:
    """Write each label near its point; one that had to stand apart gets a thin line to it.

    Args:
        figure: drawn at 72 dots an inch.
        axes: its only axes, with limits set.
        labels: what to write.
        obstacles: lines, crossed only if need be.
    """
    frame = Box(*axes.get_window_extent().extents)
    sizes = []
    for label in labels:
        text = figure.text(0, 0, label.text)
        extent = text.get_window_extent()
        sizes.append((extent.width * _BROWSER, FONT_SIZE * 1.15))
        text.remove()
    boxes = place(labels, sizes, frame, obstacles)
    width, height = figure.get_size_inches() * figure.dpi
    for label, box in zip(labels, boxes, strict=True):
        middle = (box.left + box.right) / 2, (box.bottom + box.top) / 2
        if label.x is not None and (_distance(label, box) > _GAP + 2 * _REACH[1] or _doubtful(label, box, labels)):
            near = min(max(label.x, box.left), box.right), min(max(label.y, box.bottom), box.top)
            ends = axes.transData.inverted().transform([(label.x, label.y), near])
            axes.plot(ends[:, 0], ends[:, 1], color=MUTED, linewidth=0.7, zorder=2.5)
        x, y = middle[0] / width, middle[1] / height
        figure.text(x, y, label.text, ha="center", va="center_baseline", color=label.colour)


def place(
    labels: Sequence[PointName], sizes: Sequence[tuple[float, float]], frame: Box, obstacles: Sequence[Box]
) -> list[Box]:
    """Choose a box for each label: inside the frame, off other names and markers, close to its point."""
    chosen: dict[int, Box] = {}
    for _ in range(_SWEEPS):
        for number, (label, size) in enumerate(zip(labels, sizes, strict=True)):
            others = [box for place, box in chosen.items() if place != number]
            boxes = _candidates(label, size, frame)
            costs = [_cost(box, label, frame, others, labels, obstacles) for box in boxes]
            chosen[number] = boxes[costs.index(min(costs))]
    return [chosen[number] for number in range(len(labels))]


def _cost(
    box: Box, label: PointName, frame: Box, others: Sequence[Box], labels: Sequence[PointName], obstacles: Sequence[Box]
) -> float:
    outside = box.area - box.overlap(frame)
    crowd = sum(map(box.overlap, others))
    covered = sum(map(box.overlap, map(_marker, labels)))
    crossed = sum(map(box.overlap, obstacles))
    return (
        50 * outside
        + 20 * crowd
        + 5 * covered
        + crossed / 2
        + 30 * _doubtful(label, box, labels)
        + _distance(label, box)
    )


def _candidates(label: PointName, size: tuple[float, float], frame: Box) -> list[Box]:
    width, height = size
    if label.x is None:
        steps = 12
        lefts = [frame.right - width - 2 - i * (frame.right - frame.left - width - 4) / steps for i in range(steps + 1)]
        return [Box(x, y, x + width, y + height) for x in lefts for y in (label.y + 2, label.y - height - 2)]
    boxes = []
    for reach in _REACH:
        away = label.radius + _GAP + reach
        for turn in range(_DIRECTIONS):
            angle = 2 * math.pi * turn / _DIRECTIONS
            x = label.x + math.cos(angle) * (away + width / 2)
            y = label.y + math.sin(angle) * (away + height / 2)
            boxes.append(Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2))
    return boxes


def _marker(label: PointName) -> Box:
    """What a point covers; nothing for a line."""
    x, r = (0.0, 0.0) if label.x is None else (label.x, label.radius)
    return Box(x - r, label.y - r, x + r, label.y + r) if r else Box(0.0, 0.0, 0.0, 0.0)


def _doubtful(label: PointName, box: Box, labels: Sequence[PointName]) -> bool:
    """Whether another point is about as near to the text as its own."""
    if label.x is None:
        return False
    near = _distance(label, box) + _GAP
    return any(_distance(other, box) < near for other in labels if other.x is not None and other is not label)


def _distance(label: PointName, box: Box) -> float:
    """From the edge of the marker to the nearest edge of its name."""
    across = 0.0 if label.x is None else max(box.left - label.x, label.x - box.right, 0.0)
    return math.hypot(across, max(box.bottom - label.y, label.y - box.top, 0.0)) - label.radius
