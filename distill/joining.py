"""What the other processes of a training do: wait for rank 0, build what it has built, and train with it.

`python -m distill.joining` is such a process on the same machine; under torchrun and srun it is `distill run` itself.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from rich.console import Console

from distill import stages
from distill.config_file import load_config
from distill.core.console import leave, run_command
from distill.core.errors import DistillError
from distill.core.progress import Progress
from distill.core.run import Run
from distill.data.demo import with_demo
from distill.ranks import Team, joined

__all__ = ["join", "main"]


def join(team: Team) -> None:
    """Take part in each training that rank 0 calls to, until it says that there are no more."""
    while (asked := _next(team)) is not None:
        call = stages.Call(*asked)
        config = load_config(call.run / "config.yaml").model_copy(update={"seed": call.seed})
        if config.data.demo is not None:
            config = with_demo(config)
        work = stages.Work(config, Run(call.run), Progress(Console(quiet=True)), team)
        stages.join(work, call.stage, call.part)


def _next(team: Team) -> Any:
    try:
        return team.agree(None)
    except RuntimeError as error:  # of the connection
        raise DistillError(f"process {team.rank} ends, since the first one has ended; that one says why") from error


def main() -> None:
    """Join the process that started this one, and end with it."""

    def work() -> None:
        threading.Thread(target=_end_with_parent, daemon=True).start()
        print("ready", flush=True)
        with joined() as team:
            join(team)

    leave(run_command(work))


def _end_with_parent() -> None:
    sys.stdin.buffer.read()  # until the other end is closed, however that process ended
    os._exit(1)


if __name__ == "__main__":
    main()
