"""The parts of a training beside its network, all with the methods of `Part`.

A new part is a class with those methods that it needs, in a file of its own, and one line where
`fw.core.learning.train.train` is called. No part knows of another; what they share is the `Batch`
and the `Step`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.job import Job, Stateful
from fw.core.learning.batches import Batch, Draw
from fw.core.learning.loop import Step
from fw.core.settings import Train
from fw.core.types import ConditionSpec


@dataclass(frozen=True)
class Training:
    """What a part may know of the training that it joins."""

    model: NetworkDenoiser
    """The denoiser that learns."""
    averaged: NetworkDenoiser
    """Its averaged weights: what is kept in the end, and a teacher meanwhile."""
    draw: Draw
    shape: tuple[int, int, int]
    """(C, H, W) of an image or its latents."""
    settings: Train
    job: Job


class Part:
    """One thing that a training does beside denoising. By default, no method does anything.

    The methods stand in the order in which they are called: `spec`, `join` and the next four once,
    then at every step `begin`, `add` and `follow`. Draw random numbers from generators of the job,
    with words that no other part uses; then no other part's numbers change.
    """

    @property
    def spec(self) -> ConditionSpec | None:
        """The form of the conditions that it gives to the network, or None."""
        return None

    def join(self, training: Training) -> None:
        """Make what depends on the network, which is not yet trained."""

    @property
    def state(self) -> Mapping[str, Stateful]:
        """All that steps change, by its names in a checkpoint. Users continue from checkpoints, so
        these names stay."""
        return {}

    def parameters(self) -> Iterable[nn.Parameter]:
        """What is learned with the network: by the same optimizer, clipped with its gradient."""
        return ()

    @property
    def blocks(self) -> Sequence[str]:
        """The blocks of the network whose activations it reads, for every batch."""
        return ()

    def rows(self, rows: Tensor) -> Tensor:
        """Those of the training images `rows` (N,), on the CPU, that batches are drawn from."""
        return rows

    def begin(self, batch: Batch, step: Step) -> None:
        """Change the network's inputs: conditions, which of them are dropped, the images."""

    def add(self, loss: Tensor, batch: Batch, step: Step) -> Tensor:
        """The loss () with what this part adds to it, after the network was called.

        With `train.accumulate` it is called for each part of the batch. The loss, what is added and
        what is logged are then summands: together they are those of the whole batch, `batch.all`.

        Where two parts log the same name, the first value is kept: a joint model logs its denoising
        loss, and objectives log under that name all the loss beside their terms.
        """
        return loss

    def follow(self, decay: float, step: Step) -> None:
        """After the optimizer's step, average what is averaged, with the decay of the network's."""
