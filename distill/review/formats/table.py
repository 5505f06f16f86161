"""The CSV that `data.manifest` reads: every image with what people say of it now."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from distill.config import DataSettings
from distill.core.errors import DataError
from distill.core.files import replacing
from distill.core.progress import Progress
from distill.data.corrections import MASKS, Answer
from distill.data.mask_file import read_mask, save_mask
from distill.data.masks import Wanted, write_masks
from distill.data.sources import find
from distill.review.formats._found import Finder, Found, mask_of
from distill.review.subject import Subject

__all__ = ["read", "write"]


def write(subject: Subject, said: Mapping[str, Answer], path: Path) -> int:
    """Write all images but those that were found to be of no use: path, label (or mask), split, group and labelled.

    Masks lie where they are; values are places in the classes, so `data.classes` has to name these in order.

    Returns:
        Number of images whose truth is an answer.
    """
    truth, answered = "mask" if subject.by_pixel else "label", 0
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", truth, "split", "group", "labelled"])
        for record in sorted(subject.records, key=lambda record: record.path):
            answer = said.get(record.id)
            found = (record.mask or record.hidden_mask) if subject.by_pixel else (record.label or record.hidden_label)
            shown = record.labelled or not found
            if answer is not None and answer.action == "reject":
                continue
            if answer is not None and answer.action in ("label", "mask"):
                answered, shown = answered + 1, True
                found = answer.label
                if not found:
                    folder = subject.folder / MASKS
                    found = str(folder / f"{save_mask(mask_of(subject, answer), folder)}.png")
            if found and subject.by_pixel:
                found = os.path.abspath(found)
            writer.writerow([record.path, found or "", record.split, record.group or "", int(shown)])
    return answered


def read(subject: Subject, path: Path, finder: Finder) -> Iterator[Found | str]:
    """Read such a CSV, or a Parquet of the same columns.

    Yields:
        What was found, or what is wrong with a row.

    Raises:
        ValueError, OSError: it is none.
    """
    settings = DataSettings(manifest=path.resolve(), classes=list(subject.classes))
    try:
        candidates = [c for c in find(settings, "segmentation" if subject.by_pixel else "classification") if c.labelled]
    except DataError as error:
        raise ValueError(str(error).removeprefix("data.manifest: ")) from None
    wanted = []
    for c in candidates:
        try:
            record = finder.find(os.path.abspath(c.path))
        except ValueError as error:
            yield str(error)
            continue
        if c.mask is not None:
            wanted.append((record, Wanted(c.mask, record.path, record.width, record.height)))
        elif c.label not in subject.classes:
            yield f"{c.path}: found {c.label!r}, expected one of {', '.join(subject.classes)}"
        else:
            yield Found(record, label=str(c.label))
    if not wanted:
        return
    with TemporaryDirectory() as folder:
        try:
            _, masks = write_masks([w for _, w in wanted], settings, Path(folder), Progress(Console(quiet=True)))
        except DataError as error:
            raise ValueError(str(error)) from None
        for (record, _), mask in zip(wanted, masks, strict=True):
            yield Found(record, mask=read_mask(Path(folder) / f"{mask.key}.png"))
