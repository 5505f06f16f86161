"""A fit in small: what the stage `teacher` does with the network of a teacher of pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from distill.checkpoint import save_weights
from distill.core.types import Images, Predictor
from distill.teaching import load_fitted, networks


def fits(teacher: Predictor, again: Predictor, config: Any, images: Images, folder: Path) -> None:
    """Teach it left from right in some steps, keep its weights, and load them into another."""
    ((name, network, _),) = networks(teacher, config)
    assert name == ""
    before, learnt = again.digest(), network.classifier().weight.detach().clone()
    assert learnt.shape[0] == len(teacher.class_names)
    rows, columns = teacher.predict(images).shape[1:3]
    target = torch.zeros(len(images), rows, columns, dtype=torch.long)
    target[:, :, columns // 2 :] = 1
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(8):
        loss = functional.cross_entropy(network.train()(torch.from_numpy(images)), target)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.9 * losses[0]
    assert not torch.equal(network.classifier().weight, learnt)
    save_weights(network.backbone, folder / "weights.safetensors")
    load_fitted(again, config, folder)
    assert again.digest() == teacher.digest() != before
    np.testing.assert_allclose(again.predict(images), teacher.predict(images), atol=1e-5)
