"""`distill doctor`: which of the usual causes a run shows where its student is no better than the control.

A cause is a pure function of the evidence. None of them opens a model: whether the teacher still gives the stored
answers is for `distill labels verify`, since the teacher's kept predictions are about validation and test images and
the store is about training images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from distill.evidence import FEW, Evidence
from distill.report.wording import between, decimal, percent, points, printable

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["CAUSES", "Finding", "describe", "diagnose"]

_LITTLE_DATA = 2.0
_UNLEARNT = 0.25  # a student that follows its teacher leaves 5 to 15 %
_LEARNT = 0.1


class Finding(NamedTuple):
    """A cause that shows.

    Args:
        cause: its name.
        evidence: figures.
        advice: what to do.
    """

    cause: str
    evidence: str
    advice: str


def weak_teacher(e: Evidence) -> Finding | None:
    """A student cannot learn from its teacher what the teacher does not know."""
    cause, advice = "teacher no better", "take a larger teacher, fit it (`teacher.fit: {}`), or label more images"
    if e.over_control is not None and e.over_control.low <= 0:
        return Finding(cause, f"{_teacher(e)}: it is not shown to know more than the control", advice)
    if e.over_student.value <= 0:
        return Finding(cause, f"{_teacher(e)}: the student has caught up with it", advice)
    return None


def few_test_images(e: Evidence) -> Finding | None:
    """The interval may be too wide to show even the largest gain there can be, the whole lead of the teacher."""
    if e.gain is None or e.over_control is None or e.gain.low > 0 or not 0 < e.over_control.value <= e.gain.high:
        return None
    evidence = f"{_gain(e)}: that the student gained all {points(e.over_control.value)} points is not excluded"
    return Finding("too few images to tell", evidence, "label more test images; four times as many halve the interval")


def little_data(e: Evidence) -> Finding | None:
    """Less than two unlabelled images for each labelled one.

    With two, the student sees three times the images of the control. Errors fall at most with the power 0.35 of the
    number of images (Hestness et al. 2017, arXiv 1712.00409: 0.07 to 0.35), were the pseudo-labels as good as truth: by
    a third at best, a few points, about as wide as the interval on some hundred test images.
    """
    cause = "too little unlabelled data"
    if e.unlabelled < _LITTLE_DATA * e.labelled:
        advice = f"add unlabelled images, {_LITTLE_DATA:.0f} to 10 for each labelled one (data.unlabeled)"
        return Finding(cause, _data(e), advice)
    if e.unlearnt is not None and e.unlearnt <= _LEARNT and e.agreement < 0.85:
        evidence = f"{_capacity(e)}: the student knows the stored answers, but not the teacher's to new images"
        return Finding(cause, evidence, "add unlabelled images, more views (labels.views) or colour changes")
    return None


def wrong_class_map(e: Evidence) -> Finding | None:
    """Classes that are swapped, lost, or answered far more or less often than they are labelled."""
    told = [*_permuted(e), *_lost(e)]
    told += [f"nothing maps to {name}" for name in e.unreached]
    pseudo, known = sum(e.pseudo), sum(e.known)
    if pseudo and known:
        expected = [count * pseudo / known for count in e.known]
        told += [
            f"{name} is never answered ({wanted:.0f} of {pseudo:.0f} expected)"
            for name, wanted, found in zip(e.classes, expected, e.pseudo, strict=True)
            if found < 0.5 and wanted >= 20
        ]
        distance, noise = e.distance
        if distance > noise + 0.2:
            told.append(f"{_shares(e)}, chance gives {decimal(noise, 2)} (or the unlabelled images are others)")
    if not told:
        return None
    advice = "compare teacher.classes and class_map with the model's outputs; look at `distill labels show --class`"
    return Finding("class map wrong", "; ".join(told), advice)


def inconsistent_views(e: Evidence) -> Finding | None:
    """Teacher and student must see the same: same numbers, same shape, comparable sharpness."""
    told, advice = [], "run the same command again to label anew"
    if e.views_wrong:
        told.append(f"{e.views_wrong} of {e.views_drawn} stored views are not those that their plan draws")
    told += e.plan_changes
    if not told and e.student_size * 3 <= e.teacher_size:
        told = [f"the student sees {e.student_size} px, the teacher {e.teacher_size}"]
        advice = "raise student.image_size"
    if not told and e.crops_agree is not None and e.crops_agree < 0.6:
        told = [f"{percent(e.crops_agree, 0)} of the crops are called what the whole image is called"]
        advice = "crops miss the object: raise train.min_crop"
    return Finding("views inconsistent", "; ".join(told), advice) if told else None


def learning_rate(e: Evidence) -> Finding | None:
    """A loss that is no number, does not fall, rises, or still falls when training ends."""
    cause, losses = "learning rate or length", [loss - (e.floor or 0.0) for loss in e.losses]
    if any(not math.isfinite(loss) for loss in losses):
        return Finding(cause, f"{_curve(e)}: it is no number", "a third of the learning rate (train.lr)")
    if len(losses) < 3:
        return None
    lowest = min(range(len(losses)), key=losses.__getitem__)
    if losses[-1] > 1.1 * losses[lowest] and lowest + 1 <= 0.8 * len(losses):
        evidence = f"{_curve(e)}: it rises since epoch {lowest + 1} ({decimal(e.losses[lowest])})"
        return Finding(cause, evidence, "a third of the learning rate (train.lr)")
    if losses[-1] > 0.9 * losses[0]:
        return Finding(cause, f"{_curve(e)}: it hardly falls", "three times the learning rate (train.lr), then a third")
    before = losses[-1 - max(1, len(losses) // 5)]
    if e.best_epoch == len(losses) == e.epochs and losses[-1] < 0.95 * before:
        evidence = f"{_curve(e)}: the last epoch is the best, and the loss still falls"
        return Finding(cause, evidence, f"more epochs: train.epochs={2 * e.epochs}")
    return None


def small_student(e: Evidence) -> Finding | None:
    """The student does not even learn what it is shown, though its loss has settled."""
    if e.unlearnt is None or not e.unlearnt > _UNLEARNT or learning_rate(e) is not None:
        return None
    advice = "a larger student, a larger student.image_size, or milder crops (train.min_crop)"
    return Finding("capacity", f"{_capacity(e)}: it does not follow its teacher", advice)


class _Cause(NamedTuple):
    name: str
    look: Callable[[Evidence], Finding | None]
    figures: Callable[[Evidence], str]


def _gain(e: Evidence) -> str:
    if e.gain is None:
        return ""
    gain = f"student {points(e.gain.value, signed=True)} points against the control [{between(asdict(e.gain))}]"
    return f"{gain} on {e.images} {e.split} images"


def _teacher(e: Evidence) -> str:
    pairs = (("control", e.over_control), ("student", e.over_student))
    ahead = [f"{name} {points(i.value, signed=True)} [{between(asdict(i))}]" for name, i in pairs if i is not None]
    return f"points of the teacher over {', '.join(ahead)} on {e.images} {e.split} images"


def _data(e: Evidence) -> str:
    ratio = f" ({e.unlabelled / e.labelled:.1f} for each)" if e.labelled else ""
    return f"{e.unlabelled} unlabelled images to learn from, {e.labelled} labelled{ratio}"


def _shares(e: Evidence) -> str:
    pseudo, known = (np.array(counts) / max(1, sum(counts)) for counts in (e.pseudo, e.known))
    worst = int(np.abs(pseudo - known).argmax())
    text = f"shares of pseudo-labels and labels differ by {decimal(e.distance[0], 2)} of 1"
    return f"{text} ({e.classes[worst]}: {percent(pseudo[worst], 0)} and {percent(known[worst], 0)})"


def _classes(e: Evidence) -> str:
    recalls = [row[i] / sum(row) for i, row in enumerate(e.confusion) if sum(row)]
    text = f"lowest recall of the teacher {percent(min(recalls), 0)}" if recalls else "no validation image"
    text = f"{text}; {_shares(e)}" if sum(e.pseudo) and sum(e.known) else text
    return f"{text}; counts are the images that pixels would fill" if e.by_pixel else text


def _views(e: Evidence) -> str:
    if e.by_pixel:
        return f"maps are of whole images and cut as the view is; {_sizes(e)}. Stored maps: see `distill labels verify`"
    text = f"{e.views_drawn} views drawn again, {e.views_wrong} differ"
    text += f"; {_sizes(e)}"
    if e.crops_agree is not None:
        text += f"; {percent(e.crops_agree, 0)} of crops are called as the whole image"
    return f"{text}. Stored answers: see `distill labels verify`"


def _sizes(e: Evidence) -> str:
    return f"the teacher sees {e.teacher_size} px, the student {e.student_size}"


def _curve(e: Evidence) -> str:
    if not e.losses:
        return ""
    text = f"loss {e.losses[0]:.3f} to {e.losses[-1]:.3f} in {len(e.losses)} of {e.epochs} epochs"
    return f"{text}, best epoch {e.best_epoch}, lr {e.lr}"


def _capacity(e: Evidence) -> str:
    of = "of the pixels of" if e.by_pixel else "of"
    same = f"student and teacher agree on {percent(e.agreement)} {of} {e.images} {e.split} images"
    if e.unlearnt is None:
        known = "kl of images at temperature 1 without mixup"
        return f"{same}; the loss says nothing here (only {known} has a known least value)"
    assert e.floor is not None
    loss = f"training loss {e.losses[-1]:.3f}, least possible {e.floor:.3f}"
    return f"{loss}: {percent(max(0.0, e.unlearnt), 0)} of what the answers tell is not learnt; {same}"


CAUSES: tuple[_Cause, ...] = (
    _Cause("teacher no better", weak_teacher, _teacher),
    _Cause("too few images to tell", few_test_images, _gain),
    _Cause("too little unlabelled data", little_data, _data),
    _Cause("class map wrong", wrong_class_map, _classes),
    _Cause("views inconsistent", inconsistent_views, _views),
    _Cause("learning rate or length", learning_rate, _curve),
    _Cause("capacity", small_student, _capacity),
)


def _permuted(e: Evidence) -> Iterator[str]:
    """Cycles of classes, each of which is mostly called the next."""
    called = e.mostly_called
    for start in called:
        path = [start]
        while (following := called.get(path[-1])) is not None and following not in path:
            path.append(following)
        if following == start and start == min(path):
            counts = ", ".join(f"{e.confusion[a][called[a]]:.0f} of {sum(e.confusion[a]):.0f}" for a in path)
            yield f"{' is called '.join(e.classes[place] for place in (*path, start))} ({counts})"


def _lost(e: Evidence) -> Iterator[str]:
    """Classes the teacher hardly ever finds."""
    for place, row in enumerate(e.confusion):
        if sum(row) >= FEW and row[place] <= 0.1 * sum(row):
            instead = e.classes[max(range(len(row)), key=row.__getitem__)]
            yield f"the teacher finds {row[place]:.0f} of {sum(row):.0f} {e.classes[place]}, calling them {instead}"


def diagnose(e: Evidence) -> dict[str, Any]:
    """The verdict and each cause with its figures, as `--json` prints them."""
    better = None if e.gain is None else e.gain.low > 0
    causes = []
    for name, look, figures in CAUSES:
        found, known = look(e), figures(e)
        evidence, advice = (found.evidence, found.advice) if found else (known, "")
        causes.append(
            {"cause": name, "shows": bool(found) if found or known else None, "evidence": evidence, "advice": advice}
        )
    return {"verdict": _verdict(e, better, causes), "better": better, "causes": causes, "evidence": _finite(asdict(e))}


def _verdict(e: Evidence, better: bool | None, causes: list[dict[str, Any]]) -> str:
    shown = [cause["cause"] for cause in causes if cause["shows"]]
    if better:
        text = f"all is well: {_gain(e)}"
        return f"{text}; could be better: {', '.join(shown)}" if shown else text
    if better is None:
        text = "whether distillation helped cannot be said: the run has no control (too few labelled images)"
    else:
        worse = e.gain is not None and e.gain.high < 0
        text = f"the student is {'worse than' if worse else 'not shown to be better than'} the control: {_gain(e)}"
    return f"{text}; usual causes that show: {', '.join(shown) or 'none'}"


def _finite(value: Any) -> Any:
    """Without NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def describe(diagnosis: Mapping[str, Any]) -> Iterator[RenderableType]:
    """The diagnosis for the terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    yield Text(printable(diagnosis["verdict"]))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("cause", "shows", "evidence", "what to do"):
        table.add_column(name, overflow="fold")
    for cause in diagnosis["causes"]:
        shows = "not known" if cause["shows"] is None else "yes" if cause["shows"] else "no"
        cells = (cause["cause"], shows, cause["evidence"], cause["advice"])
        table.add_row(*(Text(printable(cell)) for cell in cells), style="bold" if cause["shows"] else "")
    yield table
