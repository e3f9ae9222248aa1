"""Teams of processes on this machine, by gloo, for tests of what they do together."""

from __future__ import annotations

import importlib
import os
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import multiprocessing

from fw.core.machine.team import Team

PATIENCE = timedelta(seconds=300)


def together(size: int, folder: Path, work: Callable[[Team, Path], Any]) -> list[Any]:
    """What `work`, a function of a module, returns in each of `size` new processes; an error in one
    of them is raised here, with its traceback."""
    folder.mkdir(parents=True, exist_ok=True)
    name = work.__module__.rpartition(".")[2], work.__name__  # pytest's own names of modules
    multiprocessing.spawn(member, (size, folder, *name), nprocs=size, join=True)
    return [torch.load(folder / f"returned-{rank}", weights_only=False) for rank in range(size)]


def member(rank: int, size: int, folder: Path, module: str, function: str) -> None:
    torch.set_num_threads(1)
    work = getattr(importlib.import_module(module), function)
    meet = f"file://{folder}/meet-{os.getppid()}"
    dist.init_process_group("gloo", meet, timeout=PATIENCE, rank=rank, world_size=size)
    try:
        returned = work(Team(rank, size), folder)
    except BaseException:
        traceback.print_exc()
        raise
    torch.save(returned, folder / f"returned-{rank}")
    dist.destroy_process_group()
