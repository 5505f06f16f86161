"""Heads that answer each pixel: DeepLabV3+ and LR-ASPP on timm's encoders, of operators that int8 keeps together.

Both answer on a coarse grid. What they have in common with their papers and what not: ReLU and bilinear resizing of
static sizes throughout, batch norm, no group norm, no hard swish, since XNNPACK takes all of these in int8.
"""

from __future__ import annotations

from typing import ClassVar

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by
from segmentation_models_pytorch.encoders import TimmUniversalEncoder
from torch import nn

__all__ = ["LRASPP", "DeepLabV3Plus", "Segmenter"]

# Of the encoder, whose last stages are dilated instead of strided: 32 would leave 8x8 cells of a 256 px image.
_STRIDE = 16
# The paper's 6, 12, 18 are for 33x33 cells. At 16x16 the outer taps of a rate of 18 all lie beside the map.
_RATES = (3, 6, 9)


class DeepLabV3Plus(nn.Module):
    """Several dilations side by side, refined by features of stride 4 (Chen et al. 2018, arXiv 1802.02611).

    float32 [N, 3, S, S] to logits [N, C, S/4, S/4], S a multiple of 16. Parameters have the names they have in smp.
    """

    classifiers: ClassVar = ("segmentation_head.",)
    """Prefixes of the weights that depend on the classes."""

    def __init__(self, encoder: str, classes: int, channels: int, *, pretrained: bool, **model_args: object) -> None:
        super().__init__()
        made = smp.DeepLabV3Plus(
            encoder_name=f"tu-{encoder}",
            encoder_weights=True if pretrained else None,
            encoder_output_stride=_STRIDE,
            decoder_channels=channels,
            decoder_atrous_rates=_RATES,
            decoder_aspp_dropout=0.0,
            classes=classes,
            upsampling=1,
            **model_args,
        )
        self.encoder: TimmUniversalEncoder = made.encoder
        self.decoder: nn.Module = made.decoder
        self.segmentation_head: nn.Sequential = made.segmentation_head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.segmentation_head(self.decoder(self.encoder(images)))
        return logits

    def get_classifier(self) -> nn.Module:
        """The last convolution, 1x1."""
        return self.segmentation_head[0]


class LRASPP(nn.Module):
    """A gate from the mean of the map, and one skip of stride 8 (Howard et al. 2019, arXiv 1905.02244, figure 10).

    The gate is the mean over the whole map, as in torchvision. The convolution to classes stands in front of the
    resizing, which it commutes with: a quarter of the work.

    float32 [N, 3, S, S] to logits [N, C, S/8, S/8], S a multiple of 16.
    """

    classifiers: ClassVar = ("classifier.", "low_classifier.")
    """Prefixes of the weights that depend on the classes."""

    def __init__(self, encoder: str, classes: int, channels: int, *, pretrained: bool, **model_args: object) -> None:
        super().__init__()
        self.encoder = TimmUniversalEncoder(encoder, pretrained=pretrained, output_stride=_STRIDE, **model_args)
        *_, low, _, high = self.encoder.out_channels
        self.project = nn.Sequential(nn.Conv2d(high, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(high, channels, 1, bias=False), nn.Sigmoid())
        self.classifier = nn.Conv2d(channels, classes, 1)
        self.low_classifier = nn.Conv2d(low, classes, 1, bias=False)
        # Training sets the other one to zero, so that answers begin even. This one begins near it: of exactly zero,
        # int8 would have no scale, and XNNPACK adds nothing whose scales differ by more than 2^10.
        nn.init.normal_(self.low_classifier.weight, std=0.01)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        *_, low, _, high = self.encoder(images)
        coarse = self.classifier(self.project(high) * self.gate(high))
        fine: torch.Tensor = F.interpolate(coarse, scale_factor=2, mode="bilinear") + self.low_classifier(low)
        return fine

    def get_classifier(self) -> nn.Module:
        """The convolution to classes, 1x1, of the branch that sees most."""
        return self.classifier


Segmenter = DeepLabV3Plus | LRASPP
