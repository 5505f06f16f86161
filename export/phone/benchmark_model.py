"""TensorFlow's `benchmark_model` in the phone's shell: one process a measurement, its text read strictly.

It tells mean, least and most of its runs, newer ones also the median, but no single times. In a shell the scheduler
treats a process as it does not treat an app: slower or faster by phone. Operator profiling and the memory report
disturb the timing, so each has a run of its own.
"""

from __future__ import annotations

import math
import re
import signal
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import numpy.typing as npt

from distill.core.errors import DeviceError, UserError
from distill.core.files import sha256_of
from export.phone.adb import Answer, TookTooLong
from export.phone.desk import FOLDER, Desk
from export.phone.ways import Job, NoMeasurement, OnPhone, Timed, Way

__all__ = ["BenchmarkModel", "pick_by_abi"]

JOB_S: float = 180.0
"""Limit of one process."""
_PHASE_S: Final = 60  # after so long it starts no further run, neither in the warm-up nor after it
_MACHINES: Final = {
    (2, 183): "arm64-v8a",
    (1, 40): "armeabi-v7a",
    (2, 62): "x86_64",
    (1, 3): "x86",
    (2, 243): "riscv64",
}
"""ABIs by class and machine of the ELF header."""
_START: Final = 'echo $$ > "$1/pid"; cd "$1"; shift; exec "$@"'
_NUMBER: Final = r"([0-9.]+(?:e[+-]?[0-9]+)?)"
_TIMINGS: Final = re.compile(
    rf"^(?:INFO: )?Inference timings in us: Init: {_NUMBER}, First inference: {_NUMBER}, Warmup \(avg\): {_NUMBER},"
    rf" Inference \(avg\): {_NUMBER}$",
    re.MULTILINE,
)
_COUNTS: Final = re.compile(r"^(?:INFO: )?(count=\d+ .*)$", re.MULTILINE)
_PEAK: Final = re.compile(
    rf"^(?:INFO: )?Overall peak memory footprint \(MB\) via periodic monitoring: {_NUMBER}$", re.MULTILINE
)
_PARTITIONS: Final = re.compile(r"yielding (\d+) partitions for")
_OPERATOR: Final = re.compile(
    r"^\t?\s*(\S[^\t]*?)\s+(\d+)\s+([\d.]+)\s+([\d.]+)%\s+[\d.]+%\s+[\d.]+\s+\d+\s*$", re.MULTILINE
)


@final
class BenchmarkModel(Way):
    """The binary, copied to the phone.

    Args:
        desk: where.
        binary: here, for an ABI of the phone.
        abi: of the binary.
    """

    name = "benchmark_model"
    pins = True

    def __init__(self, desk: Desk, binary: Path, abi: str) -> None:
        self._desk, self._binary, self._abi = desk, binary, abi
        self._path = f"{FOLDER}/benchmark_model"

    def prepare(self) -> str:
        self._desk.put(self._binary, "benchmark_model", "755")
        said = self._desk.adb.shell(self._path, "--help")
        if said.code in {126, 127}:
            raise DeviceError(
                f"{self._binary} does not start on the phone ({_last_line(said.text)}): it is for {self._abi}; a file"
                " system without execution, or a library that is not there, would say so too"
            )
        return f"benchmark_model {sha256_of(self._binary)[:8]}, {self._abi}"

    def time(self, model: OnPhone, job: Job) -> Timed:
        text = self._run(model, job)
        timings = _timings(text)
        init, _, _, mean = (_positive(number) for number in timings.groups())
        counted = [_pairs(line) for line in _COUNTS.findall(text)]
        if len(counted) != 2:
            raise NoMeasurement(f"it told of {len(counted)} series of runs, expected warm-up and runs")
        series = counted[1]
        if not series.get("min", mean) * 0.99 <= mean <= series.get("max", mean) * 1.01 or series["count"] < 1:
            raise NoMeasurement(f"its figures contradict each other: mean {mean:g} of {series}")
        if series["count"] < job.runs and mean * job.runs < 0.9 * _PHASE_S * 1e6:
            raise NoMeasurement(f"it counted {series['count']:g} runs, asked for {job.runs}")
        partitions = _PARTITIONS.findall(text)
        middle = series.get("median", series["curr"] if "avg" not in series else mean)
        return Timed(
            load_ms=init / 1000,
            middle_ms=middle / 1000,
            samples_ms=[],
            is_median="median" in series or "avg" not in series,
            facts={"mean_ms": mean / 1000} | ({"partitions": int(partitions[-1])} if partitions else {}),
        )

    def peak_memory_mb(self, model: OnPhone, job: Job) -> float | None:
        found = _PEAK.search(self._run(model, job, "--report_peak_memory_footprint=true"))
        return _positive(found[1]) if found else None  # not where the system does not tell

    def profile(self, model: OnPhone, job: Job) -> list[dict[str, Any]]:
        text = self._run(model, job, "--enable_op_profiling=true")
        table = text.rpartition("Summary by node type")[2]  # the last is of the runs, one before may be of loading
        return [
            {"operator": name, "count": int(count), "ms": float(ms), "share": float(share) / 100}
            for name, count, ms, share in _OPERATOR.findall(table)
        ]

    def answers(self, model: OnPhone, images: npt.NDArray[np.uint8]) -> npt.NDArray[Any] | None:
        return None

    def _run(self, model: OnPhone, job: Job, *more: str) -> str:
        command = [
            self._path,
            f"--graph={model.path}",
            f"--num_threads={job.threads}",
            f"--num_runs={job.runs}",
            f"--warmup_runs={job.warmup}",
            "--min_secs=0",
            "--warmup_min_secs=0",
            f"--max_secs={_PHASE_S}",
            "--use_xnnpack=true",
            *more,
        ]
        if job.cluster:
            command = ["taskset", job.cluster.mask, *command]
        try:
            said = self._desk.adb.script(_START, FOLDER, *command, limit_s=JOB_S)
        except TookTooLong as error:
            self._desk.end_ours()
            raise NoMeasurement(f"benchmark_model hung: no end within {JOB_S:g} s") from error
        if said.code != 0:
            raise NoMeasurement(f"benchmark_model {_how(said)}: {_last_line(said.text)}")
        return said.text


def pick_by_abi(paths: Sequence[Path], abis: Sequence[str]) -> tuple[Path, str]:
    """The binary that suits a phone best, by what stands in it, not by its name.

    Args:
        paths: files, or folders to look into.
        abis: of the phone, best first.

    Returns:
        The file and its ABI.

    Raises:
        UserError: there is none for this phone.
    """
    files = []
    for path in paths:
        if not path.exists():
            raise UserError(f"--benchmark-model {path}: there is no such file or folder")
        files += sorted(found for found in path.rglob("*") if found.is_file()) if path.is_dir() else [path]
    known = {file: abi for file in files if (abi := _abi_of(file))}
    for abi in abis:
        for file, own in known.items():
            if own == abi:
                return file, abi
    told = ", ".join(f"{file.name} is for {abi}" for file, abi in known.items()) or "found no Android program in it"
    where = " ".join(map(str, paths))
    raise UserError(f"--benchmark-model {where}: none runs on this phone, which takes {', '.join(abis)}: {told}")


def _abi_of(file: Path) -> str | None:
    with file.open("rb") as stream:
        head = stream.read(20)
    if len(head) < 20 or head[:4] != b"\x7fELF":
        return None
    return _MACHINES.get((head[4], struct.unpack("<H", head[18:20])[0]))


def _how(said: Answer) -> str:
    if said.code > 128:
        try:
            return f"crashed ({signal.Signals(said.code - 128).name})"
        except ValueError:
            pass
    return f"failed with exit code {said.code}"


def _timings(text: str) -> re.Match[str]:
    found = list(_TIMINGS.finditer(text))
    if len(found) != 1:
        raise NoMeasurement(
            f"benchmark_model wrote {len(found)} lines of inference timings, expected one; it ended with:"
            f" {_last_line(text)}"
        )
    return found[0]


def _pairs(line: str) -> dict[str, float]:
    """`count=50 first=7 … median=7` as numbers."""
    found = {}
    for pair in line.replace("(all same)", "").split():
        key, _, number = pair.partition("=")
        found[key] = _positive(number) if key != "std" else 0.0
    return found


def _positive(number: str) -> float:
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not 0 < value < 1e12:
        raise NoMeasurement(f"benchmark_model wrote {number[:40]!r} where a positive number is expected")
    return value


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"
