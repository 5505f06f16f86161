"""`distill run`, killed at random moments of every stage, ends as if nothing had happened.

A tiny run of every stage is done undisturbed, and once more to see that two undisturbed runs end alike. Then, in
rounds, each a run folder of its own, the same run is killed by SIGKILL a few times in each stage, and the same command
started again each time, until it ends. Every third kill falls at a random time of the stage, every third right after a
random one of the changes that the stage makes to its folder (a temporary file appears, a rename), and every third hits
the main process alone, so that processes it started outlive it. After each kill every JSON file must be whole; at the
end every file must hold what the undisturbed run's file holds, but for what is a time (`TIMES` and `TIMED_FILES` say
which, and why).

To spare the seconds that importing torch takes, each start is a fork of this process, which has imported it and runs
no thread; what it starts (the exporters, the runtimes) are new processes as ever.

    python benchmarks/faults.py [--task classification|segmentation] [--kills 200] [--seed 0] [--keep FOLDER]

Last line of stdout: one JSON object; `differing` counts rounds that did not end alike, and must be 0.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # a fork has one thread only, so there must be none before

import argparse
import contextlib
import fcntl
import fnmatch
import importlib
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from _tiny import CONFIGS, write_images
from distill.pipeline import STAGES

TIMES = {
    "seconds": "of a stage, or of a rung of the int8 ladder",
    "finished_at": "when a stage ended",
    "created_at": "when the report was written",
    "images_per_s": "of an epoch",
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
    ".lock": "who works in the folder, and since when",
}
"""Files that differ between undisturbed runs; all others are compared."""

_COUNTS = {"labeled": 12, "validation": 9, "test": 9, "unlabeled": 75}
_A_ROUND = 5  # kills in a stage; more would make fewer rounds, and only the end of a round is compared
_POLL_S = 0.001
_PATIENCE_S = 600.0
_IMPORTED = (
    "distill.cli", "distill.stages", "distill.train", "distill.probe", "distill.simple", "distill.report.build",
    "distill.sanity.suite", "distill.sanity.subject", "distill.torch_timing", "distill.labels.label",
    "distill.labels.map_label", "distill.tasks.classification", "distill.tasks.segmentation", "distill.students.timm",
    "distill.students.smp", "teachers.timm", "teachers.smp", "torchmetrics.functional.classification",
    "scipy.spatial", "pyarrow.parquet",
)  # fmt: skip


class Broken(Exception):
    """The run did not go on as it should."""


@dataclass
class Pace:
    """How an undisturbed stage goes."""

    seconds: float = 0.0
    changes: int = 0


@dataclass
class Tally:
    """What became of a stage's kills."""

    kills: int = 0
    alone: int = 0
    resumed: int = 0
    rounds: set[int] = field(default_factory=set)


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

    def undisturbed(self, name: str) -> dict[str, Pace]:
        """Run to the end, watched, and put the folder aside."""
        pace = {stage: Pace() for stage in STAGES}
        start, began, now, seen = Start(self.place, self.log), time.monotonic(), "", frozenset[str]()
        while not start.ended():
            stage = self._stage()
            if stage != now:
                began, now, seen = time.monotonic(), stage, self._names(stage)
            elif stage and (names := self._names(stage)) != seen:
                pace[stage].changes += 1
                pace[stage].seconds, seen = time.monotonic() - began, names
            time.sleep(_POLL_S)
        if start.code != 0:
            raise Broken(f"the undisturbed run ended with exit code {start.code}:\n{self._last_words()}")
        self._aside(name)
        return pace

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

    def _aside(self, name: str) -> None:
        self.run.rename(self.place / name)

    def _last_words(self) -> str:
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""

    def kill_once(self, stage: str, pace: Pace, number: int, rng: random.Random) -> tuple[str, bool] | None:
        """Start the command, and kill it at a random moment of a stage.

        Returns:
            The stage in which the kill fell and whether it hit the main process alone; None if there is nothing left
            to do in the stage.
        """
        if (self.run / stage / "stage.json").exists():
            return None
        by_change, alone = number % 3 == 1, number % 3 == 2
        delay = rng.uniform(0, pace.seconds)
        changes = rng.randint(1, max(1, pace.changes))
        start, deadline = Start(self.place, self.log), time.monotonic() + _PATIENCE_S
        before = _mtime(self.run / stage / "started.json")
        began, seen, counted = 0.0, frozenset[str](), 0
        while not start.ended():
            if not began:
                if _mtime(self.run / stage / "started.json") not in {before, 0}:
                    began, seen = time.monotonic(), self._names(stage)
            elif by_change:
                names = self._names(stage)
                counted, seen = counted + (names != seen), names
                if counted >= changes:
                    break
            elif time.monotonic() - began >= delay:
                break
            if began and (self.run / stage / "stage.json").exists():
                break  # it was faster than the undisturbed run: what is killed is the way to the next stage
            if time.monotonic() > deadline:
                raise Broken(f"nothing happened in {stage} for {_PATIENCE_S:g} s:\n{self._last_words()}")
            time.sleep(_POLL_S)
        if start.ended():
            if start.code == 0:
                return None
            raise Broken(f"going on with {stage} ended with exit code {start.code}:\n{self._last_words()}")
        fell = self._stage() or "between"
        start.kill(alone=alone)
        self._wait_for_orphans()
        self._look_for_torn_files()
        return fell, alone

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
                        raise Broken("a process that outlived the kill never ended") from None
                    time.sleep(0.01)

    def _look_for_torn_files(self) -> None:
        for path in self.run.rglob("*.json"):
            try:
                json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise Broken(f"{path} was left half-written ({error})") from error

    def finish(self) -> None:
        """Go on to the end."""
        start = Start(self.place, self.log)
        while not start.ended():
            time.sleep(0.01)
        if start.code != 0:
            raise Broken(f"the last start ended with exit code {start.code}:\n{self._last_words()}")

    def differences(self, name: str, other: str) -> list[str]:
        """Files of two runs put aside that do not hold the same."""
        one, two = (_files(self.place / each) for each in (name, other))
        found = [f"{path}: only in {name if path in one else other}" for path in sorted(one.keys() ^ two.keys())]
        return found + [path for path in sorted(one.keys() & two.keys()) if not _same(one[path], two[path])]


def _mtime(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _files(root: Path) -> dict[str, Path]:
    found = {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}
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
    """Run the suite; exit code 1 if a round ended otherwise than the undisturbed run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=sorted(CONFIGS), default="classification")
    parser.add_argument("--kills", type=int, default=200, help="at least, spread evenly over the stages")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="work here, and leave everything")
    options = parser.parse_args()
    console = Console(stderr=True)
    for name in _IMPORTED:
        importlib.import_module(name)
    threads = len(os.listdir("/proc/self/task")) if Path("/proc/self/task").exists() else 1
    if threads > 1:
        console.print(f"{threads} threads run before the first fork: starts may hang")
    with contextlib.ExitStack() as stack:
        place = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        place.mkdir(parents=True, exist_ok=True)
        place = place.absolute()
        os.environ["TMPDIR"] = str(place)  # what killed processes leave
        write_images(place / "images", options.task, _COUNTS)
        (place / "teacher.yaml").write_text(CONFIGS[options.task])
        found = _kill_everywhere(Suite(place, console), options.kills, options.seed, console)
    print(json.dumps({"task": options.task, "seed": options.seed, **found}))
    return 1 if found["differing"] else 0


def _kill_everywhere(suite: Suite, wanted: int, seed: int, console: Console) -> dict[str, Any]:
    began = time.monotonic()
    pace = suite.undisturbed("undisturbed")
    suite.undisturbed("again")
    if unlike := suite.differences("undisturbed", "again"):
        raise SystemExit(f"two undisturbed runs do not end alike: {', '.join(unlike)}")
    for stage, each in pace.items():
        console.print(f"{stage}: {each.seconds:.2f} s, {each.changes} changes seen")
    quota, rng = -(-wanted // len(STAGES)), random.Random(seed)
    tally = {stage: Tally() for stage in (*STAGES, "between")}
    differing: dict[int, list[str]] = {}
    tries: Counter[str] = Counter()
    number = 0
    while any(tally[stage].kills < quota for stage in STAGES):
        number += 1
        for stage in STAGES:
            for _ in range(min(_A_ROUND, quota - tally[stage].kills)):
                fell = suite.kill_once(stage, pace[stage], tries[stage], rng)
                if fell is None:
                    break
                tries[stage] += 1
                tally[fell[0]].kills += 1
                tally[fell[0]].alone += fell[1]
                tally[fell[0]].rounds.add(number)
        suite.finish()
        suite._aside(f"round-{number}")
        unlike = suite.differences("undisturbed", f"round-{number}")
        kills = sum(each.kills for each in tally.values())
        console.print(f"round {number}: {kills} kills, {len(unlike)} files differ {unlike[:8]}", soft_wrap=True)
        if unlike:
            differing[number] = unlike
        else:
            shutil.rmtree(suite.place / f"round-{number}")
    table = Table("stage", "kills", "of the main process alone", "in rounds", "of these differing")
    for stage, each in tally.items():
        unlike_rounds = len(each.rounds & differing.keys())
        table.add_row(stage, *map(str, (each.kills, each.alone, len(each.rounds), unlike_rounds)))
    Console().print(table)
    return {
        "kills": sum(each.kills for each in tally.values()),
        "stages": {stage: each.kills for stage, each in tally.items()},
        "rounds": number,
        "differing": len(differing),
        "files": {str(each): names for each, names in differing.items()},
        "minutes": round((time.monotonic() - began) / 60, 1),
    }


if __name__ == "__main__":
    raise SystemExit(main())
