"""Every image of a run with its hash, size, split and fate: the stage `data`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distill.config import DataSettings
from distill.core.errors import DataError
from distill.core.files import digest_of, replacing, sha256_of
from distill.core.progress import Progress
from distill.core.types import ImageRecord, Split
from distill.data.decode import DecodeError, decode
from distill.data.sources import Candidate
from distill.data.views import LARGEST_SIDE

__all__ = ["Entry", "Manifest", "check", "scan"]

# Of two copies of one image the more precious use wins: a test image must never be trained on.
_PRIORITY = {"test": 0, "validation": 1, "labeled": 2, "unlabeled": 3}


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: what it is, and why it was left out, if it was.

    Args:
        candidate: the file as found.
        id: SHA-256 of its bytes, empty where it could not be read.
        width: upright width in pixels, 0 where it could not be decoded.
        height: upright height in pixels.
        split: where it went; None if left out.
        reason: why it was left out; empty if used.
    """

    candidate: Candidate
    id: str
    width: int
    height: int
    split: Split | None
    reason: str


class Manifest:
    """All entries of a run, in the order of their paths, as `data/manifest.parquet`."""

    def __init__(self, entries: Sequence[Entry], classes: Sequence[str]) -> None:
        self.entries = tuple(entries)
        self.classes = tuple(classes)
        self.records: tuple[ImageRecord, ...] = tuple(
            ImageRecord(
                id=e.id,
                path=e.candidate.path,
                width=e.width,
                height=e.height,
                split=e.split,
                label=None if e.candidate.hidden else e.candidate.label,
                hidden_label=e.candidate.label if e.candidate.hidden else None,
                group=e.candidate.group,
            )
            for e in sorted(self.entries, key=lambda e: e.id)
            if e.split is not None
        )

    def of(self, split: Split, *, labelled: bool | None = None) -> list[ImageRecord]:
        """Records of a split in order of id; `labelled` keeps those with (True) or without (False) truth."""
        return [r for r in self.records if r.split == split and (labelled is None or (r.label is not None) == labelled)]

    def without(self, reasons: Mapping[str, str]) -> Manifest:
        """Leave out more images, given by id, each for its reason."""
        entries = [
            replace(e, split=None, reason=reasons[e.id]) if e.split and e.id in reasons else e for e in self.entries
        ]
        return Manifest(entries, self.classes)

    @property
    def left_out(self) -> list[Entry]:
        """Entries that are not used, with their reasons."""
        return [e for e in self.entries if e.split is None]

    def digest(self, *, truth_only: bool = False) -> str:
        """Changes exactly when what later stages see changes; renaming or touching files does not count.

        Args:
            truth_only: leave out unlabelled images: for stages that never see them.
        """
        rows = [
            [r.id, r.split, r.label, r.hidden_label, r.group]
            for r in self.records
            if r.label is not None or not truth_only
        ]
        return digest_of({"rows": rows, "classes": self.classes})

    def counts(self) -> dict[str, Any]:
        """Images by use, by class and by reason of leaving out."""
        by_class = {
            split: dict(sorted(Counter(r.label for r in self.of(split, labelled=True)).items()))
            for split in ("train", "validation", "test")
        }
        reasons = Counter(e.reason.split(" (", 1)[0].split(": ", 1)[0] for e in self.left_out)
        return {
            "train_labelled": len(self.of("train", labelled=True)),
            "train_unlabelled": len(self.of("train", labelled=False)),
            "validation": len(self.of("validation")),
            "test": len(self.of("test")),
            "left_out": len(self.left_out),
            "classes": list(self.classes),
            "by_class": by_class,
            "left_out_by_reason": dict(reasons.most_common()),
        }

    def save(self, path: Path) -> None:
        """Write atomically as Parquet."""
        import pyarrow as pa
        import pyarrow.parquet

        columns: dict[str, list[Any]] = defaultdict(list)
        for e in self.entries:
            c = e.candidate
            row: dict[str, Any] = {"id": e.id, "path": c.path, "origin": c.origin, "label": c.label, "hidden": c.hidden}
            row |= {"group": c.group, "bytes": c.bytes, "mtime_ns": c.mtime_ns, "width": e.width, "height": e.height}
            row |= {"split": e.split, "reason": e.reason}
            for key, value in row.items():
                columns[key].append(value)
        text = {key: pa.string() for key in ("id", "path", "origin", "label", "group", "split", "reason")}
        table = pa.table({key: pa.array(values, type=text.get(key)) for key, values in columns.items()})
        table = table.replace_schema_metadata({"classes": "\x1f".join(self.classes)})
        with replacing(path) as temporary:
            pyarrow.parquet.write_table(table, temporary)

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Read what `save` wrote."""
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(path)
        entries = [
            Entry(
                Candidate(
                    row["path"], row["origin"], row["label"], row["hidden"], row["group"], row["bytes"], row["mtime_ns"]
                ),
                row["id"],
                row["width"],
                row["height"],
                row["split"],
                row["reason"],
            )
            for row in table.to_pylist()
        ]
        return cls(entries, table.schema.metadata[b"classes"].decode().split("\x1f"))


def scan(
    candidates: Sequence[Candidate], settings: DataSettings, known: Manifest | None, progress: Progress
) -> Manifest:
    """Hash and decode every file once, and decide its fate.

    Args:
        candidates: files as found by `sources.find`.
        settings: shares, classes, limits.
        known: an earlier manifest; files of the same path, size and time are not read again.
        progress: told of each file.

    Raises:
        DataError: too few classes, a class only in test, a split without images.
    """
    seen = (
        {(e.candidate.path, e.candidate.bytes, e.candidate.mtime_ns): e for e in known.entries if e.id} if known else {}
    )

    def read(candidate: Candidate) -> Entry:
        if candidate.reason:
            return Entry(candidate, "", 0, 0, None, candidate.reason)
        before = seen.get((candidate.path, candidate.bytes, candidate.mtime_ns))
        if before is not None and 0 < before.width * before.height <= settings.max_megapixels * 1e6:
            return Entry(candidate, before.id, before.width, before.height, None, "")
        try:
            image = decode(candidate.path, settings.max_megapixels)
            if max(image.size) > LARGEST_SIDE:
                reason = f"a side of more than {LARGEST_SIDE} pixels ({image.width}x{image.height})"
                return Entry(candidate, "", 0, 0, None, reason)
            return Entry(candidate, sha256_of(Path(candidate.path)), image.width, image.height, None, "")
        except DecodeError as error:
            return Entry(candidate, "", 0, 0, None, str(error))
        except OSError as error:
            return Entry(candidate, "", 0, 0, None, f"cannot be read ({error.strerror})")

    entries: list[Entry] = []
    with ThreadPoolExecutor() as pool, progress.task("reading images", len(candidates)) as task:
        for entry in pool.map(read, candidates):
            entries.append(entry)
            task.advance(1)
    entries = _assign(_drop_copies(entries), settings)
    manifest = Manifest(sorted(entries, key=lambda e: e.candidate.path), _classes(entries, settings))
    check(manifest)
    return manifest


def _drop_copies(entries: Iterable[Entry]) -> list[Entry]:
    """Keep one of several files with the same bytes; drop all where their labels contradict each other."""
    by_id: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_id[entry.id].append(entry)
    kept: list[Entry] = by_id.pop("", [])
    for copies in by_id.values():
        copies.sort(key=lambda e: (_PRIORITY[e.candidate.origin], e.candidate.path))
        labels = {e.candidate.label for e in copies if e.candidate.label is not None and not e.candidate.hidden}
        if len(labels) > 1:
            names = " and ".join(sorted(labels))
            kept += [replace(e, reason=f"copies with different labels: {names}") for e in copies]
            continue
        first = copies[0]
        kept.append(first)
        kept += [
            replace(e, reason=f"copy of an image of {first.candidate.origin}: {first.candidate.path}")
            for e in copies[1:]
        ]
    return kept


def _assign(entries: Sequence[Entry], settings: DataSettings) -> list[Entry]:
    """Give each usable entry its split; shares of `labeled` go by hash, so adding images moves none."""
    test = settings.test if isinstance(settings.test, float) else 0.0
    validation = settings.validation if isinstance(settings.validation, float) else 0.0
    assigned: list[Entry] = []
    for entry in entries:
        origin = entry.candidate.origin
        split: Split = "train"
        if entry.reason:
            assigned.append(entry)
            continue
        if origin in {"test", "validation"}:
            split = origin
        elif origin == "labeled" and (test or validation):
            key = digest_of(entry.candidate.group) if entry.candidate.group else entry.id
            place = int(key[:12], 16) / 16**12
            split = "test" if place < test else "validation" if place < test + validation else "train"
        assigned.append(replace(entry, split=split))
    return assigned


def _classes(entries: Sequence[Entry], settings: DataSettings) -> list[str]:
    found = {
        split: {e.candidate.label for e in entries if e.split == split and e.candidate.label and not e.candidate.hidden}
        for split in ("train", "validation", "test")
    }
    learnable = found["train"] | found["validation"]
    if settings.classes is not None:
        unknown = (learnable | found["test"]) - set(settings.classes)
        if unknown:
            raise DataError(f"data.classes lacks {', '.join(sorted(map(str, unknown)))}, found as labels of images")
        return settings.classes
    only_test = found["test"] - learnable
    if only_test:
        raise DataError(
            f"only the test set has the class {', '.join(sorted(map(str, only_test)))}: add such images to `labeled` or"
            " `validation`, or name all classes in data.classes"
        )
    return sorted(map(str, learnable))


def check(manifest: Manifest) -> None:
    """Make sure that there is something to learn, to learn from and to choose by.

    Raises:
        DataError: too few classes, or a split without images.
    """
    used = len(manifest.records)
    if not used:
        reasons = "; ".join(f"{n} {reason}" for reason, n in manifest.counts()["left_out_by_reason"].items())
        raise DataError(f"none of the {len(manifest.entries)} files is a usable image: {reasons}")
    if len(manifest.classes) < 2:
        found = ", ".join(manifest.classes) or "none"
        raise DataError(f"a classifier needs at least two classes, found {len(manifest.classes)} ({found})")
    if not manifest.of("train"):
        raise DataError("no image is left to train on: give data.unlabeled or more data.labeled images")
    if not manifest.of("validation"):
        raise DataError("no validation image: give data.validation a folder, or a larger share of `labeled`")
    absent = set(manifest.classes) - {r.label for r in manifest.of("validation")}
    if len(absent) == len(manifest.classes):
        raise DataError("no validation image has a label")
