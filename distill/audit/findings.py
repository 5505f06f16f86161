"""What is wrong or odd in a set of images: bounds, and why they are what they are."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from distill.audit.columns import MEASURED
from distill.audit.document import LISTED, Finding, Found, FoundPair, Level
from distill.audit.label_errors import Suspect
from distill.audit.leakage import Pair
from distill.core.types import SPLITS
from distill.report.wording import percent

__all__ = ["Bounds", "Row", "histogram", "of_classes", "of_images", "of_leaks", "of_masks", "of_pairs", "of_suspects"]

Row = dict[str, Any]

_ODD_SHAPE: Final = 3.0  # a centred square of it shows a third
_JUDGED: Final = 64  # short side in pixels, below which nothing is said of blur
_BLURRY: Final = 0.65  # a Gaussian blur of 2 pixels gives 0.67 (median); of 4,622 photos one has more than 0.61
_DARK: Final = 0.3  # of these the darkest has its lights at 0.53
_BRIGHT: Final = 0.85  # and the brightest its shadows at 0.69
_LOW_CONTRAST: Final = 0.15
_OUTLIER: Final = 6.0  # robust z-scores; at the usual 3.5 9 % of these photos are outliers, since figures are skewed
_DOUBTFUL: Final = 3.5  # the bound of Iglewicz and Hoaglin 1993
_FEWEST: Final = 20  # images, below which no outlier is looked for, and labelled images of a class worth a note
_IMBALANCE: Final = 10.0
_LOGARITHMIC: Final = {"megapixels", "aspect", "bytes_per_pixel"}


class Bounds(NamedTuple):
    """Bounds that depend on what is audited.

    Args:
        tiny: a short side below this many pixels is small.
        tiny_rule: why.
        leaks: whether labelled images in two splits are an error, or were said to be left out.
    """

    tiny: int
    tiny_rule: str
    leaks: Level


class _Rule(NamedTuple):
    kind: str
    level: Level
    title: str
    meaning: str
    rule: str
    applies: Callable[[Row], bool]
    worst: Callable[[Row], float]
    detail: Callable[[Row], str]


def _rules(bounds: Bounds) -> list[_Rule]:
    return [
        _Rule(
            "damaged",
            "warning",
            "Files that cannot be read",
            "A run leaves them out. Fetch them again, or remove them.",
            "Pillow cannot decode it, or it is larger than data.max_megapixels",
            lambda row: not row["id"] and row["damaged"],
            lambda row: 0.0,
            lambda row: str(row["left_out"]),
        ),
        _Rule(
            "blurry",
            "warning",
            "Blurry images",
            "No edge is sharp, even at the size a student sees. Of a test set they say little.",
            f"blur > {_BLURRY}, at a short side of at least {_JUDGED} pixels",
            lambda row: row["blur"] > _BLURRY and min(row["width"], row["height"]) >= _JUDGED and not _flat(row),
            lambda row: -row["blur"],
            lambda row: f"blur {row['blur']:.2f}",
        ),
        _Rule(
            "dark",
            "warning",
            "Dark images",
            "Even the lights are dark.",
            f"high < {_DARK}",
            lambda row: row["high"] < _DARK,
            lambda row: row["high"],
            lambda row: f"lights at {row['high']:.2f}",
        ),
        _Rule(
            "bright",
            "warning",
            "Overexposed images",
            "Even the shadows are bright.",
            f"low > {_BRIGHT}",
            lambda row: row["low"] > _BRIGHT,
            lambda row: -row["low"],
            lambda row: f"shadows at {row['low']:.2f}",
        ),
        _Rule(
            "low_contrast",
            "warning",
            "Images with little contrast",
            "Lights and shadows hardly differ: fog, a lens cap, an empty page.",
            f"high - low < {_LOW_CONTRAST}",
            _flat,
            lambda row: row["high"] - row["low"],
            lambda row: f"from {row['low']:.2f} to {row['high']:.2f}",
        ),
        _Rule(
            "tiny",
            "warning",
            "Tiny images",
            "They are enlarged, so the student sees less in them than its input could hold.",
            bounds.tiny_rule,
            lambda row: min(row["width"], row["height"]) < bounds.tiny,
            lambda row: min(row["width"], row["height"]),
            lambda row: f"{row['width']}x{row['height']}",
        ),
        _Rule(
            "odd_shape",
            "warning",
            "Odd shapes",
            "A centred square shows little of such an image, and squeezing it into one distorts it.",
            f"one side is more than {_ODD_SHAPE:g} times the other",
            lambda row: max(row["aspect"], 1 / row["aspect"]) > _ODD_SHAPE,
            lambda row: -max(row["aspect"], 1 / row["aspect"]),
            lambda row: f"{row['width']}x{row['height']}",
        ),
        _Rule(
            "empty_mask",
            "note",
            "Empty masks",
            "Images without any object are good to have, unless the object was forgotten.",
            "no pixel of a class other than the background",
            lambda row: bool(row.get("empty_mask")),
            lambda row: 0.0,
            lambda row: f"{row['ignored']:.0%} ignored",
        ),
    ]


def of_images(rows: Sequence[Row], bounds: Bounds) -> Iterator[Finding]:
    """Findings about single images; marks their rows.

    Args:
        rows: by column.
        bounds: that depend on what is audited.
    """
    seen = [row for row in rows if row.get("brightness") is not None]
    for rule in _rules(bounds):
        found = [row for row in (rows if rule.kind == "damaged" else seen) if rule.applies(row)]
        if not found:
            continue
        for row in found:
            row[rule.kind] = True
        found.sort(key=lambda row: (rule.worst(row), row["path"]))
        images = [_found(row, rule.detail(row)) for row in found[:LISTED]]
        yield Finding(
            kind=rule.kind,
            level=rule.level,
            title=rule.title,
            meaning=rule.meaning,
            rule=rule.rule,
            count=len(found),
            images=images,
        )
    yield from _outliers(seen)


def _flat(row: Row) -> bool:
    return bool(row["high"] - row["low"] < _LOW_CONTRAST)


def _outliers(rows: Sequence[Row]) -> Iterator[Finding]:
    """Modified z-scores (Iglewicz and Hoaglin 1993) of all figures; of sizes and shapes that of their logarithms."""
    for name in MEASURED:
        having = [row for row in rows if row.get(name) is not None]
        if len(having) < _FEWEST:
            continue
        values = np.array([row[name] for row in having], dtype=np.float64)
        scores = np.abs(_robust(np.log(np.maximum(values, 1e-9)) if name in _LOGARITHMIC else values))
        for row, score in zip(having, scores.tolist(), strict=True):
            if score > max(_OUTLIER, row.get("outlier_score") or 0.0):
                row |= {"outlier": True, "outlier_score": round(score, 2), "outlier_of": name}
    found = sorted((row for row in rows if row.get("outlier")), key=lambda row: (-row["outlier_score"], row["path"]))
    if found:
        details = [f"{row['outlier_of']} {row[row['outlier_of']]:.3g}, z {row['outlier_score']:.0f}" for row in found]
        yield Finding(
            kind="outlier",
            level="note",
            title="Outliers",
            meaning="One figure is far from those of the other images: other cameras, screenshots, drawings, mistakes.",
            rule=f"robust z-score of one of {', '.join(MEASURED)} > {_OUTLIER:g}",
            count=len(found),
            images=[_found(row, detail) for row, detail in zip(found[:LISTED], details[:LISTED], strict=True)],
        )


def _robust(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Distance from the median in standard deviations of normally distributed values with as large a middle."""
    centred = values - np.median(values)
    spread = 1.4826 * np.median(np.abs(centred))
    if spread < 1e-9:  # more than half are equal
        spread = 1.2533 * np.abs(centred).mean()
    scores: npt.NDArray[np.float64] = centred / spread if spread > 1e-9 else np.zeros_like(values)
    return scores


def of_leaks(pairs: Sequence[Pair], rows: Mapping[str, Row], level: Level) -> Iterator[Finding]:
    """Images in two splits: of labelled ones an error, unless they were said to be left out.

    Args:
        pairs: as `distill.audit.leakage` gives them.
        rows: by path.
        level: of labelled images that folders or a manifest put into two splits.
    """
    if level == "error":
        meaning = (
            "The splits are wrong: the score measures memory. Put each scene into one split, or set data.leaks: drop."
        )
    else:
        meaning = "The splits are wrong. A run leaves out the first of each pair, by data.leaks: drop."
    left_out = "A run leaves out the first of each pair, so nothing learns from them."
    meanings: dict[str, tuple[Level, str, str]] = {
        "leak": (level, "Labelled images in two splits", meaning),
        "drawn_leak": ("warning", "Labelled images that a share put into two splits", left_out),
        "pool_leak": ("warning", "Unlabelled images that show what a held-out image shows", left_out),
    }
    kinds = ["leak" if pair.wrong else "drawn_leak" if pair.labelled else "pool_leak" for pair in pairs]
    for kind, (own, title, meaning) in meanings.items():
        found = [pair for pair, its in zip(pairs, kinds, strict=True) if its == kind]
        for pair in found:
            rows[pair.image]["leak"] = True
        if found:
            yield Finding(
                kind=kind,
                level=own,
                title=title,
                meaning=meaning,
                rule="same bytes, or thumbnails correlate at 0.95 after turning, trimming and stretching",
                count=len(found),
                pairs=[_leak(pair, rows) for pair in found[:LISTED]],
            )


def _leak(pair: Pair, rows: Mapping[str, Row]) -> FoundPair:
    first, second = rows[pair.image], rows[pair.of]
    how = "same bytes" if pair.same_bytes else f"{pair.distance} of 64 bits differ"
    return FoundPair(
        first=_found(first, "").model_copy(update={"split": pair.split}),
        second=_found(second, ""),
        detail=how,
    )


def of_pairs(kind: str, pairs: Sequence[tuple[Row, Row, str]]) -> Iterator[Finding]:
    """Copies that are no leak, and those that contradict each other; marks their rows.

    Args:
        kind: copy, near_copy, label_conflict or near_label_conflict.
        pairs: two rows and how they are alike.
    """
    told: dict[str, tuple[Level, str, str, str]] = {
        "label_conflict": (
            "error",
            "Files with the same bytes and different labels",
            "One of them is wrong. A run leaves out all of them.",
            "same bytes, other label or mask",
        ),
        "near_label_conflict": (
            "warning",
            "Images that show the same and have different labels",
            "One of the labels is wrong, or both classes are in the picture.",
            "near-duplicates with other labels",
        ),
        "copy": (
            "note",
            "Files with the same bytes",
            "A run uses one of them.",
            "same bytes",
        ),
        "near_copy": (
            "note",
            "Images of one split that show the same",
            "They count twice in training or in the score; intervals are then too narrow.",
            "thumbnails correlate at 0.95 after turning, trimming and stretching",
        ),
    }
    if not pairs:
        return
    level, title, meaning, rule = told[kind]
    for first, second, _ in pairs:
        first[kind.removeprefix("near_") if "conflict" in kind else kind] = True
        second[kind.removeprefix("near_") if "conflict" in kind else kind] = True
    yield Finding(
        kind=kind,
        level=level,
        title=title,
        meaning=meaning,
        rule=rule,
        count=len(pairs),
        pairs=[
            FoundPair(first=_found(first, ""), second=_found(second, ""), detail=detail)
            for first, second, detail in pairs[:LISTED]
        ],
    )


def of_suspects(suspects: Sequence[Suspect], rows: Mapping[str, Row], told: str) -> Iterator[Finding]:
    """Labels that are probably wrong; marks their rows.

    Args:
        suspects: the least confident first.
        rows: by id.
        told: how good the probabilities are.
    """
    if not suspects:
        return
    images = []
    for one in suspects:
        row = rows[one.id]
        row |= {"suspect_label": True, "likely_label": one.likely, "label_confidence": one.confidence}
        images.append(_found(row, f"rather {one.likely}; {one.label} {percent(one.confidence)}"))
    yield Finding(
        kind="suspect_label",
        level="warning",
        title="Labels that are probably wrong",
        meaning=f"Look at the first ones: the list is ordered, and its end is mostly right. {told}",
        rule="confident learning (Northcutt et al. 2021), and the label's probability at most 10 %",
        count=len(images),
        images=images[:LISTED],
    )


def of_masks(agreement: Mapping[str, float], rows: Mapping[str, Row]) -> Iterator[Finding]:
    """Masks that a teacher contradicts; marks their rows.

    Args:
        agreement: mean IoU of mask and answer, 0..1, by id.
        rows: by id.
    """
    for image, iou in agreement.items():
        rows[image]["teacher_iou"] = iou
    if len(agreement) < _FEWEST:
        return
    scores = _robust(np.array(list(agreement.values())))
    doubtful = [image for image, score in zip(agreement, scores.tolist(), strict=True) if score < -_DOUBTFUL]
    doubtful.sort(key=lambda image: (agreement[image], rows[image]["path"]))
    for image in doubtful:
        rows[image]["suspect_mask"] = True
    if doubtful:
        median = float(np.median(list(agreement.values())))
        yield Finding(
            kind="suspect_mask",
            level="warning",
            title="Masks that the teacher contradicts",
            meaning="Either the teacher fails on them, which is good to know, or the mask is wrong.",
            rule=f"mean IoU of mask and teacher far below the median of {median:.2f}: robust z-score < -{_DOUBTFUL:g}",
            count=len(doubtful),
            images=[_found(rows[image], f"IoU {agreement[image]:.2f}") for image in doubtful[:LISTED]],
        )


def of_classes(classes: Sequence[str], counts: Mapping[str, Any], *, masks: bool) -> Iterator[Finding]:
    """Findings about classes and splits.

    Args:
        classes: in order.
        counts: as `Manifest.counts` gives them.
        masks: whether the truth is masks.
    """
    by_class: dict[str, dict[str, int]] = {
        split: {name: counts["by_class"][split].get(name, 0) for name in classes} for split in SPLITS
    }
    noun = "pixel" if masks else "image"
    learnt = {name for split in ("train", "validation") for name, n in by_class[split].items() if n}
    seen = learnt | {name for name, n in by_class["test"].items() if n}
    if never := [name for name in classes if name not in seen]:
        yield _about(
            "unseen_class",
            "warning",
            "Classes that nothing shows",
            f"No labelled {noun} has them: nothing can be said about how well they are known.",
            "named, but on no label or mask",
            never,
        )
    if learnt and (only := [name for name in classes if name in seen - learnt]):
        yield _about(
            "test_only_class",
            "error",
            "Classes that only the test set has",
            "Nothing can learn them, and a run stops. Add labelled images of them to train or validation.",
            "in test, but neither in train nor in validation",
            only,
        )
    for split in ("train", "validation", "test"):
        has = {name for name, n in by_class[split].items() if n}
        if has and (lacking := [name for name in classes if name in seen - has and name in learnt]):
            yield _about(
                f"missing_in_{split}",
                "warning",
                f"Classes without labelled images in {split}",
                "Their score there is not known." if split != "train" else "Only the teacher can teach them.",
                f"in another split, but not in {split}",
                lacking,
            )
    total = Counter({name: sum(by_class[split][name] for split in SPLITS) for name in classes})
    if rare := [name for name in classes if 0 < total[name] < _FEWEST]:
        yield _about(
            "rare_class",
            "note",
            "Rare classes",
            "Their scores have wide intervals.",
            f"fewer than {_FEWEST} labelled images in all splits",
            [f"{name} ({total[name]})" for name in rare],
        )
    present = {name: n for name, n in by_class["train"].items() if n}
    if not masks and len(present) > 1 and max(present.values()) > _IMBALANCE * min(present.values()):
        most, least = max(present, key=lambda name: present[name]), min(present, key=lambda name: present[name])
        yield _about(
            "imbalance",
            "note",
            "Unbalanced classes",
            "Look at scores by class; trust.balance weights rare classes up.",
            f"the commonest class of labelled training images has more than {_IMBALANCE:g} times as many as the rarest",
            [f"{most} ({present[most]})", f"{least} ({present[least]})"],
        )


def _about(kind: str, level: Level, title: str, meaning: str, rule: str, classes: Sequence[str]) -> Finding:
    return Finding(
        kind=kind, level=level, title=title, meaning=meaning, rule=rule, count=len(classes), classes=list(classes)
    )


def _found(row: Row, detail: str) -> Found:
    return Found(path=row["path"], split=row["split"], label=row["label"], detail=detail)


def histogram(name: str, values: npt.NDArray[np.float64], splits: Sequence[str]) -> dict[str, Any]:
    """Figures of a column: percentiles, and a histogram of 24 bins between the 0.5th and the 99.5th.

    Args:
        name: of the column; bins of sizes and shapes grow by a factor.
        values: float64 [N], at least one, without NaN.
        splits: of each value.
    """
    low, high = (float(v) for v in np.percentile(values, [0.5, 99.5]))
    if high <= low:
        low, high = low - 0.5, high + 0.5
        edges = np.linspace(low, high, 25)
    elif name in _LOGARITHMIC and low > 0:
        edges = np.geomspace(low, high, 25)
    else:
        edges = np.linspace(low, high, 25)
    inside = np.clip(values, edges[0], edges[-1])
    by_split: dict[str, list[float]] = defaultdict(list)
    for value, split in zip(inside.tolist(), splits, strict=True):
        by_split[split].append(value)
    ordered = sorted(by_split, key=lambda split: [*SPLITS, ""].index(split) if split in SPLITS else len(SPLITS))
    p5, median, p95 = (float(v) for v in np.percentile(values, [5, 50, 95]))
    return {
        "unit": MEASURED[name],
        "least": _short(values.min()),
        "p5": _short(p5),
        "median": _short(median),
        "p95": _short(p95),
        "largest": _short(values.max()),
        "edges": [_short(edge) for edge in edges],
        "counts": {split: np.histogram(by_split[split], bins=edges)[0].tolist() for split in ordered},
    }


def _short(value: float) -> float:
    """Five digits are enough, and stay the same where the last bit of a sum does not."""
    return 0.0 if value == 0 else round(float(value), 4 - math.floor(math.log10(abs(float(value)))))
