"""Interleaved rounds on a phone: every file, way, thread count and cluster in turn, as cool as the phone can be had.

A round runs everything once and the next one runs it backwards, so a phone that slows down slows all alike. Heat is
read before and after every process; a phone that throttles is given time to cool, within a limit for the whole visit.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar, final

from distill.config import BenchmarkSettings
from distill.core.progress import Progress
from distill.core.timing import percentiles
from export.devices._base import file_facts
from export.phone.adb import Adb
from export.phone.facts import THERMAL, Cluster, Conditions, Phone, read_conditions
from export.phone.ways import Job, NoMeasurement, OnPhone, Timed, Way

__all__ = ["DRIFT", "THREADS", "File", "Program", "Rounds"]

THREADS: Final = (1, 2, 4)
"""Thread counts to time, as far as there are cores: more than four are slower on most phones."""
DRIFT: Final = 0.10
"""Change between rounds, of the first one's time, from which on a row is marked."""
COOL_S: float = 300.0
"""How long is waited for the phone to cool, in all."""
POLL_S: float = 5.0
_WARMER_C: Final = 5.0  # of the battery; phones before Android 10 tell no thermal status

_T = TypeVar("_T")


class File(NamedTuple):
    """What is timed: a manifest and its copy on the phone."""

    manifest: dict[str, Any]
    model: OnPhone


class Program(NamedTuple):
    """A way that is ready, and its runtime's name."""

    way: Way
    runtime: str


@dataclass
class _Series:
    """One row in the making."""

    file: File
    program: Program
    job: Job
    timed: list[Timed] = field(default_factory=list)
    before: list[Conditions] = field(default_factory=list)
    after: list[Conditions] = field(default_factory=list)


@final
class Rounds:
    """Measures on one phone and remembers what failed and how warm it was.

    Args:
        adb: of the phone.
        phone: what it is.
        settings: rounds, runs and warm-up.
        progress: told of each process.
    """

    def __init__(self, adb: Adb, phone: Phone, settings: BenchmarkSettings, progress: Progress) -> None:
        self._adb, self._phone, self._settings, self._progress = adb, phone, settings, progress
        self.failures: list[dict[str, str]] = []
        self._first = self._latest = read_conditions(adb)
        self._cooling_s = 0.0

    def attempt(self, file: File, way: Way, call: Callable[[], _T]) -> _T | None:
        """What the call gives; None where it gives no measurement, which is said, kept, and ends this pair's turns."""
        if self._failed(file, way):
            return None
        try:
            return call()
        except NoMeasurement as error:
            name = file.manifest["name"]
            self.failures.append({"name": name, "way": way.name, "reason": str(error)})
            self._say(f"not timed: {name}, {way.name}: {error}")
            return None

    def measure(self, files: Sequence[File], programs: Sequence[Program]) -> list[dict[str, Any]]:
        """Rows of what could be timed in every round."""
        series = list(self._plan(files, programs))
        self._latest = read_conditions(self._adb)
        with self._progress.task("timing on the phone", len(series) * self._settings.rounds, "processes") as task:
            for number in range(self._settings.rounds):
                for each in series if number % 2 == 0 else reversed(series):
                    self.attempt(each.file, each.program.way, partial(self._once, each))
                    task.advance(1)
        quiet = Job(1, None, self._settings.runs, self._settings.warmup)
        asked: dict[tuple[str, str], dict[str, Any]] = {}
        for file in files:
            for way, _ in programs:
                asked[file.manifest["name"], way.name] = {
                    "peak_memory_mb": self.attempt(file, way, partial(way.peak_memory_mb, file.model, quiet)),
                    "profile": self.attempt(file, way, partial(way.profile, file.model, quiet)),
                }
        kept = [each for each in series if not self._failed(each.file, each.program.way)]
        return [self._row(each, asked[each.file.manifest["name"], each.program.way.name]) for each in kept]

    def found(self) -> dict[str, Any]:
        """For the document: heat and battery before and after it all, time spent cooling, and what failed."""
        return {
            "before": self._first.as_dict(),
            "after": self._latest.as_dict(),
            "cooling_s": round(self._cooling_s, 1),
            "failures": self.failures,
        }

    def _plan(self, files: Sequence[File], programs: Sequence[Program]) -> Iterator[_Series]:
        settings, clusters = self._settings, self._phone.clusters
        can_pin = len(clusters) > 1 and self._adb.script("command -v taskset").code == 0
        for threads in THREADS:
            for program in programs:
                kept: list[Cluster | None] = [None]
                if program.way.pins and can_pin:
                    kept += [cluster for cluster in clusters if threads <= len(cluster.cores)]
                for cluster in kept if threads <= self._phone.cores else ():
                    for file in files:
                        yield _Series(file, program, Job(threads, cluster, settings.runs, settings.warmup))

    def _once(self, each: _Series) -> None:
        self._cool()
        before = self._latest
        timed = each.program.way.time(each.file.model, each.job)
        self._latest = read_conditions(self._adb)
        each.before.append(before)
        each.timed.append(timed)
        each.after.append(self._latest)

    def _cool(self) -> None:
        """Wait until the phone is no longer hot, or the time for that is spent."""
        if self._hot(self._latest) and self._cooling_s < COOL_S:
            self._say(f"the phone is hot ({self._latest}): it may cool for {COOL_S - self._cooling_s:.0f} s")
        while self._hot(self._latest) and self._cooling_s < COOL_S:
            time.sleep(POLL_S)
            self._cooling_s += POLL_S
            self._latest = read_conditions(self._adb)
            if self._cooling_s >= COOL_S and self._hot(self._latest):
                self._say(f"it is still hot ({self._latest}): going on, and marking what is measured")

    def _hot(self, found: Conditions) -> bool:
        if found.thermal_status:
            return True
        start = self._first.battery_c
        return start is not None and found.battery_c is not None and found.battery_c >= start + _WARMER_C

    def _row(self, each: _Series, asked: dict[str, Any]) -> dict[str, Any]:
        timed, job = each.timed, each.job
        middles = [one.middle_ms for one in timed]
        samples = [sample for one in timed for sample in one.samples_ms]
        whole = statistics.median(middles) if all(one.is_median for one in timed) else None
        facts = timed[-1].facts
        drift = max((middle / middles[0] - 1 for middle in middles), key=abs)
        return {
            **file_facts(each.file.manifest),
            "runtime": each.program.runtime,
            "threads": job.threads,
            **(percentiles(samples) if samples else {"p50_ms": whole, "p90_ms": None, "p99_ms": None}),
            "mean_ms": statistics.fmean(samples) if samples else statistics.fmean(o.facts["mean_ms"] for o in timed),
            "load_ms": statistics.median(one.load_ms for one in timed),
            **asked,
            **{key: value for key, value in facts.items() if key != "mean_ms"},
            "samples_ms": [round(sample, 4) for sample in samples],
            "round_ms": [round(middle, 4) for middle in middles],
            "device": self._phone.model,
            "way": each.program.way.name,
            "cores": str(job.cluster) if job.cluster else "any",
            "drift": drift,
            "before": each.before[0].as_dict(),
            "after": each.after[-1].as_dict(),
            "remarks": list(self._remarks(each, drift)),
        }

    def _remarks(self, each: _Series, drift: float) -> Iterator[str]:
        if abs(drift) > DRIFT:
            yield f"drift: a round took {100 * abs(drift):.0f} % {'more' if drift > 0 else 'less'} than the first one"
        worst = max((found.thermal_status or 0 for found in (*each.before, *each.after)), default=0)
        if worst:
            yield f"throttled: thermal status {worst} ({THERMAL[worst]})"
        elif any(self._hot(found) for found in (*each.before, *each.after)):
            yield f"hot: the battery warmed by {_WARMER_C:g} °C or more"

    def _failed(self, file: File, way: Way) -> bool:
        name = file.manifest["name"]
        return any(each["name"] == name and each["way"] == way.name for each in self.failures)

    def _say(self, text: str) -> None:
        self._adb.note(text)
        self._progress.console.print(f"  {text}", highlight=False, markup=False, soft_wrap=True)
