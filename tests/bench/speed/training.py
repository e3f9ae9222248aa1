"""Training: a step of the flagship's unconditional denoiser, beside the same loop in plain torch
and beside diffusers' example of unconditional training."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from bench import peer
from bench.speed import bare, counted
from bench.speed.interleaved import Costs, paired
from bench.speed.row import Goal, Row, cost, speed
from fw.core.diffusion.pixels import per_image
from fw.core.job import Job, Silent
from fw.core.learning.batches import Draw, training_examples
from fw.core.learning.train import train
from fw.core.randomness import seeded
from fw.core.recipe.loading import load
from fw.core.recipe.model import Recipe
from fw.core.types import ImageSet

FIRST = 5
"""Steps that are not timed: the first ones allocate."""

STEP = "a training step of the flagship"
SAME = "a loop by hand, the same batches"
"""Drawn by fw's own function: what differs is what fw does beside the mathematics."""

BARE = "a loop by hand, batches too"
"""What one would write for DDPM alone, with tables by timestep. fw draws what suits any process:
noise levels that are real numbers, from which it computes scales and times at each step."""


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
    same = per_step(lambda clock: flagship.in_the_same_way(size.steps, clock.note))
    by_hand = per_step(lambda clock: flagship.by_hand(size.steps, clock.note))
    theirs = per_step(lambda clock: flagship.by_diffusers(size.steps, clock.note))
    yield cost(STEP, SAME, paired(ours, same, size.pairs), 1.02)
    yield cost(STEP, BARE, paired(ours, by_hand, size.pairs))
    yield speed(STEP, "diffusers' example", paired(ours, theirs, size.pairs), 1.25)
    yield from counts(flagship)


def counts(flagship: Flagship) -> Iterator[Row]:
    """Of one step exactly: what four steps dispatch more than three."""
    ways: dict[str, Callable[[int], object]] = {
        "fw": flagship.by_fw,
        SAME: flagship.in_the_same_way,
        BARE: flagship.by_hand,
    }
    operations = {name: more(dispatched, work) for name, work in ways.items()}
    flops = {name: more(counted.flops, work) for name, work in ways.items()}
    yield compared(operations, SAME, "x the operations", Goal(1.01))
    yield compared(operations, BARE, "x the operations", None)
    yield compared(flops, BARE, "x the FLOPs", Goal(1.0))


def more(count: Callable[[Callable[[], object]], int], work: Callable[[int], object]) -> int:
    work(1)  # tables are made once
    return count(lambda: work(4)) - count(lambda: work(3))


def dispatched(work: Callable[[], object]) -> int:
    return counted.dispatched(work).operations


def compared(values: Mapping[str, int], against: str, unit: str, goal: Goal | None) -> Row:
    ours, theirs = values["fw"], values[against]
    both = {"ours": ours, "theirs": theirs}
    return Row(STEP, against, ours / theirs, unit, goal, counts=both)


class Flagship:
    """The baseline of recipes/self_guidance.yaml, trained in four ways."""

    def __init__(self, batch: int | None = None):
        self.recipe: Recipe = load(peer.FLAGSHIP)
        self.arm = self.recipe.arm(self.recipe.baseline)
        self.images: ImageSet = self.recipe.dataset.load("train")
        self.settings = self.arm.train.model_copy(update={} if batch is None else {"batch": batch})

    @property
    def pixels(self) -> Tensor:
        return self.images.images

    def network(self) -> nn.Module:
        """Untrained, with the weights that fw begins with."""
        with seeded(0, "init"):
            return self.arm.model.build(self.images.shape, None)

    def by_fw(self, steps: int, clock: Clock | None = None) -> nn.Module:
        """The network with averaged weights, as the others return it."""
        settings = self.settings.model_copy(update={"steps": steps})
        with tempfile.TemporaryDirectory() as folder:
            job = Job(Path(folder), reporter=clock or Silent())
            return train(self.arm.model, self.arm.process, self.images, None, settings, job)

    def in_the_same_way(
        self, steps: int, after: Callable[[int], None] = lambda done: None
    ) -> nn.Module:
        """By hand, but for the batches."""
        process, rows = self.arm.process, torch.arange(len(self.pixels))
        job = Job(Path())
        draw = Draw(training_examples(self.images).to(job.device), process, self.settings, job)

        def batches(step: int) -> tuple[Tensor, Tensor, Tensor]:
            batch = draw(rows, self.settings.batch, step)
            noisy = batch.x0 + per_image(batch.sigma) * batch.noise
            skip, out, scale, times = process.coefficients(batch.sigma)
            wanted = (batch.x0 - per_image(skip) * noisy) / per_image(out)
            return per_image(scale) * noisy, times, wanted

        return self.looped(batches, steps, after)

    def by_hand(self, steps: int, after: Callable[[int], None] = lambda done: None) -> nn.Module:
        return self.looped(bare.drawn(self.pixels, self.settings.batch), steps, after)

    def looped(self, batches: bare.Batches, steps: int, after: Callable[[int], None]) -> nn.Module:
        given, network, averaged = self.settings, self.network(), self.network()
        assert given.ema is not None
        setting = bare.Setting(steps, given.lr, given.betas, given.warmup, given.ema)
        bare.trained(network, averaged, batches, setting, after)
        return averaged

    def by_diffusers(self, steps: int, after: Callable[[int], None]) -> None:
        setting = peer.Setting.of(self.recipe)
        setting = replace(setting, steps=steps, batch=self.settings.batch)
        peer.trained(setting, self.pixels, 0, after)


def per_step(work: Callable[[Clock], object]) -> Costs:
    """The work, with the CPU seconds of one step as what it costs."""

    def costs() -> float:
        clock = Clock()
        work(clock)
        return clock.per_step

    return costs
