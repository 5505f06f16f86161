"""This machine's CPU: each file in a process of its own."""

from __future__ import annotations

from typing import Any, final

from distill.core.environment import describe_environment
from distill.core.run import Run
from distill.core.settings import Settings
from export.devices._base import Device
from export.files import open_artifact
from export.isolated import FilePredictor

__all__ = ["Config", "build"]


class Config(Settings):
    """This CPU has no settings of its own."""


@final
class _Cpu(Device):
    def describe(self) -> dict[str, Any]:
        found = describe_environment(seed=0)
        return {"name": "cpu", "model": found["cpu"], "cores": found["cores"]}

    def open(self, run: Run, manifest: dict[str, Any], threads: int) -> FilePredictor:
        return open_artifact(run, manifest, threads)


def build(config: Config) -> Device:
    """The device."""
    return _Cpu()
