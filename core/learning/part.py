"""What a training is made of beside its network: parts, behind one protocol (`Part`).

A new part is a class with those methods that it needs, in a file of its own, and one line where
`fw.core.train.train` is called. No part knows of another; they meet in the `Batch` and the `Step`.
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
    """One thing that is done in a training beside denoising. By default, all of it is nothing.

    The methods stand in the order in which they are called: first `spec`, `join` and the next four,
    once, then at every step `begin`, `add` and `follow`. Randomness is drawn from generators of
    the job, with words of the part's own; then it changes no other part's numbers.
    """

    @property
    def spec(self) -> ConditionSpec | None:
        """The form of the conditions that it gives to the network, if it gives any."""
        return None

    def join(self, training: Training) -> None:
        """Make what depends on the network, which is untrained as yet."""

    @property
    def state(self) -> Mapping[str, Stateful]:
        """All of it that steps change, as a checkpoint holds it. Users continue from checkpoints,
        so these names stay."""
        return {}

    def parameters(self) -> Iterable[nn.Parameter]:
        """What is learned with the network: by the same optimizer, clipped with its gradient."""
        return ()

    @property
    def blocks(self) -> Sequence[str]:
        """The blocks of the network whose activations it wants of a batch."""
        return ()

    def rows(self, rows: Tensor) -> Tensor:
        """Of the training images `rows` (N,), on the CPU, those that batches are made of."""
        return rows

    def begin(self, batch: Batch, step: Step) -> None:
        """Change what the network is given: conditions, which of them are dropped, the images."""

    def add(self, loss: Tensor, batch: Batch, step: Step) -> Tensor:
        """The loss () with what this part adds to it, once the network has seen the batch.

        Of two parts that log the same name the first stands: a joint model's own denoising loss,
        and not the rest of the loss that objectives call so.
        """
        return loss

    def follow(self, decay: float, step: Step) -> None:
        """After the optimizer's step, average what is averaged, with the decay of the network's."""
