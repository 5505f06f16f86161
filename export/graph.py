"""The two graphs that are exported: raw bytes in, or bytes already normalised by the input tensor's scale."""

from __future__ import annotations

import torch
from torch import nn

from distill.torch_predictor import Network

__all__ = ["ForBytes", "ForNormalized"]


class ForBytes(nn.Module):
    """uint8 [N, S, S, 3] to probabilities float32 [N, C]; the student's normalisation is part of the graph."""

    def __init__(self, student: Network) -> None:
        super().__init__()
        self.student = student

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.student(images), dim=-1)


class ForNormalized(nn.Module):
    """float32 [N, S, S, 3] in [-1, 1] to probabilities float32 [N, C]: what an int8 file is made from."""

    def __init__(self, student: Network) -> None:
        super().__init__()
        self.backbone = student.backbone

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.backbone(images.permute(0, 3, 1, 2)), dim=-1)
