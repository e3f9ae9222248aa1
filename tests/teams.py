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
    name = work.__module__.removeprefix("tests."), work.__name__  # pytest's own names of modules
    multiprocessing.spawn(member, (size, folder, *name), nprocs=size, join=True)
    return [torch.load(folder / f"returned-{rank}", weights_only=False) for rank in range(size)]


def one_of(size: int, folder: Path, work: Callable[[Team, Path], Any]) -> Any:
    """What `work` returns in a new process that believes to be the last of so many; the others are
    torch's fake ones, which answer at once."""
    folder.mkdir(parents=True, exist_ok=True)
    name = work.__module__.removeprefix("tests."), work.__name__
    multiprocessing.spawn(among_fakes, (size, folder, *name), nprocs=1, join=True)
    return torch.load(folder / "returned", weights_only=False)


def among_fakes(_: int, size: int, folder: Path, module: str, function: str) -> None:
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.set_num_threads(1)
    dist.init_process_group("fake", store=FakeStore(), rank=size - 1, world_size=size)
    # Only gloo has one that waits for longer than the group does.
    setattr(dist, "monitored_barrier", lambda group, timeout: dist.barrier(group))  # noqa: B010
    returned = getattr(importlib.import_module(module), function)(Team(size - 1, size), folder)
    torch.save(returned, folder / "returned")


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
