"""Short trainings: a handful by heart, more weights learn more, and where the learning rate lies."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch

from distill import train
from distill.data.batches import iterate
from distill.examples import Lesson
from distill.losses import Targets
from distill.sanity.check import Seen
from distill.sanity.subject import Subject, hardened, mixed_answers, pure_cells, without_dropout
from distill.torch_predictor import Network

__all__ = ["check_capacity", "check_overfit", "check_rate"]

_HANDFUL = 8
_MOST_STEPS = 200
_ZERO = 0.05  # share of the first loss
_IN_A_ROW = 3  # losses; where noise is never switched off, one may be low by chance
_CROWD = 48  # images that capacity is compared on
_GROW_STEPS = 30
_CLASSIFIER_RATE = 0.01
_CLOSE = 0.02  # share of the first loss: what lies below has nothing left to fall
_LOWER = 0.005  # share of the first loss
_RANGE = (1e-7, 10.0)
_RANGE_STEPS = 120
_RANGE_BATCH = 32
_SMOOTHED = 0.85
_BEGUN = 0.1  # share of the whole fall after which it has begun
_SLACK = (30.0, 3.0)  # how far below the falling part, and above it, a rate may lie: docs/sanity.md says why


def check_overfit(subject: Subject) -> Seen:
    """A handful of images is learnt by heart."""
    lesson = _ready(subject, _varied(subject, _HANDFUL))
    kind = "cells away from edges" if subject.task.by_pixel else "most probable classes"
    expected = f"the loss of {len(lesson.shown)} images ({kind}) below {_ZERO:.0%} of the first in {_MOST_STEPS} steps"
    network = _began(subject)
    losses: list[float] = []
    for loss in _steps(subject, network, lesson, _rate(subject), _MOST_STEPS):
        losses.append(loss)
        if not math.isfinite(loss) or max(losses[-_IN_A_ROW:]) < _ZERO * losses[0]:
            break
    start, end = losses[0], max(losses[-_IN_A_ROW:])
    saw = f"{start:.3f}, after {len(losses) - 1} steps {end:.4f} ({end / max(start, 1e-12):.1%})"
    return Seen(end < _ZERO * start, expected, saw, {"losses": losses})


def check_capacity(subject: Subject) -> Seen:
    """A bias alone learns the class frequencies, the last layer more, the whole network most; each goes on behind."""
    expected = "bias, last layer, whole network: each ends lower than the one before, unless nothing is left"
    lesson = _ready(subject, _varied(subject, _CROWD))
    network = _began(subject)
    classifier = network.classifier()
    learns = {p: p.requires_grad for p in network.parameters()}
    if classifier.bias is None:
        return Seen(None, expected, "the last layer has no bias")
    parts: dict[str, tuple[list[torch.Tensor], float]] = {
        "bias": ([classifier.bias], _CLASSIFIER_RATE * 5),
        "last layer": ([classifier.weight, classifier.bias], _CLASSIFIER_RATE),
        "whole network": ([p for p, own in learns.items() if own], _rate(subject)),
    }
    first = next(_steps(subject, network, lesson, 0.0, 1))
    step, nothing = _LOWER * first, _CLOSE * first
    ends, before = dict[str, float](), math.inf
    for name, (parameters, rate) in parts.items():
        chosen = {id(p) for p in parameters}
        for parameter, own in learns.items():
            parameter.requires_grad_(own and id(parameter) in chosen)
        losses: list[float] = []
        for loss in _steps(subject, network, lesson, rate, 3 * _GROW_STEPS):
            losses.append(loss)
            if len(losses) >= _GROW_STEPS and np.mean(losses[-5:]) < before - step:
                break
        before = ends[name] = float(np.mean(losses[-5:]))
    saw = f"{first:.3f} at the start; " + ", ".join(f"{name} {value:.4f}" for name, value in ends.items())
    # Where the last layer alone knows all, learning on in the others only stirs it up.
    holds = all(after < before - step or before < nothing for before, after in itertools.pairwise(ends.values()))
    return Seen(holds, expected, saw, {"first": first, **ends})


def check_rate(subject: Subject) -> Seen:
    """The learning-rate range test (Smith 2015, arXiv 1506.01186): where does the loss fall as the rate grows?"""
    rate = subject.plan.lr
    expected = f"train.lr ({rate:g}) where the loss falls, at most {_SLACK[0]:g} times below it and {_SLACK[1]:g} above"
    network = _began(subject)
    optimizer = _optimizer(network, _RANGE[0])
    rates = np.geomspace(*_RANGE, _RANGE_STEPS)
    tried: list[float] = []
    smoothed: list[float] = []
    running = 0.0
    for step, (tried_rate, (images, targets)) in enumerate(zip(rates, _batches(subject), strict=False)):
        for group in optimizer.param_groups:
            group["lr"] = float(tried_rate)
        value = _step(subject, network, optimizer, images, targets)
        if not math.isfinite(value):
            break
        running = _SMOOTHED * running + (1 - _SMOOTHED) * value
        tried.append(float(tried_rate))
        smoothed.append(running / (1 - _SMOOTHED ** (step + 1)))
        if step > 20 and smoothed[-1] > 4 * max(smoothed[:5]) + 1:
            break
    if len(smoothed) < 20:
        return Seen(False, expected, f"the loss is no number at a rate of {rates[len(smoothed)]:.2g}", {"rates": tried})
    start, lowest = float(np.mean(smoothed[8:14])), int(np.argmin(smoothed))
    fall = start - smoothed[lowest]
    noise = float(np.std(np.diff(smoothed[8:30])) * 4)
    figures = {"lr": rate, "rates": tried, "smoothed_loss": smoothed}
    if fall <= max(noise, 0.02 * abs(start)):
        saw = f"the loss hardly falls at any rate (by {fall:.3f} from {start:.3f}): no answer"
        return Seen(None, expected, saw, figures)
    begun = next(place for place in range(lowest + 1) if place > 8 and start - smoothed[place] >= _BEGUN * fall)
    low, high = tried[begun], tried[lowest]
    place = "below it" if rate < low else "above it" if rate > high else "inside"
    saw = f"the loss falls from {low:.1e} to {high:.1e} ({start:.3f} to {smoothed[lowest]:.3f}); train.lr lies {place}"
    return Seen(low / _SLACK[0] <= rate <= high * _SLACK[1], expected, saw, {**figures, "low": low, "high": high})


def _rate(subject: Subject) -> float:
    """What `auto` is: whether the rate that was set is right has a check of its own."""
    found: float = train.decide(subject.settings.model_copy(update={"lr": "auto"}), subject.network(answering=False)).lr
    return found


def _began(subject: Subject) -> Network:
    """A student at the start of training, without a probe, which would leave little to learn."""
    network = subject.network(answering=False)
    plan = subject.plan._replace(probe=False)
    train.begin(network, plan, subject.examples, subject.validation, cache=subject.cache, resize=subject.resize)
    return network


def _varied(subject: Subject, count: int) -> Lesson:
    """Different images of the first epoch, of as many classes as there are among the first."""
    places = subject.examples.epoch(0)
    _, first = np.unique(places[:, 0], return_index=True)
    places = places[np.sort(first)][: count if subject.task.by_pixel else 8 * count]
    lesson = subject.examples.lesson(places)
    counted = lesson.weight.reshape(len(places), -1).max(axis=1) > 0
    names = mixed_answers(lesson).reshape(len(places), -1, lesson.truth.shape[-1]).mean(axis=1).argmax(axis=1)
    turn = np.array([int((names[:place] == name).sum()) for place, name in enumerate(names)])
    order = np.lexsort((np.arange(len(places)), turn, ~counted))[:count]
    return subject.examples.lesson(places[np.sort(order)])


def _ready(subject: Subject, lesson: Lesson) -> Lesson:
    """Asking for the most probable classes alone, so that the loss can come down to zero."""
    sure = hardened(lesson)
    return pure_cells(sure) if subject.task.by_pixel else sure


def _optimizer(network: Network, rate: float) -> torch.optim.Optimizer:
    groups = [group for group in train.parameter_groups(network, 0.0) if group["params"]]
    nothing = torch.zeros(1, requires_grad=True)  # where all is frozen, that is to be seen
    return torch.optim.AdamW(groups or [{"params": [nothing]}], lr=rate)


def _steps(subject: Subject, network: Network, lesson: Lesson, rate: float, count: int) -> Iterator[float]:
    """Losses before each of `count` steps on one lesson, batch by batch, and the last one after them all."""
    images, targets = subject.batch(lesson)
    optimizer = _optimizer(network, rate)
    train.training_mode(network, frozen=subject.plan.frozen)
    without_dropout(network)
    for _ in range(count):
        yield _step(subject, network, optimizer, images, targets)
    with torch.no_grad():
        yield float(subject.loss(network(images), targets))


def _step(
    subject: Subject, network: Network, optimizer: torch.optim.Optimizer, images: torch.Tensor, targets: Targets
) -> float:
    value = subject.loss(network(images), targets)
    if value.requires_grad:
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(value.detach())


def _batches(subject: Subject) -> Iterable[tuple[torch.Tensor, Targets]]:
    """Batches as training shows them, epoch after epoch."""
    size = min(subject.settings.batch_size, _RANGE_BATCH)
    lessons: list[Lesson] = []

    def shown() -> Iterator[list[tuple[object, object]]]:
        for epoch in itertools.count():
            places = subject.examples.epoch(epoch)
            for part in np.array_split(places, max(1, len(places) // size)):
                lessons.append(subject.examples.lesson(part))
                yield lessons[-1].shown  # type: ignore[misc]

    images = iterate(subject.cache, shown(), subject.image_size, workers=2)  # type: ignore[arg-type]
    for number in itertools.count():
        pixels = next(images)
        made = train.Batch.of(lessons[number], pixels, torch.device(subject.device))
        yield made.images, Targets(*made[1:])
