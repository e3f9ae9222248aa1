"""Where and how a stage is run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fw.registry import LocalPlugin


@dataclass(frozen=True)
class Place:
    """Where and how a stage is run; nothing of this changes what it computes, up to the device's
    arithmetic."""

    store: Path
    device: str
    threads: int
    checkpoint_seconds: float
    batch: int | None = None
    max_memory: int | None = None
    """Bytes that a process may take; see `fw.core.machine.memory`."""
    ranks: int = 1
    """Processes that do a stage together. Of GPUs each has its own, from `device` on."""
    nodes: int = 1
    """Nodes of a cluster that they are spread over, as many on each."""
    patience: float = 600.0
    """Seconds that one of them waits for another."""
    keep_dependents: bool = False
    """Whether a product stays that was made of other inputs than those in the store."""
    plugins: tuple[LocalPlugin, ...] = ()
    """Plugins that are single files: a worker process loads them before components of theirs
    arrive."""
    node: str = ""
    """Which node of a cluster this is; empty on the run's own machine."""
