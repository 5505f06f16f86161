"""Every image of a run with its hash, size, split and fate: the stage `data`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from distill.config import DataSettings
from distill.core.errors import DataError
from distill.core.files import digest_of, digest_of_rows, sha256_of_stream
from distill.core.progress import Progress
from distill.core.tables import read_table, write_table
from distill.core.threads import in_order
from distill.core.types import SPLITS, ImageRecord, Split
from distill.data.candidate import Candidate, MaskSource, Origin
from distill.data.corrections import Corrections
from distill.data.decode import DecodeError, decode_stream
from distill.data.masks import Wanted, kept_mask, write_masks
from distill.data.opener import NotAFileError, opened
from distill.data.rows import Rows
from distill.data.views import LARGEST_SIDE

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Entry", "Manifest", "check", "reviewed", "scan"]

# Of two copies of one image the more precious use wins: a test image must never be trained on.
_PRIORITY = {"test": 0, "validation": 1, "labeled": 2, "unlabeled": 3}
_OF_CANDIDATE = ("path", "origin", "label", "hidden", "group", "bytes", "mtime_ns")
_OF_ENTRY = ("width", "height", "split", "reason")
_OF_MASK = ("mask", "pixels", "mask_source")
_OF_RECORD = ("id", "path", "width", "height", "split", "label", "hidden", "group")
_TEXT = ("id", "path", "origin", "label", "group", "split", "reason", "mask")
_OTHER_MASKS = "copies with different masks"
_REJECTED = "rejected in a review"


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
        mask: name of the mask that was made of its truth, without ending; empty if there is none.
        pixels: of this mask, by class.
        before: the same without what a person said in a review; None where nobody said anything. It is not saved.
    """

    candidate: Candidate
    id: str
    width: int
    height: int
    split: Split | None
    reason: str
    mask: str = ""
    pixels: tuple[int, ...] = ()
    before: Entry | None = None

    @property
    def hidden(self) -> bool:
        """Whether training must not see its truth."""
        return self.candidate.hidden


class Manifest:
    """All entries of a run, in the order of their paths, as `data/manifest.parquet`.

    Args:
        entries: in the order of their paths.
        classes: in the order of the outputs.
        masks: folder of the masks; None where the truth is a class an image.
    """

    def __init__(self, entries: Sequence[Entry], classes: Sequence[str], masks: Path | None = None) -> None:
        import pyarrow.compute as pc

        self.entries = entries if isinstance(entries, Rows) else tuple(entries)
        self.classes = tuple(classes)
        self.masks = masks
        self._table = entries.table if isinstance(entries, Rows) else _table_of(self.entries, masks=masks is not None)
        used = np.flatnonzero(self._table["split"].is_valid())
        used = used[pc.sort_indices(self._table["id"].take(used)).to_numpy()]
        columns = _OF_RECORD if masks is None else (*_OF_RECORD, "mask")
        self.records: Rows[ImageRecord] = Rows(self._table, columns, partial(_record, masks), used)

    def of(self, split: Split, *, labelled: bool | None = None) -> Rows[ImageRecord]:
        """Records of a split in order of id; `labelled` keeps those with (True) or without (False) truth."""
        places, keep = self.records.places, self._flags("split", split)
        if labelled is not None:
            keep &= self._known() == labelled
        return self.records.at(places[keep[places]])

    def _flags(self, column: str, value: str) -> npt.NDArray[np.bool_]:
        """Which rows have this value."""
        import pyarrow.compute as pc

        flags: npt.NDArray[np.bool_] = pc.equal(self._table[column], value).fill_null(False).to_numpy()
        return flags.copy()

    def _known(self) -> npt.NDArray[np.bool_]:
        """Which rows have truth that may be seen."""
        hidden = self._table["hidden"].to_numpy()
        there = self._table["label"].is_valid().to_numpy() if self.masks is None else ~self._flags("mask", "")
        known: npt.NDArray[np.bool_] = there & ~hidden
        return known

    def recall(self) -> Callable[[Candidate], tuple[str, int, int] | None]:
        """Gives id, width and height of a file that was read and has not changed since; None of others."""
        read = np.flatnonzero(~self._flags("id", ""))
        places = dict(zip(self._table["path"].take(read).to_pylist(), read.tolist(), strict=True))
        ids = self._table["id"]
        sizes, times, widths, heights = (
            self._table[name].to_numpy() for name in ("bytes", "mtime_ns", "width", "height")
        )

        def found(candidate: Candidate) -> tuple[str, int, int] | None:
            place = places.get(candidate.path)
            if place is None or (sizes[place], times[place]) != (candidate.bytes, candidate.mtime_ns):
                return None
            return ids[place].as_py(), int(widths[place]), int(heights[place])

        return found

    def without(self, reasons: Mapping[str, str]) -> Manifest:
        """Leave out more images, given by id, each for its reason."""
        if not reasons:
            return self
        entries = [
            replace(e, split=None, reason=reasons[e.id]) if e.split and e.id in reasons else e for e in self.entries
        ]
        return Manifest(entries, self.classes, self.masks)

    def as_asked(self) -> Manifest:
        """The same images, those of training with the truth that they had before a review.

        A teacher that is not fitted answers these alike, so nothing has to be asked again.
        """
        entries = [
            replace(e, candidate=e.before.candidate, mask=e.before.mask) if e.before and e.split == "train" else e
            for e in self.entries
        ]
        return Manifest(entries, self.classes, self.masks)

    @property
    def left_out(self) -> list[Entry]:
        """Entries that are not used, with their reasons."""
        return [e for e in self.entries if e.split is None]

    def digest(self, *, truth_only: bool = False) -> str:
        """Changes exactly when what later stages see changes; renaming or touching files does not count.

        Args:
            truth_only: leave out unlabelled images: for stages that never see them.
        """
        rows = (
            [r.id, r.split, r.label, r.hidden_label, r.group, *(Path(m).name for m in (r.mask, r.hidden_mask) if m)]
            for r in self.records
            if r.labelled or not truth_only
        )
        return digest_of_rows(rows, {"classes": self.classes})

    def counts(self) -> dict[str, Any]:
        """Images by use, by class (of masks the images in which it occurs) and by reason of leaving out.

        With masks also the share of pixels of each class among those that are not ignored.
        """
        by_class = {split: self._by_class(split) for split in SPLITS}
        shares = {"pixel_shares": {split: self._pixel_shares(split) for split in SPLITS}} if self.masks else {}
        left_out = self._table["reason"].filter(self._table["split"].is_null())
        reasons = Counter(reason.split(" (", 1)[0].split(": ", 1)[0] for reason in left_out.to_pylist())
        return {
            "train_labelled": len(self.of("train", labelled=True)),
            "train_unlabelled": len(self.of("train", labelled=False)),
            "validation": len(self.of("validation")),
            "test": len(self.of("test")),
            "left_out": len(left_out),
            "classes": list(self.classes),
            "by_class": by_class,
            **shares,
            "left_out_by_reason": dict(reasons.most_common()),
        }

    def _by_class(self, split: Split) -> dict[str | None, int]:
        if self.masks is None:
            known = self._table["label"].filter(self._flags("split", split) & self._known())
            return {row["values"]: row["counts"] for row in sorted(known.value_counts().to_pylist(), key=_by_value)}
        pixels = self._pixels(split)
        return dict(zip(self.classes, (pixels > 0).sum(axis=0).tolist(), strict=True))

    def _pixel_shares(self, split: Split) -> dict[str, float]:
        sums = self._pixels(split).sum(axis=0).tolist()
        return {name: own / max(sum(sums), 1) for name, own in zip(self.classes, sums, strict=True)}

    def _pixels(self, split: Split) -> npt.NDArray[np.int64]:
        """Pixels of each class in each mask of a split: int64 [N, C]."""
        import pyarrow.compute as pc

        counted = self._table["pixels"].filter(self._flags("split", split) & self._known())
        flat: npt.NDArray[np.int64] = pc.list_flatten(counted).to_numpy().astype(np.int64)
        return flat.reshape(len(counted), len(self.classes))

    def save(self, path: Path) -> None:
        """Write atomically as Parquet; masks lie in the folder `masks` beside it."""
        truth = "labels" if self.masks is None else "masks"
        table = self._table.replace_schema_metadata({"classes": "\x1f".join(self.classes), "truth": truth})
        write_table(table, path)

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Read what `save` wrote.

        Raises:
            RunFolderError: it is missing or damaged.
        """
        table = read_table(path).combine_chunks()
        metadata = table.schema.metadata
        masks = path.parent / "masks" if metadata.get(b"truth") == b"masks" else None
        columns = ("id", *_OF_CANDIDATE, *_OF_ENTRY, *(_OF_MASK if masks is not None else ()))
        return cls(Rows(table, columns, _entry), metadata[b"classes"].decode().split("\x1f"), masks)


def _table_of(entries: Sequence[Entry], *, masks: bool) -> pa.Table:
    """A row an entry; its strings are held once, here."""
    import pyarrow as pa

    columns: dict[str, list[Any]] = {"id": [e.id for e in entries]}
    columns |= {key: [getattr(e.candidate, key) for e in entries] for key in _OF_CANDIDATE}
    columns |= {key: [getattr(e, key) for e in entries] for key in _OF_ENTRY}
    if masks:
        sources = (e.candidate.mask for e in entries)
        columns |= {"mask": [e.mask for e in entries], "pixels": [e.pixels for e in entries]}
        columns |= {"mask_source": [source and asdict(source) for source in sources]}
    types = {**dict.fromkeys(_TEXT, pa.string()), "pixels": pa.list_(pa.int64())}
    return pa.table({key: pa.array(values, type=types.get(key)) for key, values in columns.items()})


def _entry(
    identity: str,
    path: str,
    origin: Origin,
    label: str | None,
    hidden: bool,
    group: str | None,
    size: int,
    mtime_ns: int,
    width: int,
    height: int,
    split: Split | None,
    reason: str,
    mask: str = "",
    pixels: Sequence[int] = (),
    source: Mapping[str, Any] | None = None,
) -> Entry:
    """One entry of a row."""
    where = MaskSource(**source) if source else None
    found = Candidate(path, origin, label, hidden, group, size, mtime_ns, mask=where)
    return Entry(found, identity, width, height, split, reason, mask, tuple(pixels))


def _record(
    masks: Path | None,
    identity: str,
    path: str,
    width: int,
    height: int,
    split: Split,
    label: str | None,
    hidden: bool,
    group: str | None,
    mask: str = "",
) -> ImageRecord:
    """One record of a row."""
    file = str(masks / f"{mask}.png") if masks is not None and mask else None
    known, secret = ((label, file), (None, None)) if not hidden else ((None, None), (label, file))
    return ImageRecord(identity, path, width, height, split, known[0], secret[0], group, known[1], secret[1])


def _by_value(row: Mapping[str, Any]) -> str:
    return str(row["values"])


def scan(
    candidates: Sequence[Candidate],
    settings: DataSettings,
    known: Manifest | None,
    progress: Progress,
    masks: Path | None = None,
    corrections: Corrections | None = None,
    *,
    look: Callable[[int, Image.Image], None] | None = None,
    complete: bool = True,
) -> Manifest:
    """Hash and decode every file once, write every mask, and decide each file's fate.

    Args:
        candidates: files as found by `sources.find`.
        settings: shares, classes, limits.
        known: an earlier manifest; images of the same path, size and time are not read again.
        progress: told of each file.
        masks: folder that masks are written to, named masks beside the manifest; None where the truth is a class an
            image.
        corrections: what people said of images, in place of what was found; by what an image holds, whatever its name.
        look: shown every image that can be used, with its place among the candidates, on several threads; then none is
            taken from `known`.
        complete: whether the images must do for a run.

    Raises:
        DataError: masks that cannot be used; where the images must do for a run also too few classes, a class only in
            test, a split without images.
    """
    recall = known.recall() if known is not None and look is None else lambda _: None

    def read(place: int, candidate: Candidate) -> Entry:
        if candidate.reason:
            return Entry(candidate, "", 0, 0, None, candidate.reason)
        before = recall(candidate)
        if before is not None and 0 < before[1] * before[2] <= settings.max_megapixels * 1e6:
            return Entry(candidate, *before, None, "")
        try:
            with opened(candidate.path) as stream:
                image = decode_stream(stream, settings.max_megapixels)
                if max(image.size) > LARGEST_SIDE:
                    reason = f"a side of more than {LARGEST_SIDE} pixels ({image.width}x{image.height})"
                    return Entry(candidate, "", 0, 0, None, reason)
                stream.seek(0)
                identity = sha256_of_stream(stream)
            if look is not None:
                look(place, image)
            return Entry(candidate, identity, image.width, image.height, None, "")
        except (DecodeError, NotAFileError) as error:
            return Entry(candidate, "", 0, 0, None, str(error))
        except OSError as error:
            return Entry(candidate, "", 0, 0, None, f"cannot be read ({error.strerror or error})")

    entries: list[Entry] = []
    with ThreadPoolExecutor() as pool, progress.task("reading images", len(candidates)) as task:
        for entry in in_order(pool, lambda numbered: read(*numbered), enumerate(candidates)):
            entries.append(entry)
            task.advance(1)
    corrections = corrections or Corrections(Path(), {})
    if masks is None:
        entries = [_corrected(e, corrections) for e in entries]
        entries = _assign(_drop_copies(entries), settings)
        classes: Sequence[str] = _classes(entries, settings, complete=complete)
    else:
        classes, entries = _with_masks(entries, settings, masks, progress)
        entries = [_corrected(e, corrections, masks, classes) for e in entries]
        entries = _assign(_drop_copies(entries), settings)
        if settings.classes is None and complete:
            _learnable(classes, entries)
    manifest = Manifest(sorted(entries, key=lambda e: e.candidate.path), classes, masks)
    if complete:
        check(manifest)
    return manifest


def _with_masks(
    entries: Sequence[Entry], settings: DataSettings, folder: Path, progress: Progress
) -> tuple[tuple[str, ...], list[Entry]]:
    """Write the masks of all images that can be read."""
    sources = [e.candidate.mask if e.id else None for e in entries]
    wanted = [
        Wanted(source, e.candidate.path, e.width, e.height)
        for e, source in zip(entries, sources, strict=True)
        if source is not None
    ]
    classes, written = write_masks(wanted, settings, folder, progress)
    following = iter(written)
    found = []
    for entry, source in zip(entries, sources, strict=True):
        key, pixels = ("", ()) if source is None else next(following)
        found.append(replace(entry, mask=key, pixels=pixels))
    return classes, found


def _corrected(entry: Entry, corrections: Corrections, masks: Path | None = None, classes: Sequence[str] = ()) -> Entry:
    """What a person said of an image in a review, in place of what was found. It stays in the split that it was in."""
    answer = corrections.answers.get(entry.id)
    if answer is None or entry.reason:
        return entry
    if answer.action == "reject":
        return replace(entry, reason=_REJECTED)
    if (answer.action == "mask") != (masks is not None):
        kind = "a mask" if answer.action == "mask" else "a class"
        raise DataError(f"{corrections.folder}: a person gave {entry.candidate.path} {kind}, but the task is another")
    if masks is None:
        return replace(entry, candidate=replace(entry.candidate, label=answer.label, hidden=False), before=entry)
    mask = corrections.mask(answer, classes)
    if mask.shape != (entry.height, entry.width):
        raise DataError(
            f"{corrections.folder}: a mask of {mask.shape[1]}x{mask.shape[0]} pixels for {entry.candidate.path},"
            f" which has {entry.width}x{entry.height}"
        )
    key, pixels = kept_mask(mask, masks, len(classes))
    known = replace(entry.candidate, hidden=False)
    return replace(entry, candidate=known, mask=key, pixels=pixels, before=entry)


def reviewed(manifest: Manifest, corrections: Corrections) -> dict[str, int]:
    """How many images got truth by a review that had none, kept theirs, got another, were left out, or are not here."""
    counts = dict.fromkeys(("new", "confirmed", "changed", "left_out", "elsewhere"), 0)
    for entry in manifest.entries:
        before = entry.before
        if entry.reason == _REJECTED:
            counts["left_out"] += 1
        elif before is None or entry.split is None:
            continue
        elif before.hidden or (before.candidate.label is None and not before.mask):
            counts["new"] += 1
        else:
            same = (before.candidate.label, before.mask) == (entry.candidate.label, entry.mask)
            counts["confirmed" if same else "changed"] += 1
    counts["elsewhere"] = len(corrections.answers) - sum(counts.values())
    return counts


def _learnable(classes: Sequence[str], entries: Sequence[Entry]) -> None:
    """Refuse classes that occur in masks of the test set alone."""
    held = {split: [e.pixels for e in entries if e.split == split and not e.hidden and e.mask] for split in SPLITS}
    learnt = held["train"] + held["validation"]
    only_test = [
        name
        for place, name in enumerate(classes)
        if any(p[place] for p in held["test"]) and not any(p[place] for p in learnt)
    ]
    if only_test:
        raise DataError(_only_test(only_test))


def _only_test(names: Sequence[str]) -> str:
    return (
        f"only the test set has the class {', '.join(names)}: add such images to `labeled` or `validation`, or name all"
        " classes in data.classes"
    )


def _drop_copies(entries: Iterable[Entry]) -> list[Entry]:
    """Keep one of several files with the same bytes; drop all where their labels contradict each other."""
    by_id: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_id[entry.id].append(entry)
    kept: list[Entry] = by_id.pop("", [])
    for copies in by_id.values():
        copies.sort(key=lambda e: (_PRIORITY[e.candidate.origin], e.candidate.path))
        labels = {e.candidate.label for e in copies if e.candidate.label is not None and not e.hidden}
        masks = {e.mask for e in copies if e.mask and not e.hidden}
        if len(labels) > 1 or len(masks) > 1:
            reason = f"copies with different labels: {' and '.join(sorted(labels))}" if labels else _OTHER_MASKS
            kept += [replace(e, reason=reason) for e in copies]
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


def _classes(entries: Sequence[Entry], settings: DataSettings, *, complete: bool) -> list[str]:
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
    if not complete:
        learnable |= only_test
    elif only_test:
        raise DataError(_only_test(sorted(map(str, only_test))))
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
        who = "a classifier" if manifest.masks is None else "segmentation"
        raise DataError(f"{who} needs at least two classes, found {len(manifest.classes)} ({found})")
    if not manifest.of("train"):
        raise DataError("no image is left to train on: give data.unlabeled or more data.labeled images")
    if not manifest.of("validation"):
        raise DataError("no validation image: give data.validation a folder, or a larger share of `labeled`")
    if not any(manifest.counts()["by_class"]["validation"].values()):
        raise DataError(f"no validation image has a {'label' if manifest.masks is None else 'mask with a class'}")
