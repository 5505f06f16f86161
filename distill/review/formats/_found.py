"""What every reader gives back, and how it finds the image that a file speaks of."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt

from distill.core.dense import IGNORED
from distill.core.overlay import background
from distill.core.types import ImageRecord
from distill.data.candidate import MaskError
from distill.data.corrections import Answer, Corrections
from distill.data.drawing import Drawing, Shape, draw, polygon
from distill.review.subject import Subject

__all__ = ["IGNORED_NAME", "Finder", "Found", "Painting", "areas", "mask_of"]

IGNORED_NAME: Final = "__ignore__"
"""LabelMe's name of pixels that nobody is judged by; the other tools have none."""

_Mask = npt.NDArray[np.uint8]
_Inside = npt.NDArray[np.bool_]
_UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)", re.DOTALL)  # Label Studio puts this before the name of what is uploaded


@dataclass(frozen=True)
class Found:
    """An answer in a file.

    Args:
        record: the image.
        label: its class, or empty.
        mask: uint8 [H, W] of the image's size, places in the classes, 255 is ignored; None if there is none.
        user: who gave it, as far as the file says; else empty.
    """

    record: ImageRecord
    label: str = ""
    mask: _Mask | None = None
    user: str = ""


class Finder:
    """Finds images by their id, by their path, by the end of it, or by their name without ending.

    Args:
        records: all images.
    """

    def __init__(self, records: Sequence[ImageRecord]) -> None:
        self._ids = {record.id: record for record in records}
        self._names: defaultdict[str, list[ImageRecord]] = defaultdict(list)
        self._stems: defaultdict[str, list[ImageRecord]] = defaultdict(list)
        for record in records:
            path = PurePosixPath(record.path)
            self._names[path.name].append(record)
            self._stems[path.stem].append(record)

    def find(self, text: str) -> ImageRecord:
        """The image that a path, an address or an id means.

        Raises:
            ValueError: none, or one of several.
        """
        path = text.split("?d=", 1)[-1] if "?d=" in text else text
        for spelt in dict.fromkeys((path, unquote(path))):
            place = PurePosixPath(spelt)
            if place.stem in self._ids:
                return self._ids[place.stem]
            uploaded = _UPLOADED.fullmatch(place.name)
            same = self._names.get(place.name) or (self._names.get(uploaded[1]) if uploaded else None)
            same = same or (self._stems.get(place.name) if not place.suffix else None)
            if same:
                return _longest(same, place, text)
        raise ValueError(f"found no image {text!r}")


def _longest(same: Sequence[ImageRecord], place: PurePosixPath, text: str) -> ImageRecord:
    """Of images of the same name the one whose folders agree with a path the farthest."""

    def agreeing(record: ImageRecord) -> int:
        pairs = zip(reversed(PurePosixPath(record.path).parts), reversed(place.parts), strict=False)
        return next((n for n, (one, other) in enumerate(pairs) if one != other), len(place.parts))

    best = max(map(agreeing, same))
    chosen = [record for record in same if agreeing(record) == best]
    if len(chosen) > 1:
        raise ValueError(f"{text!r} may be {chosen[0].path} or {chosen[1].path}")
    return chosen[0]


class Painting:
    """A mask that shapes are put on, later ones over earlier ones; what nothing covers is background, or ignored.

    Args:
        record: the image.
        classes: of the mask.
    """

    def __init__(self, record: ImageRecord, classes: Sequence[str]) -> None:
        clear = background(classes)
        self.mask: _Mask = np.full((record.height, record.width), IGNORED if clear is None else clear, np.uint8)
        self._places: Mapping[str, int] = {
            **{name: place for place, name in enumerate(classes)},
            IGNORED_NAME: IGNORED,
        }
        self._classes = classes

    def area(self, name: str, inside: _Inside) -> None:
        """Put a class on some pixels, bool [H, W].

        Raises:
            ValueError: no such class.
        """
        if name not in self._places:
            raise ValueError(f"the class {name!r} is none of {', '.join(self._classes)}")
        self.mask[inside] = self._places[name]

    def polygon(self, name: str, corners: Any) -> None:
        """Put a class on what a polygon covers, by COCO's rule; corners [n, 2] in pixels.

        Raises:
            ValueError: no such class, or no polygon.
        """
        height, width = self.mask.shape
        try:
            shape = Shape(name, (polygon(corners, "a polygon"),), "a polygon")
            inside = draw(Drawing(width, height, (shape,)), width, height, {name: 1}, 0) == 1
        except MaskError as error:
            raise ValueError(str(error)) from None
        self.area(name, inside)


def areas(mask: _Mask, classes: Sequence[str]) -> list[tuple[str, _Inside]]:
    """The pixels of each class of a mask, without the background: what `Painting` makes the same mask of."""
    clear = background(classes)
    named = [(name, mask == place) for place, name in enumerate(classes) if place != clear]
    if clear is not None:
        named.append((IGNORED_NAME, mask == IGNORED))
    return [(name, inside) for name, inside in named if inside.any()]


def mask_of(subject: Subject, answer: Answer) -> _Mask:
    """The mask of an answer, uint8 [H, W]."""
    return Corrections(subject.folder, {}).mask(answer, subject.classes)
