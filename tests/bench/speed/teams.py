"""Teams: what a rank of many sends in a step of training, counted among torch's fake processes; and
how two runs share the stages of one store."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import runners
import torch.distributed as dist
from teams import one_of

from bench.speed.row import Goal, Row
from bench.speed.training import Flagship
from fw.core.job import Job
from fw.core.learning.train import train
from fw.core.machine.team import Team
from fw.core.store.store import Store

RANKS = 64
PAIRS = 3


def rows(pairs: int = PAIRS) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        sent = one_of(RANKS, Path(folder), step)
    calls = {f"{what}, exchanges": count for what, count in sent["calls"].items()}
    yield Row(
        f"bytes that a rank of {RANKS} sends in a step of the flagship",
        "its gradients in fp32",
        sent["bytes"] / sent["gradients"],
        "x the bytes",
        Goal(1.01),
        counts={"ours": sent["bytes"], "theirs": sent["gradients"], **calls},
    )
    ratios = [took(2) / took(1) for _ in range(pairs)]
    yield Row(
        "two runs for 8 equal stages of one store",
        "one run",
        statistics.median(ratios),
        "x the time",
        Goal(0.6),
        quartiles=(min(ratios), max(ratios)),
        counts={"pairs": pairs},
    )


def took(count: int) -> float:
    """Seconds that so many runs on one store take for eight stages of 0.8 seconds."""
    with tempfile.TemporaryDirectory() as folder:
        Store(Path(folder)).create()
        plan = runners.naps(8, 8)
        processes = [runners.Runner(plan, Path(folder)) for _ in range(count)]
        began = time.monotonic()
        for each in processes:
            each.go()
        assert all(each.end() == {} for each in processes)
        return time.monotonic() - began


def step(team: Team, folder: Path) -> dict[str, Any]:
    """What a step sends, of which the log has none: what 13 steps send more than 12."""
    flagship = Flagship(batch=RANKS)
    sent: list[tuple[str, int]] = []

    def counting(name: str, exchange: Callable[..., Any]) -> Callable[..., Any]:
        def counted(tensor: Any, *words: Any, **more: Any) -> Any:
            sent.append((name, tensor.nbytes))
            return exchange(tensor, *words, **more)

        return counted

    dist.all_reduce = counting("all_reduce", dist.all_reduce)
    totals = []
    for steps in (12, 13):
        sent.clear()
        job = Job(folder / str(steps), team=team, checkpoint_seconds=1e9)
        job.folder.mkdir()
        settings = flagship.settings.model_copy(update={"steps": steps, "warmup": 0})
        data = flagship.images.without_labels()
        network = train(flagship.arm.model, flagship.arm.process, data, None, settings, job)
        totals.append([*sent])
    before, after = totals
    weights = sum(each.numel() for each in network.parameters())
    return {
        "bytes": sum(size for _, size in after) - sum(size for _, size in before),
        "calls": {"all_reduce": len(after) - len(before)},
        "gradients": 4 * weights,
    }
