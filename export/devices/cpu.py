"""This machine's CPU: each file in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, final

import numpy as np

from distill.config import BenchmarkSettings
from distill.core.environment import describe_environment
from distill.core.progress import Progress
from distill.core.run import Run
from distill.core.settings import Settings
from export.devices._base import Device, timed_row
from export.files import open_artifact
from export.isolated import fed_pixels

__all__ = ["Config", "build"]


class Config(Settings):
    """This CPU has no settings of its own."""


@final
class _Cpu(Device):
    def describe(self) -> dict[str, Any]:
        found = describe_environment(seed=0)
        return {"name": "cpu", "model": found["cpu"], "cores": found["cores"]}

    def measure(
        self, run: Run, manifests: Sequence[dict[str, Any]], settings: BenchmarkSettings, progress: Progress
    ) -> list[dict[str, Any]]:
        size = manifests[0]["image_size"]
        image = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
        rows = []
        for threads in settings.threads:
            with ExitStack() as stack:
                opened = [stack.enter_context(open_artifact(run, manifest, threads)) for manifest in manifests]
                samples: list[list[float]] = [[] for _ in opened]
                peaks = [0.0] * len(opened)
                with progress.task(f"timing, {threads} thread{'s' * (threads > 1)}", settings.rounds, "rounds") as task:
                    for _ in range(settings.rounds):
                        for place, session in enumerate(opened):
                            shown = fed_pixels(image, manifests[place].get("tensors", "bytes"))
                            timed = session.time(shown, runs=settings.runs, warmup=settings.warmup)
                            samples[place] += timed["samples_ms"]
                            peaks[place] = max(peaks[place], timed["peak_memory_mb"])
                    task.advance(1)
                for manifest, session, times, peak in zip(manifests, opened, samples, peaks, strict=True):
                    rows.append(timed_row(manifest, threads, session.load_ms, times, peak))
        return rows


def build(config: Config) -> Device:
    """The device."""
    return _Cpu()
