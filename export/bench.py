"""Measure exported files on a device: this CPU, or another place that `export.devices` knows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill.core import plugins
from distill.core.environment import describe_environment
from distill.core.errors import ArtifactError, UserError
from distill.core.files import write_json
from distill.core.progress import Progress
from distill.core.run import Run
from export.devices._base import Device
from export.files import Exporter, benchmark_settings, read_config

__all__ = ["benchmark", "find_device", "result_path"]


def benchmark(run: Run, progress: Progress, names: Sequence[str] | None = None, device: str = "cpu") -> dict[str, Any]:
    """Measure the files of a run and write the result: see `result_path`.

    Args:
        run: with exported files.
        progress: told of each round.
        names: artifacts to time; all of the config if left out. Missing ones are made.
        device: see `find_device`.

    Returns:
        The document that was written. `rows` of a device with a clock have artifact, threads, percentiles in ms, load
        time in ms, peak memory in MB, partitions, size, score in the task's `metric`, and `samples_ms`.

    Raises:
        ArtifactError: none of the files could be timed.
        UserError: there is no such device, or it cannot be had.
    """
    place = find_device(device)
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
    rows = place.measure(run, manifests, settings, progress)
    document = {
        "format": 1,
        "device": place.describe(),
        "environment": describe_environment(int(read_config(run)["seed"])),
        "settings": settings.model_dump(mode="json"),
        "metric": manifests[0]["metric"],
        "rows": rows,
    }
    write_json(result_path(run, device), document)
    return document


def find_device(device: str) -> Device:
    """The device of a plugin's file name, with - for _, and behind a colon what its setting of that name takes.

    `adb:SERIAL` is `devices/adb.py` with `Config(adb="SERIAL")`.

    Raises:
        UserError: there is no such plugin, or it takes nothing behind a colon.
    """
    name, colon, argument = device.partition(":")
    plugin = name.replace("-", "_")
    module = plugins.load("devices", plugin)
    if colon and plugin not in module.Config.model_fields:
        raise UserError(f"--device {device}: {name} takes nothing behind a colon")
    found: Device = module.build(module.Config(**({plugin: argument} if colon else {})))
    return found


def result_path(run: Run, device: str) -> Path:
    """`benchmark.json` for this CPU, which the report shows; `benchmark-NAME.json` for another device."""
    name = device.partition(":")[0]
    return run.folder("benchmark") / ("benchmark.json" if name == "cpu" else f"benchmark-{name}.json")
