"""A network that somebody brings, as `--model brought_net:small`; tests copy this file into their own folder."""

from __future__ import annotations

import torch
from torch import nn


class Small(nn.Module):
    """32 px to five logits: the parts that MobileNets are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6())
        self.deep = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU6())
        self.project = nn.Sequential(nn.Conv2d(16, 24, 1, bias=False), nn.BatchNorm2d(24))
        self.expand = nn.Sequential(nn.Conv2d(24, 48, 1, bias=False), nn.BatchNorm2d(48), nn.Hardswish(inplace=True))
        self.back = nn.Conv2d(48, 24, 1)
        self.head = nn.Linear(24, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.project(self.deep(self.stem(images)))
        maps = maps + self.back(self.expand(maps))
        pooled = nn.functional.adaptive_avg_pool2d(maps, 1).view(images.shape[0], -1)
        logits: torch.Tensor = self.head(pooled)
        return logits


class Pixels(nn.Module):
    """32 px to three logits a pixel, on a grid of 16 enlarged to 32."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.ReLU())
        self.head = nn.Conv2d(16, 3, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.head(self.deep(self.stem(images)))
        return nn.functional.interpolate(maps, size=(32, 32), mode="bilinear", align_corners=False)


def small(seed: int = 0) -> nn.Module:
    """Weights that give noise of different colours different answers."""
    torch.manual_seed(seed)
    network = Small().eval()
    with torch.no_grad():
        colours = torch.tensor([[40.0, 160, 60], [180, 50, 40], [120, 60, 170]])
        photos = colours[:, None, :, None, None] + 45 * torch.randn(3, 20, 3, 32, 32)
        seen: list[torch.Tensor] = []
        hook = network.head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        network((photos.clamp(0, 255) / 255 - 0.45).flatten(0, 1) / 0.22)
        hook.remove()
        means = seen[0].reshape(3, 20, -1).mean(dim=1)
        centred = means - means.mean(dim=0)
        network.head.weight.zero_()
        network.head.weight[:3] = 8 * centred / centred.square().sum(dim=1, keepdim=True)
        network.head.bias.copy_(-network.head.weight @ means.mean(dim=0))
        network.head.bias[3:] = -4
    return network


def pixels() -> nn.Module:
    torch.manual_seed(1)
    return Pixels().eval()


def broken() -> nn.Module:
    raise RuntimeError("no weights here")
