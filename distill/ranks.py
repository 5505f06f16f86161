"""The processes that train one network together: who they are, how they are started, how they wait for each other.

Rank 0 is the process that runs the pipeline. It calls the others (`distill.joining`) to each training, and they wait
for it in between, however long that takes. Steps are Lightning Fabric's: DDP, by NCCL on GPUs and gloo on CPUs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Literal, TypeVar, final

import torch
import torch.distributed as dist
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import ClusterEnvironment, SLURMEnvironment, TorchElasticEnvironment
from lightning.fabric.strategies import DDPStrategy

from distill.core.errors import DistillError, UserError
from distill.core.launcher import launched

for _part in ("fabric", "pytorch"):  # importing one imports the other; they announce each precision on stderr
    logging.getLogger(f"lightning.{_part}").setLevel(logging.WARNING)

__all__ = ["ALONE", "Team", "joined", "team_of"]

_WAIT = timedelta(days=365)  # for rank 0, which labels, evaluates and exports while the others have nothing to do

T = TypeVar("T")


@final
class Team:
    """Processes that train one network, seen from one of them.

    Args:
        rank: number of this process, from 0.
        count: processes on all machines.
        local: processes on this machine.
        environment: where the others are found; None for a process that trains alone.

    Raises:
        UserError: fewer GPUs than processes.
    """

    def __init__(self, rank: int, count: int, local: int, environment: ClusterEnvironment | None = None) -> None:
        self.rank, self.count, self.local = rank, count, local
        self._environment = environment
        self._waiting: Any = None  # a process group
        if environment is not None:
            if 0 < torch.cuda.device_count() < local:
                raise UserError(
                    f"{local} processes on this machine, but each needs a GPU and {torch.cuda.device_count()} are seen"
                    " (srun: ask by --gpus-per-node, since --gpus-per-task hides those of the others)"
                )
            self.fabric("32-true")  # connects them
            # of its own, and on sockets: NCCL keeps the GPU busy while it waits, and gives up after ten minutes
            self._waiting = dist.new_group(backend="gloo", timeout=_WAIT)

    def fabric(self, precision: Literal["32-true", "bf16-mixed"]) -> Fabric:
        """What a training of this process runs on: its GPU where there is one, else the CPU."""
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
        if self._environment is None:
            return Fabric(accelerator=accelerator, devices=1, precision=precision)
        # static: the steps are all alike, and layers that take no part in them need not be looked for each time
        strategy = DDPStrategy(cluster_environment=self._environment, static_graph=True)
        nodes = self.count // self.local
        fabric = Fabric(
            accelerator=accelerator, devices=self.local, num_nodes=nodes, strategy=strategy, precision=precision
        )
        fabric.launch()
        return fabric

    def agree(self, value: T) -> T:
        """What rank 0 says; the others wait for it."""
        if self._waiting is None:
            return value
        said = [value]
        dist.broadcast_object_list(said, src=0, group=self._waiting)
        return said[0]

    @contextlib.contextmanager
    def threads(self) -> Iterator[None]:
        """Share this machine's cores while the block runs, where several processes train on them."""
        before = torch.get_num_threads()
        if self.local > 1 and not torch.cuda.is_available():
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // self.local))
        try:
            yield
        finally:
            torch.set_num_threads(before)


ALONE = Team(0, 1, 1)
"""One process."""


@contextlib.contextmanager
def joined() -> Iterator[Team]:
    """The team that torchrun or srun started, of which this process is one.

    Rank 0 lets the others go at the end of the block, unless it failed: then its end is theirs.

    Raises:
        UserError: srun was asked in a way that does not say how many processes a machine has.
    """
    found = launched()
    assert found is not None
    try:
        environment = TorchElasticEnvironment() if found.by == "torchrun" else SLURMEnvironment()
    except RuntimeError as error:
        raise UserError("srun: ask for processes by --ntasks-per-node, not by --ntasks") from error
    team = Team(found.rank, found.total, found.local, environment)
    yield team
    if team.rank == 0:
        team.agree(None)
    dist.destroy_process_group()


@contextlib.contextmanager
def team_of(outside: Team | None, devices: int | Literal["auto"], batch: int) -> Iterator[Team]:
    """Who trains: those that torchrun or srun started, else this process and helpers that it starts for the block.

    Args:
        outside: the former.
        devices: `train.devices`.
        batch: images of the smallest batch.

    Raises:
        UserError: more devices than GPUs or than half the images of a batch.
        DistillError: a helper ended.
    """
    gpus = torch.cuda.device_count()
    if outside is not None:
        count = outside.count
    elif devices == "auto":
        count = max(1, min(gpus, batch // 2))
    else:
        count = devices
    if outside is None and 0 < gpus < count:
        raise UserError(f"devices: {count}, but this machine has {gpus} GPUs")
    if count > 1 and batch < 2 * count:  # batch norm wants two
        raise UserError(f"{count} devices share batches of {batch} images: give each at least 2 by batch_size")
    if outside is not None:
        yield outside
    elif count == 1:
        yield ALONE
    else:
        with _started(count) as team:
            yield team


@contextlib.contextmanager
def _started(count: int) -> Iterator[Team]:
    """This process as rank 0 of helpers on the same machine, which are told what torchrun would tell them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "distill"}
    common |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    helpers = [_Helper(rank, {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(1, count)]
    try:
        for helper in helpers:
            helper.wait_until_ready()
        with _environment({**common, "RANK": "0", "LOCAL_RANK": "0"}):
            team = Team(0, count, count, TorchElasticEnvironment())
            yield team
        team.agree(None)
        for helper in helpers:
            helper.process.wait()
    except RuntimeError as error:  # of a connection, where the other end is gone
        for helper in helpers:
            helper.blame(error)
        raise
    finally:
        for helper in helpers:
            helper.end()
        if dist.is_initialized():
            dist.destroy_process_group()


@final
class _Helper:
    """A process that joins in. It ends when its standard input is closed, so it never outlives this one."""

    def __init__(self, rank: int, variables: Mapping[str, str]) -> None:
        self.rank = rank
        self.process = subprocess.Popen(
            [sys.executable, "-m", "distill.joining"],
            env={**os.environ, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for rank 0, which ends this one
        )

    def wait_until_ready(self) -> None:
        """Until it has imported what it needs; connecting to one that died would take half an hour to fail."""
        assert self.process.stdout is not None
        if not self.process.stdout.readline():
            raise DistillError(f"process {self.rank} of the training did not start ({self._end()})")

    def blame(self, error: RuntimeError) -> None:
        """Say so if it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
            raise DistillError(
                f"process {self.rank} of the training ended ({self._end()}); the same command goes on"
            ) from error

    def _end(self) -> str:
        code = self.process.wait()
        return f"signal {-code}" if code < 0 else f"exit code {code}; it says why above"

    def end(self) -> None:
        """Leave nothing behind."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Variables of this process while the block runs."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
