"""What a store of maps holds, in figures: `distill labels stat` where pixels are answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from distill.core.dense import IGNORED
from distill.core.run import Run
from distill.core.types import ImageRecord
from distill.data.manifest import Manifest
from distill.data.mask_file import read_mask
from distill.labels.about import figures_table, images_of, share_of, teacher_lines
from distill.labels.maps import MapStore, of_size
from distill.labels.trust import pixel_coverage, trusted_confidence
from distill.report.wording import count, decimal, percent, printable
from distill.tasks.segmentation import MaskAnswers, MaskScore, Segmentation

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["LabelledMaps", "describe", "gather", "open_maps", "score_against", "trusted"]

_UNDER: Final = (0.5, 0.8, 0.95)

_Counts = npt.NDArray[np.int64]


class LabelledMaps(NamedTuple):
    """A store of maps with the images it is about.

    Args:
        run: their folder.
        store: what the teacher said.
        manifest: all images of the run.
        records: those of the store, in its order.
    """

    run: Run
    store: MapStore
    manifest: Manifest
    records: Sequence[ImageRecord]


def open_maps(run: Run) -> LabelledMaps:
    """Open the store of maps of a run.

    Raises:
        RunFolderError: the stage `data` is not finished.
        StoreError: there is no finished store of maps, or it is about other images or classes than the run now has.
    """
    run.summary("data")
    store = MapStore(run.folder("labels"))
    return LabelledMaps(run, store, *images_of(run, store))


def score_against(
    store: MapStore,
    records: Sequence[ImageRecord],
    class_names: Sequence[str],
    truth_of: Callable[[ImageRecord], str | None],
) -> MaskScore | None:
    """How right the stored masks are.

    Args:
        store: holds these images.
        records: some images of the store.
        class_names: C names.
        truth_of: path of a record's mask, or None where there is none to compare with.

    Returns:
        mIoU, IoU by class, pixel accuracy and confusion of the images with truth; `nll` is NaN and outlines are not
        looked at. None where no pixel has truth.
    """
    ids, counts = list[str](), list[_Counts]()
    classes = len(class_names)
    for record in records:
        path = truth_of(record)
        if path is None:
            continue
        truth = read_mask(path)
        said = of_size(store.hard(store.position(record.id))[0], truth.shape[1], truth.shape[0])
        known = truth != IGNORED
        pairs = truth[known].astype(np.int64) * classes + said[known]
        ids.append(record.id)
        counts.append(np.bincount(pairs, minlength=classes * classes).reshape(classes, classes))
    if not any(each.any() for each in counts):
        return None
    empty = np.zeros((len(ids), classes, 4), np.int64)
    nothing = np.full(len(ids), np.nan)
    answers = MaskAnswers(tuple(ids), np.stack(counts), empty, nothing, np.zeros((len(ids), 2, 1), np.int64), ())
    return Segmentation(class_names).score(answers)


def gather(labelled: LabelledMaps, settings: Mapping[str, Any]) -> dict[str, Any]:
    """All figures, as `--json` prints them; a pixel is one of a stored mask.

    Args:
        labelled: a store.
        settings: of the run, as in its `config.yaml`.
    """
    run, store, manifest, records = labelled
    facts, sizes, classes = store.facts, store.sizes(), manifest.classes
    pixels, images, confidence = _counts(store)
    steps = np.arange(256) / 255
    least = trusted(labelled, settings)
    under = sorted({*_UNDER, *([least] if least else [])})
    shares = pixels / max(1, pixels.sum())
    return {
        "run": str(run.root),
        "images": store.images,
        "grid": store.grid,
        "classes_a_cell": facts["top_k"],
        "bytes": store.bytes_on_disk,
        "bytes_an_image": store.bytes_on_disk / store.images,
        **{f"{name}_bytes_an_image": size / store.images for name, size in sizes._asdict().items()},
        "shards": store.shards,
        "teacher": facts["teacher"],
        "precision": facts["precision"],
        "batch_size": facts["batch_size"],
        "pseudo_labels": [
            {"class": name, "share": float(shares[place]), "images": int(images[place])}
            for place, name in enumerate(classes)
        ],
        "mean_confidence": float((confidence * steps).sum() / confidence.sum()),
        "under": {f"{least:g}": float(confidence[steps < least].sum() / confidence.sum()) for least in under},
        "left_out_by_guard": manifest.counts()["left_out_by_reason"],
        "validation": _validation(labelled),
        "known": _score(store, records, classes, lambda record: record.mask),
        "hidden": _score(store, records, classes, lambda record: record.hidden_mask),
    }


def _counts(store: MapStore) -> tuple[_Counts, _Counts, _Counts]:
    """Pixels by class, images in which a class occurs, and pixels by confidence (0 to 255)."""
    pixels, images, confidence = (np.zeros(length, np.int64) for length in (store.classes, store.classes, 256))
    for place in range(len(store)):
        mask, sure = store.hard(place)
        own = np.bincount(mask.reshape(-1), minlength=store.classes)
        pixels, images = pixels + own, images + (own > 0)
        confidence += np.bincount(sure.reshape(-1), minlength=256)
    return pixels, images, confidence


def trusted(labelled: LabelledMaps, settings: Mapping[str, Any]) -> float | None:
    """The confidence under which the config does not trust pixels, 0..1; None where it trusts all, or reaches none."""
    trust = settings.get("trust", {})
    if trust.get("keep") != "precision":
        least: float | None = trust.get("min_confidence")
        return least
    said = _said(labelled)
    return trusted_confidence(said.confidence.sum(axis=0), trust["precision"]) if said else None


def _said(labelled: LabelledMaps) -> MaskAnswers | None:
    """The teacher's answers about the validation images; None where it was not scored."""
    path = labelled.run.answers("teacher", "validation")
    return MaskAnswers.load(path, len(labelled.manifest.classes)) if path.exists() else None


def _validation(labelled: LabelledMaps) -> dict[str, Any] | None:
    """What trusting pixels from some confidence on gives on labelled images."""
    said = _said(labelled)
    if said is None:
        return None
    points = pixel_coverage(said.confidence.sum(axis=0))
    return {"images": len(said.ids), "precision_coverage": [point._asdict() for point in points]}


def _score(
    store: MapStore,
    records: Sequence[ImageRecord],
    classes: Sequence[str],
    truth_of: Callable[[ImageRecord], str | None],
) -> dict[str, Any] | None:
    score = score_against(store, records, classes, truth_of)
    if score is None:
        return None
    return {
        "images": score.images,
        "pixel_accuracy": asdict(score.pixel_accuracy),
        "miou": asdict(score.miou),
        "iou": score.iou,
    }


def describe(document: Mapping[str, Any]) -> Iterator[RenderableType]:
    """The document of `gather` for the terminal."""
    d = document
    parts = ", ".join(f"{name} {count(round(d[f'{name}_bytes_an_image']))}" for name in ("soft", "mask", "confidence"))
    size = f"{count(round(d['bytes_an_image']))}: {parts} ({count(d['bytes'])} bytes, shards: {d['shards']})"
    cells = f"{d['grid']}x{d['grid']} cells, classes kept in a cell: {d['classes_a_cell']}"
    under = ", ".join(f"{percent(share)} under {float(least):g}" for least, share in d["under"].items())
    lines = [
        ("images", f"{count(d['images'])}; soft maps of {cells}"),
        ("bytes an image", size),
        *teacher_lines(d),
        ("confidence", f"mean {decimal(d['mean_confidence'])}; pixels: {under}"),
    ]
    lines += [("left out", f"{count(n)} x {reason}") for reason, n in d["left_out_by_guard"].items()]
    for key, name in (("known", "masks of training"), ("hidden", "hidden masks")):
        if (score := d[key]) is not None:
            right = f"{share_of(score['pixel_accuracy'])} of the pixels right, mIoU {share_of(score['miou'])}"
            lines.append((f"against {count(score['images'])} {name}", right))
    for name, value in lines:
        yield printable(f"{name}: {value}")
    yield _classes(d)
    if d["validation"] is not None:
        yield _curve(d["validation"])


def _classes(document: Mapping[str, Any]) -> RenderableType:
    from rich.text import Text

    scores = [
        (name, document[key]["iou"]) for key, name in (("known", "IoU"), ("hidden", "hidden IoU")) if document[key]
    ]
    table = figures_table("pseudo-labels by pixel", "class", "share", "images", *(name for name, _ in scores))
    for row in document["pseudo_labels"]:
        name = Text(printable(row["class"]))  # Text, not str: brackets in a name would be markup
        found = (percent(iou[row["class"]]) for _, iou in scores)
        table.add_row(name, percent(row["share"]), count(row["images"]), *found)
    shown: RenderableType = table
    return shown


def _curve(validation: Mapping[str, Any]) -> RenderableType:
    title = f"pixels of {count(validation['images'])} validation images"
    table = figures_table(title, "trusted from", "precision", "coverage")
    for point in validation["precision_coverage"]:
        table.add_row(decimal(point["threshold"]), percent(point["precision"]), percent(point["coverage"]))
    curve: RenderableType = table
    return curve
