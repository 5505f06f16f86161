"""What training minimises: how far the student's logits are from the teacher's answer, one value per image.

Whatever the caller computes in, losses compute in float32 at least: bfloat16 has 8 bits, and 1 - 0.999 is 0 in it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, final

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by

__all__ = [
    "LOSSES",
    "DistillationLoss",
    "LessonLoss",
    "LossName",
    "Targets",
    "build_loss",
    "mixed_with_truth",
    "of_rows",
    "soft_cross_entropy",
]

LossName = Literal["kl", "dist", "dkd", "js", "hard"]
LOSSES: tuple[LossName, ...] = ("kl", "dist", "dkd", "js", "hard")

_TINY = 1e-12  # under what is divided by: where a class is given nothing, 0 / 1e-12 is 0, and so is the gradient


class Targets(NamedTuple):
    """What should be answered to a batch: the fields of a `distill.examples.Lesson` but the first, as tensors."""

    teacher: torch.Tensor
    truth: torch.Tensor
    truth_share: torch.Tensor
    weight: torch.Tensor


LessonLoss = Callable[[torch.Tensor, Targets], torch.Tensor]
"""The student's logits, float32 [N, C] or [N, C, h, w], and what they should be, to a float32 scalar."""


class DistillationLoss(ABC):
    """What the student loses by not answering as the teacher does.

    The teacher is a constant, no gradient goes to it. Rows that do not quite sum to one, such as those kept in float16,
    are made to. A probability of zero stays zero at every temperature: clamped to 1e-12 first, it would be 1e-3 of the
    top class at T = 4, and 1000 such classes half of the answer.
    """

    @abstractmethod
    def __call__(self, logits: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """Compare a batch.

        Args:
            logits: the student's, float32 [N, C], C at least 2.
            teacher: its probabilities, float32 [N, C] in 0..1, rows sum to one.

        Returns:
            float32 [N], one value per image.
        """


def build_loss(name: LossName, temperature: float) -> DistillationLoss:
    """The loss of this name.

    Args:
        name: one of `LOSSES`.
        temperature: above 0; 1 compares the answers as they are, more gives the improbable classes more of a say.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature is {temperature:g}; it has to be a finite number above 0")
    return _BUILD[name](temperature)


def of_rows(loss: DistillationLoss) -> LessonLoss:
    """The loss of a lesson of one answer an image: compared with the teacher, mixed with truth."""

    def value(logits: torch.Tensor, targets: Targets) -> torch.Tensor:
        return mixed_with_truth(loss, logits, *targets)

    return value


def mixed_with_truth(
    loss: DistillationLoss,
    logits: torch.Tensor,
    teacher: torch.Tensor,
    truth: torch.Tensor,
    truth_share: torch.Tensor,
    weight: torch.Tensor,
) -> torch.Tensor:
    """Weighted mean over the batch of (1 - s) loss(z, p) + s CE(y, z); truth is always compared at temperature 1.

    With `kl` at temperature 1 it has the gradient of soft cross-entropy to the mixed target (1 - s) p + s y.

    Args:
        loss: compares with the teacher.
        logits: z, float32 [N, C].
        teacher: p, float32 [N, C], rows sum to one, also where the share of truth is 1.
        truth: y, float32 [N, C], rows sum to one, possibly smoothed; rows whose share is 0 may hold anything.
        truth_share: s, float32 [N] in 0..1.
        weight: float32 [N], 0 or more. `dist` relates all images of a batch, also those of weight 0.

    Returns:
        A float32 scalar; where all weights are zero, 0 with a gradient of zero.
    """
    share, weight = _precise(truth_share), _precise(weight)
    known = torch.where(share[:, None] > 0, _precise(truth), 0.0)  # 0 * NaN would be NaN
    values = (1 - share) * loss(logits, teacher) + share * _cross_entropy(logits, known)
    return (weight * values).sum() / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)


def soft_cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean over the batch of -sum_c p_c log softmax(z)_c.

    With one-hot targets it is cross-entropy; with a teacher's answer it is KL(p || q) at T = 1 plus the entropy of p, a
    constant, so both have the same gradient (function matching: Beyer et al. 2022, arXiv 2106.05237).

    Args:
        logits: float32 [N, C].
        targets: float32 [N, C], rows sum to one.
    """
    return _cross_entropy(logits, targets).mean()


@final
@dataclass(frozen=True)
class _KullbackLeibler(DistillationLoss):
    """T^2 KL(p_T || q_T), q_T = softmax(z / T) (Hinton et al. 2015, arXiv 1503.02531).

    p_T is p^(1/T), made to sum to one: what softmax(logits / T) of the teacher is. Gradients shrink with 1 / T^2, which
    the factor undoes, so that the share of truth means the same at every T. At T = 1 it is function matching (Beyer et
    al. 2022, arXiv 2106.05237). Range: 0 (equal) and up.
    """

    temperature: float

    def __call__(self, logits: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        return self.temperature**2 * _kl(
            _softened(teacher, self.temperature), F.log_softmax(_precise(logits) / self.temperature, dim=-1)
        )


@final
@dataclass(frozen=True)
class _Relations(DistillationLoss):
    """DIST: T^2 (inter + intra), 1 - Pearson's correlation of q_T and p_T (Huang et al. 2022, arXiv 2205.10536).

    Inter-class: over the classes of an image. Intra-class: over the images of the batch, mean over classes; a figure of
    the batch, added to the value of every image, so that the mean of values is inter + intra. The paper's total is
    alpha CE(truth) + beta inter + gamma intra. Here beta = gamma = 1, as in its code, and the truth is mixed in by the
    caller; PaddleClas weighs both by 2 and CE by 1 on ImageNet, which is a share of truth of 1/3.

    Range: 0..4 T^2. It is 0 if q_T = a p_T + (1 - a) / C with one a > 0 for the batch, and not only if q = p, for
    correlation is blind to scale and shift. Without truth that fixes the order of classes and of images, not how sure
    the student is: agreement is learned, while confidence and likelihood need truth, or a calibration afterwards.

    Two departures from the paper's code, which adds 1e-8 to the product of the norms:

    - What does not vary in the teacher (norm below 1e-4, the root of 1e-8) has no relation and counts 0 instead of 1,
      with a gradient of 0: all classes of a batch of one, and in most batches the rare ones of a thousand.
    - A student that hardly varies has a floor under its norm. Before the first step all logits are equal, and 1e-8
      makes of that a gradient of 5e6 (10 classes; 7 with the floor). Adam's second moment remembers it: 500 steps later
      a linear student agreed with its teacher on 45 % of images, with the floor on 96 %. The floor is 10 % of the
      student's root mean square, or half of the teacher's share if that is less, so that an equal answer stays at 0.
      Above it values are the paper's.
    """

    temperature: float

    def __call__(self, logits: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        student = F.softmax(_precise(logits) / self.temperature, dim=-1)
        teacher = _softened(teacher, self.temperature)
        inter, intra = _unrelated(student, teacher, dim=1), _unrelated(student, teacher, dim=0)
        return self.temperature**2 * (inter + intra.mean())


@final
@dataclass(frozen=True)
class _Decoupled(DistillationLoss):
    """DKD: T^2 (alpha TCKD + beta NCKD) (Zhao et al. 2022, arXiv 2203.08679).

    TCKD = KL([p_t, 1 - p_t] || [q_t, 1 - q_t]) of the target class t against all others; NCKD = KL among the others,
    with p and q made to sum to one without t. KL(p || q) is TCKD + (1 - p_t) NCKD: a sure teacher silences what it says
    of the other classes, and DKD lets it be heard. t is the teacher's most probable class (of equal ones the first),
    where the paper takes the truth, which unlabelled images do not have.

    alpha = 1 and beta = 2 are what the authors' code sets for MobileNet on ImageNet, at T = 1 (ResNet-18: beta 0.5;
    CIFAR-100: beta 8 at T = 4). The paper says alpha 0.5 there, which they found to make no difference (mdistiller,
    issue 32). Range: 0 (equal) and up. NCKD is 0 with two classes, and where the teacher gives the others nothing at
    all. It hangs on the ratios of small probabilities, so a label store has to keep them.
    """

    temperature: float
    alpha: float = 1.0
    beta: float = 2.0

    def __call__(self, logits: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        p, z = _softened(teacher, self.temperature), _precise(logits) / self.temperature
        target = p.argmax(dim=-1, keepdim=True)
        others = torch.arange(p.shape[-1] - 1, device=p.device)
        others = others + (others >= target)  # [N, C - 1]: every class but the target
        # 1 - p_t and 1 - q_t as sums: float32 does not know 1 - 1e-8
        p_others, log_q = p.gather(-1, others), F.log_softmax(z, dim=-1)
        p_rest = p_others.sum(dim=-1, keepdim=True)
        log_q_rest = log_q.gather(-1, others).logsumexp(dim=-1, keepdim=True)
        tckd = _kl(
            torch.cat([p.gather(-1, target), p_rest], dim=-1), torch.cat([log_q.gather(-1, target), log_q_rest], dim=-1)
        )
        nckd = _kl(p_others / p_rest.clamp_min(_TINY), F.log_softmax(z.gather(-1, others), dim=-1))
        return self.temperature**2 * (self.alpha * tckd + self.beta * nckd)


@final
@dataclass(frozen=True)
class _JensenShannon(DistillationLoss):
    """JS = KL(p_T || m) / 2 + KL(q_T || m) / 2, m = (p_T + q_T) / 2 (Lin 1991, IEEE Trans. Inf. Theory 37(1)).

    Range: 0 (equal) to ln 2 (nothing in common), so that a wrong pseudo-label pulls only so hard. There is no factor
    T^2, which would break the bound: the gradient near p = q is a quarter of KL's at T = 1, and falls with 1 / T^2.
    """

    temperature: float

    def __call__(self, logits: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        p = _softened(teacher, self.temperature)
        log_q = F.log_softmax(_precise(logits) / self.temperature, dim=-1)
        log_m = torch.logaddexp(p.log(), log_q) - math.log(2)  # finite where p is 0, since log q is
        return (_kl(p, log_m) + (log_q.exp() * (log_q - log_m)).sum(dim=-1)) / 2


@final
@dataclass(frozen=True)
class _HardLabel(DistillationLoss):
    """-log softmax(z)_t, t the teacher's most probable class, of equal ones the first (pseudo-label: Lee 2013, ICML-W).

    Range: 0 and up. A temperature changes nothing in t, and has no effect.
    """

    def __call__(self, logits: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(_precise(logits), teacher.argmax(dim=-1), reduction="none")


_BUILD: dict[LossName, Callable[[float], DistillationLoss]] = {
    "kl": _KullbackLeibler,
    "dist": _Relations,
    "dkd": _Decoupled,
    "js": _JensenShannon,
    "hard": lambda _: _HardLabel(),
}


def _precise(x: torch.Tensor) -> torch.Tensor:
    """At least float32. No operator here is one that autocast would take back to bfloat16 (matrix products are)."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _softened(teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """p^(1/T), rows sum to one, [N, C]; by softmax, for p^(1/T) itself underflows at small T."""
    return F.softmax(_precise(teacher).log() / temperature, dim=-1)


def _cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """-sum_c p_c log softmax(z)_c, [N]."""
    return -(targets * F.log_softmax(_precise(logits), dim=-1)).sum(dim=-1)


def _kl(p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """sum_c p_c (log p_c - log q_c), [N], with 0 log 0 = 0; log q has to be finite."""
    return F.kl_div(log_q, p, reduction="none").sum(dim=-1)


def _unrelated(student: torch.Tensor, teacher: torch.Tensor, dim: int) -> torch.Tensor:
    """1 - Pearson's correlation along `dim` of [N, C], 0..2; see `_Relations` for the two limits."""
    a, b = (x - x.mean(dim=dim, keepdim=True) for x in (student, teacher))
    norm_a, norm_b, length_s, length_t = (torch.linalg.vector_norm(x, dim=dim) for x in (a, b, student, teacher))
    floor = length_s * (0.5 * norm_b / length_t.clamp_min(_TINY)).clamp_max(0.1)
    product = torch.maximum(norm_a, floor).clamp_min(_TINY) * norm_b.clamp_min(_TINY)
    return torch.where(norm_b > 1e-4, 1 - (a * b).sum(dim=dim) / product, 0.0)
