"""How a student becomes int8: which of its layers stay float, and what range each tensor gets.

Three ways, each dearer than the one before. All of them look at calibration images alone, by fake quantization, since
writing and running a file for each question would take twenty times as long; what a file then loses is measured on the
file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from distill.call_graph import Call, call_graph, weight_layers
from distill.core.types import Images
from distill.fake_quantization import Int8Backbone, Ranges, fake_quantized, measured_ranges, signal_to_noise
from distill.torch_predictor import Network
from export.quantize.bias_correction import correct_bias
from export.quantize.equalization import equalize
from export.quantize.tflite import FIRST_BLOCK_SHARE

__all__ = ["Int8Plan", "adjustable", "keep_noisy_layers_float", "minimum_and_maximum", "search_ranges", "tuned"]

_SHARES = (0.8, 0.6, 0.45, 0.35, 0.25)  # of a range that are tried
_WORST = 10  # tensors whose ranges are tried; each takes one to five passes over the searched images
_RANKED = 12  # images by which tensors are put in order
_SEARCHED = 40  # images by which ranges are chosen; as many others say whether that holds for them too

MOST_IN_FLOAT = 0.25
"""Share of the multiply-accumulates that may stay float: a layer takes about twice the time in float, so that int8 at
half the time of float stays below 0.65 of it."""
_ENOUGH_DB = 6.0  # more than the plan before: half the error
_FALLEN_DB = 3.0  # below the best: narrower ranges only lose more
_WORTH_DB = 0.2  # that layers must bring
_CANDIDATES = 6  # tensors that are considered at a time


@dataclass(frozen=True)
class Int8Plan:
    """What is written.

    Args:
        student: whose weights are written, with biases that expect the rounding.
        uncorrected: the same student with the biases that it learned.
        float_layers: names of its layers that stay float.
        calibration: images uint8 [1, S, S, 3] that all of it was measured on.
        measured: least and greatest values of its tensors, by the names of the calls that make them.
        ranges: those of them that are others in the file.
        snr_db: how far its logits stand above the error on calibration images, by fake quantization; None: not asked.
    """

    student: Network
    uncorrected: Network
    float_layers: frozenset[str]
    calibration: Sequence[Images]
    measured: Ranges
    ranges: Ranges = field(default_factory=dict)
    snr_db: float | None = None


def minimum_and_maximum(student: Network, calibration: Sequence[Images], float_layers: Collection[str]) -> Int8Plan:
    """Ranges from least to greatest value, biases corrected."""
    kept = frozenset(float_layers)
    corrected = correct_bias(student, calibration, float_layers=kept)
    return Int8Plan(corrected, student, kept, calibration, measured_ranges(corrected, calibration))


def search_ranges(student: Network, calibration: Sequence[Images], float_layers: Collection[str]) -> Int8Plan:
    """Channels equalized where that helps, and the ranges cut by which the logits are nearest to the student's.

    What reads a first block that stays float may stay float, too: the block's answer is then not rounded at all. On
    MobileNetV2-1.0 of TensorFlow that is the largest layer of all, 6 % of the work, and brings 0.7 to 0.9 dB; with
    channels equalized it brings less there, and is not done.

    A range that clips its rarest values rounds all others finer. How much of it a network bears differs by tensor and
    is no matter of the tensor's own squared error: on MobileNetV2-1.0 of torchvision that brought 1.5 dB, this 6.4.
    """
    evens, odds = _halves(calibration)
    networks = (student, equalize(student, calibration))
    exact = _logits(student, odds)
    plans = [minimum_and_maximum(network, calibration, float_layers) for network in networks]
    reached, best = max(((_quality(plan, exact, odds), plan) for plan in plans), key=lambda found: found[0])
    wider = best.float_layers | _readers(student, best.float_layers)
    if _share(student, wider) <= FIRST_BLOCK_SHARE and wider != best.float_layers:
        tried = minimum_and_maximum(best.uncorrected, calibration, wider)
        if _quality(tried, exact, odds) > reached + _WORTH_DB:
            best = tried
    return _with_better_ranges(best, student, evens, odds)


def keep_noisy_layers_float(student: Network, before: Int8Plan) -> Int8Plan:
    """The plan before, with the layers left float around the tensors whose rounding the logits suffer most from.

    Layers are added while each brings the most for its work, until the error is halved or `MOST_IN_FLOAT` reached.
    """
    evens, odds = _halves(before.calibration)
    macs = {layer.name: layer.macs for layer in weight_layers(student)}
    calls = call_graph(student)
    plan = before
    # Tensors alone are asked about: biases that expect rounded weights are wrong for a layer that is left float.
    exact = _logits(before.student, evens)
    reached = _quality_of_tensors(before, exact, evens)
    aim = reached + _ENOUGH_DB
    while reached < aim:
        room = MOST_IN_FLOAT * sum(macs.values()) - sum(macs[name] for name in plan.float_layers)
        best: tuple[float, float, Int8Plan] | None = None
        for name in _worst_first(plan, evens[:_RANKED])[:_CANDIDATES]:
            around = _around(calls, name) - plan.float_layers
            work = sum(macs[layer] for layer in around)
            if not around or work > room:
                continue
            tried = replace(plan, float_layers=plan.float_layers | around)
            found = _quality_of_tensors(tried, exact, evens)
            if found > reached + _WORTH_DB and (best is None or (found - reached) / work > best[0]):
                best = (found - reached) / work, found, tried
        if best is None:
            break
        _, reached, plan = best
    if plan is before:
        return before
    again = minimum_and_maximum(before.uncorrected, before.calibration, plan.float_layers)
    return _with_better_ranges(replace(again, ranges=before.ranges), student, evens, odds)


def tuned(student: Network, before: Int8Plan, ranges: Ranges) -> Int8Plan:
    """The plan for a student that learned on while it was rounded: its own biases, and the ranges that it learned."""
    possible = set(adjustable(student))
    learned = {name: ends for name, ends in ranges.items() if name in possible}
    measured = measured_ranges(student, before.calibration)
    return Int8Plan(student, student, before.float_layers, before.calibration, measured, learned)


def adjustable(network: Network) -> Iterator[str]:
    """Names of the tensors whose ranges can be handed to a file: those of layers, and sums of two."""
    for call in call_graph(network):
        if not call.fused and (call.name.startswith("add ") or "." in call.name):
            yield call.name


def _fake(plan: Int8Plan) -> tuple[Network, Int8Backbone]:
    fake = fake_quantized(plan.student, plan.float_layers, {**plan.measured, **plan.ranges})
    assert isinstance(fake.backbone, Int8Backbone)
    return fake, fake.backbone


def _quality(plan: Int8Plan, exact: torch.Tensor, images: torch.Tensor) -> float:
    return signal_to_noise(exact, _logits(_fake(plan)[0], images))


def _quality_of_tensors(plan: Int8Plan, exact: torch.Tensor, images: torch.Tensor) -> float:
    fake, backbone = _fake(plan)
    backbone.only = set(backbone.names)
    return signal_to_noise(exact, _logits(fake, images))


def _with_better_ranges(plan: Int8Plan, student: Network, evens: torch.Tensor, odds: torch.Tensor) -> Int8Plan:
    """Tensors worst first, each alone; kept where images that were not searched gain too."""
    fake, backbone = _fake(plan)
    # Between two float layers nothing is rounded, and a file has no range.
    plan = replace(plan, ranges={name: ends for name, ends in plan.ranges.items() if name in backbone.names})
    others = _logits(student, odds)
    before = signal_to_noise(others, _logits(fake, odds))
    exact = _logits(plan.student, evens)  # with one tensor rounded and weights as they are, its own answers are right
    measured = backbone.ranges
    changed = dict(plan.ranges)
    possible = set(adjustable(student))
    for name in [name for name in _worst_first(plan, evens[:_RANKED]) if name in possible][:_WORST]:
        low, high = measured[name]
        backbone.only, backbone.ranges = {name}, measured
        best = signal_to_noise(exact, _logits(fake, evens))
        for share in _SHARES:
            backbone.ranges = {**measured, name: (low * share, high * share)}
            found = signal_to_noise(exact, _logits(fake, evens))
            if found > best:
                best, changed[name] = found, (low * share, high * share)
            elif found < best - _FALLEN_DB:
                break
    backbone.only, backbone.ranges = None, {**measured, **changed}
    after = signal_to_noise(others, _logits(fake, odds))
    if after <= before:
        return replace(plan, snr_db=before)
    return replace(plan, ranges=changed, snr_db=after)


def _worst_first(plan: Int8Plan, images: torch.Tensor) -> list[str]:
    """Names of the rounded tensors, by how near the logits come to the error that each makes alone."""
    fake, backbone = _fake(plan)
    exact, alone = _logits(plan.student, images), {}
    for name in backbone.names:
        backbone.only = {name}
        alone[name] = signal_to_noise(exact, _logits(fake, images))
    return sorted(alone, key=alone.__getitem__)


def _around(calls: Sequence[Call], name: str) -> frozenset[str]:
    """Layers that make a tensor, through sums and pools, and those that read it: if all are float, nobody rounds it."""
    places = [place for place, call in enumerate(calls) if call.name == name]
    waiting, makers, readers = list(places), set[str](), set[str]()
    seen = set[int]()
    while waiting:
        place = waiting.pop()
        if place in seen:
            continue
        seen.add(place)
        call = calls[place]
        if call.layer:
            makers.add(call.layer)
        else:
            waiting += call.inputs
    for place in places:
        readers |= {calls[user].layer for user in calls[place].users if calls[user].layer}
    return frozenset(makers | readers)


def _readers(student: Network, layers: Collection[str]) -> frozenset[str]:
    """Layers that are given what these make, without anything between."""
    calls = call_graph(student)
    users = {user for call in calls if call.name in layers and not call.fused for user in call.users}
    return frozenset(calls[user].layer for user in users if calls[user].layer)


def _share(student: Network, layers: Collection[str]) -> float:
    """Of the multiply-accumulates, 0..1."""
    macs = {layer.name: layer.macs for layer in weight_layers(student)}
    return sum(macs[name] for name in layers) / sum(macs.values())


def _halves(calibration: Sequence[Images]) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.from_numpy(np.concatenate(list(calibration)))
    return images[::2][:_SEARCHED], images[1::2][:_SEARCHED]


@torch.no_grad()
def _logits(network: Network, images: torch.Tensor) -> torch.Tensor:
    return torch.cat([network(images[start : start + 32]) for start in range(0, len(images), 32)])
