"""The graphs that are exported: pixels in, or what the scale of a quantized input tensor has made of them."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by
from torch import nn

from distill.torch_predictor import Network

__all__ = ["ForBytes", "ForFloats", "ForNormalized", "Output", "Tensors"]

Output = Literal["probabilities", "logits", "class_map"]
"""What a file answers. Probabilities and logits are float32 [N, C], or [N, h, w, C] where pixels are answered; a class
map is uint8 [N, h, w], places of classes, of pixels only."""

Tensors = Literal["bytes", "int8", "float"]
"""What a file takes and gives. bytes: uint8 as a camera gives them, answers float32. int8: bytes less 128, answers int8
by scale and zero point of the output tensor. float: float32 0..255, answers float32. A class map is uint8 always."""


class ForBytes(nn.Module):
    """uint8 [N, S, S, 3], or float32 0..255, to answers; the student's normalisation is part of the graph.

    Args:
        student: answers images or pixels.
        output: what is answered.
        upsample: whether maps get the size of the image, h = w = S, instead of the student's own.
    """

    def __init__(self, student: Network, output: Output = "probabilities", *, upsample: bool = False) -> None:
        super().__init__()
        self.student = student
        self._answer = _Answer(student, output, upsample=upsample)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self._answer(self.student(images))
        return answer


class ForNormalized(nn.Module):
    """float32 [N, S, S, 3] in [-1, 1] to answers: what an int8 file is made from.

    Args:
        student: answers images or pixels.
        output: what is answered.
        upsample: whether maps get the size of the image, h = w = S, instead of the student's own.
    """

    def __init__(self, student: Network, output: Output = "probabilities", *, upsample: bool = False) -> None:
        super().__init__()
        self.backbone = student.backbone
        self._answer = _Answer(student, output, upsample=upsample)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self._answer(self.backbone(images.permute(0, 3, 1, 2)))
        return answer


class ForFloats(ForNormalized):
    """float32 [N, S, S, 3] 0..255 to answers: what an int8 file that takes floats is made from.

    The normalisation is the one that a uint8 input tensor of scale 2/255 and zero point 128 does, so that both files
    answer alike.
    """

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward((images - 128) * (2 / 255))


class _Answer(nn.Module):
    """Logits [N, C] or [N, C, h, w] to what the file gives, the classes along the last axis."""

    def __init__(self, student: Network, output: Output, *, upsample: bool) -> None:
        super().__init__()
        self._size = (student.image_size, student.image_size)
        self._maps, self._output, self._upsample = student.answers_maps, output, upsample

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        if self._maps:
            if self._upsample:
                logits = F.interpolate(logits, size=self._size, mode="bilinear", align_corners=False)
            logits = logits.permute(0, 2, 3, 1)
        if self._output == "probabilities":
            return torch.softmax(logits, dim=-1)
        if self._output == "class_map":
            return logits.argmax(dim=-1).to(torch.uint8)
        return logits
