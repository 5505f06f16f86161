"""Segmentation models of other libraries as backbones: float32 [N, 3, S, S] to logits [N, C, h, w]."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["FromSmp", "FromTorchvision", "FromTransformers"]


class FromTorchvision(nn.Module):
    """Without enlarging the answer, which is bilinear and can be done by whoever needs it.

    The grid has an eighth of the input's side; that of DeepLabV3 on MobileNetV3 a sixteenth.

    Args:
        model: FCN, DeepLabV3 or LR-ASPP.
        last: name of its last convolution.
    """

    def __init__(self, model: Any, last: str) -> None:
        super().__init__()
        self.model, self._last = model, last

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.model.backbone(images)
        answer: torch.Tensor = self.model.classifier(features.get("out", features))  # LR-ASPP takes two maps
        return answer

    def get_classifier(self) -> nn.Module:
        """The last convolution; LR-ASPP's of the branch that sees most."""
        layer: nn.Module = self.model.get_submodule(self._last)
        return layer


class FromSmp(nn.Module):
    """Answers in full size: its last layer enlarges with aligned corners, which others do not undo.

    Args:
        model: of segmentation_models_pytorch; where it ends in an activation, it is taken off, and so is a head for the
            whole image. One channel becomes two: zero, and what it says of the second class.
        last: name of its last convolution.
    """

    def __init__(self, model: Any, last: str) -> None:
        from segmentation_models_pytorch.base.modules import Activation

        super().__init__()
        self.model, self._last = model, last
        head = model.segmentation_head
        for name, layer in list(head.named_modules()):
            if isinstance(layer, Activation):
                head.set_submodule(name, nn.Identity())
        model.classification_head = None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.model(images)
        return answer if answer.shape[1] > 1 else torch.cat([torch.zeros_like(answer), answer], dim=1)

    def get_classifier(self) -> nn.Module:
        """The last convolution."""
        layer: nn.Module = self.model.get_submodule(self._last)
        return layer


class FromTransformers(nn.Module):
    """Answers on the model's own grid; SegFormer's has a quarter of the side.

    Args:
        model: one of `AutoModelForSemanticSegmentation`.
        last: name of its last convolution.
        blue_first: whether it was trained on blue, green, red. Counts in the digest, as weights do.
    """

    order: torch.Tensor

    def __init__(self, model: Any, last: str, *, blue_first: bool) -> None:
        super().__init__()
        self.model, self._last = model, last
        self._blue_first = blue_first
        if blue_first:
            self.register_buffer("order", torch.tensor([2, 1, 0]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.model(images[:, self.order] if self._blue_first else images).logits
        return answer

    def get_classifier(self) -> nn.Module:
        """The last convolution."""
        layer: nn.Module = self.model.get_submodule(self._last)
        return layer
