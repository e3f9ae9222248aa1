"""Draw images from a trained arm, as its run did: the one way of `fw sample`, `fw export` and
Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from rich.console import Console
from torch import Tensor

from fw.core.diffusion.given import Condition, given
from fw.core.errors import FwError
from fw.core.execution.devices import checked_device
from fw.core.machine.isolation import stock_state
from fw.core.run.finished import FinishedArm
from fw.core.stages.sample import SHARD, Networks
from fw.core.types import Annotation


@dataclass
class Drawer:
    """An arm's networks on a device, ready to draw."""

    arm: FinishedArm
    device: torch.device
    annotation: Annotation | None = field(init=False)
    networks: Networks = field(init=False)
    to_images: Callable[[Tensor], Tensor] = field(init=False)

    def __post_init__(self) -> None:
        stage = self.arm.sample
        with stock_state(self.arm.recipe.seed, self.device, torch.get_num_threads()):
            self.annotation = stage.annotation(self.arm.products)
            self.networks = stage.networks(self.annotation, self.arm.products, self.device)
            self.to_images = stage.decoder(self.device)

    def images(
        self, which: range, seed: int, condition: Condition | None, batch: int | None
    ) -> Tensor:
        """These images of a sampling seed, uint8 (N, C, H, W) on the CPU."""
        wanted = self.annotation
        if condition is not None:
            wanted = given(self.annotation, condition, self.arm.class_names)
        with stock_state(self.arm.recipe.seed, self.device, torch.get_num_threads()):
            return torch.cat(
                self.arm.sample.drawn(
                    self.networks, wanted, seed, which, self.to_images, self.device, batch
                )
            )

    def streamed(self, which: range, seed: int, batch: int | None) -> Iterator[Tensor]:
        """The same, some at a time, with the arm's own conditions."""
        for start in range(which.start, which.stop, SHARD):
            few = range(start, min(start + SHARD, which.stop))
            yield self.images(few, seed, None, batch)


def drawer(arm: FinishedArm, device: str, console: Console) -> Drawer:
    """FwError unless all that the arm draws with was trained, and is as it was stored."""
    where = torch.device(checked_device(device))
    stage = arm.sample
    siblings = (*stage.siblings, *stage.sibling_averages)
    for sibling in (each for each in siblings if each is not None):
        if not arm.has(sibling):
            raise FwError(
                f"guidance: it needs another network ({sibling.title}), which {arm.run.path} did "
                "not train; add an arm with this guidance to the recipe and run it again"
            )
    arm.check((source for _, source in stage.reads), console)
    return Drawer(arm, where)
