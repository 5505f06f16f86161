"""COCO JSON (arXiv 1405.0312): polygons and runs of many images in one file."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from distill.core.errors import DataError
from distill.data.candidate import MaskError, first_of
from distill.data.drawing import Drawing, Shape, polygon, read_json, shown, size_of, take, unpacked

__all__ = ["read_coco"]

_LONGEST_NAME = 255  # bytes, on the usual file systems
_LISTS = ("images", "annotations", "categories")


def read_coco(path: str) -> dict[str, Drawing]:
    """The shapes of every image, by its `file_name`.

    Crowds are ignored, as far as no object covers them; objects lie over each other in the order of the file.

    Raises:
        DataError: all mistakes of the first list that has any.
    """
    try:
        document = read_json(path)
    except MaskError as error:
        raise DataError(f"{path}: {error}") from None
    if not isinstance(document, dict) or not all(isinstance(document.get(key), list) for key in _LISTS):
        raise DataError(f"{path}: expected the lists {', '.join(_LISTS[:-1])} and {_LISTS[-1]}, as COCO has them")
    problems: list[str] = []
    names: dict[int | str, str] = {}
    images: dict[int | str, tuple[str, int | None, int | None]] = {}
    files: set[str] = set()
    crowds: defaultdict[int | str, list[Shape]] = defaultdict(list)
    objects: defaultdict[int | str, list[Shape]] = defaultdict(list)

    def category(entry: Any, _: str) -> None:
        names[_new_id(entry, names)] = take(entry, "name", str, "text")

    def image(entry: Any, _: str) -> None:
        name = _inside(take(entry, "file_name", str, "a file"))
        if name in files:
            raise MaskError(f".file_name: {name!r} is there twice")
        width, height = size_of(entry, "width", "height")
        images[_new_id(entry, images)] = (name, width, height)
        files.add(name)

    def annotation(entry: Any, where: str) -> None:
        of = take(entry, "image_id", (int, str), "an id")
        if of not in images:
            raise MaskError(f".image_id: found {shown(of)}, which is the id of no image")
        kind = take(entry, "category_id", (int, str), "an id")
        if kind not in names:
            raise MaskError(f".category_id: found {shown(kind)}, which is the id of no category")
        crowd = bool(entry.get("iscrowd"))
        (crowds if crowd else objects)[of].append(_shape(entry, None if crowd else names[kind], where))

    for key, read in (("categories", category), ("images", image), ("annotations", annotation)):
        for number, entry in enumerate(document[key]):
            try:
                read(entry, f"{key}[{number}]")
            except MaskError as error:
                problems.append(f"{key}[{number}]{error}")
        if problems:  # an image without id would make a mistake of each of its annotations
            count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
            raise DataError(f"{path} has {count}:\n{first_of(problems)}")
    return {
        name: Drawing(width, height, (*crowds[id_], *objects[id_])) for id_, (name, width, height) in images.items()
    }


def _new_id(entry: Any, known: Any) -> int | str:
    id_: int | str = take(entry, "id", (int, str), "an id")
    if id_ in known:
        raise MaskError(f".id: {shown(id_)} is there twice")
    return id_


def _inside(name: str) -> str:
    """A file name that does not lead out of the folder of images."""
    path = PurePath(os.path.normpath(name))
    long = any(len(part.encode()) > _LONGEST_NAME for part in path.parts)
    if "\0" in name or long or path.is_absolute() or not path.parts or path.parts[0] == "..":
        raise MaskError(f".file_name: found {shown(name)}, expected a file inside the folder of images")
    return str(path)


def _shape(entry: Any, name: str | None, where: str) -> Shape:
    parts = take(entry, "segmentation", (list, dict), "polygons or runs")
    if isinstance(parts, dict):
        height, width = _two_sizes(parts)
        return Shape(name, (), where, _runs(parts, height * width), (height, width))
    if not parts:
        raise MaskError(".segmentation: found none; a box says nothing about pixels")
    return Shape(name, tuple(polygon(part, f".segmentation[{n}]") for n, part in enumerate(parts)), where)


def _two_sizes(parts: Any) -> tuple[int, int]:
    size = parts.get("size")
    if not isinstance(size, list) or len(size) != 2 or not all(type(n) is int and n > 0 for n in size):
        raise MaskError(f".segmentation.size: found {shown(size)}, expected height and width")
    return size[0], size[1]


def _runs(parts: Any, pixels: int) -> npt.NDArray[np.int64]:
    try:
        counts = take(parts, "counts", (list, str), "numbers of pixels or text")
    except MaskError as error:
        raise MaskError(f".segmentation{error}") from None
    try:
        runs = np.asarray(unpacked(counts) if isinstance(counts, str) else counts)
    except ValueError:  # lists in a list
        runs = np.asarray(None)
    right = runs.ndim == 1 and runs.dtype.kind == "i" and runs.min() >= 0 and runs.max() <= pixels
    if not right or int(runs.sum()) != pixels:
        total = f" of {int(runs.sum())} pixels" if right else ""
        raise MaskError(f".segmentation.counts: found runs{total}, expected lengths that add up to {pixels}")
    return runs.astype(np.int64)
