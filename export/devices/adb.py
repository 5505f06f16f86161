"""An Android phone over adb: the sample app's benchmark, and TensorFlow's benchmark_model where it is given."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, final

import numpy as np

from distill.config import BenchmarkSettings
from distill.core.errors import ArtifactError, UserError
from distill.core.progress import Progress
from distill.core.run import Run
from distill.core.settings import Settings
from distill.core.types import Images
from export.devices._base import Device
from export.files import Exporter, check_takes_bytes, open_artifact, proven_file
from export.phone.adb import Adb, find_adb, find_phone
from export.phone.app import App, app_version
from export.phone.benchmark_model import BenchmarkModel, pick_by_abi
from export.phone.contract import PACKAGE
from export.phone.desk import Desk, at_desk
from export.phone.facts import read_phone
from export.phone.rounds import File, Program, Rounds
from export.phone.ways import NoMeasurement, OnPhone, Way

__all__ = ["Config", "build"]

LOG: Final = "adb.log"
_EXAMPLES: Final = 8
_FARTHEST: Final = 0.05
"""Of the largest value a file answers with: as far as an answer may lie from this machine's. Float kernels of ARM and
x86 differ by about 1e-6 of it, int8 ones by nothing; a wrong scale or channel order by far more."""


class Config(Settings):
    """Which phone, and what runs there besides the app."""

    adb: str = ""
    """Serial of the phone, as `adb devices` lists it; empty for the only one."""
    benchmark_model: list[Path] = []
    """TensorFlow's `benchmark_model` for Android, or folders with several of them: chosen by the phone's ABI."""


@final
class _Adb(Device):
    def __init__(self, config: Config) -> None:
        self._config = config
        self._found: dict[str, Any] = {}

    def describe(self) -> dict[str, Any]:
        return {"name": "adb", **self._found}

    def measure(
        self, run: Run, manifests: Sequence[dict[str, Any]], settings: BenchmarkSettings, progress: Progress
    ) -> list[dict[str, Any]]:
        files = [manifest for manifest in manifests if manifest["format"] == "tflite"]
        say = progress.console.print
        for other in manifests:
            if other not in files:
                say(f"  not timed: {other['name']}: only TFLite files run there", highlight=False, markup=False)
        if not files:
            raise UserError("--device adb times TFLite files, and there is none among these")
        program = find_adb()
        adb = Adb(program, find_phone(program, self._config.adb), run.folder("benchmark") / LOG)
        phone = read_phone(adb)
        say(f"  {phone.model}, Android {phone.android}, {phone.soc or 'SoC unknown'}", highlight=False, markup=False)
        binaries = self._config.benchmark_model
        binary = pick_by_abi(binaries, phone.abis) if binaries else None
        images = Exporter(run, progress).examples(files[0]["image_size"], _EXAMPLES)
        with at_desk(adb, progress.console) as desk:
            programs = [Program(way, way.prepare()) for way in _ways(desk, binary, images)]
            timed = [File(manifest, _copy(desk, run, manifest, place)) for place, manifest in enumerate(files)]
            rounds = Rounds(adb, phone, settings, progress)
            answers = {
                (file.manifest["name"], way.name): rounds.attempt(file, way, partial(_compare, run, file, way, images))
                for file in timed
                for way, _ in programs
            }
            rows = rounds.measure(timed, programs)
            self._found = {
                **phone.as_dict(),
                "ways": {way.name: runtime for way, runtime in programs},
                **rounds.found(),
                "log": LOG,
            }
        if not rows:
            reasons = "; ".join(f"{each['name']}, {each['way']}: {each['reason']}" for each in rounds.failures)
            raise ArtifactError(f"no file could be timed on the phone: {reasons}. What was said: {adb.log}")
        return [{**row, "answers": answers[row["name"], row["way"]]} for row in rows]


def _ways(desk: Desk, binary: tuple[Path, str] | None, images: Images) -> list[Way]:
    """The app if it is installed, the binary if it was given."""
    version = app_version(desk)
    ways: list[Way] = [App(desk, version, images)] if version else []
    if binary:
        ways.append(BenchmarkModel(desk, *binary))
    if not ways:
        raise UserError(
            f"nothing on the phone can run a file: install the sample app ({PACKAGE}, `adb install app.apk`, see"
            " android_sample/README.md), or name TensorFlow's benchmark_model with --benchmark-model PATH"
        )
    return ways


def _copy(desk: Desk, run: Run, manifest: dict[str, Any], place: int) -> OnPhone:
    """Put a file of the run on the phone, under a name of ours."""
    check_takes_bytes(manifest, "--device adb")
    path = proven_file(run, manifest)
    return OnPhone(desk.put(path, f"{place}.tflite"), path, manifest["sha256"], manifest["image_size"])


def _compare(run: Run, file: File, way: Way, images: Images) -> dict[str, Any] | None:
    """How far the phone's answers lie from those of this machine; None where the way gives none.

    Raises:
        NoMeasurement: too far: the file runs wrong there.
    """
    there = way.answers(file.model, images)
    if there is None:
        return None
    with open_artifact(run, file.manifest, 1) as opened:
        here = opened.run(images)
    if there.shape != here.shape or there.dtype != here.dtype:
        raise NoMeasurement(f"it answers with {there.dtype} {list(there.shape)}, here {here.dtype} {list(here.shape)}")
    far = float(np.abs(there.astype(np.float64) - here.astype(np.float64)).max())
    unequal = float((there != here).mean())
    found = {"images": len(images), "bit_equal": there.tobytes() == here.tobytes(), "max_difference": far}
    # A class map holds numbers of classes: how many pixels differ counts, not by how much.
    share = unequal if here.dtype == np.uint8 else far / max(float(np.abs(here).max()), 1e-12)
    if not np.isfinite(far):
        raise NoMeasurement("it answers with values that are no numbers")
    if share > _FARTHEST:
        raise NoMeasurement(
            f"it answers otherwise than here: {100 * share:.0f} % off, at most {100 * _FARTHEST:.0f} % are allowed,"
            f" over {len(images)} images"
        )
    return found


def build(config: Config) -> Device:
    """The device."""
    return _Adb(config)
