"""What training minimises over whole maps, beside a loss a cell: how channels and regions agree, one value a batch.

A cell's own answer is compared by `distill.losses`. Lengths and shapes are not seen there: a pole two cells wide is
lost at little cost among a thousand cells of road.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, final

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by

from distill.losses import DistillationLoss, LessonLoss, Targets, mixed_with_truth

__all__ = ["MAP_LOSSES", "MapLoss", "MapLossName", "build_map_loss", "of_maps", "of_names"]

MapLossName = Literal["cwd", "dice", "lovasz"]
MAP_LOSSES: tuple[MapLossName, ...] = ("cwd", "dice", "lovasz")

_FLOOR: Final = 1 / 510  # stored probabilities have 8 bits: a zero is anything below half a step of 1/255
_NOWHERE: Final = -1e9  # exp of it is 0, and unlike -inf its difference from itself is no NaN
_IGNORED: Final = -1


class MapLoss(ABC):
    """What the student loses by not answering maps as the target does.

    The target is a constant, no gradient goes to it. Cells of weight 0 are ignored: what stands there changes nothing,
    not even a NaN of the target, and the gradient there is 0. If all are, the loss is 0.
    """

    def __call__(self, logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Compare a batch, in float32 at least whatever the caller computes in.

        Args:
            logits: the student's, float32 [N, g, g, C], C at least 2.
            target: probabilities, float32 [N, g, g, C] in 0..1, sum one over C.
            weight: float32 [N, g, g], 0 or more.

        Returns:
            A float32 scalar.
        """
        # No operator of these losses is one that autocast would take back to bfloat16 (matrix products are).
        logits, target, weight = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (logits, target, weight))
        keep = (weight > 0)[..., None]
        return self._value(logits.where(keep, 0.0), target.detach().where(keep, 0.0), weight)

    @abstractmethod
    def _value(self, logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Compare maps whose ignored cells are zeros."""


def build_map_loss(name: MapLossName) -> MapLoss:
    """The loss of this name, one of `MAP_LOSSES`."""
    return _BUILD[name]()


def of_names(weights: Mapping[MapLossName, float]) -> list[tuple[MapLoss, float]]:
    """The losses of these names with their weights."""
    return [(build_map_loss(name), weight) for name, weight in weights.items()]


def of_maps(loss: DistillationLoss, further: Sequence[tuple[MapLoss, float]]) -> LessonLoss:
    """The loss of a lesson of maps: every cell as `distill.losses` compares one image, and losses of whole maps beside.

    The student's logits are enlarged (bilinear) to the cells that the lesson has; the losses of maps compare with the
    teacher's answer mixed with the truth as the rows are.
    """

    def value(logits: torch.Tensor, targets: Targets) -> torch.Tensor:
        cells = targets.teacher.shape[1:3]
        if logits.shape[2:] != cells:
            logits = F.interpolate(logits.float(), size=tuple(cells), mode="bilinear", align_corners=False)
        answer = logits.permute(0, 2, 3, 1)
        teacher, truth, share, weight = targets
        total = mixed_with_truth(
            loss, answer.flatten(0, 2), teacher.flatten(0, 2), truth.flatten(0, 2), share.flatten(), weight.flatten()
        )
        if further:
            wanted = torch.lerp(teacher, truth, share[..., None])
            total = total + sum(factor * part(answer, wanted, weight) for part, factor in further)
        return total

    return value


@final
@dataclass(frozen=True)
class _ChannelWise(MapLoss):
    """CWD: T^2 / C sum_c KL(p_c || q_c), mean over images (Shu et al. 2021, arXiv 2011.13256).

    p_c is where class c is: softmax over the cells of an image of the class's logits / T, at the paper's T = 4. The
    teacher's logits are not stored, so both sides have log-probabilities here, and what a student adds to all logits of
    a cell counts for nothing, as elsewhere. Range: 0 (equal) and up.

    A stored zero is a probability below 1/510. Where the target is at or below that, the student may be anything
    below, too, and a class that is nowhere in an image asks only that it stay below everywhere.

    A cell of weight w counts as w cells do, in both softmaxes; an image by the sum of its weights. The paper has no
    weights.
    """

    temperature: float = 4.0

    def _value(self, logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        floor = math.log(_FLOOR)
        teacher = target.clamp_min(_FLOOR).log()
        student = F.log_softmax(logits, dim=-1)
        student = torch.where(target <= _FLOOR, student.clamp_min(floor), student)
        area = weight.log().clamp_min(_NOWHERE)[..., None]
        log_p, log_q = (
            F.log_softmax((x / self.temperature + area).flatten(1, 2), dim=1) for x in (teacher, student)
        )  # [N, g * g, C]
        divergence = (log_p.exp() * (log_p - log_q)).sum(dim=1).mean(dim=-1)  # [N]
        return self.temperature**2 * _weighted_mean(divergence, weight.flatten(1).sum(dim=1))


@final
class _Dice(MapLoss):
    """1 - mean over classes of 2 sum min(p, q) / sum (p + q), over all cells of the batch.

    Of one-hot targets min(p, q) is p q, and this is Dice as Milletari et al. 2016 (arXiv 1606.04797) take it, with the
    plain sum of Dice 1945 below. Of soft targets p q would be best answered by one-hot q; min is by q = p (Wang et al.
    2023, arXiv 2303.16296). Its gradient has the sign of the difference and does not fade near the minimum, as that of
    an absolute value. Range: 0 (equal) to 1.

    Classes that the target gives nothing are left out: their Dice is 0 whatever the student says of them, and so is the
    gradient. A class of little mass has the say of every other one.
    """

    def _value(self, logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        from segmentation_models_pytorch.losses import DiceLoss

        area = weight[..., None]
        p, q = (torch.movedim(area * x, -1, 1).flatten(2) for x in (target, F.softmax(logits, dim=-1)))  # [N, C, g * g]
        share_present = (p.sum(dim=(0, 2)) > 0).to(p.dtype).mean()
        # "multilabel" is what it calls soft targets; it takes the mean over all classes, those left out being 0.
        value: torch.Tensor = DiceLoss("multilabel", from_logits=False)(q, p)
        return value / share_present.clamp_min(1 / p.shape[1])


@final
class _Lovasz(MapLoss):
    """Lovász-Softmax: mean over the classes of the target of a convex extension of 1 - IoU (Berman et al. 2018).

    arXiv 1705.08790, over all cells of the batch. It is 1 - IoU where the student is wholly sure of every cell. The
    target is hard: the most probable class, of equal ones the first. Weights but 0 all count the same, for cells are
    sorted by error and counted. Computed in float32, which the library asks for. Range: 0 to 1.
    """

    def _value(self, logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        from segmentation_models_pytorch.losses import LovaszLoss

        keep = weight > 0
        if not keep.any():
            return (0.0 * logits).sum()  # the library answers with no number at all
        classes = target.argmax(dim=-1).where(keep, _IGNORED)
        value: torch.Tensor = LovaszLoss("multiclass", ignore_index=_IGNORED)(logits.float().movedim(-1, 1), classes)
        return value


_BUILD: Final[dict[MapLossName, type[_ChannelWise | _Dice | _Lovasz]]] = {
    "cwd": _ChannelWise,
    "dice": _Dice,
    "lovasz": _Lovasz,
}


def _weighted_mean(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Over [N]; 0 where all weights are zero."""
    return (weight * values).sum() / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)
