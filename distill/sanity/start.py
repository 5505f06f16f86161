"""The first answers: as good as a guess, neither worse nor, without having learnt, better."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by

from distill import train
from distill.core.types import FloatArray, softmax
from distill.examples import Lesson
from distill.sanity.check import Seen
from distill.sanity.subject import Subject, mixed_answers
from distill.torch_predictor import Network

__all__ = ["check_bias", "check_start"]

_EVEN = 0.01  # nats; a classifier of zeros answers exactly evenly
_RANDOM = 0.5  # of log(n); LR-ASPP starts 4 to 7 % above it on the tests' shapes, 18 % with 8 classes of clothing
_SURPRISE = 0.25  # of log(n): how far the mean answer may be from both even and the class frequencies

_ROWS, _MAPS, _BATCH = 64, 12, 8  # images whose mean answer is taken: a probe's is sure about each single one


def check_start(subject: Subject) -> Seen:
    """Cross-entropy before the first step: log(n) where nothing is known, less where a probe was fitted."""
    guess, entropy = math.log(len(subject.task.class_names)), _entropy(_frequencies(subject.many))
    log = f"-log(1/{len(subject.task.class_names)})"
    if subject.plan.probe:
        bound = entropy + 0.1
        expected = f"a linear probe is fitted first: at most {bound:.3f}, the entropy of the class frequencies and 0.1"
    elif subject.network(answering=False).answers_maps:
        low, high = guess * (1 - _RANDOM), guess * (1 + _RANDOM)
        expected = f"a head of random weights near {log} = {guess:.3f}: {low:.3f} to {high:.3f}"
    else:
        expected = f"a classifier of zeros: {log} = {guess:.3f}"
    network = subject.begun
    found = _cross_entropy(subject, network)
    if subject.plan.probe:
        holds = found <= bound
    elif network.answers_maps:
        holds = low <= found <= high
    else:
        holds = abs(found - guess) <= _EVEN
    saw = f"{found:.3f}; the entropy of the class frequencies is {entropy:.3f}"
    return Seen(holds, expected, saw, {"cross_entropy": found, "log_n": guess, "entropy": entropy})


def check_bias(subject: Subject) -> Seen:
    """The mean of the first answers is even, or the class frequencies; anything else has to be unlearnt first.

    Karpathy (2019) starts the bias at the log of the frequencies. Here the classifier starts at zero or at a probe,
    which finds them; docs/sanity.md says what was measured.
    """
    names = subject.task.class_names
    lesson = subject.examples.lesson(subject.examples.epoch(0)[: _MAPS if subject.task.by_pixel else _ROWS])
    frequencies = _frequencies(lesson)
    network = subject.begun.eval()
    with torch.no_grad():
        parts = torch.split(torch.from_numpy(subject.shown(lesson)).to(subject.device), _BATCH)
        logits = torch.cat([network(part).float() for part in parts]).movedim(1, -1).flatten(0, -2)
    said = softmax(logits.cpu().numpy()).mean(axis=0)
    even = np.full(len(names), 1 / len(names), np.float32)
    from_even, from_frequencies = _divergence(even, said), _divergence(frequencies, said)
    limit = _SURPRISE * math.log(len(names))
    expected = f"the mean answer within {limit:.2f} nats of even, or of what is asked for ({_shares(frequencies)})"
    saw = f"{_shares(said)}: {from_even:.3f} from even, {from_frequencies:.3f} from that"
    bias = network.classifier().bias
    figures = {
        "mean_answer": said.tolist(),
        "frequencies": frequencies.tolist(),
        "bias": None if bias is None else bias.detach().float().cpu().tolist(),
        "from_even": from_even,
        "from_frequencies": from_frequencies,
        "saved_by_a_bias": math.log(len(names)) - _entropy(frequencies),
    }
    return Seen(min(from_even, from_frequencies) <= limit, expected, saw, figures)


def _cross_entropy(subject: Subject, network: Network) -> float:
    """Of the first lesson, in nats, whatever loss the training has."""
    train.training_mode(network, frozen=subject.plan.frozen)
    if subject.plan.probe:
        network.eval()  # dropout and batch statistics are no part of what was fitted
    lesson = subject.lesson
    with torch.no_grad():
        logits = network(torch.from_numpy(subject.pixels).to(subject.device)).float()
    targets = torch.from_numpy(mixed_answers(lesson)).to(logits.device)
    if logits.ndim == 4:
        logits = F.interpolate(logits, size=tuple(targets.shape[1:3]), mode="bilinear")
    values = -(targets * F.log_softmax(logits.movedim(1, -1), dim=-1)).sum(dim=-1)
    weight = torch.from_numpy(lesson.weight).to(logits.device)
    return float((values * weight).sum() / weight.sum().clamp_min(1e-12))


def _frequencies(lesson: Lesson) -> FloatArray:
    """Shares of the classes in what is asked for, float32 [C]."""
    answers, weight = mixed_answers(lesson), lesson.weight[..., None]
    summed = (answers * weight).reshape(-1, answers.shape[-1]).sum(axis=0, dtype=np.float64)
    shares: FloatArray = (summed / max(float(summed.sum()), 1e-12)).astype(np.float32)
    return shares


def _entropy(shares: FloatArray) -> float:
    return float(-(shares * np.log(np.maximum(shares, 1e-12))).sum())


def _divergence(of: FloatArray, said: FloatArray) -> float:
    """KL(of || said) in nats."""
    return float((of * np.log(np.maximum(of, 1e-12) / np.maximum(said, 1e-12))).sum())


def _shares(values: FloatArray) -> str:
    shown = [f"{value:.2f}" for value in values[:6]]
    return " ".join(shown) + (" …" if len(values) > 6 else "")
