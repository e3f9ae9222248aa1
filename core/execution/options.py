"""How the user wants a run to be done, and what follows for its jobs: a device and threads each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fw.core.errors import FwError
from fw.core.execution.devices import check_teams, checked_device, devices, known_nodes, known_ranks
from fw.core.execution.place import Place
from fw.core.files.layout import STORE
from fw.core.machine.cores import cores
from fw.core.machine.memory import size_of
from fw.registry import LocalPlugin

MOST_JOBS = 8
"""Jobs side by side on a CPU, unless the user asks for more."""

LOCAL = "local"
"""The address of a Ray that is started for a run on its own machine, and ended with it."""


@dataclass(frozen=True)
class Options:
    """How to run. None of it changes a stage's key."""

    out: Path
    device: str = "auto"
    jobs: int | None = None
    threads: int | None = None
    checkpoint_seconds: float = 20.0
    batch: int | None = None
    """Images that are sampled at once; None is as many as suit the device."""
    max_memory: int | None = None
    """Bytes that each process may take in memory; see `fw.core.machine.memory`."""
    keep_dependents: bool = False
    """Whether products stay that were made of other inputs than those in the store."""
    ranks: int | None = 1
    """Processes that do a stage together; None divides the machine's GPUs among the jobs."""
    nodes: int = 1
    """Nodes of a cluster that these are spread over, as many on each."""
    cluster: str | None = None
    """The address of a Ray cluster that does the stages; None is this machine."""
    wait: bool = False
    """Whether to wait for a node of the cluster that has room, where none has."""

    @classmethod
    def of(cls, ranks: str, max_memory: str | None, workers: int | None, **others: Any) -> Options:
        """Of the words of a user, on the command line or in Python; the others are as the fields
        have them."""
        return cls(
            ranks=known_ranks(ranks),
            nodes=known_nodes(ranks),
            max_memory=None if max_memory is None else size_of(max_memory),
            threads=workers,
            **others,
        )

    @property
    def root(self) -> Path:
        """The folder of the store, the runs and what a tracker keeps."""
        return self.out.absolute()

    @property
    def store(self) -> Path:
        return self.root / STORE


def places(options: Options, stages: int, plugins: Sequence[LocalPlugin]) -> list[Place]:
    """A place for each job, of so many stages that are missing. On CPU: a job per core with one
    thread each; on CUDA: a job per device. A team of ranks takes as many of either."""
    if options.nodes > 1:
        raise FwError(
            f"--ranks {options.nodes}x{(options.ranks or 1) // options.nodes}: the nodes are those "
            "of a Ray cluster, which --cluster names"
        )
    device = checked_device(options.device)
    available, gpus = cores(), torch.cuda.device_count()
    side_by_side = {"cpu": min(available, MOST_JOBS), "cuda": gpus}.get(device, 1)
    jobs = max(1, min(options.jobs or max(1, side_by_side // (options.ranks or 1)), stages))
    ranks = options.ranks or (max(1, gpus // jobs) if device == "cuda" else 1)
    check_teams(device, jobs, ranks)
    return [
        Place(
            store=options.store,
            device=each,
            threads=options.threads
            or (1 if device == "cpu" else max(1, available // (jobs * ranks))),
            checkpoint_seconds=options.checkpoint_seconds,
            batch=options.batch,
            max_memory=options.max_memory,
            keep_dependents=options.keep_dependents,
            plugins=tuple(plugins),
            ranks=ranks,
        )
        for each in devices(device, jobs, ranks)
    ]
