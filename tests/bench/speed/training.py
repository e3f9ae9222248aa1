"""Training: a step of the flagship's unconditional denoiser, beside the same loop in plain torch
and beside diffusers' example of unconditional training."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor, nn

from bench import peer
from bench.speed import bare, counted
from bench.speed.interleaved import Costs, paired
from bench.speed.row import Goal, Row, cost, speed
from fw.core.job import Job, Silent
from fw.core.learning.train import train
from fw.core.recipe.loading import load
from fw.core.recipe.model import Recipe
from fw.core.types import ImageSet

FIRST = 5
"""Steps that are not timed: the first ones allocate."""

STEP = "a training step of the flagship"
BARE = "a loop by hand in plain torch"


@dataclass(frozen=True)
class Size:
    steps: int = 45
    """Of one turn, FIRST of them not timed."""
    pairs: int = 12
    batch: int | None = None
    """Images per step, if not as many as the flagship has."""


SMALL = Size(steps=FIRST + 1, pairs=1, batch=8)


@dataclass
class Clock(Silent):
    """A reporter that notes when each step was done, in CPU seconds."""

    ends: list[float] = field(default_factory=list)

    def progress(self, label: str, done: int, total: int) -> None:
        self.note(done)

    def note(self, done: int) -> None:
        self.ends.append(time.process_time())

    @property
    def per_step(self) -> float:
        timed = self.ends[FIRST - 1 :]
        return (timed[-1] - timed[0]) / (len(timed) - 1)


def rows(size: Size = Size()) -> Iterator[Row]:
    flagship = Flagship(size.batch)
    ours = per_step(lambda clock: flagship.by_fw(size.steps, clock))
    by_hand = per_step(lambda clock: flagship.by_hand(size.steps, clock.note))
    theirs = per_step(lambda clock: flagship.by_diffusers(size.steps, clock.note))
    yield cost(STEP, BARE, paired(ours, by_hand, size.pairs), 1.02)
    yield speed(STEP, "diffusers' example", paired(ours, theirs, size.pairs), 1.25)
    yield operations(flagship)
    yield flops(flagship)


def operations(flagship: Flagship) -> Row:
    """Of one step exactly: what four steps dispatch more than three."""
    ours, by_hand = (
        counted.dispatched(lambda: work(4)).operations
        - counted.dispatched(lambda: work(3)).operations
        for work in (flagship.by_fw, flagship.by_hand)
    )
    counts = {"ours": ours, "theirs": by_hand}
    return Row(STEP, BARE, ours / by_hand, "x the operations", Goal(1.01), counts=counts)


def flops(flagship: Flagship) -> Row:
    ours, by_hand = (
        counted.flops(lambda: work(2)) - counted.flops(lambda: work(1))
        for work in (flagship.by_fw, flagship.by_hand)
    )
    counts = {"ours, GFLOP": ours / 1e9, "theirs, GFLOP": by_hand / 1e9}
    return Row(STEP, BARE, ours / by_hand, "x the FLOPs", Goal(1.0), counts=counts)


class Flagship:
    """The baseline of recipes/self_guidance.yaml, trained in three ways."""

    def __init__(self, batch: int | None = None):
        self.recipe: Recipe = load(peer.FLAGSHIP)
        self.arm = self.recipe.arm(self.recipe.baseline)
        self.images: ImageSet = self.recipe.dataset.load("train")
        self.settings = self.arm.train.model_copy(update={} if batch is None else {"batch": batch})

    @property
    def pixels(self) -> Tensor:
        return self.images.images

    def network(self) -> nn.Module:
        return self.arm.model.build(self.images.shape, None)

    def by_fw(self, steps: int, clock: Clock | None = None) -> None:
        settings = self.settings.model_copy(update={"steps": steps})
        with tempfile.TemporaryDirectory() as folder:
            job = Job(Path(folder), reporter=clock or Silent())
            train(self.arm.model, self.arm.process, self.images, None, settings, job)

    def by_hand(self, steps: int, after: Callable[[int], None] = lambda done: None) -> None:
        given = self.settings
        assert given.ema is not None
        setting = bare.Setting(steps, given.batch, given.lr, given.betas, given.warmup, given.ema)
        bare.trained(self.network(), self.network(), self.pixels, setting, after)

    def by_diffusers(self, steps: int, after: Callable[[int], None]) -> None:
        setting = peer.Setting.of(self.recipe)
        setting = replace(setting, steps=steps, batch=self.settings.batch)
        peer.trained(setting, self.pixels, 0, after)


def per_step(work: Callable[[Clock], None]) -> Costs:
    """The work, with the CPU seconds of one step as what it costs."""

    def costs() -> float:
        clock = Clock()
        work(clock)
        return clock.per_step

    return costs
