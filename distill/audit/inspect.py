"""The whole audit: one pass over the images, then what their figures, copies and labels tell."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from distill import __version__
from distill.audit import findings
from distill.audit.columns import MEASURED, table_of
from distill.audit.document import Document, Finding, LabelSource, Level, Measured, SplitFacts
from distill.audit.findings import Bounds, Row
from distill.audit.label_errors import Labelled, Source, agreement_of_masks, find_suspects
from distill.audit.leakage import Pair, copies_across_splits
from distill.audit.measure import Measures
from distill.audit.pictures import Pictures
from distill.audit.subject import Subject
from distill.audit.survey import Near, Survey
from distill.core.files import digest_of
from distill.core.overlay import background
from distill.core.progress import Progress
from distill.core.task import build_task
from distill.core.types import SPLITS, ImageRecord
from distill.data.batches import ImageCache
from distill.data.candidate import Candidate
from distill.data.corrections import Corrections
from distill.data.manifest import Entry, Manifest, scan
from distill.data.sources import listing
from distill.report.wording import count, percent

__all__ = ["Audit", "fingerprint_of", "inspect"]

_VERSION: Final = 1  # raised when the audit starts to give other results
_CACHE_BYTES: Final = 500_000_000
_LEVELS: Final[tuple[Level, ...]] = ("error", "warning", "note")
_SAMPLED: Final = {"train": 4, "validation": 2, "test": 2}  # images shown of each class
_CLASSES: Final = 24  # of which samples are shown


@dataclass(frozen=True)
class Audit:
    """What was found.

    Args:
        document: of `audit.json`.
        table: of `audit.parquet`, a pyarrow table.
        pictures: JPEG by path of images that the page shows.
        samples: a few images of each class: title, and paths with captions.
    """

    document: Document
    table: Any
    pictures: Mapping[str, bytes]
    samples: Sequence[tuple[str, Sequence[tuple[str, str]]]]


def fingerprint_of(subject: Subject, candidates: Sequence[Candidate]) -> str:
    """Changes when files, settings, the run's answers or the tool change."""
    answers = []
    if subject.run is not None:
        paths = [subject.run.answers("teacher", split) for split in ("validation", "test")]
        answers = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in paths if path.exists()]
    config = subject.config
    return digest_of(
        {
            "versions": [__version__, _VERSION],
            "task": subject.task,
            "data": subject.data.model_dump(mode="json", warnings=False),
            "student": None if config is None else config.student.model_dump(mode="json"),
            "listing": listing(candidates),
            "answers": answers,
            "corrections": _corrections(subject).digest(),
        }
    )


def inspect(subject: Subject, candidates: Sequence[Candidate], progress: Progress) -> Audit:
    """Look at all images.

    Args:
        subject: what is audited.
        candidates: its files.
        progress: told of each image.

    Raises:
        DataError: masks that cannot be used.
    """
    masks = build_task(subject.task).by_pixel
    with tempfile.TemporaryDirectory() as folder:
        survey = Survey(len(candidates), Path(folder))
        written = Path(folder) / "masks" if masks else None
        manifest = scan(
            candidates,
            subject.data,
            None,
            progress,
            written,
            _corrections(subject),
            look=survey.look,
            complete=False,
        )
        places = {id(candidate): place for place, candidate in enumerate(candidates)}
        of_entry = [places[id((e.before or e).candidate)] for e in manifest.entries]  # a review gives it another truth
        rows = [_row(e, survey.measures[at], manifest) for e, at in zip(manifest.entries, of_entry, strict=True)]
        copies = _Copies(manifest.entries, rows, of_entry)
        near = copies.of_places(survey.near(copies.places(), progress))
        leaks = sorted(
            [*copies_across_splits(manifest.entries), *_leaks(near, manifest.entries)],
            key=lambda pair: (not pair.wrong, pair.image, pair.of),
        )
        copies.number(near)
        by_path = _by_path(rows)
        bounds = _bounds(subject)
        found: list[Finding] = [*findings.of_leaks(leaks, by_path, bounds.leaks)]
        for kind, pairs in copies.kinds(near).items():
            found += findings.of_pairs(kind, pairs)
        cache = ImageCache(subject.data.max_megapixels, _CACHE_BYTES)
        thumbnails = {
            entry.id: place for entry, place in zip(manifest.entries, copies.of_entry, strict=True) if entry.split
        }
        labelled = _labelled(manifest, rows)
        suspects, sources, notes = find_suspects(
            labelled,
            lambda wanted: survey.thumbnails([thumbnails[labelled[place].record.id] for place in wanted]),
            manifest,
            subject.config,
            subject.run,
            cache,
            progress,
        )
        by_id = {row["id"]: row for row in rows if row["split"]}
        found += findings.of_suspects(suspects, by_id, _told(sources))
        agreement = agreement_of_masks(subject.run, manifest, subject.config)
        found += findings.of_masks({image: iou for image, iou in agreement.items() if image in by_id}, by_id)
        found += findings.of_images(rows, bounds)
        counts = manifest.counts()
        found += findings.of_classes(manifest.classes, counts, masks=masks)
        found.sort(key=lambda finding: _LEVELS.index(finding.level))
        document = Document(
            version=__version__,
            fingerprint=fingerprint_of(subject, candidates),
            kind=subject.kind,
            name=subject.name,
            task=subject.task,
            classes=list(manifest.classes),
            files=len(rows),
            splits=_splits(manifest, counts),
            left_out=dict(sorted(counts["left_out_by_reason"].items(), key=lambda item: (-item[1], item[0]))),
            levels={level: sum(finding.level == level for finding in found) for level in _LEVELS},
            findings=found,
            measures=_measures(rows),
            labels=[LabelSource(by=s.by, images=s.images, accuracy=round(s.accuracy, 4)) for s in sources],
            notes=notes,
        )
        samples = _samples(manifest)
        wanted = [path for _, images in samples for path, _ in images]
        pictures = Pictures(manifest, subject.data.max_megapixels).of(found, wanted, progress)
    return Audit(document, table_of(rows, manifest.classes, masks=masks), pictures, samples)


def _corrections(subject: Subject) -> Corrections:
    """What people said in reviews of the run; nothing of a folder."""
    return Corrections(Path(), {}) if subject.config is None else Corrections.of_run(subject.config)


def _row(entry: Entry, measured: Any, manifest: Manifest) -> Row:
    """What is known of a file alone."""
    c = entry.candidate
    row: Row = {
        "path": c.path,
        "split": entry.split,
        "origin": c.origin,
        "label": c.label,
        "labelled": c.labelled,
        "group": c.group,
        "left_out": entry.reason or None,
        "id": entry.id or None,
        "bytes": max(c.bytes, 0),
        "damaged": not entry.id and not c.reason,
    }
    if not entry.id:
        return row
    pixels = entry.width * entry.height
    row |= {
        "width": entry.width,
        "height": entry.height,
        "megapixels": pixels / 1e6,
        "aspect": entry.width / entry.height,
        "bytes_per_pixel": row["bytes"] / pixels,
        **dict(zip(Measures._fields, (round(float(value), 6) for value in measured), strict=True)),
    }
    if entry.mask:
        counted = sum(entry.pixels)
        clear = background(manifest.classes)
        others = counted - (0 if clear is None else entry.pixels[clear])
        row |= {
            "mask_classes": sum(count > 0 for count in entry.pixels),
            "ignored": 1 - counted / pixels,
            "foreground": others / counted if counted and clear is not None else None,
            "shares": {
                name: count / counted if counted else None
                for name, count in zip(manifest.classes, entry.pixels, strict=True)
            },
            "empty_mask": others == 0,
        }
    return row


def _by_path(rows: Iterable[Row]) -> dict[str, Row]:
    """A path that was named twice has several rows; the one that is used counts."""
    found: dict[str, Row] = {}
    for row in rows:
        if row["split"] or row["path"] not in found:
            found[row["path"]] = row
    return found


class _Copies:
    """Which files show the same.

    Args:
        entries: all files.
        rows: theirs.
        of_entry: their places in the survey.
    """

    def __init__(self, entries: Sequence[Entry], rows: Sequence[Row], of_entry: Sequence[int]) -> None:
        self._rows, self.of_entry = rows, of_entry
        self._same: dict[str, list[int]] = defaultdict(list)
        for number, entry in enumerate(entries):
            if entry.id:
                self._same[entry.id].append(number)
        for numbers in self._same.values():
            numbers.sort(key=lambda number: (rows[number]["split"] is None, number))
        self._first = {of_entry[numbers[0]]: numbers[0] for numbers in self._same.values()}

    def places(self) -> list[int]:
        """One of each set of files with the same bytes, the one that is used where one is."""
        return sorted(self._first)

    def of_places(self, pairs: Iterable[Near]) -> list[tuple[int, int, Near]]:
        """Pairs as numbers of rows."""
        return sorted((self._first[pair.first], self._first[pair.second], pair) for pair in pairs)

    def number(self, near: Sequence[tuple[int, int, Near]]) -> None:
        """Give each group of copies a number, in the order of the paths."""
        groups = [numbers for numbers in self._same.values() if len(numbers) > 1]
        for group, numbers in enumerate(sorted(groups, key=min), 1):
            for number in numbers:
                self._rows[number] |= {"copies": group, "copy": True}
        count = len(self._rows)
        first, second = [pair[0] for pair in near], [pair[1] for pair in near]
        _, components = connected_components(coo_array((np.ones(len(near)), (first, second)), shape=(count, count)))
        numbers_of: dict[int, int] = {}
        for number in sorted({*first, *second}):
            component = int(components[number])
            self._rows[number]["near_copies"] = numbers_of.setdefault(component, len(numbers_of) + 1)

    def kinds(self, near: Sequence[tuple[int, int, Near]]) -> dict[str, list[tuple[Row, Row, str]]]:
        """Pairs that are no leak: copies, and those that contradict each other."""
        found: dict[str, list[tuple[Row, Row, str]]] = defaultdict(list)
        for numbers in self._same.values():
            first, *others = (self._rows[number] for number in numbers)
            for other in others:
                if str(other["left_out"]).startswith("copies with different"):
                    labels = [str(row["label"]) for row in (first, other) if row["label"]]
                    found["label_conflict"].append((other, first, " and ".join(labels) or "different masks"))
                elif other["path"] != first["path"] and not other.get("leak"):
                    found["copy"].append((other, first, "same bytes"))
        for one, two, pair in near:
            first, second = self._rows[one], self._rows[two]
            how = f"{pair.distance} of 64 bits differ{', turned or mirrored' if pair.turned else ''}"
            if first["label"] and second["label"] and first["label"] != second["label"]:
                found["near_label_conflict"].append((first, second, how))
            if first["split"] == second["split"]:
                found["near_copy"].append((first, second, how))
        order = ("label_conflict", "near_label_conflict", "copy", "near_copy")
        return {kind: sorted(found[kind], key=lambda pair: (pair[0]["path"], pair[1]["path"])) for kind in order}


def _leaks(near: Sequence[tuple[int, int, Near]], entries: Sequence[Entry]) -> Iterator[Pair]:
    """Pairs over splits, the one of the less precious split first."""
    for one, two, pair in near:
        first, second = sorted((entries[one], entries[two]), key=lambda e: SPLITS.index(e.split) if e.split else -1)
        if first.split is None or second.split is None or first.split == second.split:
            continue
        yield Pair.near(first, second, pair.distance)


def _bounds(subject: Subject) -> Bounds:
    leaks: Level = "error" if subject.data.leaks == "error" else "warning"
    if subject.config is None:
        return Bounds(64, "a short side of less than 64 pixels", leaks)
    size = subject.config.student.image_size
    return Bounds(size // 2, f"a short side of less than half of the student's {size} pixels", leaks)


def _labelled(manifest: Manifest, rows: Sequence[Row]) -> list[Labelled]:
    """Images with one label each, and what they must not be parted from."""
    near = {row["id"]: row["near_copies"] for row in rows if row["split"] and row.get("near_copies")}

    def family(record: ImageRecord) -> str:
        if record.group:
            return f"group {record.group}"
        return f"copies {near[record.id]}" if record.id in near else record.id

    known = ((record, record.label or record.hidden_label) for record in manifest.records)
    return [Labelled(record, label, family(record)) for record, label in known if label in manifest.classes]


def _told(sources: Sequence[Source]) -> str:
    parts = [f"{percent(s.accuracy, 0)} of {count(s.images)} labels are the likeliest class by {s.by}" for s in sources]
    return "; ".join(parts) + "." if parts else ""


def _splits(manifest: Manifest, counts: Mapping[str, Any]) -> dict[str, SplitFacts]:
    found: dict[str, SplitFacts] = {}
    for split in SPLITS:
        records = manifest.of(split)
        if not records:
            continue
        found[split] = SplitFacts(
            images=len(records),
            labelled=sum(record.labelled for record in records),
            by_class={name: counts["by_class"][split].get(name, 0) for name in manifest.classes},
            pixel_shares={
                name: round(share, 6) for name, share in counts.get("pixel_shares", {}).get(split, {}).items()
            },
        )
    return found


def _measures(rows: Sequence[Row]) -> dict[str, Measured]:
    found = {}
    for name in MEASURED:
        having = [(row[name], row["split"] or "left out") for row in rows if row.get(name) is not None]
        if having:
            values = np.array([value for value, _ in having], dtype=np.float64)
            found[name] = Measured(**findings.histogram(name, values, [split for _, split in having]))
    return found


def _samples(manifest: Manifest) -> list[tuple[str, Sequence[tuple[str, str]]]]:
    """A few images of each class, drawn by hash: the same each time."""
    found: list[tuple[str, Sequence[tuple[str, str]]]] = []
    if manifest.masks is not None:
        for split in SPLITS:
            records = manifest.of(split, labelled=True)[: 2 * _SAMPLED[split]]
            found.append((f"{split}, with masks", [(record.path, split) for record in records]))
    for name in manifest.classes[:_CLASSES] if manifest.masks is None else ():
        images = []
        for split in SPLITS:
            named = [record for record in manifest.of(split, labelled=True) if record.label == name]
            images += [(record.path, split) for record in named[: _SAMPLED[split]]]
        found.append((name, images))
    unlabelled = [(record.path, "train") for record in manifest.of("train", labelled=False)[: 2 * _SAMPLED["train"]]]
    found.append(("unlabelled", unlabelled))
    return [(title, images) for title, images in found if images]
