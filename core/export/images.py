"""An arm's images with the classes that they were drawn for, some at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from rich.console import Console
from torch import Tensor

from fw.core.api.drawing import drawer
from fw.core.diffusion.generate import conditions
from fw.core.errors import FwError
from fw.core.run.finished import FinishedArm
from fw.core.stages.sample import Sample, load_shard, shards
from fw.core.types import Annotation


class Portion(NamedTuple):
    """uint8 images (B, C, H, W), and their classes, int64 (B,), where conditions are classes."""

    images: Tensor
    classes: Tensor | None


@dataclass(frozen=True)
class Choice:
    """Which images: `count` of a sampling `seed`. None is as many as the run stored; without a seed
    these are of all of its seeds, one after the other."""

    count: int | None = None
    seed: int | None = None
    device: str = "auto"
    batch: int | None = None


class Images:
    """The chosen images of an arm. Those that the run stored are read, others are drawn: they are
    the same."""

    def __init__(self, arm: FinishedArm, choice: Choice, console: Console):
        self.arm = arm
        self.choice = choice
        self.console = console
        self.stage: Sample = arm.sample
        stored = self.stage.samples
        if choice.count is None and choice.seed is not None and choice.seed >= stored.seeds:
            raise FwError(
                f"--seed {choice.seed}: the run has samples of seeds 0 to {stored.seeds - 1}; say "
                "with -n how many to draw of this one"
            )
        self.seeds = range(stored.seeds)
        self.each = stored.count
        if choice.count is not None or choice.seed is not None:
            self.seeds = range(choice.seed or 0, (choice.seed or 0) + 1)
            self.each = choice.count or stored.count
        sources = [stage for stage in (self.stage.annotate, self.stage.prior) if stage is not None]
        kept = [self.stage] if self._stored_seeds else []
        arm.check([*sources, *kept], console)
        self.annotation: Annotation | None = self.stage.annotation(arm.products)

    def __len__(self) -> int:
        return len(self.seeds) * self.each

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)"""
        return self.stage.shape

    @property
    def have_classes(self) -> bool:
        return self.annotation is not None and self.annotation.spec.form == "class"

    def __iter__(self) -> Iterator[Portion]:
        for seed in self.seeds:
            start = 0
            for images in self._of(seed):
                numbers = range(start, start + len(images))
                yield Portion(images, self._classes(seed, numbers))
                start = numbers.stop

    @property
    def _stored_seeds(self) -> list[int]:
        return [seed for seed in self.seeds if seed < self.stage.samples.seeds]

    def _of(self, seed: int) -> Iterator[Tensor]:
        stored = 0
        if seed in self._stored_seeds:
            folder = self.arm.products(self.stage)
            for of, numbers in shards(self.stage.samples):
                if of == seed and numbers.start < self.each:
                    yield load_shard(folder, seed, numbers)[: self.each - numbers.start]
                    stored = min(numbers.stop, self.each)
        if stored < self.each:
            artist = drawer(self.arm, self.choice.device, self.console)
            yield from artist.streamed(range(stored, self.each), seed, self.choice.batch)

    def _classes(self, seed: int, numbers: range) -> Tensor | None:
        if not self.have_classes:
            return None
        return conditions(self.annotation, self.stage.seed or 0, seed, numbers)
