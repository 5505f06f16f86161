"""Time exported files: each in a process of its own, in interleaved rounds, raw samples kept."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from distill.core import plugins
from distill.core.environment import describe_environment
from distill.core.errors import ArtifactError
from distill.core.files import write_json
from distill.core.progress import Progress
from distill.core.run import Run
from export.devices._base import Device
from export.files import Exporter, benchmark_settings, read_config
from export.isolated import fed_pixels

__all__ = ["RESULT", "benchmark"]

RESULT = "benchmark.json"


def benchmark(run: Run, progress: Progress, names: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure the files of a run and write `benchmark/benchmark.json`.

    Args:
        run: with exported files.
        progress: told of each round.
        names: artifacts to time; all of the config if left out. Missing ones are made.

    Returns:
        The document that was written: `rows` with artifact, threads, percentiles in ms, load time in ms, peak memory in
        MB, partitions, size, score in the task's `metric`, and `samples_ms`.

    Raises:
        ArtifactError: none of the files could be timed.
    """
    settings = benchmark_settings(run)
    exporter = Exporter(run, progress)
    manifests = []
    for name in names or exporter.settings.files:
        try:
            manifests.append(exporter.make(name))
        except ArtifactError as error:
            progress.console.print(f"  not timed: {error}", highlight=False, markup=False)
    if not manifests:
        raise ArtifactError("there is no file to time")
    module = plugins.load("devices", "cpu")
    device: Device = module.build(module.Config())
    size = manifests[0]["image_size"]
    image = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    tensors = [manifest.get("tensors", "bytes") for manifest in manifests]
    rows = []
    for threads in settings.threads:
        with ExitStack() as stack:
            opened = [stack.enter_context(device.open(run, manifest, threads)) for manifest in manifests]
            samples: list[list[float]] = [[] for _ in opened]
            peaks = [0.0] * len(opened)
            with progress.task(f"timing, {threads} thread{'s' * (threads > 1)}", settings.rounds, "rounds") as task:
                for _ in range(settings.rounds):
                    for place, session in enumerate(opened):
                        timed = session.time(
                            fed_pixels(image, tensors[place]), runs=settings.runs, warmup=settings.warmup
                        )
                        samples[place] += timed["samples_ms"]
                        peaks[place] = max(peaks[place], timed["peak_memory_mb"])
                    task.advance(1)
            for manifest, session, times, peak in zip(manifests, opened, samples, peaks, strict=True):
                rows.append(device.row(manifest, threads, session.load_ms, times, peak))
    document = {
        "format": 1,
        "device": device.describe(),
        "environment": describe_environment(int(read_config(run)["seed"])),
        "settings": settings.model_dump(mode="json"),
        "metric": manifests[0]["metric"],
        "rows": rows,
    }
    write_json(run.folder("benchmark") / RESULT, document)
    return document
