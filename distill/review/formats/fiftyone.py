"""FiftyOne's folders: FiftyOneImageClassificationDataset, or ImageSegmentationDirectory where pixels are answered."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from distill.core.dense import IGNORED
from distill.core.errors import UserError
from distill.core.files import read_json, write_json
from distill.data.corrections import Answer
from distill.data.mask_file import png_of_mask, read_mask
from distill.data.opener import opened
from distill.review.formats._found import Finder, Found, mask_of
from distill.review.subject import Subject

__all__ = ["read", "write"]

_LABELS = "labels.json"
_TARGETS = "mask_targets.json"


def write(subject: Subject, said: Mapping[str, Answer], path: Path) -> int:
    """Write the images that were answered, as copies named by their ids, with their classes or masks.

    data/ID.jpg and labels.json (classes, and the place of its class by ID); or data/ID.jpg and labels/ID.png, grey,
    with mask_targets.json for `dataset.default_mask_targets`.

    Returns:
        Number of images.

    Raises:
        UserError: the folder holds something.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} exists and is no empty folder; expected the name of a new one")
    (path / "data").mkdir(parents=True)
    places = {name: place for place, name in enumerate(subject.classes)}
    labels: dict[str, int] = {}
    answered = 0
    for item in subject.items.values():
        record, answer = item.record, said.get(item.record.id)
        if answer is None or answer.action not in ("label", "mask"):
            continue
        answered += 1
        copied = path / "data" / f"{record.id}{Path(record.path).suffix.lower()}"
        with opened(record.path) as stream, copied.open("wb") as copy:
            shutil.copyfileobj(stream, copy)
        if answer.label:
            labels[record.id] = places[answer.label]
            continue
        (path / "labels").mkdir(exist_ok=True)
        (path / "labels" / f"{record.id}.png").write_bytes(png_of_mask(mask_of(subject, answer)))
    if subject.by_pixel:
        write_json(path / _TARGETS, {str(place): name for name, place in places.items()})
    else:
        write_json(path / _LABELS, {"classes": list(subject.classes), "labels": labels})
    return answered


def read(subject: Subject, path: Path, finder: Finder) -> Iterator[Found | str]:
    """Read such a folder.

    Yields:
        What was found, or what is wrong with an image.

    Raises:
        ValueError, OSError: it is none.
    """
    yield from _masks(subject, path, finder) if subject.by_pixel else _labels(subject, path, finder)


def _labels(subject: Subject, path: Path, finder: Finder) -> Iterator[Found | str]:
    document = read_json(path / _LABELS)
    if not isinstance(document, dict) or not isinstance(document.get("labels"), dict):
        raise ValueError(f"expected classes and labels in {_LABELS}")
    classes = document.get("classes")
    for name, told in document["labels"].items():
        label = target = told["label"] if isinstance(told, dict) and "label" in told else told  # it has a confidence
        if isinstance(target, int) and isinstance(classes, list) and 0 <= target < len(classes):
            label = classes[target]
        if label is None:
            continue
        if label not in subject.classes:
            yield f"{name}: found {json.dumps(label)}, expected one of {', '.join(subject.classes)}"
            continue
        try:
            yield Found(finder.find(name), label=label)
        except ValueError as error:
            yield str(error)


def _masks(subject: Subject, path: Path, finder: Finder) -> Iterator[Found | str]:
    targets = read_json(path / _TARGETS) if (path / _TARGETS).exists() else dict(enumerate(subject.classes))
    table = np.full(256, -1, np.int16)
    table[IGNORED] = IGNORED
    for value, name in targets.items():
        if name not in subject.classes or not 0 <= int(value) < IGNORED:
            raise ValueError(f"{_TARGETS} names {name!r}; the classes are {', '.join(subject.classes)}")
        table[int(value)] = subject.classes.index(name)
    for file in sorted((path / "labels").iterdir()):
        try:
            record = finder.find(file.stem)
            mask = table[read_mask(file, stored=False)]
        except (ValueError, UserError) as error:
            yield str(error)
            continue
        if (mask < 0).any() or mask.shape != (record.height, record.width):
            yield f"{file}: values without class, or not {record.width}x{record.height} pixels like {record.path}"
            continue
        yield Found(record, mask=mask.astype(np.uint8))
