"""ARM processors without a phone: instructions (which are no time) on an emulated cortex-a53 and cortex-a76."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np

from distill.config import BenchmarkSettings
from distill.core.errors import UserError
from distill.core.plugins import suggest
from distill.core.progress import Progress
from distill.core.run import Run
from distill.core.settings import Settings
from export.devices._base import Device, file_facts
from export.emulated import CORES, Emulator
from export.files import Exporter, check_takes_bytes, open_artifact

__all__ = ["Config", "build"]

_IMAGES = 8  # that answers are compared on
_RUNS = 3  # counted inferences; they differ by a few instructions in ten million


class Config(Settings):
    """Which processor."""

    arm_emulated: str = ""
    """One processor alone: cortex-a53 or cortex-a76; both if empty."""


@final
class _ArmEmulated(Device):
    def __init__(self, cores: Sequence[str]) -> None:
        self._cores = cores
        self._emulator = Emulator()

    def describe(self) -> dict[str, Any]:
        return {"name": "arm-emulated", "model": self._emulator.described, "cores": 1}

    def measure(
        self, run: Run, manifests: Sequence[dict[str, Any]], settings: BenchmarkSettings, progress: Progress
    ) -> list[dict[str, Any]]:
        known = [manifest for manifest in manifests if manifest["format"] == "tflite"]
        for manifest in manifests:
            if manifest not in known:
                progress.console.print(f"  not counted: {manifest['name']}; TFLite files are", highlight=False)
        if not known:
            raise UserError("--device arm-emulated runs TFLite files, and there is none")
        for manifest in known:
            check_takes_bytes(manifest, "--device arm-emulated")
        images = Exporter(run, progress).examples(known[0]["image_size"], _IMAGES)
        rows = []
        with progress.task("counting", len(known) * len(self._cores), "files") as task:
            for manifest in known:
                with open_artifact(run, manifest, 1) as here:
                    expected = here.run(images)
                for core in self._cores:
                    counted = self._emulator.run(run.folder("export") / manifest["file"], images, core, _RUNS)
                    rows.append(
                        {
                            **file_facts(manifest),
                            "core": core,
                            "instructions": int(np.median(counted.instructions)),
                            "samples": counted.instructions,
                            "images": len(images),
                            "same_bytes": bool((counted.answers == expected).all()),
                            "largest_difference": float(np.abs(counted.answers - expected.astype(np.float64)).max()),
                        }
                    )
                    task.advance(1)
        return rows


def build(config: Config) -> Device:
    """The device.

    Raises:
        UserError: it is not set up, or there is no such processor.
    """
    core = config.arm_emulated
    if core and core not in CORES:
        raise UserError(
            f"--device arm-emulated:{core}: found no such processor{suggest(core, CORES)}; known: {', '.join(CORES)}"
        )
    return _ArmEmulated([core] if core else list(CORES))
