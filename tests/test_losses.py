"""Losses against the papers' definitions, written out in float64 loops, and what has to hold whatever the numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F

from distill.losses import LOSSES, LossName, build_loss, mixed_with_truth, soft_cross_entropy

Array = npt.NDArray[np.float64]
LN2 = math.log(2)


# --- the definitions, row by row ---


def softmax(z: Array) -> Array:
    e = [math.exp(x - max(z)) for x in z]
    return np.array([x / sum(e) for x in e])


def power(p: Array, temperature: float) -> Array:
    raised = [0.0 if x == 0 else float(x) ** (1 / temperature) for x in p]
    return np.array([x / sum(raised) for x in raised])


def divergence(p: Array, q: Array) -> float:
    return sum(float(x * math.log(x / y)) for x, y in zip(p, q, strict=True) if x > 0)


def pearson(x: Array, y: Array) -> float:
    mx, my = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    return float(covariance / math.sqrt(sum((a - mx) ** 2 for a in x) * sum((b - my) ** 2 for b in y)))


def kl(z: Array, p: Array, t: float) -> list[float]:
    return [t**2 * divergence(power(pi, t), softmax(zi / t)) for zi, pi in zip(z, p, strict=True)]


def dist(z: Array, p: Array, t: float) -> list[float]:
    q_t, p_t = np.array([softmax(zi / t) for zi in z]), np.array([power(pi, t) for pi in p])
    intra = sum(1 - pearson(q_t[:, c], p_t[:, c]) for c in range(p.shape[1])) / p.shape[1]
    return [t**2 * (1 - pearson(qi, pi) + intra) for qi, pi in zip(q_t, p_t, strict=True)]


def dkd(z: Array, p: Array, t: float) -> list[float]:
    values = []
    for zi, pi in zip(z, p, strict=True):
        q_t, p_t, c = softmax(zi / t), power(pi, t), int(np.argmax(pi))
        tckd = divergence(np.array([p_t[c], 1 - p_t[c]]), np.array([q_t[c], 1 - q_t[c]]))
        q_rest, p_rest = np.delete(q_t, c), np.delete(p_t, c)
        nckd = divergence(p_rest / p_rest.sum(), q_rest / q_rest.sum())
        values.append(t**2 * (tckd + 2 * nckd))
    return values


def js(z: Array, p: Array, t: float) -> list[float]:
    values = []
    for zi, pi in zip(z, p, strict=True):
        q_t, p_t = softmax(zi / t), power(pi, t)
        m = (q_t + p_t) / 2
        values.append(divergence(p_t, m) / 2 + divergence(q_t, m) / 2)
    return values


def hard(z: Array, p: Array, t: float) -> list[float]:
    return [-math.log(softmax(zi)[int(np.argmax(pi))]) for zi, pi in zip(z, p, strict=True)]


DEFINITIONS: dict[LossName, Callable[[Array, Array, float], list[float]]] = {
    "kl": kl,
    "dist": dist,
    "dkd": dkd,
    "js": js,
    "hard": hard,
}


# --- batches ---


def batch(images: int = 7, classes: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """float64 logits and probabilities [N, C]; of five classes the teacher leaves one out in every other image."""
    generator = torch.Generator().manual_seed(seed)
    z, t = (3 * torch.randn(images, classes, generator=generator, dtype=torch.float64) for _ in range(2))
    if classes > 2:
        t[::2, -1] = -math.inf
    return z, t.softmax(dim=-1)


def gradient(loss: Callable[[torch.Tensor], torch.Tensor], logits: torch.Tensor) -> torch.Tensor:
    leaf = logits.clone().requires_grad_()
    return torch.autograd.grad(loss(leaf).sum(), leaf)[0]


def one_hot(places: list[int], classes: int) -> torch.Tensor:
    return F.one_hot(torch.tensor(places), classes).float()


# --- values ---


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("name", LOSSES)
def test_values_are_those_of_the_paper(name: LossName, temperature: float) -> None:
    z, p = batch()
    expected = DEFINITIONS[name](z.numpy(), p.numpy(), temperature)
    assert build_loss(name, temperature)(z, p).tolist() == pytest.approx(expected, rel=1e-9)
    found = build_loss(name, temperature)(z.float(), p.float())
    assert found.dtype == torch.float32 and found.shape == (7,)
    assert found.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "student", "teacher", "expected"),
    [
        # 3/4 ln(3/2) + 1/4 ln(1/2)
        ("kl", [[0.5, 0.5]], [[0.75, 0.25]], [0.1308120]),
        # (3/4 ln(6/5) + 1/4 ln(2/3)) / 2 + (1/2 ln(4/5) + 1/2 ln(4/3)) / 2
        ("js", [[0.5, 0.5]], [[0.75, 0.25]], [0.0338221]),
        ("hard", [[0.5, 0.5]], [[0.75, 0.25]], [LN2]),
        # 0.6 ln 1.2 + 0.4 ln 0.8, and twice the 0.1308120 from above
        ("dkd", [[0.5, 0.25, 0.25]], [[0.6, 0.3, 0.1]], [0.0201355 + 2 * 0.1308120]),
        # inter 1 - 2 / sqrt(7) and 1 - 0.4 / sqrt(0.19); intra (0 + 0 + 1) / 3: the student's last class stays the same
        ("dist", [[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]], [[0.6, 0.4, 0.0], [0.3, 0.6, 0.1]], [0.5774044, 0.4156704]),
    ],
)
def test_values_worked_out_by_hand(
    name: LossName, student: list[list[float]], teacher: list[list[float]], expected: list[float]
) -> None:
    found = build_loss(name, 1.0)(torch.tensor(student).log(), torch.tensor(teacher))
    assert found.tolist() == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("name", ["kl", "dist", "dkd", "js"])
def test_an_equal_answer_loses_nothing(name: LossName, temperature: float) -> None:
    p = batch(classes=4)[1].clamp_min(1e-6).float()
    p /= p.sum(dim=-1, keepdim=True)
    z = p.log() + torch.arange(7)[:, None]  # a shift of all logits changes nothing
    loss = build_loss(name, temperature)
    assert loss(z, p).tolist() == pytest.approx([0] * 7, abs=1e-5)
    assert gradient(lambda x: loss(x, p), z).abs().max() < 1e-3
    assert (loss(z.flip(0), p) > 0.01).any()


def test_a_batch_of_two_like_images_is_equal_too() -> None:
    """The student's floor lies below the teacher's own small spread."""
    p, loss = torch.tensor([[0.90, 0.06, 0.04], [0.91, 0.05, 0.04]], dtype=torch.float64), build_loss("dist", 1.0)
    assert loss(p.log(), p).tolist() == pytest.approx([0, 0], abs=1e-12)
    assert gradient(lambda x: loss(x, p), p.log()).abs().max() < 1e-9


@pytest.mark.parametrize("temperature", [1.0, 8.0])
def test_jensen_shannon_ends_at_ln_2(temperature: float) -> None:
    js_loss = build_loss("js", temperature)
    assert js_loss(1e4 * one_hot([1, 2], 3), one_hot([0, 0], 3)).tolist() == pytest.approx([LN2, LN2])
    z, p = batch(images=200)
    assert (js_loss(z, p) < LN2).all() and (js_loss(z, p) >= 0).all()


def test_decoupled_is_kl_where_there_is_nothing_to_decouple() -> None:
    two_classes, teacher = batch(classes=2)
    z, certain = batch()[0].float(), one_hot([0, 1, 2, 3, 4, 0, 1], 5)
    for t in (1.0, 4.0):
        kl_loss, dkd_loss = build_loss("kl", t), build_loss("dkd", t)
        torch.testing.assert_close(dkd_loss(two_classes, teacher), kl_loss(two_classes, teacher))
        torch.testing.assert_close(dkd_loss(z, certain), kl_loss(z, certain))


def test_decoupled_hears_what_a_sure_teacher_says_of_the_others() -> None:
    z, p = torch.zeros(1, 3), torch.tensor([[1 - 1e-6, 9e-7, 1e-7]])
    nckd = 0.9 * math.log(1.8) + 0.1 * math.log(0.2)
    assert build_loss("dkd", 1.0)(z, p).item() == pytest.approx(math.log(3) + 2 * nckd, rel=1e-4)


def test_hard_takes_no_notice_of_temperature() -> None:
    z, p = batch()
    assert torch.equal(build_loss("hard", 1.0)(z, p), build_loss("hard", 7.0)(z, p))


def test_a_probability_of_zero_stays_zero_at_high_temperature() -> None:
    p = torch.zeros(1, 1000)
    p[0, :2] = torch.tensor([0.8, 0.2])
    z = torch.full((1, 1000), -1000.0)
    z[0, :2] = p[0, :2].log()
    assert build_loss("kl", 4.0)(z, p).item() == pytest.approx(0, abs=1e-5)


def test_a_clueless_teacher_of_many_classes_does_not_underflow_at_low_temperature() -> None:
    assert build_loss("kl", 0.05)(torch.zeros(1, 1000), torch.full((1, 1000), 1e-3)).tolist() == [0]


# --- gradients ---


def test_kl_at_temperature_1_has_the_gradient_of_soft_cross_entropy() -> None:
    z, p = batch()
    loss = build_loss("kl", 1.0)
    torch.testing.assert_close(
        gradient(lambda x: loss(x, p).mean(), z), gradient(lambda x: soft_cross_entropy(x, p), z)
    )


@pytest.mark.parametrize("temperature", [2.0, 5.0])
def test_gradient_of_kl_is_temperature_times_the_difference(temperature: float) -> None:
    z, p = batch()
    expected = [temperature * (softmax(zi / temperature) - power(pi, temperature)) for zi, pi in zip(z, p, strict=True)]
    found = gradient(lambda x: build_loss("kl", temperature)(x, p), z)
    torch.testing.assert_close(found, torch.from_numpy(np.array(expected)))


@pytest.mark.parametrize("spread", [0.01, 1.0])  # below and above the floor of `dist`
@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_the_values(name: LossName, spread: float) -> None:
    z, p = batch(images=4)
    loss = build_loss(name, 2.0)
    assert torch.autograd.gradcheck(lambda x: loss(x, p), (spread * z).requires_grad_())


TEACHERS = {
    "certain": lambda n, c: one_hot([i % c for i in range(n)], c),
    "certain of one class": lambda n, c: one_hot([0] * n, c),
    "clueless": lambda n, c: torch.full((n, c), 1 / c),
    "half": lambda n, c: (one_hot([0] * n, c) + one_hot([1] * n, c)) / 2,
    "next to certain": lambda n, c: torch.full((n, c), 1e-38) + one_hot([c - 1] * n, c),
}
STUDENTS = {
    "zeros": torch.zeros(4, 5),
    "random": 3 * torch.randn(4, 5, generator=torch.Generator().manual_seed(1)),
    "large": 1e4 * torch.randn(4, 5, generator=torch.Generator().manual_seed(2)),
    "shifted": torch.full((4, 5), -1e4),
}


@pytest.mark.parametrize("temperature", [0.05, 1.0, 20.0])
@pytest.mark.parametrize("student", STUDENTS)
@pytest.mark.parametrize("teacher", TEACHERS)
@pytest.mark.parametrize("name", LOSSES)
def test_values_and_gradients_are_finite(name: LossName, teacher: str, student: str, temperature: float) -> None:
    loss = build_loss(name, temperature)
    for images, classes in ((4, 5), (1, 5), (4, 2), (1, 2)):
        p = TEACHERS[teacher](images, classes)
        z = STUDENTS[student][:images, :classes]
        values, slope = loss(z, p), gradient(lambda x, p=p: loss(x, p), z)  # type: ignore[misc]
        assert values.isfinite().all() and (values > -1e-5 * max(1, temperature**2)).all(), (values, images, classes)
        assert slope.isfinite().all(), (slope, images, classes)


# --- what dist fixes, and what it does not ---


def test_dist_of_one_image_has_no_intra_relation() -> None:
    z, p = batch(images=1)
    expected = 4 * (1 - pearson(softmax(z[0].numpy() / 2), power(p[0].numpy(), 2.0)))
    assert build_loss("dist", 2.0)(z, p).tolist() == pytest.approx([expected])


def test_dist_counts_no_relation_that_the_teacher_does_not_have() -> None:
    z = batch(images=4)[0].float()
    loss = build_loss("dist", 1.0)
    assert loss(z, torch.full((4, 5), 0.2)).tolist() == [0] * 4
    inter = [1 - pearson(softmax(zi), np.eye(5)[0]) for zi in z.double().numpy()]
    assert loss(z, one_hot([0] * 4, 5)).tolist() == pytest.approx(inter, rel=1e-4)
    rare = torch.tensor([[0.7, 0.3, 1e-6], [0.2, 0.8, 3e-6]])
    other_way = torch.tensor([[0.7, 0.3, 3e-6], [0.2, 0.8, 1e-6]])
    assert loss(other_way.log(), rare).tolist() == pytest.approx([0, 0], abs=1e-5)


def test_dist_is_blind_to_how_sure_the_student_is() -> None:
    p, loss = batch()[1], build_loss("dist", 1.0)
    for share in (0.3, 0.9):
        z = (share * p + (1 - share) / 5).log()
        assert loss(z, p).tolist() == pytest.approx([0] * 7, abs=1e-12)
        assert gradient(lambda x: loss(x, p), z).abs().max() < 1e-9
        assert (build_loss("kl", 1.0)(z, p) > 0.001).all()


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_dist_starts_gently_from_a_classifier_of_zeros(classes: int) -> None:
    """The paper's 1e-8 gives 5e6 for ten classes."""
    p = batch(images=64, classes=classes)[1].float()
    slope = gradient(lambda x: build_loss("dist", 1.0)(x, p), torch.zeros(64, classes))
    assert 0.01 < slope.norm(dim=-1).mean() < 30


def test_dist_alone_learns_to_agree_from_a_classifier_of_zeros() -> None:
    torch.manual_seed(1)
    x = torch.randn(256, 32)
    p = (0.5 * x @ torch.randn(32, 10)).softmax(dim=-1)
    student = torch.nn.Linear(32, 10)
    torch.nn.init.zeros_(student.weight)
    optimizer = torch.optim.AdamW(student.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        build_loss("dist", 1.0)(student(x), p).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert (student(x).argmax(dim=-1) == p.argmax(dim=-1)).double().mean() > 0.9


# --- batches ---


@pytest.mark.parametrize("name", LOSSES)
def test_images_in_another_order_give_the_same_values_in_that_order(name: LossName) -> None:
    z, p = batch()
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    loss = build_loss(name, 2.0)
    torch.testing.assert_close(loss(z[order], p[order]), loss(z, p)[order])


@pytest.mark.parametrize("name", LOSSES)
def test_values_are_float32_under_bfloat16(name: LossName) -> None:
    z, p = batch()
    layer = torch.eye(5)
    with torch.autocast("cpu", torch.bfloat16):
        logits = z.float() @ layer
        found = build_loss(name, 2.0)(logits, p.float())
        mixed = mixed_with_truth(build_loss(name, 2.0), logits, p.float(), p.float(), *torch.full((2, 7), 0.5))
    assert logits.dtype == torch.bfloat16
    assert found.dtype == mixed.dtype == torch.float32
    assert torch.equal(found, build_loss(name, 2.0)(logits.float(), p.float()))


# --- truth and weights ---


def truth() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Truth, its share and weights of the seven images of `batch`."""
    smoothed = (0.9 * one_hot([0, 1, 2, 3, 4, 0, 1], 5) + 0.02).double()
    share = torch.tensor([0, 0.3, 1, 0, 0.5, 0.9, 0], dtype=torch.float64)
    weight = torch.tensor([1, 2, 0.5, 0, 3, 1, 0.1], dtype=torch.float64)
    return smoothed, share, weight


@pytest.mark.parametrize("name", LOSSES)
def test_truth_and_weights_are_mixed_as_written(name: LossName) -> None:
    (z, p), (y, share, weight) = batch(), truth()
    losses = DEFINITIONS[name](z.numpy(), p.numpy(), 2.0)
    total = 0.0
    for i in range(7):
        entropy = -sum(float(y[i, c]) * math.log(softmax(z[i].numpy())[c]) for c in range(5))
        total += float(weight[i]) * ((1 - float(share[i])) * losses[i] + float(share[i]) * entropy)
    found = mixed_with_truth(build_loss(name, 2.0), z, p, y, share, weight)
    assert found.shape == () and found.item() == pytest.approx(total / 7.6)


def test_kl_with_truth_has_the_gradient_of_the_mixed_target() -> None:
    (z, p), (y, share, _) = batch(), truth()
    mixed = (1 - share[:, None]) * p + share[:, None] * y
    torch.testing.assert_close(
        gradient(lambda x: mixed_with_truth(build_loss("kl", 1.0), x, p, y, share, torch.ones(7)), z),
        gradient(lambda x: soft_cross_entropy(x, mixed), z),
    )


@pytest.mark.parametrize("name", LOSSES)
def test_only_the_ratio_of_weights_counts(name: LossName) -> None:
    (z, p), (y, share, weight) = batch(), truth()
    loss = build_loss(name, 2.0)
    torch.testing.assert_close(
        gradient(lambda x: mixed_with_truth(loss, x, p, y, share, weight), z),
        gradient(lambda x: mixed_with_truth(loss, x, p, y, share, 1000 * weight), z),
    )


def test_an_image_of_weight_0_is_as_good_as_absent() -> None:
    (z, p), (y, share, weight) = batch(), truth()
    loss, kept = build_loss("kl", 2.0), weight > 0
    whole = mixed_with_truth(loss, z, p, y, share, weight)
    torch.testing.assert_close(whole, mixed_with_truth(loss, *(x[kept] for x in (z, p, y, share, weight))))
    assert gradient(lambda x: mixed_with_truth(loss, x, p, y, share, weight), z)[3].tolist() == [0] * 5


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_weight_moves_nothing(name: LossName) -> None:
    (z, p), (y, share, _) = batch(), truth()
    loss = build_loss(name, 2.0)
    assert mixed_with_truth(loss, z, p, y, share, torch.zeros(7)).item() == 0
    assert gradient(lambda x: mixed_with_truth(loss, x, p, y, share, torch.zeros(7)), z).count_nonzero() == 0


def test_rows_of_unknown_truth_may_hold_anything() -> None:
    (z, p), (y, share, weight) = batch(), truth()
    loss = build_loss("kl", 2.0)
    unknown = torch.where(share[:, None] > 0, y, math.nan)
    expected = gradient(lambda x: mixed_with_truth(loss, x, p, y, share, weight), z)
    assert torch.equal(gradient(lambda x: mixed_with_truth(loss, x, p, unknown, share, weight), z), expected)


# --- names ---


def test_every_name_builds_a_loss() -> None:
    assert get_args(LossName) == LOSSES == tuple(DEFINITIONS)
    assert len({type(build_loss(name, 1.0)) for name in LOSSES}) == len(LOSSES)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_a_temperature_is_a_number_above_0(temperature: float) -> None:
    with pytest.raises(ValueError, match=f"temperature is {temperature:g}; it has to be a finite number above 0"):
        build_loss("kl", temperature)
