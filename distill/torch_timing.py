"""Size and single-image latency of predictors that still live in PyTorch."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from distill.core.timing import percentiles, sample_ms
from distill.core.types import Images, Predictor
from distill.torch_predictor import Precision, TorchPredictor

__all__ = ["faster_precision", "size_and_time"]

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


def faster_precision(predictor: TorchPredictor, images: Images, at_least: float) -> tuple[Precision, float]:
    """Which precision answers faster on this machine; float32 unless bfloat16 gains `at_least` times.

    Three interleaved rounds, the best of each counts: other work on the machine can only slow one down. Channels-last
    memory needs no choice: images arrive so, and it was never slower (590 against 353 images/s for a MobileNetV4).

    Args:
        predictor: its precision is changed while it is timed, and restored.
        images: uint8 [N, S, S, 3], one batch.
        at_least: gain for which bfloat16 is chosen.

    Returns:
        The precision, and how many times as fast bfloat16 was.
    """
    before = predictor.precision
    best: dict[Precision, float] = {}
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    for number in range(4):
        for precision in precisions:
            predictor.precision = precision
            start = time.perf_counter()
            predictor.predict(images)
            seconds = time.perf_counter() - start
            if number:  # the first round warms up
                best[precision] = min(seconds, best.get(precision, seconds))
    predictor.precision = before
    speedup = best["float32"] / best["bfloat16"]
    return ("bfloat16" if speedup >= at_least else "float32"), speedup
