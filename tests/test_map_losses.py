"""Losses of maps against their definitions in plain loops, numbers made by hand, and what has to hold for all."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch

from distill.map_losses import MAP_LOSSES, MapLoss, MapLossName, build_map_loss

Array = npt.NDArray[np.float64]
FLOOR = 1 / 510


# --- the definitions, cell by cell ---


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max())
    return np.asarray(e / e.sum())


def cwd(z: Array, p: Array, w: Array) -> float:
    total = 0.0
    for zi, pi, wi in zip(z, p, w, strict=True):
        cells = [
            (softmax(row), target, float(weight)) for row, target, weight in zip(zi, pi, wi, strict=True) if weight > 0
        ]
        if not cells:
            continue
        divergence = 0.0
        for c in range(z.shape[-1]):
            teacher = [weight * max(t[c], FLOOR) ** 0.25 for _, t, weight in cells]
            student = [weight * (q[c] if t[c] > FLOOR else max(q[c], FLOOR)) ** 0.25 for q, t, weight in cells]
            for a, b in zip(teacher, student, strict=True):
                divergence += a / sum(teacher) * math.log(a / sum(teacher) / (b / sum(student)))
        total += wi.sum() * 16 * divergence / z.shape[-1]
    return float(total / w.sum())


def dice(z: Array, p: Array, w: Array) -> float:
    scores = []
    for c in range(z.shape[-1]):
        shared = target = said = 0.0
        for row, t, weight in zip(z.reshape(-1, z.shape[-1]), p.reshape(-1, z.shape[-1]), w.ravel(), strict=True):
            q = softmax(row)
            shared, target, said = shared + weight * min(t[c], q[c]), target + weight * t[c], said + weight * q[c]
        if target > 0:
            scores.append(2 * shared / (target + said))
    return 1 - float(np.mean(scores))


def lovasz(z: Array, p: Array, w: Array) -> float:
    """Each class's Lovász extension as the integral that it is: of 1 - IoU if errors above a threshold are wrong."""
    classes = z.shape[-1]
    rows = [
        (softmax(r), int(t.argmax()))
        for r, t, v in zip(z.reshape(-1, classes), p.reshape(-1, classes), w.ravel(), strict=True)
        if v > 0
    ]
    values = []
    for c in {truth for _, truth in rows}:
        errors = [1 - q[c] if truth == c else q[c] for q, truth in rows]
        steps = [0.0, *sorted(errors)]
        total = 0.0
        for below, above in pairwise(steps):
            wrong = [error >= above for error in errors]
            kept = sum(truth == c and not bad for (_, truth), bad in zip(rows, wrong, strict=True))
            union = sum(truth == c or bad for (_, truth), bad in zip(rows, wrong, strict=True))
            total += (above - below) * (1 - kept / union)
        values.append(total)
    return float(np.mean(values))


DEFINITIONS: dict[MapLossName, Callable[[Array, Array, Array], float]] = {"cwd": cwd, "dice": dice, "lovasz": lovasz}


def batch(seed: int = 0, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """float64 maps of three images of 5x5 cells: in the first some weigh nothing, in the last none does anything.

    The target leaves the last class out, and rounds some probabilities to zero.
    """
    generator = torch.Generator().manual_seed(seed)
    z, t = (2 * torch.randn(3, 5, 5, classes, generator=generator, dtype=torch.float64) for _ in range(2))
    t[..., -1] = -math.inf
    p = t.softmax(dim=-1)
    p = p.where(p > 0.02, 0.0)
    w = torch.rand(3, 5, 5, generator=generator, dtype=torch.float64) + 0.1
    w[0, :2], w[2] = 0, 0
    return z, p / p.sum(dim=-1, keepdim=True), w


def flat(*tensors: torch.Tensor) -> tuple[Any, ...]:
    return tuple(x.flatten(1, 2).numpy() for x in tensors)


def gradient(loss: MapLoss, z: torch.Tensor, p: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    leaf = z.clone().requires_grad_()
    return torch.autograd.grad(loss(leaf, p, w), leaf)[0]


def one_hot(places: Any, classes: int = 3) -> torch.Tensor:
    return torch.eye(classes)[torch.as_tensor(places)]


# --- values ---


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", MAP_LOSSES)
def test_values_are_those_of_the_definition(name: MapLossName, seed: int) -> None:
    maps = batch(seed)
    expected = DEFINITIONS[name](*flat(*maps))
    assert expected > 0.05
    assert build_map_loss(name)(*maps).item() == pytest.approx(expected, rel=1e-5)
    found = build_map_loss(name)(*(x.float() for x in maps))
    assert found.dtype == torch.float32
    assert found.shape == ()
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_values_worked_out_by_hand() -> None:
    """Two cells. The target has class 0 in the first and both alike in the second; the student the other way round."""
    p = torch.tensor([[[[0.9, 0.1], [0.5, 0.5]]]])
    z = torch.tensor([[[[0.5, 0.5], [0.9, 0.1]]]]).log()
    w = torch.ones(1, 1, 2)
    # Shared: 0.5 + 0.5 of 1.4 and 1.4; 0.1 + 0.1 of 0.6 and 0.6
    assert build_map_loss("dice")(z, p, w).item() == pytest.approx(1 - (1 / 1.4 + 0.2 / 0.6) / 2)
    # Class 0 at T = 4: 0.9^(1/4) to 0.5^(1/4), the student's turned round: KL = (a - b) ln(a / b)
    divergences = []
    for one, other in ((0.9, 0.5), (0.1, 0.5)):
        a, b = one**0.25 / (one**0.25 + other**0.25), other**0.25 / (one**0.25 + other**0.25)
        divergences.append((a - b) * math.log(a / b))
    assert build_map_loss("cwd")(z, p, w).item() == pytest.approx(16 * sum(divergences) / 2, rel=1e-4)
    # Class 0 everywhere (of equal ones the first): errors 0.5 and 0.1; missing one of two cells is 1 - 1/2
    assert build_map_loss("lovasz")(z, p, w).item() == pytest.approx(0.5 * 0.5 + 0.1 * 0.5)


@pytest.mark.parametrize("name", ["dice", "lovasz"])
def test_a_sure_student_loses_one_minus_its_overlap(name: MapLossName) -> None:
    truth, said = torch.tensor([[[0, 0, 0, 1], [1, 1, 0, 0]]]), torch.tensor([[[0, 0, 1, 1], [1, 0, 0, 2]]])
    iou = [3 / 6, 2 / 4]  # class 2 is answered, but in no target
    expected = 1 - np.mean(iou if name == "lovasz" else [2 * v / (1 + v) for v in iou])
    found = build_map_loss(name)(1e3 * one_hot(said), one_hot(truth), torch.ones(1, 2, 4))
    assert found.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["cwd", "dice"])
def test_an_equal_answer_loses_nothing(name: MapLossName) -> None:
    _, p, w = batch()
    p = (p + 0.01) / (p + 0.01).sum(dim=-1, keepdim=True)
    z = p.log() + torch.arange(25).reshape(5, 5, 1)  # what is added to a cell's logits changes nothing
    loss = build_map_loss(name)
    assert loss(z, p, w).item() == pytest.approx(0, abs=1e-9)
    if name == "cwd":  # that of dice has the sign of the difference, however small it is
        assert gradient(loss, z, p, w).abs().max() < 1e-7
    for seed in range(5):
        other = z + 0.1 * torch.randn(z.shape, generator=torch.Generator().manual_seed(seed), dtype=z.dtype)
        assert loss(other, p, w) > 1e-5


@pytest.mark.parametrize("name", MAP_LOSSES)
def test_a_sure_and_right_answer_loses_nothing(name: MapLossName) -> None:
    p = one_hot(torch.randint(0, 3, (2, 6, 6), generator=torch.Generator().manual_seed(0)))
    assert build_map_loss(name)(50 * p, p, torch.ones(2, 6, 6)).item() == pytest.approx(0, abs=1e-6)


def test_channels_ask_nothing_below_what_a_store_can_tell() -> None:
    """The target's zero is anything below 1/510; above that the student is told to come down."""
    p, w = one_hot([[[0, 0, 1, 1]]]), torch.ones(1, 1, 4)
    loss = build_map_loss("cwd")
    below = p.clone()
    below[..., 2], below[..., 1] = 0.0019, below[..., 1].clamp_min(0.0001)
    assert loss(below.clamp_min(1e-9).log(), p, w).item() == pytest.approx(0, abs=1e-4)
    above = (p + 0.01 * torch.rand(p.shape, generator=torch.Generator().manual_seed(0))).log()
    slope = gradient(loss, above, p, w)
    assert slope[0, 0, :, 2].abs().max() > 1e-3


@pytest.mark.parametrize("name", ["dice", "lovasz"])
def test_a_thin_object_is_not_cheap_to_miss(name: MapLossName) -> None:
    """A line of 32 of 1024 cells: cross-entropy hardly notices it."""
    places = torch.zeros(1, 32, 32, dtype=torch.long)
    places[:, :, 7] = 1
    p, z = one_hot(places, 2), torch.tensor([3.0, -3.0]).expand(1, 32, 32, 2)
    missed = build_map_loss(name)(z, p, torch.ones(1, 32, 32))
    cross_entropy = -(p * z.log_softmax(dim=-1)).sum(dim=-1).mean()
    assert missed > 0.45
    assert cross_entropy < 0.2


@pytest.mark.parametrize("name", MAP_LOSSES)
def test_each_alone_teaches_where_things_are(name: MapLossName) -> None:
    places = torch.zeros(2, 8, 8, dtype=torch.long)
    places[0, :, 3], places[1, 2:5, 2:5] = 1, 2
    p, w = one_hot(places), torch.ones(2, 8, 8)
    z = (0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0))).requires_grad_()
    optimizer = torch.optim.Adam([z], lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        build_map_loss(name)(z, p, w).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    if name == "cwd":  # it is blind to how much of a class there is, and says only where
        for c in (1, 2):
            cells = z.detach().log_softmax(dim=-1)[c - 1, ..., c]
            assert cells[places[c - 1] == c].min() > cells[places[c - 1] != c].max()
    else:
        assert torch.equal(z.argmax(dim=-1), places)


# --- gradients and what is ignored ---


@pytest.mark.parametrize("name", MAP_LOSSES)
def test_gradients_are_those_of_the_definition(name: MapLossName) -> None:
    z, p, w = (x[:1, 1:3] for x in batch())
    expected = torch.zeros_like(z)
    for place in np.ndindex(*z.shape):
        step = torch.zeros_like(z)
        step[place] = 1e-6
        ahead, behind = (DEFINITIONS[name](*flat(moved, p, w)) for moved in (z + step, z - step))
        expected[place] = (ahead - behind) / 2e-6
    found = gradient(build_map_loss(name), z, p, w)
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


TARGETS = {
    "certain": one_hot([[[0, 1, 2], [0, 1, 2], [0, 0, 0]]] * 2, 4),
    "certain of one class": one_hot(torch.zeros(2, 3, 3, dtype=torch.long), 4),
    "clueless": torch.full((2, 3, 3, 4), 0.25),
    "next to certain": one_hot(torch.ones(2, 3, 3, dtype=torch.long), 4) + 1e-38,
}
STUDENTS = {
    "zeros": torch.zeros(2, 3, 3, 4),
    "random": 3 * torch.randn(2, 3, 3, 4, generator=torch.Generator().manual_seed(1)),
    "large": 1e4 * torch.randn(2, 3, 3, 4, generator=torch.Generator().manual_seed(2)),
}
WEIGHTS = {
    "all": torch.ones(2, 3, 3),
    "one cell": torch.zeros(2, 3, 3).index_put((torch.tensor(0), torch.tensor(1), torch.tensor(1)), torch.tensor(1.0)),
    "tiny": torch.full((2, 3, 3), 1e-20),
    "none": torch.zeros(2, 3, 3),
}


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("student", STUDENTS)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", MAP_LOSSES)
def test_values_and_gradients_are_finite(name: MapLossName, target: str, student: str, weights: str) -> None:
    maps = STUDENTS[student], TARGETS[target], WEIGHTS[weights]
    value, slope = build_map_loss(name)(*maps), gradient(build_map_loss(name), *maps)
    assert value.isfinite()
    assert value > -1e-5
    assert slope.isfinite().all()


@pytest.mark.parametrize("name", MAP_LOSSES)
def test_what_stands_in_ignored_cells_changes_nothing(name: MapLossName) -> None:
    z, p, w = batch()
    loss, ignored = build_map_loss(name), (w == 0)[..., None]
    value, slope = loss(z, p, w), gradient(loss, z, p, w)
    assert slope[w == 0].count_nonzero() == 0
    assert slope[w > 0].count_nonzero() > 0
    other_z, other_p = torch.where(ignored, 100 * p + 7, z), torch.where(ignored, math.nan, p)
    assert torch.equal(loss(other_z, other_p, w), value)
    assert torch.equal(gradient(loss, other_z, other_p, w), slope)


@pytest.mark.parametrize("name", MAP_LOSSES)
def test_a_batch_without_weight_moves_nothing(name: MapLossName) -> None:
    z, p, w = batch()
    loss = build_map_loss(name)
    assert loss(z, p, 0 * w).item() == 0
    assert gradient(loss, z, p, 0 * w).count_nonzero() == 0


@pytest.mark.parametrize("name", MAP_LOSSES)
def test_an_ignored_image_is_as_good_as_absent(name: MapLossName) -> None:
    maps = batch()
    torch.testing.assert_close(build_map_loss(name)(*maps), build_map_loss(name)(*(x[:2] for x in maps)))


@pytest.mark.parametrize("name", MAP_LOSSES)
def test_only_the_ratio_of_weights_counts(name: MapLossName) -> None:
    z, p, w = batch()
    loss = build_map_loss(name)
    torch.testing.assert_close(loss(z, p, 1000 * w), loss(z, p, w))


@pytest.mark.parametrize("name", ["cwd", "dice"])
def test_a_cell_of_weight_2_is_two_cells(name: MapLossName) -> None:
    z, p, _ = (x[:1, :1] for x in batch())
    w = torch.tensor([[[1.0, 2, 1, 0, 1]]], dtype=torch.float64)
    twice = [0, 1, 1, 2, 4]
    expected = build_map_loss(name)(z[:, :, twice], p[:, :, twice], torch.ones(1, 1, 5, dtype=torch.float64))
    torch.testing.assert_close(build_map_loss(name)(z, p, w), expected)


@pytest.mark.parametrize("name", MAP_LOSSES)
def test_no_gradient_goes_to_the_target(name: MapLossName) -> None:
    z, p, w = batch()
    leaf = p.requires_grad_()
    assert not build_map_loss(name)(z, leaf, w).requires_grad


@pytest.mark.parametrize("name", MAP_LOSSES)
def test_values_are_float32_under_bfloat16(name: MapLossName) -> None:
    z, p, w = (x.float() for x in batch())
    loss = build_map_loss(name)
    with torch.autocast("cpu", torch.bfloat16):
        logits = z @ torch.eye(4)
        found = loss(logits, p, w)
    assert logits.dtype == torch.bfloat16
    assert found.dtype == torch.float32
    assert torch.equal(found, loss(logits.float(), p, w))


# --- names ---


def test_names_are_those_that_can_be_built() -> None:
    assert get_args(MapLossName) == MAP_LOSSES
    assert len({type(build_map_loss(name)) for name in MAP_LOSSES}) == len(MAP_LOSSES)
