"""The linear probe: a classifier fitted on frozen features, as a start that fine-tuning does not have to destroy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by

from distill.core.types import ImageRecord
from distill.data.batches import ImageCache, iterate
from distill.data.views import Resize, View, fixed_view
from distill.examples import Lesson
from distill.losses import soft_cross_entropy
from distill.torch_predictor import Network

__all__ = ["fit_probe"]

_PENALTIES = (1e-3, 1e-2, 1e-1)  # on standardised features; the best lies inside on all data seen so far
_BATCH = 32


def fit_probe(
    network: Network,
    lesson: Lesson,
    validation: Sequence[ImageRecord],
    *,
    cache: ImageCache,
    resize: Resize,
) -> float:
    """Fit the last layer by penalised multinomial logistic regression, in place.

    Features come from the network in evaluation mode and are standardised; the scaling is folded into the layer. The
    penalty is chosen by validation loss.

    Args:
        network: its features are kept, its classifier is replaced.
        lesson: what to fit it to; where there is truth, that counts.
        validation: labelled images.
        cache: gives the images.
        resize: shape of the fixed view.

    Returns:
        The penalty that was chosen.
    """
    network.eval()
    device = next(network.parameters()).device
    x = _features(network, lesson.shown, cache)
    t = torch.from_numpy(np.where(lesson.truth_share[:, None] > 0, lesson.truth, lesson.teacher)).double()
    x_val = _features(network, [(r, (fixed_view(r.width, r.height, resize),)) for r in validation], cache)
    t_val = torch.tensor([network.class_names.index(str(r.label)) for r in validation])
    mean, std = x.mean(dim=0), x.std(dim=0).clamp_min(1e-6)
    fitted = []
    for penalty in _PENALTIES:
        weight, bias = _logistic_regression((x - mean) / std, t, penalty)
        loss = F.cross_entropy(((x_val - mean) / std) @ weight.T + bias, t_val)
        fitted.append((float(loss), penalty, weight, bias))
    _, penalty, weight, bias = min(fitted, key=lambda f: f[0])
    layer = network.classifier()
    assert layer.bias is not None
    with torch.no_grad():
        folded = weight / std
        layer.weight.copy_(folded.float().to(device))
        layer.bias.copy_((bias - folded @ mean).float().to(device))
    return penalty


def _features(network: Network, shown: Sequence[tuple[ImageRecord, tuple[View]]], cache: ImageCache) -> torch.Tensor:
    """float64 [N, F]."""
    device = next(network.parameters()).device
    batches = [shown[at : at + _BATCH] for at in range(0, len(shown), _BATCH)]
    with torch.inference_mode():
        parts = [
            network.features(torch.from_numpy(images).to(device)).double().cpu()
            for images in iterate(cache, batches, network.image_size, workers=2)
        ]
    return torch.cat(parts).clone()


def _logistic_regression(x: torch.Tensor, t: torch.Tensor, penalty: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Minimise mean cross-entropy + penalty / 2 * |W|^2 by L-BFGS; [N, F] and [N, C] in, [C, F] and [C] out."""
    weight = torch.zeros(t.shape[1], x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(t.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = soft_cross_entropy(x @ weight.T + bias, t) + penalty / 2 * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()
