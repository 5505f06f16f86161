"""Shapes of an annotation file, checked, and the mask that they make."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from distill.core.dense import IGNORED
from distill.data.candidate import MaskError

__all__ = ["Drawing", "Shape", "draw", "polygon", "read_json", "shown", "size_of", "take", "unpacked"]

_Mask = npt.NDArray[np.uint8]
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """A part of an image that is of one class.

    Args:
        name: of the class; None: the part is ignored.
        polygons: float64 [2 n] each, x and y in turn, in pixels; pixel (0, 0) reaches from 0 to 1. Their union counts.
        runs: in place of polygons lengths of runs down the columns, outside and inside in turn; int64 [n].
        size: height and width that the runs are for.
        where: its place in the file, for messages.
    """

    name: str | None
    polygons: tuple[_Floats, ...]
    where: str
    runs: npt.NDArray[np.int64] | None = None
    size: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Drawing:
    """All shapes of an image, later ones over earlier ones.

    Args:
        width: of the image that was drawn on, in pixels; None where the file does not say.
        height: the same.
        shapes: from the bottom to the top.
    """

    width: int | None
    height: int | None
    shapes: tuple[Shape, ...]


def draw(drawing: Drawing, width: int, height: int, places: Mapping[str, int], background: int) -> _Mask:
    """Turn shapes into a mask with pycocotools, whose rule is that of COCO: a pixel counts by where its centre lies.

    Args:
        drawing: its shapes.
        width: of the mask.
        height: of the mask.
        places: of classes by name.
        background: place of what no shape covers; 255: ignored.

    Returns:
        uint8 [height, width].

    Raises:
        MaskError: a shape that lies elsewhere, or is for another size.
    """
    mask = np.full((height, width), background, np.uint8)
    problems = []
    for shape in drawing.shapes:
        try:
            mask[_inside(shape, width, height)] = IGNORED if shape.name is None else places[shape.name]
        except MaskError as error:
            problems.append(f"{shape.where}: {error}")
    if problems:
        raise MaskError("; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else ""))
    return mask


def _inside(shape: Shape, width: int, height: int) -> npt.NDArray[np.bool_]:
    from pycocotools import mask as coco

    if shape.runs is not None:
        if shape.size != (height, width):
            found = f"{shape.size[1]}x{shape.size[0]}"
            raise MaskError(f"found runs for {found} pixels, expected {width}x{height} like the image")
        return _of_runs(shape.runs, width, height)
    for points in shape.polygons:
        corners = points.reshape(-1, 2)
        # pycocotools walks along every edge in steps of a fifth of a pixel, wherever it leads.
        outside = ((corners < [-width, -height]) | (corners > [2 * width, 2 * height])).any(axis=1)
        if outside.any():
            x, y = corners[outside][0]
            raise MaskError(f"the point ({x:g}, {y:g}) is far outside of an image of {width}x{height} pixels")
    union = coco.merge(coco.frPyObjects(list(shape.polygons), height, width))
    return _of_runs(np.array(unpacked(union["counts"].decode())), width, height)


def _of_runs(runs: npt.NDArray[np.int64], width: int, height: int) -> npt.NDArray[np.bool_]:
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape((width, height)).T


def unpacked(text: str) -> list[int]:
    """Run lengths from COCO's text: groups of 5 bits plus 48, lowest first; from the fourth on less the last but one.

    Not by pycocotools: it writes beyond its memory where the text is damaged.

    Raises:
        MaskError: the text is damaged.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise MaskError(f".segmentation.counts: found {character!r}, which no run holds")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise MaskError(".segmentation.counts: ends within a run")
    return runs


def polygon(numbers: Any, where: str) -> _Floats:
    """Check the corners of a polygon.

    Args:
        numbers: x and y in turn, or pairs of both.
        where: for the message.

    Raises:
        MaskError: they are none.
    """
    try:
        points = np.asarray(numbers)
    except ValueError:  # lists of different lengths
        points = np.asarray(None)
    if points.dtype.kind not in "iuf" or not np.isfinite(points).all():
        raise MaskError(f"{where}: found {shown(numbers)}, expected numbers")
    if points.size % 2 or points.size < 6 or (points.ndim == 2 and points.shape[1] != 2) or points.ndim > 2:
        raise MaskError(f"{where}: found {points.size} numbers, expected x and y of at least 3 points")
    return points.astype(np.float64).ravel()


def read_json(path: str) -> Any:
    """What a JSON file holds.

    Raises:
        MaskError: it cannot be read, or is no JSON.
    """
    try:
        with open(path, "rb") as stream:
            return json.loads(stream.read())
    except OSError as error:
        raise MaskError(f"cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise MaskError(f"is no JSON ({error})") from None


def take(entry: Any, key: str, kinds: type | tuple[type, ...], expected: str) -> Any:
    """The value of a key.

    Args:
        entry: of a JSON document.
        key: that it should have.
        kinds: what the value may be; true is no number.
        expected: the same in words.

    Raises:
        MaskError: the key is missing, or its value is of another kind.
    """
    if not isinstance(entry, dict):
        raise MaskError(f": found {shown(entry)}, expected an object with the key {key}")
    value = entry.get(key)
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise MaskError(f".{key}: found {shown(value)}, expected {expected}")
    if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise MaskError(f".{key}: found {shown(value)}, which is no text: half a letter")  # no file can hold it
    return value


def size_of(entry: Any, *keys: str) -> Sequence[int | None]:
    """Width and height where a document gives them; None where it does not."""
    sizes: list[int | None] = []
    for key in keys:
        value = None if entry.get(key) is None else take(entry, key, int, "a number of pixels")
        if value is not None and value < 1:
            raise MaskError(f".{key}: found {value}, expected a number of pixels")
        sizes.append(value)
    return sizes


def shown(value: Any) -> str:
    """A value of a document in few words."""
    if isinstance(value, (dict, list)):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    text = "nothing" if value is None else json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
