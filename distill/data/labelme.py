"""LabelMe JSON: shapes of one image, in a file of the same name beside it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from distill.data.candidate import MaskError
from distill.data.drawing import Drawing, Shape, polygon, read_json, shown, size_of, take

__all__ = ["BACKGROUND", "is_labelme", "read_labelme"]

BACKGROUND = "_background_"
"""LabelMe's own name of what no shape covers."""

_IGNORED = "__ignore__"  # LabelMe's own name too
_LARGEST_ERROR = 0.05  # pixels between a circle and the polygon that stands for it
_LARGEST_RADIUS = 200_000  # pixels; three times the largest side of an image


def is_labelme(document: Any) -> bool:
    """Whether a JSON document looks like one of LabelMe."""
    return isinstance(document, dict) and isinstance(document.get("shapes"), list)


def read_labelme(path: str) -> Drawing:
    """The shapes of the image: polygons, rectangles and circles.

    Raises:
        MaskError: all mistakes of the file.
    """
    document = read_json(path)
    if not is_labelme(document):
        raise MaskError("expected the list shapes, as LabelMe has it")
    try:
        width, height = size_of(document, "imageWidth", "imageHeight")
    except MaskError as error:
        raise MaskError(str(error).removeprefix(".")) from None
    problems: list[str] = []
    shapes: list[Shape] = []
    for number, entry in enumerate(document["shapes"]):
        try:
            shapes.append(_shape(entry, f"shapes[{number}]"))
        except MaskError as error:
            problems.append(f"shapes[{number}]{error}")
    if problems:
        raise MaskError("; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else ""))
    return Drawing(width, height, tuple(shapes))


def _shape(entry: Any, where: str) -> Shape:
    label = take(entry, "label", str, "text")
    if not label:
        raise MaskError(".label: found no text, expected a class")
    kind = entry.get("shape_type") or "polygon"  # older files have no other
    points = take(entry, "points", list, "points")
    if kind not in ("polygon", "rectangle", "circle"):
        raise MaskError(f".shape_type: found {shown(kind)}, expected polygon, rectangle or circle")
    corners = points if kind == "polygon" else _corners(points, kind)
    return Shape(None if label == _IGNORED else label, (polygon(corners, ".points"),), where)


def _corners(points: list[Any], kind: str) -> Any:
    """The polygon of a rectangle (opposite corners, or all four) or of a circle (its centre, and a point on it)."""
    if len(points) not in ((2, 4) if kind == "rectangle" else (2,)):
        raise MaskError(f".points: found {len(points)} points, expected 2 of a {kind}")
    given = polygon([*points, *points], ".points").reshape(-1, 2)[: len(points)]  # checked as if they were a polygon
    if kind == "rectangle" and len(points) == 4:
        return points
    (x0, y0), (x1, y1) = given.tolist()
    if kind == "rectangle":
        return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
    radius = math.hypot(x1 - x0, y1 - y0)
    if radius > _LARGEST_RADIUS:
        raise MaskError(f".points: found a circle of radius {radius:g}")
    corners = 8 + math.ceil(math.pi * math.sqrt(radius / (2 * _LARGEST_ERROR)))
    turns = np.arange(corners) * (2 * math.pi / corners)
    return np.stack([x0 + radius * np.cos(turns), y0 + radius * np.sin(turns)], axis=1)
