"""`distill run`, killed at random moments of every stage, ends as if nothing had happened.

A tiny run of every stage is done undisturbed. Then the same run is done again. In each stage it is killed
by SIGKILL a few times, and the same command started again each time, until the stage is done; what the stage left is
compared with the undisturbed run, the folder is put back to where the stage began, and so on, until the stage had its
share of kills. The next stage goes on from there. At the end the whole folder is compared.

Of three kills one falls at a random time, one right after a random one of the changes that the stage makes to its
folder (a temporary file appears, a rename), and one, at a random time, hits the main process alone, so that processes
it started outlive it. The last kill of a stage falls when `stage.json` appears. After each kill every JSON file must
be whole. Every file must end with what the undisturbed run's file holds, but for what is a time (`TIMES` and
`TIMED_FILES` say which, and why).

To spare the seconds that importing torch takes, each start is a fork of this process, which has imported it and runs
no thread; what it starts (the exporters, the runtimes) are new processes as ever.

    python benchmarks/faults.py [--task classification|segmentation] [--stages A,B] [--kills 200] [--seed 0]

Last line of stdout: one JSON object; `differing` counts end states unlike the undisturbed one, and must be 0.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import fnmatch
import importlib
import json
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from _tiny import CONFIGS, write_images
from rich.console import Console
from rich.table import Table

from distill.pipeline import STAGES

TIMES = {
    "seconds": "of a stage, or of a rung of the int8 ladder",
    "finished_at": "when a stage ended",
    "created_at": "when the report was written",
    "images_per_s": "of an epoch",
    "data_wait": "share of an epoch in which it waited for images",
    "workers": "a decision that says how long training waited for images",
    "load_ms": "opening a file",
    "latency": "of torch modules",
    "latency_ratio": "an int8 file over its float file",
    "samples_ms": "of `bench`",
    "p50_ms": "of `bench`",
    "p90_ms": "of `bench`",
    "p99_ms": "of `bench`",
    "peak_memory_mb": "no time, but of a process, and never twice the same",
}
"""Keys of JSON objects that differ between undisturbed runs."""

TIMED_FILES = {
    "*/tensorboard/*": "names and content have the time",
    "*.log": "native libraries print times and addresses",
    "report.html": "drawn from report.json, with its times",
    "report.md": "written from report.json, with its times",
    ".lock": "who works in the folder, and since when",
}
"""Files that differ between undisturbed runs; all others are compared."""

_UNDISTURBED = "undisturbed"
_COUNTS = {"labeled": 12, "validation": 9, "test": 9, "unlabeled": 75}
_IN_A_ROW = 4  # kills before a stage may end; more would leave fewer end states to compare
_SLOW = {"export": 0.2, "benchmark": 0.3}  # share of their kills: an attempt imports TensorFlow, and converts
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_POLL_S = 0.002
_PATIENCE_S = 600.0
_IMPORTED = (
    "distill.cli", "distill.stages", "distill.train", "distill.probe", "distill.simple", "distill.report.build",
    "distill.sanity.suite", "distill.sanity.subject", "distill.torch_timing", "distill.labels.label",
    "distill.labels.map_label", "distill.tasks.classification", "distill.tasks.segmentation", "distill.students.timm",
    "distill.students.smp", "teachers.timm", "teachers.smp", "torchmetrics.functional.classification",
    "scipy.spatial", "pyarrow.parquet",
)  # fmt: skip


class BrokenError(Exception):
    """The run did not go on as it should."""


class Pace(NamedTuple):
    """How an undisturbed stage goes."""

    seconds: float
    changes: int


@dataclass
class Tally:
    """What became of a stage's kills."""

    kills: int = 0
    alone: int = 0
    end_states: int = 0
    differing: list[str] = field(default_factory=list)


class Start:
    """One start of `distill run`, in a process group of its own."""

    def __init__(self, place: Path, log: Path) -> None:
        self.code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            _become_distill(place, log)

    def ended(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is not None

    def kill(self, *, alone: bool) -> None:
        (os.kill if alone else os.killpg)(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        self.code = os.waitstatus_to_exitcode(status)


def _become_distill(place: Path, log: Path) -> None:
    """In the fork: do what `distill run teacher.yaml` does, then end."""
    code = 1
    try:
        os.setsid()
        os.chdir(place)
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.argv = ["distill", "run", "teacher.yaml"]
        from distill.cli import main

        main()
    except SystemExit as error:
        code = int(error.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Suite:
    """Runs in one place; every run has the same path while it works, so that files may name it."""

    def __init__(self, place: Path, console: Console) -> None:
        self.place, self.console = place, console
        self.run, self.log = place / "runs/teacher", place / "log.txt"

    def undisturbed(self) -> dict[str, Pace]:
        """Run to the end and put the folder aside, unless that was done; how each stage went."""
        aside = self.place / _UNDISTURBED
        if not aside.exists():
            self.finish()
            self.run.rename(aside)
        pace = {}
        for stage in STAGES:
            seconds = json.loads((aside / stage / "stage.json").read_text())["seconds"]
            files = sum(path.is_file() for path in (aside / stage).rglob("*"))
            pace[stage] = Pace(float(seconds), 2 * files)  # a temporary name, then the final one
        return pace

    def remember(self) -> None:
        """Keep the folder as it is."""
        shutil.rmtree(self.place / "kept", ignore_errors=True)
        if self.run.exists():
            shutil.copytree(self.run, self.place / "kept")

    def put_back(self) -> None:
        """Make the folder what it was when it was kept."""
        shutil.rmtree(self.run, ignore_errors=True)
        if (self.place / "kept").exists():
            shutil.copytree(self.place / "kept", self.run)

    def done(self, stage: str) -> bool:
        return (self.run / stage / "stage.json").exists()

    def _stage(self) -> str:
        """The stage under way: begun and not finished; empty between stages and before the first."""
        begun = [s for s in STAGES if (self.run / s / "started.json").exists()]
        return begun[-1] if begun and not (self.run / begun[-1] / "stage.json").exists() else ""

    def _names(self, stage: str) -> frozenset[str]:
        found: list[str] = []
        with contextlib.suppress(FileNotFoundError):
            found += os.listdir(self.run)
        for folder, _, files in os.walk(self.run / stage):
            found += [f"{folder}/{file}" for file in files]
        return frozenset(found)

    def _last_words(self) -> str:
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""

    def kill_once(self, stage: str, pace: Pace, how: str, rng: random.Random) -> str | None:
        """Start the command, and kill it in a stage that is not done.

        Args:
            stage: which one.
            pace: of the stage.
            how: `time`, `change`, `alone`, or `end`: when it is done.
            rng: chooses the moment.

        Returns:
            The stage in which the kill fell, or `between` two; None if all ended before.
        """
        delay, changes = rng.uniform(0, pace.seconds), rng.randint(1, max(1, pace.changes))
        before = _mtime(self.run / stage / "started.json")
        start, deadline = Start(self.place, self.log), time.monotonic() + _PATIENCE_S
        began, seen, counted = 0.0, frozenset[str](), 0
        while not start.ended() and not (began and self.done(stage)):
            if not began:
                if _mtime(self.run / stage / "started.json") not in {before, 0}:
                    began, seen = time.monotonic(), self._names(stage)
            elif how == "change":
                names = self._names(stage)
                counted, seen = counted + (names != seen), names
                if counted >= changes:
                    break
            elif how != "end" and time.monotonic() - began >= delay:
                break
            if time.monotonic() > deadline:
                raise BrokenError(f"nothing happened in {stage} for {_PATIENCE_S:g} s:\n{self._last_words()}")
            time.sleep(_POLL_S)
        if start.ended():
            if start.code == 0:
                return None
            raise BrokenError(f"going on with {stage} ended with exit code {start.code}:\n{self._last_words()}")
        fell = self._stage() or "between"
        start.kill(alone=how == "alone")
        self._wait_for_orphans()
        self._look_for_torn_files()
        return fell

    def _wait_for_orphans(self) -> None:
        """Until nobody holds the folder."""
        deadline = time.monotonic() + _PATIENCE_S
        with (self.run / ".lock").open("a") as stream:
            while True:
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise BrokenError("a process that outlived the kill never ended") from None
                    time.sleep(0.01)

    def _look_for_torn_files(self) -> None:
        for path in self.run.rglob("*.json"):
            try:
                json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise BrokenError(f"{path} was left half-written ({error})") from error

    def finish(self) -> None:
        """Go on to the end."""
        start = Start(self.place, self.log)
        while not start.ended():
            time.sleep(0.01)
        if start.code != 0:
            raise BrokenError(f"a start that was left alone ended with exit code {start.code}:\n{self._last_words()}")

    def differences(self, stage: str = "") -> list[str]:
        """Files of a stage, or of all, that do not hold what the undisturbed run's do."""
        wanted, found = (_files(root, stage) for root in (self.place / _UNDISTURBED, self.run))
        alone = [f"{name}: {'missing' if name in wanted else 'left over'}" for name in wanted.keys() ^ found.keys()]
        return sorted(alone + [name for name in wanted.keys() & found.keys() if not _same(wanted[name], found[name])])


def _mtime(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _files(root: Path, stage: str) -> dict[str, Path]:
    found = {str(path.relative_to(root)): path for path in (root / stage).rglob("*") if path.is_file()}
    return {name: path for name, path in found.items() if not any(fnmatch.fnmatch(name, each) for each in TIMED_FILES)}


def _same(one: Path, other: Path) -> bool:
    if one.suffix not in {".json", ".jsonl"}:
        return one.read_bytes() == other.read_bytes()
    return _timeless(one) == _timeless(other)


def _timeless(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        return [_without_times(json.loads(line)) for line in text.splitlines()]
    return _without_times(json.loads(text))


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(each) for key, each in value.items() if key not in TIMES}
    return [_without_times(each) for each in value] if isinstance(value, list) else value


def main() -> int:
    """Run the suite; exit code 1 if anything ended otherwise than the undisturbed run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=sorted(CONFIGS), default="classification")
    parser.add_argument("--kills", type=int, default=200, help="at least, over all stages")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", help="only in these, with commas between")
    parser.add_argument("--keep", type=Path, help="work here, leave everything, and take the undisturbed run from here")
    options = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":  # numpy and torch would have threads, which a fork has not
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **dict.fromkeys(_THREADS, "1")})
    console = Console(stderr=True)
    for name in _IMPORTED:
        importlib.import_module(name)
    with contextlib.ExitStack() as stack:
        place = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        place.mkdir(parents=True, exist_ok=True)
        place = place.absolute()
        os.environ["TMPDIR"] = str(place)  # what killed processes leave
        if not (place / "teacher.yaml").exists():
            write_images(place / "images", options.task, _COUNTS)
            (place / "teacher.yaml").write_text(CONFIGS[options.task])
        stages = options.stages.split(",") if options.stages else list(STAGES)
        found = _kill_everywhere(Suite(place, console), stages, options.kills, options.seed, console)
    print(json.dumps({"task": options.task, "seed": options.seed, **found}))
    return 1 if found["differing"] else 0


def _kill_everywhere(suite: Suite, stages: list[str], wanted: int, seed: int, console: Console) -> dict[str, Any]:
    began = time.monotonic()
    pace, rng = suite.undisturbed(), random.Random(seed)
    shares = {stage: _SLOW.get(stage, 1.0) if stage in stages else 0.0 for stage in STAGES}
    tally = {stage: Tally() for stage in (*STAGES, "between")}
    before = ""
    for stage, each in pace.items():
        quota = math.ceil(wanted * shares[stage] / sum(shares.values()))
        if quota and before and not suite.done(before):  # the stages before were not asked for
            suite.kill_once(before, pace[before], "end", rng)
        before = stage
        suite.remember()
        tries = 0
        while tries < quota:
            suite.put_back()
            in_a_row = 0
            while not suite.done(stage):
                how = "end" if in_a_row == _IN_A_ROW else ("time", "change", "alone")[tries % 3]
                fell = suite.kill_once(stage, each, how, rng)
                if fell is None:
                    break
                tries, in_a_row = tries + 1, in_a_row + 1
                tally[fell].kills += 1
                tally[fell].alone += how == "alone"
            tally[stage].end_states += 1
            tally[stage].differing += suite.differences(stage)
        if not quota:
            continue
        minutes = (time.monotonic() - began) / 60
        told = f"{minutes:.0f} min: {stage}, {tries} kills, {tally[stage].end_states} end states"
        console.print(f"{told}; differing: {tally[stage].differing}", soft_wrap=True)
    suite.finish()
    whole = suite.differences()
    table = Table("stage", "undisturbed, s", "kills", "of the main process alone", "end states", "differing")
    for stage, each in tally.items():
        took = f"{pace[stage].seconds:.1f}" if stage in pace else ""
        table.add_row(stage, took, *map(str, (each.kills, each.alone, each.end_states, len(each.differing))))
    table.add_row("all", "", str(sum(each.kills for each in tally.values())), "", "1", str(len(whole)))
    Console().print(table)
    return {
        "kills": sum(each.kills for each in tally.values()),
        "by_stage": {stage: each.kills for stage, each in tally.items()},
        "end_states": 1 + sum(each.end_states for each in tally.values()),
        "differing": len(whole) + sum(len(each.differing) for each in tally.values()),
        "files": sorted({name for each in tally.values() for name in each.differing} | set(whole)),
        "minutes": round((time.monotonic() - began) / 60, 1),
    }


if __name__ == "__main__":
    raise SystemExit(main())
