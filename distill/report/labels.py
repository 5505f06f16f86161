"""Images for the eye where labels are answered: the worst mistakes, and where predictors do not say the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from distill.core.types import softmax
from distill.report.extras import short
from distill.report.pictures import DISAGREEMENTS, MISTAKES, photo

if TYPE_CHECKING:
    from distill.core.types import ImageRecord
    from distill.data.views import Resize
    from distill.tasks.classification import LabelAnswers

__all__ = ["draw_disagreements", "draw_mistakes"]


def draw_mistakes(
    records: Mapping[str, ImageRecord],
    classes: Sequence[str],
    answers: LabelAnswers,
    resize: Resize,
    max_megapixels: float,
    pictures: dict[str, bytes],
) -> list[dict[str, Any]]:
    """Wrong labels, the most confident first.

    Args:
        records: by image id.
        classes: names, in the order of places.
        answers: of one predictor.
        resize: shape of the fixed view.
        max_megapixels: larger images are not opened.
        pictures: gets the images.

    Returns:
        For `report.json`: `picture`, `path`, `truth`, `answer` and `confidence`, 0..1, of at most `MISTAKES` images.
    """
    probabilities = softmax(answers.logits)
    said, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = [i for i in (-confidence).argsort(kind="stable") if said[i] != answers.truth[i]]
    found = []
    for number, place in enumerate(wrong[:MISTAKES]):
        record = records[answers.ids[place]]
        drawn = photo(record, resize, max_megapixels)
        if drawn is None:  # gone since it was scored
            continue
        pictures[f"mistake-{number}"] = drawn
        truth, answer = classes[answers.truth[place]], classes[said[place]]
        told = {"truth": truth, "answer": answer, "confidence": float(confidence[place])}
        found.append({"picture": f"mistake-{number}", "path": short(record.path), **told})
    return found


def draw_disagreements(
    records: Mapping[str, ImageRecord],
    classes: Sequence[str],
    said: Mapping[str, LabelAnswers],
    resize: Resize,
    max_megapixels: float,
    pictures: dict[str, bytes],
) -> dict[str, Any] | None:
    """How often the predictors are right together or alone, and images about which they do not say the same.

    The file and the student come first, which should agree; then those on which the answers are surest.

    Args:
        records: by image id.
        classes: names, in the order of places.
        said: answers to the same images by name, the file last.
        resize: shape of the fixed view.
        max_megapixels: larger images are not opened.
        pictures: gets the images.

    Returns:
        For `report.json`: `predictors`, `counts` (`right`, the names of those that are, and `images`), the most
        frequent first, and `images` of `picture`, `path`, `truth` and `answers` (answer and confidence, 0..1), one a
        predictor. None of fewer than two.
    """
    if len(said) < 2:
        return None
    names, one = list(said), next(iter(said.values()))
    probabilities = np.stack([softmax(answers.logits) for answers in said.values()])
    places, confidence = probabilities.argmax(axis=2), probabilities.max(axis=2)
    right = places == one.truth
    counts = Counter(tuple(column) for column in right.T.tolist())
    differ = np.flatnonzero((places != places[-1]).any(axis=0))
    ranked = sorted(differ.tolist(), key=lambda at: (places[-2, at] == places[-1, at], -confidence[:, at].sum()))
    images = []
    for number, place in enumerate(ranked[:DISAGREEMENTS]):
        record = records[one.ids[place]]
        drawn = photo(record, resize, max_megapixels)
        if drawn is None:
            continue
        pictures[f"disagreement-{number}"] = drawn
        told = [
            {"answer": classes[places[who, place]], "confidence": float(confidence[who, place])}
            for who in range(len(names))
        ]
        known = {"path": short(record.path), "truth": classes[one.truth[place]], "answers": told}
        images.append({"picture": f"disagreement-{number}", **known})
    return {
        "predictors": names,
        "counts": [
            {"right": [name for name, hit in zip(names, hits, strict=True) if hit], "images": count}
            for hits, count in counts.most_common()
        ],
        "images": images,
    }
