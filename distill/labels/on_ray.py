"""Labelling on a Ray cluster: each worker holds a teacher and writes shards into the run folder, which all must see.

Plain actors, not Ray Data: no data flows from worker to worker, a shard is a file that appears by rename. So that all
shards get the same bytes, the first worker settles precision and batch before the others start, and goes on with the
teacher that it has built. A worker has one shard at a time, which is the back-pressure and says which shard it died of;
Ray Data would try that one for ever.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from distill import __version__
from distill.core.errors import DistillError, RunFolderError, UserError
from distill.core.progress import Progress
from distill.labels.again import number_of
from distill.labels.label import Extent, Labelling
from distill.labels.shards import complete, shard_path

__all__ = ["Part", "label_on_ray", "part_of_cluster"]

_TRIES = 3  # a shard that so many workers died of would kill the next one too
_WAIT_S = 30.0
_SEEN_S = 60.0  # NFS may keep in mind for so long that a file was not there

Make = Callable[[], Labelling[Any, Any]]


class Part(NamedTuple):
    """What each worker takes of a cluster.

    Args:
        workers: how many there are.
        cpus: of each.
        gpus: of each; a fraction where several share one.
    """

    workers: int
    cpus: int
    gpus: float


def label_on_ray(folder: Path, make: Make, workers: int | None, progress: Progress) -> None:
    """Write every shard that does not exist yet, then the store's manifest.

    Args:
        folder: of the store; every machine of the cluster must see it.
        make: builds what asks the teacher; called once by each worker, so it is pickled.
        workers: how many; one a GPU, or one a machine where there is none, if left out.
        progress: told of each shard.

    Raises:
        UserError: Ray is not installed, or its cluster cannot be had or is too small.
        TeacherError: as `Labelling.label_part`.
        DistillError: three workers died of the same shard.
    """
    with _cluster() as ray:
        part = part_of_cluster([node["Resources"] for node in ray.nodes() if node["Alive"]], workers)
        crew = _Crew(ray, folder, make, part, progress.console)
        settled = crew.settled()
        extent = settled.extent
        todo = deque(number for number in range(extent.shards) if not shard_path(folder, number).exists())
        with progress.task("labelling", extent.total, settled.unit) as task:
            task.skip(extent.total - extent.of(todo))
            for number in crew.label(todo):
                task.advance(extent.of([number]), f"by {number_of(part.workers, 'worker')}")
    late = time.monotonic() + _SEEN_S
    while not complete(folder):
        if time.monotonic() > late:
            raise RunFolderError(
                f"{folder}: the workers wrote shards that are not seen here; every machine of the Ray cluster must see"
                " the same run folder"
            )
        time.sleep(1)


def part_of_cluster(nodes: Sequence[Mapping[str, float]], workers: int | None) -> Part:
    """Share a cluster out; a worker never spans two machines.

    Args:
        nodes: CPUs and GPUs of each machine, as Ray names them.
        workers: how many; None chooses.

    Raises:
        UserError: there is no room for them.
    """
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    usable = [node for node in nodes if node.get("CPU", 0) >= 1 and (node.get("GPU", 0) >= 1 or not gpus)]
    wanted = workers or gpus or len(usable)
    on_a_gpu = -(-wanted // gpus) if gpus else 0

    def room(cpus: int) -> int:
        """Workers that find so many CPUs."""
        return sum(min(int(node["CPU"] // cpus), int(node["GPU"]) * on_a_gpu if gpus else wanted) for node in usable)

    most = int(max((node["CPU"] for node in usable), default=0))
    cpus = next((count for count in range(most, 0, -1) if room(count) >= wanted), 0)
    if cpus == 0:
        all_cpus = int(sum(node.get("CPU", 0) for node in nodes))
        raise UserError(
            f"labels.workers: found {number_of(all_cpus, 'CPU')} and {number_of(gpus, 'GPU')} on"
            f" {number_of(len(nodes), 'machine')} of the Ray cluster, no room for"
            f" {number_of(max(1, wanted), 'worker')} with a CPU each"
        )
    return Part(wanted, cpus, 1 / on_a_gpu if gpus else 0.0)


class _Settled(NamedTuple):
    """What a worker says when it has built its teacher."""

    machine: str
    version: str
    extent: Extent
    unit: str


class _Worker:
    """Lives in a process of the cluster. What the user can change travels back as the error that it is."""

    def __init__(self, folder: Path, here: Path, make: Make) -> None:
        self._folder, self._here, self._make = folder, here, make
        self._labelling: Labelling[Any, Any] | None = None

    def settle(self) -> _Settled:
        """Build the teacher and settle what all workers keep to."""
        machine = platform.node()
        if not self._folder.is_dir():
            raise RunFolderError(
                f"{machine} sees no folder {self._folder}: every machine of the Ray cluster must see the run folder and"
                " the images under the same paths, for example by NFS"
            )
        if self._here.is_dir():
            os.chdir(self._here)  # a user's own modules are looked for there
        self._labelling = self._make()
        self._labelling.settle(Progress(Console(quiet=True)))
        return _Settled(machine, __version__, self._labelling.extent, self._labelling.unit)

    def label(self, number: int) -> None:
        """Write a shard."""
        assert self._labelling is not None
        with Progress(Console(quiet=True)).task("labelling", 0) as task:
            self._labelling.label_part([number], task)


class _Crew:
    """The workers, and what each is doing: settling (None), or the shard of a number."""

    def __init__(self, ray: Any, folder: Path, make: Make, part: Part, console: Console) -> None:
        self._ray, self._part, self._console = ray, part, console
        self._given = folder, Path.cwd(), make
        self._actor = ray.remote(_Worker).options(num_cpus=part.cpus, num_gpus=part.gpus, max_restarts=0)
        self._doing: dict[Any, tuple[Any, int | None]] = {}
        self._idle: list[Any] = []
        self._deaths: Counter[int | None] = Counter()

    def settled(self) -> _Settled:
        """Let one worker settle what all keep to."""
        while True:
            self._start()
            worker, _, said = self._next()
            if worker is not None:
                self._idle.append(worker)
                settled: _Settled = said
                return settled

    def label(self, todo: deque[int]) -> Iterator[int]:
        """Have these shards written, each by one worker; yields them as they are done."""
        busy = 0
        while todo or busy:
            while todo and self._idle:
                worker, number = self._idle.pop(), todo.popleft()
                self._doing[worker.label.remote(number)] = worker, number
                busy += 1
            while len(self._doing) + len(self._idle) < min(self._part.workers, len(todo) + busy):
                self._start()
            found, done, _ = self._next()
            busy -= done is not None
            if found is not None:
                self._idle.append(found)
                if done is not None:
                    yield done
            elif done is not None:
                todo.appendleft(done)

    def _start(self) -> None:
        worker = self._actor.remote(*self._given)
        self._doing[worker.settle.remote()] = worker, None

    def _next(self) -> tuple[Any, int | None, Any]:
        """Wait for a worker: which it is (None if it died), what it was at, and what it says."""
        errors = self._ray.exceptions
        while not (done := self._ray.wait([*self._doing], num_returns=1, timeout=_WAIT_S)[0]):
            if all(number is None for _, number in self._doing.values()):
                self._say(
                    f"no worker is ready; each needs {number_of(self._part.cpus, 'CPU')} and {self._part.gpus:g} GPU"
                    " of the cluster, and time to build the teacher"
                )
        worker, number = self._doing.pop(done[0])
        try:
            said = self._ray.get(done[0])
        except errors.RayTaskError as error:
            if isinstance(error.cause, (DistillError, OSError)):
                raise error.cause from None
            raise
        except (errors.RayActorError, errors.WorkerCrashedError, errors.OutOfMemoryError) as error:
            self._deaths[number] += 1
            at = "while it built the teacher" if number is None else f"at shard {number}"
            if self._deaths[number] == _TRIES:
                raise DistillError(f"{_TRIES} workers died {at}; Ray says of the last: {error}") from error
            with contextlib.suppress(errors.RayError):
                self._ray.kill(worker)
            self._say(f"a worker died {at}; another one goes on")
            return None, number, None
        if isinstance(said, _Settled) and said.version != __version__:
            raise UserError(
                f"{said.machine} has mobile-distill {said.version}, this machine {__version__}: all machines of the Ray"
                " cluster need the same"
            )
        return worker, number, said

    def _say(self, text: str) -> None:
        self._console.print(f"  labelling: {text}", highlight=False, markup=False)


@contextlib.contextmanager
def _cluster() -> Iterator[Any]:
    """Ray in the cluster that this process has joined, that RAY_ADDRESS names or `ray start` began here, or its own."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise UserError("`labels.engine: ray` needs Ray: pip install 'mobile-distill[ray]'") from error
    if ray.is_initialized():
        yield ray
        return
    silent: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    with contextlib.ExitStack() as stack:
        try:
            ray.init("auto", **silent)
        except (RuntimeError, ray.exceptions.RayError) as error:  # another version of Ray or Python; no token
            raise UserError(f"cannot join the Ray cluster: {error}") from error
        except ConnectionError as error:
            if address := os.environ.get("RAY_ADDRESS"):
                raise UserError(f"RAY_ADDRESS: found no Ray cluster at {address} ({error})") from error
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True))
            try:
                ray.init("local", include_dashboard=False, _temp_dir=folder, **silent)
            except Exception as late:  # Ray raises no other where its processes take longer than 30 s
                raise UserError(f"Ray did not start on this machine: {late} The same command goes on") from late
        stack.callback(ray.shutdown)
        yield ray
