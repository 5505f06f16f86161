"""Whether torchrun or srun started this process among others, by what they set in its environment."""

from __future__ import annotations

import os
from typing import Literal, NamedTuple

__all__ = ["Launched", "launched"]


class Launched(NamedTuple):
    """One of several processes.

    Args:
        by: who started them.
        rank: number of this one, from 0.
        total: how many there are, on all machines.
        local: how many of them are on this machine; the same on each.
    """

    by: Literal["torchrun", "srun"]
    rank: int
    total: int
    local: int


def launched() -> Launched | None:
    """What this process is among those that were started together; None where it is alone."""
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env:
        found = Launched("torchrun", int(env["RANK"]), int(env["WORLD_SIZE"]), int(env["LOCAL_WORLD_SIZE"]))
    elif "SLURM_STEP_NUM_TASKS" in env:  # of a step; a batch script that started this without srun has none
        total, nodes = int(env["SLURM_STEP_NUM_TASKS"]), int(env.get("SLURM_STEP_NUM_NODES", "1"))
        found = Launched("srun", int(env["SLURM_PROCID"]), total, total // nodes)
    else:
        return None
    return found if found.total > 1 else None
