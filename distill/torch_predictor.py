"""A torch module as a predictor: teacher, student and control are this."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Literal, final

import numpy as np
import torch
from torch import nn

from distill.core.types import FloatArray, Images, Predictor

__all__ = ["Network", "Precision", "TorchPredictor"]

Precision = Literal["float32", "bfloat16"]


class Network(nn.Module):
    """A classifier of images or pixels with its normalisation inside: uint8 NHWC in, float32 logits out.

    Args:
        backbone: module from float32 [N, 3, H, W] to logits [N, C], or [N, C, h, w] on its own grid; with timm's
            `get_classifier` where it is to be trained, `forward_features` and `forward_head` where it is to be probed.
        class_names: C names.
        image_size: side of the input in pixels.
        mean: per channel, of values scaled to 0..1.
        std: per channel, of values scaled to 0..1.
        pretrained: whether the backbone starts from trained weights (decides defaults of training).
        trained: name of the backbone's part that `pretrained` is about; all of it if empty.
        answers_maps: whether it answers [N, C, h, w].
        any_size: whether it also takes squares of other multiples of 32 pixels.
    """

    mean: torch.Tensor
    std: torch.Tensor
    class_names: tuple[str, ...]
    image_size: int
    pretrained: bool
    answers_maps: bool
    any_size: bool

    def __init__(
        self,
        backbone: nn.Module,
        class_names: Sequence[str],
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        pretrained: bool,
        trained: str = "",
        answers_maps: bool = False,
        any_size: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.class_names = tuple(class_names)
        self.image_size = image_size
        self.pretrained = pretrained
        self.answers_maps = answers_maps
        self.any_size = any_size
        self._trained = trained
        for name, values in (("mean", mean), ("std", std)):
            # One number where all channels have the same, as in every student: ONNX Runtime is slow at triples.
            per_channel = torch.tensor(values if len(set(values)) > 1 else values[:1], dtype=torch.float32)
            self.register_buffer(name, per_channel * 255, persistent=False)

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [N, H, W, 3] to float32 [N, 3, H, W] in channels_last memory: a permuted NHWC tensor already is.

        Permuted last, so that a converter to NHWC finds nothing to transpose in front of the first convolution.
        """
        return ((images.float() - self.mean) / self.std).permute(0, 3, 1, 2)

    def denormalize(self, tensor: torch.Tensor) -> torch.Tensor:
        """What the network is really fed, as uint8 [N, H, W, 3]: the inverse of `normalize`."""
        pixels = tensor.permute(0, 2, 3, 1) * self.std + self.mean
        return pixels.round().clamp(0, 255).to(torch.uint8).contiguous()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.backbone(self.normalize(images)).float()
        return logits

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """float32 [N, F]: what the classifier layer of a classifier of images is given."""
        backbone = self.backbone
        maps = backbone.forward_features(self.normalize(images))  # type: ignore[operator]
        pooled: torch.Tensor = backbone.forward_head(maps, pre_logits=True)  # type: ignore[operator]
        return pooled.float()

    def trained_part(self) -> nn.Module:
        """What starts from trained weights, if `pretrained`: the backbone, or the encoder in it."""
        return self.backbone.get_submodule(self._trained)

    def classifier(self) -> nn.Linear | nn.Conv2d:
        """The last layer, [F] -> [C]; where each pixel is answered, a convolution of 1x1."""
        layer = self.backbone.get_classifier()  # type: ignore[operator]
        wanted = nn.Conv2d if self.answers_maps else nn.Linear
        if not isinstance(layer, wanted):
            raise TypeError(f"expected a classifier of the kind {wanted.__name__}, found {type(layer).__name__}")
        return layer


@final
class TorchPredictor(Predictor):
    """Runs a network in evaluation mode, on the GPU where there is one.

    Args:
        network: moved to the device, in channels_last memory.
        device: a torch device; the GPU where there is one if left out.
        precision: bfloat16 runs convolutions and matrix products under autocast; the answer is float32 all the same.
        license: of its weights, as their card states it.
    """

    def __init__(
        self,
        network: Network,
        device: str | None = None,
        precision: Precision = "float32",
        *,
        license: str | None = None,  # noqa: A002 - the word that cards use
    ) -> None:
        self.precision = precision
        self._license = license
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.network = network.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    @property
    def class_names(self) -> tuple[str, ...]:
        names: tuple[str, ...] = self.network.class_names
        return names

    @property
    def image_size(self) -> int:
        size: int = self.network.image_size
        return size

    @property
    def any_size(self) -> bool:
        possible: bool = self.network.any_size
        return possible

    @property
    def license(self) -> str | None:
        return self._license

    def predict(self, images: Images) -> FloatArray:
        self.network.eval()
        reduced = torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")
        with torch.inference_mode(), reduced:
            # Pillow hands out read-only arrays, which torch cannot hold: these are copied
            logits = self.network(torch.from_numpy(np.require(images, requirements="W")).to(self.device))
        if logits.ndim == 4:
            logits = logits.permute(0, 2, 3, 1)
        answer: FloatArray = logits.float().cpu().contiguous().numpy()
        return answer

    def digest(self) -> str:
        network, hashed = self.network, sha256()
        hashed.update(repr((network.class_names, network.image_size, type(network.backbone).__name__)).encode())
        for name, tensor in (*network.backbone.state_dict().items(), ("mean", network.mean), ("std", network.std)):
            values = tensor.detach().cpu().contiguous()
            hashed.update(repr((name, str(values.dtype), tuple(values.shape))).encode())
            hashed.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
        return hashed.hexdigest()
