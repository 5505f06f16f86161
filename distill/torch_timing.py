"""Size and single-image latency of predictors that still live in PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from distill.core.timing import percentiles, sample_ms
from distill.core.types import Predictor
from distill.torch_predictor import TorchPredictor

__all__ = ["size_and_time"]

_RUNS = 20


def size_and_time(predictor: Predictor) -> dict[str, Any]:
    """Parameters, bytes as float32, and batch-1 latency at one thread, where the predictor is a torch module."""
    if not isinstance(predictor, TorchPredictor):
        return {"parameters": None, "bytes": None, "latency": None}
    parameters = sum(p.numel() for p in predictor.network.parameters())
    image = np.zeros((1, predictor.image_size, predictor.image_size, 3), dtype=np.uint8)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        samples = sample_ms(lambda: predictor.predict(image), runs=_RUNS, warmup=5)
    finally:
        torch.set_num_threads(threads)
    return {"parameters": parameters, "bytes": parameters * 4, "latency": [{"threads": 1, **percentiles(samples)}]}
