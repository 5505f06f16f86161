"""What was answered by whom, how often the suggestion was right, and how far people agree: `--summary`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np

from distill.core.dense import IGNORED
from distill.data.corrections import Answer, Corrections, Log
from distill.report.wording import count, decimal, percent, printable
from distill.review.subject import Subject

__all__ = ["describe", "gather"]

_BREAK = 60.0  # seconds between two answers from which somebody did something else


def gather(subject: Subject, log: Log) -> dict[str, Any]:
    """All figures, as `--json` prints them.

    Args:
        subject: the images.
        log: its journal.

    Raises:
        DataError: a mask is damaged.
    """
    truth = log.truth()
    here = {image: answer for image, answer in truth.items() if image in subject.items}
    kept = [answer.confirmed for answer in here.values() if answer.action in ("label", "mask")]
    last = {user: log.truth(user) for user in dict.fromkeys(a.user for a in log.answers.values())}
    return {
        "images": len(subject.items),
        "answered": len(here),
        "suggestion_kept": {"images": len(kept), "share": float(np.mean(kept)) if kept else None},
        "labels": dict(Counter(a.label for a in here.values() if a.action == "label").most_common()),
        "rejected": sum(a.action == "reject" for a in here.values()),
        "people": [_person(user, log) for user in last],
        "agreement": [
            {"people": [one, other], **_agreement(subject, last[one], last[other])}
            for one, other in combinations(last, 2)
            if set(last[one]) & set(last[other])
        ],
        "torn_bytes": log.torn,
    }


def _person(user: str, log: Log) -> dict[str, Any]:
    own = [answer for answer in log.answers.values() if answer.user == user]
    actions: Counter[str] = Counter(answer.action for answer in own if answer.number not in log.undone)
    gaps = np.diff([answer.time for answer in own])
    gaps = gaps[(gaps >= 0) & (gaps < _BREAK)]
    rate = 60 * len(gaps) / float(gaps.sum()) if gaps.sum() > 0 else None
    undone = sum(answer.number in log.undone for answer in own)
    return {"name": user, **actions, "undone": undone, "answers_a_minute": rate}


def _agreement(subject: Subject, one: Mapping[str, Answer], other: Mapping[str, Answer]) -> dict[str, Any]:
    """How far two people agree on the images that both answered.

    Of classes the share of equal answers and Cohen's kappa, of masks the mean share of equal pixels among those that
    both judged.
    """
    both = [image for image in one if image in other]
    if not subject.by_pixel:
        from sklearn.metrics import cohen_kappa_score

        first, second = ([said[image].label or said[image].action for image in both] for said in (one, other))
        equal = [a == b for a, b in zip(first, second, strict=True)]
        varied = len({*first, *second}) > 1  # of one class alone chance is always right
        kappa = float(cohen_kappa_score(first, second)) if varied else None
        return {"images": len(both), "equal": float(np.mean(equal)), "kappa": kappa}
    corrections, shares = Corrections(subject.folder, {}), list[float]()
    for image in both:
        if one[image].action == other[image].action == "mask":
            masks = [corrections.mask(said[image], subject.classes) for said in (one, other)]
            known = (masks[0] != IGNORED) & (masks[1] != IGNORED)
            shares.append(float((masks[0] == masks[1])[known].mean()) if known.any() else 1.0)
        else:
            shares.append(float(one[image].action == other[image].action))
    return {"images": len(both), "equal": float(np.mean(shares)), "kappa": None}


def describe(document: Mapping[str, Any]) -> Iterator[str]:
    """The document of `gather` for the terminal."""
    yield f"answered: {count(document['answered'])} of {count(document['images'])} images"
    kept = document["suggestion_kept"]
    if kept["share"] is not None:
        yield f"suggestion kept: {percent(kept['share'])} of {count(kept['images'])}"
    for name, images in document["labels"].items():
        yield printable(f"  {count(images)} {name}")
    if document["rejected"]:
        yield f"left out: {count(document['rejected'])}"
    for person in document["people"]:
        said = [
            f"{count(person[key])} {key}" for key in ("label", "mask", "reject", "skip", "undone") if person.get(key)
        ]
        rate = person["answers_a_minute"]
        yield printable(f"{person['name']}: {', '.join(said)}" + (f"; {decimal(rate)} a minute" if rate else ""))
    for pair in document["agreement"]:
        kappa = "" if pair["kappa"] is None else f", Cohen's kappa {decimal(pair['kappa'])}"
        yield printable(
            f"{' and '.join(pair['people'])} agree on {percent(pair['equal'])} of {count(pair['images'])}{kappa}"
        )
    if document["torn_bytes"]:
        yield f"{count(document['torn_bytes'])} bytes of an answer that was cut off and that nobody was told was saved"
