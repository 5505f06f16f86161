"""The benchmark inside the sample app: it runs as the front app does, tells single times, and gives its answers."""

from __future__ import annotations

import hashlib
import re
import secrets
import tempfile
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import numpy.typing as npt

from distill.core.errors import DeviceError
from distill.core.files import write_text
from export.phone.adb import TookTooLong
from export.phone.contract import FORMAT, INSTRUMENTATION, PACKAGE, Input, Measure, Model, Plan, Result, read_result
from export.phone.desk import Desk
from export.phone.ways import Job, NoMeasurement, OnPhone, Timed, Way

__all__ = ["App", "app_version"]

JOB_S: float = 180.0
"""Limit of one process, its start included."""
_RESULTS: Final = "files/benchmark"
_OUTSIDE: Final = f"/sdcard/Android/data/{PACKAGE}/{_RESULTS}"


@final
class App(Way):
    """The installed app.

    Args:
        desk: where.
        version: of the app.
        images: what it is shown, uint8 [N, S, S, 3].
    """

    name = "app"
    pins = False  # an app may not choose its cores

    def __init__(self, desk: Desk, version: str, images: npt.NDArray[np.uint8]) -> None:
        self._desk, self._version, self._images = desk, version, images
        self._input: Input | None = None

    def prepare(self) -> str:
        raw = self._images.tobytes()
        with tempfile.TemporaryDirectory(prefix="distill-") as folder:
            file = Path(folder) / "input.bin"
            file.write_bytes(raw)
            path = self._desk.put(file, "input.bin")
        count, side = self._images.shape[:2]
        self._input = Input(
            path=path,
            sha256=hashlib.sha256(raw).hexdigest(),
            count=count,
            dtype="uint8",
            shape=(1, side, side, 3),
        )
        return f"app {self._version}"

    def time(self, model: OnPhone, job: Job) -> Timed:
        result = self._run("latency", model, job)
        assert result.load_ms is not None or not result.samples_ms
        if result.load_ms is None:
            raise NoMeasurement("the app gave no load time")
        samples = result.samples_ms
        facts = {"runtime": f"{result.runtime}, {result.abi}"}
        return Timed(result.load_ms, float(np.median(samples)), samples, is_median=True, facts=facts)

    def peak_memory_mb(self, model: OnPhone, job: Job) -> float | None:
        result = self._run("memory", model, job)
        assert result.memory is not None
        return result.memory.peak_kb * 1024 / 1e6

    def profile(self, model: OnPhone, job: Job) -> list[dict[str, Any]]:
        return []

    def answers(self, model: OnPhone, images: npt.NDArray[np.uint8]) -> npt.NDArray[Any] | None:
        result = self._run("parity", model, Job(threads=1, cluster=None, runs=1, warmup=0))
        outputs = result.outputs
        assert outputs is not None
        raw = self._fetch(outputs.file)
        if len(raw) != outputs.bytes or hashlib.sha256(raw).hexdigest() != outputs.sha256:
            raise NoMeasurement(f"its answers came back as {len(raw)} other bytes than the {outputs.bytes} it wrote")
        try:
            found = np.frombuffer(raw, np.dtype(outputs.dtype).newbyteorder("<"))
            return found.reshape(len(images), *outputs.shape[1:])
        except ValueError as error:
            raise NoMeasurement(f"its answers are {outputs.dtype} {outputs.shape} times {outputs.count}") from error

    def _run(self, measure: Measure, model: OnPhone, job: Job) -> Result:
        assert self._input is not None
        plan = Plan(
            format=FORMAT,
            id=secrets.token_hex(8),
            measure=measure,
            model=Model(path=model.path, sha256=model.sha256, bytes=model.file.stat().st_size),
            input=self._input,
            threads=job.threads,
            delegate="xnnpack",
            warmup=job.warmup,
            runs=job.runs,
        )
        with tempfile.TemporaryDirectory(prefix="distill-") as folder:
            file = Path(folder) / "plan.json"
            write_text(file, plan.model_dump_json(indent=2) + "\n")
            path = self._desk.put(file, "plan.json")
        adb = self._desk.adb
        try:
            said = adb.shell("am", "instrument", "-w", "-e", "plan", path, INSTRUMENTATION, limit_s=JOB_S)
        except TookTooLong as error:
            self._desk.end_ours()
            raise NoMeasurement(f"the app hung: no end within {JOB_S:g} s") from error
        if "INSTRUMENTATION_FAILED" in said.text or "Unable to find instrumentation" in said.text:
            raise DeviceError(
                f"the app {PACKAGE} {self._version} on the phone has no benchmark: install the one of this version"
            )
        text = self._fetch(f"{plan.id}.json").decode("utf-8", "replace")
        ended = re.findall(r"^INSTRUMENTATION_CODE: (-?\d+)\s*$", said.text, re.MULTILINE)
        if not text:
            adb.shell("logcat", "-d", "-b", "crash", "-t", "80")  # for the log
            why = re.findall(r"(?:shortMsg|longMsg|Error)=(.+)", said.text)
            raise NoMeasurement(
                f"the app wrote no result: {why[-1].strip()[:200] if why else 'it ended without a word'}"
            )
        result = read_result(text)
        if isinstance(result, str):
            raise NoMeasurement(f"what the app wrote is no result: {result}")
        if wrong := result.answers(plan):
            raise NoMeasurement(f"the app answered something else: {wrong}")
        if result.error is not None:
            raise NoMeasurement(f"the app says ({result.error.kind}): {result.error.message}")
        if ended != ["-1"]:
            raise NoMeasurement(f"the app wrote a result and then ended badly (code {', '.join(ended) or 'none'})")
        return result

    def _fetch(self, name: str) -> bytes:
        """A file of the app's folder, or of its outer one where `run-as` does not work; empty if it is in neither."""
        inside, outside = f"{_RESULTS}/{name}", f"{_OUTSIDE}/{name}"
        return self._desk.adb.output(
            'run-as "$1" cat "$2" 2>/dev/null || cat "$3" 2>/dev/null', PACKAGE, inside, outside
        )


def app_version(desk: Desk) -> str | None:
    """Version of the installed app; None where it is not there."""
    if "package:" not in desk.adb.shell("pm", "path", PACKAGE).text:
        return None
    found = re.search(r"versionName=(\S+)", desk.adb.script('dumpsys package "$1" | grep versionName=', PACKAGE).text)
    return found[1] if found else "unknown"
