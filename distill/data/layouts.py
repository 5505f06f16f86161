"""Folders of images with masks: how they may be laid out, and which mask is whose."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Literal

from PIL import Image

from distill.core.errors import DataError
from distill.data.candidate import (
    LABELMAP,
    Candidate,
    MaskError,
    Origin,
    candidate,
    first_of,
    is_folder,
    mask_source,
    visible,
    walk,
)
from distill.data.coco import read_coco
from distill.data.drawing import read_json
from distill.data.labelme import is_labelme

__all__ = ["Layout", "find_pairs", "layout_of"]

Layout = Literal["masks", "coco", "labelme"]

_IMAGES = ("images", "JPEGImages")  # the second ones are VOC's
_MASKS = ("masks", "SegmentationClass")
_ENDINGS = ("_mask", "-mask", "_label", "_seg")  # b.jpg goes with b.png, b_mask.png …
_ALONE = "a mask whose image is missing"
_BARE = "has no mask"


def layout_of(folder: Path) -> Layout | None:
    """How images and masks are laid out in a folder; None if there are no masks.

    Raises:
        DataError: it cannot be listed, or has several COCO files.
    """
    if _below(folder, _MASKS) is not None:
        return "masks"
    if _coco_file(folder) is not None:
        return "coco"
    jsons = (_beside(files)[1] for files in _by_stem(walk(folder)).values())
    return "labelme" if any(path and _may_be_labelme(path) for path in jsons) else None


def find_pairs(folder: Path, origin: Origin) -> list[Candidate]:
    """Images of a folder with their masks.

    In the folder `labeled` an image without mask counts as unlabelled; elsewhere it is left out.

    Raises:
        DataError: no layout that is understood, a mask that may be that of several images, a bad COCO file.
    """
    layout = layout_of(folder)
    if layout is None:
        raise DataError(
            f"data.{origin}: found no masks in {folder}; expected {folder / 'images'} and {folder / 'masks'} with files"
            " of the same names, or images and a COCO JSON, or images with a LabelMe JSON of the same name beside each"
        )
    found = {"masks": _with_masks, "coco": _with_coco, "labelme": _with_labelme}[layout](folder, origin)
    if not any(c.mask for c in found):
        first = [next((c.path for c in found if (c.reason == _ALONE) == alone), "none") for alone in (False, True)]
        raise DataError(
            f"data.{origin}: no image in {folder} has a mask; the first image is {first[0]}, the first mask {first[1]}"
        )
    return found


def _with_masks(folder: Path, origin: Origin) -> list[Candidate]:
    images, masks = _below(folder, _IMAGES), _below(folder, _MASKS)
    assert masks is not None
    if images is None:
        raise DataError(f"data.{origin}: found {masks}, but no {folder / 'images'} for its images")
    unused = defaultdict(list)
    for path in walk(masks):
        if os.path.basename(path) != LABELMAP:
            unused[_stem(os.path.relpath(path, masks))].append(path)
    found: list[Candidate] = []
    problems: list[str] = []
    for stem, files in _by_stem(walk(images), images).items():
        pictures, others = _pictures(files)
        names = [stem, *(stem + ending for ending in _ENDINGS), *(os.path.relpath(path, images) for path in pictures)]
        own = next((unused.pop(name) for name in names if name in unused), [])
        if own and len(own) + len(pictures) > 2:
            problems.append(f"which goes with which? {', '.join([*pictures, *own])}")
        found += _pair(pictures, own[0] if own else None, origin, str(masks))
        found += [_without(path, origin) for path in others]
    if problems:
        raise DataError(f"data.{origin}: {folder} has masks that may be of several images:\n{first_of(problems)}")
    return found + [candidate(path, origin, reason=_ALONE) for paths in unused.values() for path in paths]


def _with_labelme(folder: Path, origin: Origin) -> list[Candidate]:
    found: list[Candidate] = []
    problems: list[str] = []
    for files in _by_stem(walk(folder)).values():
        pictures, own, others = _beside(files)
        if own and len(pictures) > 1:
            problems.append(f"which goes with which? {', '.join([*pictures, own])}")
        found += _pair(pictures, own, origin, None)
        alone = [path for path in others if path.lower().endswith(".json")]
        found += [candidate(path, origin, reason=_ALONE) for path in alone]
        found += [_without(path, origin) for path in others if path not in alone]
    if problems:
        raise DataError(f"data.{origin}: {folder} has masks that may be of several images:\n{first_of(problems)}")
    return found


def _with_coco(folder: Path, origin: Origin) -> list[Candidate]:
    file = _coco_file(folder)
    assert file is not None
    images = _below(folder, _IMAGES) or folder
    found: dict[str, Candidate] = {}
    for name in read_coco(file):
        path = str(next((place / name for place in (images, folder) if (place / name).exists()), images / name))
        found[path] = candidate(path, origin, mask=mask_source(file, item=name))
    rest = [path for path in walk(images) if path not in found and path != file]
    return sorted([*found.values(), *(_without(path, origin) for path in rest)], key=lambda c: c.path)


def _pair(pictures: list[str], mask: str | None, origin: Origin, root: str | None) -> list[Candidate]:
    if mask is None:
        return [_without(path, origin) for path in pictures]
    return [candidate(path, origin, mask=mask_source(mask, root=root)) for path in pictures]


def _without(path: str, origin: Origin) -> Candidate:
    return candidate(path, "unlabeled") if origin == "labeled" else candidate(path, origin, reason=_BARE)


def _below(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _by_stem(paths: Iterable[str], folder: Path | None = None) -> dict[str, list[str]]:
    """Files by their path without the ending, relative to the folder if one is given."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        found[_stem(os.path.relpath(path, folder) if folder else path)].append(path)
    return dict(found)


def _stem(path: str) -> str:
    return str(PurePath(path).with_suffix(""))


def _pictures(files: list[str]) -> tuple[list[str], list[str]]:
    """Of files that share a name, those that are the images, and the others; a single file may have any ending."""
    if len(files) > 1:
        known = Image.registered_extensions()
        if images := [path for path in files if Path(path).suffix.lower() in known]:
            return images, [path for path in files if path not in images]
    return files[:1], files[1:]


def _beside(files: list[str]) -> tuple[list[str], str | None, list[str]]:
    """Of files that share a name: the images, the JSON that goes with them, other files."""
    own = next((path for path in files if path.lower().endswith(".json")), None)
    pictures, others = _pictures([path for path in files if path != own])
    if not pictures:
        return [], None, files
    return pictures, own, others


def _coco_file(folder: Path) -> str | None:
    """The one COCO JSON in a folder or in its sub-folder annotations."""
    places = [folder, *(folder / name for name in ("annotations",) if (folder / name).is_dir())]
    found: list[str] = []
    for place in places:
        files = [entry.path for entry in visible(str(place)) if not is_folder(entry)]
        for group in _by_stem(files).values():
            pictures, own, _ = _beside(group)
            alone = [path for path in group if path.lower().endswith(".json")] if not own or not pictures else []
            found += [path for path in alone if _is_coco_file(path)]
    if len(found) > 1:
        raise DataError(f"{folder} has several COCO files ({', '.join(found)}): expected one")
    return found[0] if found else None


def _is_coco_file(path: str) -> bool:
    """By its words, so that a file of hundreds of megabytes is parsed once; `read_coco` says what is wrong with it."""
    try:
        text = Path(path).read_bytes()
    except OSError:
        return False
    return all(word in text for word in (b'"images"', b'"annotations"'))


def _may_be_labelme(path: str) -> bool:
    try:
        return is_labelme(read_json(path))
    except MaskError:  # said when it is read
        return True
