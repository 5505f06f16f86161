"""Wall-clock samples and their percentiles; every timed thing in the project goes through these two."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

__all__ = ["percentiles", "sample_ms"]


def sample_ms(call: Callable[[], object], *, runs: int, warmup: int) -> list[float]:
    """Milliseconds of each of `runs` calls after `warmup` calls that are not counted."""
    for _ in range(warmup):
        call()
    samples = []
    for _ in range(runs):
        start = time.perf_counter_ns()
        call()
        samples.append((time.perf_counter_ns() - start) / 1e6)
    return samples


def percentiles(samples_ms: Sequence[float]) -> dict[str, float]:
    """p50, p90 and p99 in milliseconds."""
    p50, p90, p99 = np.percentile(samples_ms, [50, 90, 99])
    return {"p50_ms": float(p50), "p90_ms": float(p90), "p99_ms": float(p99)}
