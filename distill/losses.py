"""What training minimises: float32 logits [N, C] and target probabilities [N, C] in, a scalar out."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by

__all__ = ["soft_cross_entropy"]


def soft_cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean over the batch of -sum_c p_c log softmax(z)_c.

    With one-hot targets it is cross-entropy; with a teacher's answer it is KL(p || q) at T = 1 plus the entropy of p, a
    constant, so both have the same gradient (function matching: Beyer et al. 2022, arXiv 2106.05237).

    Args:
        logits: float32 [N, C].
        targets: float32 [N, C], rows sum to one.
    """
    return -(targets * F.log_softmax(logits, dim=-1)).sum(dim=-1).mean()
