"""Small models, and the child process that converts them: `python -m tests.teachers.tflite_models FOLDER`.

In a child, because the converter starts JAX's threads, and JAX warns of every later fork of a process that has them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn


class Segmenter(nn.Sequential):
    """The layer below as a backbone of students."""

    def __init__(self) -> None:
        super().__init__(layer())

    def get_classifier(self) -> nn.Module:
        return self[0]


def layer() -> nn.Conv2d:
    """[N, 3, h, w] to [N, 3, h, w]: one step from pixels to classes."""
    torch.manual_seed(0)
    found = nn.Conv2d(3, 3, 1)
    nn.init.normal_(found.weight, std=2.0)
    return found


class OfBytes(nn.Module):
    """uint8 [N, 16, 16, 3] to [N, 16, 16, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = layer()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer((images.float() / 127.5 - 1).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class FirstChannel(nn.Module):
    """The probability of one class."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = layer()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(images)[:, :1].sigmoid()


def main(folder: Path) -> None:
    import litert_torch

    floats, integers = torch.zeros(1, 16, 16, 3), torch.zeros(1, 16, 16, 3, dtype=torch.uint8)
    classifier = nn.Sequential(layer(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Softmax(dim=1))
    for name, module, example in (
        ("float", litert_torch.to_channel_last_io(layer(), args=[0], outputs=[0]), floats),
        ("softmax", litert_torch.to_channel_last_io(classifier, args=[0]), floats),
        ("sigmoid", litert_torch.to_channel_last_io(FirstChannel(), args=[0], outputs=[0]), floats),
        ("bytes", OfBytes(), integers),
    ):
        converted = litert_torch.convert(module.eval(), (example,))
        (folder / f"{name}.tflite").write_bytes(converted.model_content())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
