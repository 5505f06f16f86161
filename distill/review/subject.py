"""What is to be reviewed: the images of a run with what the teacher said, or the photos of a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from distill.core.dense import IGNORED
from distill.core.errors import DataError, RunFolderError, UserError
from distill.core.files import sha256_of
from distill.core.run import Run
from distill.core.types import FloatArray, ImageRecord, softmax
from distill.data.candidate import walk
from distill.data.corrections import FOLDER, JOURNAL, read_journal
from distill.data.decode import DecodeError, decode
from distill.data.manifest import Manifest
from distill.data.mask_file import read_mask
from distill.labels.map_sheet import UNSURE
from distill.labels.map_stat import LabelledMaps, open_maps
from distill.labels.maps import of_size, stored_size
from distill.labels.shards import kind_of
from distill.labels.stat import open_labels, settings_of
from distill.tasks._label_answers import LabelAnswers
from distill.tasks._mask_answers import MaskAnswers

__all__ = ["Item", "Only", "Subject", "of_folder", "of_run"]

Only = Literal["all", "unsure", "disagree"]

_HIDDEN: Final = ".distill-review"  # in a folder of photos, where it is no photo
_TOLD: Final = 3  # of the teacher's most probable classes
_DIFFERS: Final = 0.05  # share of pixels from which two masks are said to disagree

_Mask = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Item:
    """An image to be looked at.

    Args:
        record: the image.
        suggestion: the class that is confirmed by one key: its label where it has one, else the teacher's; empty if
            there is none, and where pixels are answered.
        sure: probability that the teacher gives the suggestion; of pixels its mean confidence, or the share of pixels
            on which it agrees with the mask that a person made; None where nobody was asked.
        said: the teacher's most probable classes with their probabilities, or none.
        others: who says something else than the suggestion, as `student: glass`.
    """

    record: ImageRecord
    suggestion: str = ""
    sure: float | None = None
    said: tuple[tuple[str, float], ...] = ()
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Subject:
    """Images in the order in which they are shown.

    Args:
        title: of the page.
        folder: gets the journal.
        classes: in the order of their keys.
        by_pixel: whether masks are reviewed.
        items: by image id.
        records: all images that a list of the data names; of a folder those of the items.
        max_megapixels: larger images are not decoded.
        suggested: the mask of an image that is confirmed by one key.
    """

    title: str
    folder: Path
    classes: tuple[str, ...]
    by_pixel: bool
    items: dict[str, Item]
    records: Sequence[ImageRecord]
    max_megapixels: float
    suggested: Callable[[ImageRecord], _Mask]

    def shown_size(self, record: ImageRecord) -> tuple[int, int]:
        """Width and height of the mask that the page draws on."""
        return stored_size(record.width, record.height)


def of_run(run: Run, only: Only = "all") -> Subject:
    """The images of a run whose teacher has answered, the least sure answers first.

    Args:
        run: with finished labels.
        only: all training images; those of which the teacher is less sure than 0.8; or those of all splits about which
            a person's truth, the teacher and (on validation and test) the student do not agree.

    Raises:
        StoreError: there is no finished label store.
        RunFolderError: the run was not finished that far.
    """
    run.summary("data")
    maps = open_maps(run) if kind_of(run.folder("labels")) == "maps" else None
    if maps is None:
        manifest, found = _labelled(run, disagree=only == "disagree")
    else:
        manifest, found = maps.manifest, _masked(maps, disagree=only == "disagree")
    if only == "unsure":
        found = [item for item in found if item.sure is not None and item.sure < UNSURE]
    found = sorted(found, key=lambda item: (1.0 if item.sure is None else item.sure, item.record.id))

    def suggested(record: ImageRecord) -> _Mask:
        if record.mask is not None:
            return read_mask(record.mask)
        assert maps is not None
        return maps.store.hard(maps.store.position(record.id))[0]

    return Subject(
        run.root.resolve().name,
        run.root / FOLDER,
        manifest.classes,
        maps is not None,
        {item.record.id: item for item in found},
        manifest.records,
        float(settings_of(run)["data"]["max_megapixels"]),
        suggested,
    )


def of_folder(folder: Path, classes: Sequence[str]) -> Subject:
    """The photos of a folder, in the order of their names; copies are shown once.

    Args:
        folder: searched recursively; the journal is kept in it, under a hidden name.
        classes: to sort into; those of the journal if left out.

    Raises:
        UserError: fewer than two classes, or one twice.
        DataError: no image can be read.
    """
    if not folder.is_dir():
        raise RunFolderError(f"found no folder {folder}")
    place = folder.resolve() / _HIDDEN
    journal = place / JOURNAL
    names = tuple(classes) or (read_journal(journal).classes if journal.exists() else ())
    if len(names) < 2 or len(set(names)) < len(names) or not all(name.strip() and name.isprintable() for name in names):
        raise UserError(
            f"{folder} is no run: sort its photos by --classes NAME,NAME,… with at least two different names;"
            f" found {', '.join(names) or 'none'}"
        )

    def read(path: str) -> ImageRecord | None:
        try:
            os.fsencode(path).decode("utf-8")  # no list of images could name it
            image = decode(path)
            return ImageRecord(sha256_of(Path(path)), path, image.width, image.height, "train", None)
        except (DecodeError, OSError, UnicodeDecodeError):
            return None

    with ThreadPoolExecutor() as pool:
        found = [record for record in pool.map(read, walk(folder.resolve())) if record is not None]
    records = {record.id: record for record in reversed(found)}  # the first of several copies
    records = {record.id: records[record.id] for record in found}
    if not records:
        raise DataError(f"found no image that can be read in {folder}")
    items = {id_: Item(record) for id_, record in records.items()}

    def no_mask(record: ImageRecord) -> _Mask:
        raise DataError(f"{record.path}: a class is asked for, not a mask")

    return Subject(folder.resolve().name, place, names, False, items, tuple(records.values()), 100.0, no_mask)


def _labelled(run: Run, *, disagree: bool) -> tuple[Manifest, list[Item]]:
    """Training images with the teacher's answers to their fixed views; or images of all splits with disagreement."""
    labels = open_labels(run)
    classes = labels.manifest.classes
    found = [
        _item(record, answer, classes) for record, answer in zip(labels.records, labels.store.targets(0), strict=True)
    ]
    if not disagree:
        return labels.manifest, found
    records = {record.id: record for record in labels.manifest.records}
    for split in ("validation", "test"):
        paths = {who: run.answers(who, split) for who in ("teacher", "student")}
        said = {who: LabelAnswers.load(path) for who, path in paths.items() if path.exists()}
        if "teacher" not in said:
            continue
        student = said.get("student")
        of_student = dict(zip(student.ids, student.logits.argmax(axis=1), strict=True)) if student else {}
        for id_, logits in zip(said["teacher"].ids, softmax(said["teacher"].logits), strict=True):
            other = of_student.get(id_)
            found.append(_item(records[id_], logits, classes, None if other is None else classes[int(other)]))
    return labels.manifest, [item for item in found if item.others]


def _item(record: ImageRecord, answer: FloatArray, classes: Sequence[str], student: str | None = None) -> Item:
    best = (-answer).argsort(kind="stable")[:_TOLD]
    said = tuple((classes[place], float(answer[place])) for place in best)
    suggestion = record.label or said[0][0]
    others = [
        f"{who}: {name}" for who, name in (("teacher", said[0][0]), ("student", student)) if name and name != suggestion
    ]
    return Item(record, suggestion, float(answer[classes.index(suggestion)]), said, tuple(others))


def _masked(maps: LabelledMaps, *, disagree: bool) -> list[Item]:
    """Training images with the teacher's masks; or images of all splits whose mask by a person differs from it."""
    found = []
    for record, sure in zip(maps.records, maps.store.mean_confidence().tolist(), strict=True):
        if record.mask is None:
            if not disagree:
                found.append(Item(record, sure=sure))
            continue
        truth = read_mask(record.mask)
        said = of_size(maps.store.hard(maps.store.position(record.id))[0], record.width, record.height)
        known = truth != IGNORED
        found.append(_of_mask(record, {"teacher": float((said == truth)[known].mean()) if known.any() else 1.0}))
    if disagree:
        found += _of_predictions(maps.run, maps.manifest)
        found = [item for item in found if item.others]
    return found


def _of_predictions(run: Run, manifest: Manifest) -> Iterable[Item]:
    agreement: dict[str, dict[str, float]] = {}
    for split in ("validation", "test"):
        for who in ("teacher", "student"):
            path = run.answers(who, split)
            if path.exists():
                answers = MaskAnswers.load(path, len(manifest.classes))
                for id_, counts in zip(answers.ids, answers.counts, strict=True):
                    agreement.setdefault(id_, {})[who] = float(np.trace(counts) / max(1, counts.sum()))
    return [_of_mask(record, agreement[record.id]) for record in manifest.records if record.id in agreement]


def _of_mask(record: ImageRecord, agreement: dict[str, float]) -> Item:
    others = [
        f"{who}: {1 - share:.0%} of the pixels differ" for who, share in agreement.items() if 1 - share > _DIFFERS
    ]
    return Item(record, sure=min(agreement.values()), others=tuple(others))
