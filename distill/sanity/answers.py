"""How answers come about: from their own image alone, as logits, by a loss that is least where they are right."""

from __future__ import annotations

import numpy as np
import torch

from distill import train
from distill.examples import Lesson
from distill.losses import Targets
from distill.sanity.check import Seen
from distill.sanity.subject import Subject, hardened

__all__ = ["check_gradients", "check_ignored", "check_independence", "check_logits", "check_loss"]

_BATCH = 3  # images whose answers are followed back
_LOUDER = 30.0  # times the last layer's weights
_SURE = 1000.0  # a logit so far above the others that a softmax at any temperature is one
_REACHED = 0.8  # share of the weights; 1.00 wherever all was well, 0.58 behind a `detach`


def check_independence(subject: Subject) -> Seen:
    """Answers to one image of a batch depend on this image alone (Karpathy 2019: backprop to chart dependencies)."""
    expected = "in evaluation mode the gradient of an answer by the other images is exactly 0, by its own it is not"
    network = subject.network(answering=True).eval()
    images = torch.from_numpy(subject.pixels[:_BATCH]).to(subject.device).float().requires_grad_()
    answers = network(images)
    if len(answers) != len(images):
        return Seen(False, expected, f"{len(answers)} answers to {len(images)} images")
    if len(images) < 2:
        return Seen(None, expected, "there is one image alone")
    # Weights of its own for each logit: a softmax's sum is always one, and has no gradient.
    weights = torch.linspace(0.5, 1.5, answers[0].numel(), device=answers.device).reshape(answers[0].shape)
    flow = np.zeros((len(images), len(images)))
    for number, answer in enumerate(answers):
        (gradient,) = torch.autograd.grad((answer * weights).sum(), images, retain_graph=True)
        flow[number] = gradient.abs().amax(dim=(1, 2, 3)).cpu().numpy()
    others = float((flow - np.diag(flow.diagonal())).max())
    least = float(flow.diagonal().min())
    pairs = int(((flow > 0) & ~np.eye(len(flow), dtype=bool)).sum())
    pairs_of = flow.size - len(flow)
    saw = f"up to {others:.3g} by other images ({pairs} of {pairs_of} pairs), at least {least:.3g} by its own"
    return Seen(others == 0 and least > 0, expected, saw, {"gradients": flow.tolist()})


def check_logits(subject: Subject) -> Seen:
    """The student answers logits; the softmax belongs to the loss."""
    expected = f"logits without bounds: a last layer {_LOUDER:g} times as loud makes them more than 3 times as wide"
    network = subject.network(answering=True).eval()
    images = torch.from_numpy(subject.pixels).to(subject.device)
    with torch.no_grad():
        plain = network(images)
        classifier = network.classifier()
        for parameter in classifier.parameters():
            parameter.mul_(_LOUDER)
        louder = network(images)
    widths = [float((a.amax(dim=1) - a.amin(dim=1)).max()) for a in (plain, louder)]
    ratio = widths[1] / max(widths[0], 1e-12)
    sums = louder.sum(dim=1)
    ones = bool((louder >= 0).all()) and float((sums - 1).abs().max()) < 1e-3
    saw = f"{ratio:.3g} times as wide ({widths[0]:.3g}, then {widths[1]:.3g})"
    if ones:
        saw += "; all are 0 or more and sum to one: probabilities"
    return Seen(ratio > 3 and not ones, expected, saw, {"widths": widths, "ratio": ratio, "probabilities": ones})


def check_loss(subject: Subject) -> Seen:
    """The loss is near zero for a sure and right answer, higher for none, and highest for a sure and wrong one."""
    expected = "sure and right: less than 5 % of the loss of an even answer; sure and wrong: more than it"
    lesson = hardened(subject.lesson)
    values = _targets(subject, lesson)
    right = values.teacher.movedim(-1, 1)
    told = {
        name: float(subject.loss(logits, values))
        for name, logits in {
            "right": right * _SURE,
            "even": torch.zeros_like(right),
            "wrong": right.roll(1, dims=1) * _SURE,
        }.items()
    }
    saw = ", ".join(f"{name} {value:.4g}" for name, value in told.items())
    return Seen(told["right"] < 0.05 * told["even"] and told["wrong"] > told["even"], expected, saw, told)


def check_ignored(subject: Subject) -> Seen:
    """Images or cells of weight 0 change nothing."""
    expected = "where the weight is 0 the gradient is exactly 0, and other targets there leave the loss as it is"
    if subject.setting("loss") == "dist":
        return Seen(None, expected, "the loss dist relates all rows of a batch, also those of weight 0")
    values = _targets(subject, subject.lesson)
    dropped = torch.arange(values.weight.numel(), device=values.weight.device).reshape(values.weight.shape) % 2 == 0
    weight = torch.where(dropped, 0.0, values.weight.clamp_min(0.5))
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(values.teacher.movedim(-1, 1).shape, generator=generator).to(weight.device).requires_grad_()
    loss = subject.loss(logits, values._replace(weight=weight))
    (gradient,) = torch.autograd.grad(loss, logits)
    there = float(gradient.movedim(1, -1)[dropped].abs().max())
    turned = [torch.where(dropped[..., None], part.roll(1, dims=-1), part) for part in (values.teacher, values.truth)]
    other = subject.loss(logits, Targets(turned[0], turned[1], values.truth_share, weight))
    change = abs(float(other.detach() - loss.detach()))
    saw = f"a gradient of {there:.3g} there, and a loss that changes by {change:.3g} of {float(loss.detach()):.3g}"
    return Seen(there == 0 and change == 0, expected, saw, {"gradient": there, "change": change})


def check_gradients(subject: Subject) -> Seen:
    """One step reaches the classifier and the layers before it, and the optimizer is given all of them."""
    expected = f"gradients in all of the last layer and in {_REACHED:.0%} of the other weights, which the optimizer has"
    network = subject.network(answering=True)
    train.training_mode(network, frozen=subject.plan.frozen)
    with torch.no_grad():  # ResNets shut their branches at the start by a norm of zero, which is meant
        for parameter in network.parameters():
            if parameter.ndim == 1 and len(parameter) == int((parameter == 0).sum()):
                parameter.fill_(1.0)
    images, targets = subject.batch(subject.lesson)
    loss = subject.loss(network(images), targets)
    if not loss.requires_grad:
        return Seen(False, expected, "the loss depends on no weight")
    loss.backward()  # type: ignore[no-untyped-call]
    given = {id(p) for group in train.parameter_groups(network, 0.0) for p in group["params"]}
    last = {id(p) for p in network.classifier().parameters()}
    moved, total, still = {"last": 0, "rest": 0}, {"last": 0, "rest": 0}, []
    for name, parameter in network.named_parameters():
        part = "last" if id(parameter) in last else "rest"
        total[part] += parameter.numel()
        if id(parameter) in given and parameter.grad is not None and bool((parameter.grad != 0).any()):
            moved[part] += parameter.numel()
        else:
            still.append(name)
    share = moved["rest"] / max(total["rest"], 1)
    saw = f"{moved['last']} of {total['last']} weights of the last layer, {share:.1%} of the others"
    if still:
        saw += f"; without: {', '.join(still[:4])}{f' and {len(still) - 4} more' if len(still) > 4 else ''}"
    holds = moved["last"] == total["last"] and share >= _REACHED
    figures = {"last": moved["last"] / max(total["last"], 1), "others": share, "without": still}
    return Seen(holds, expected, saw, figures)


def _targets(subject: Subject, lesson: Lesson) -> Targets:
    """What a lesson asks for, as tensors, without its images."""
    return Targets(*(torch.from_numpy(part).to(subject.device) for part in lesson[1:]))
