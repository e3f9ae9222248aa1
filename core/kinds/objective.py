"""An extra term of the training loss, on what a block makes of noisy images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from fw.core.kinds.encoder import Encoder
from fw.core.kinds.interval import Interval, lowest_first
from fw.registry import Component

Look = Callable[[Tensor, Tensor], Tensor]
"""Noisy images x (B, C, H, W) and their levels sigma (B,) to a block's tokens (B, N, D)."""


@dataclass(frozen=True)
class Seen:
    """What the term of an objective may see of one training step: never labels or conditions.

    `tokens` (B, N, D), with gradient, is what the block made of the noisy images x0 + sigma *
    noise; the positions of a map follow each other row by row. `taken`, bool (B,), says which
    images `interval` takes in. `x0` and `noise` are (B, C, H, W), `sigma` is (B,). `features` (B,
    F) are those of the objective's encoder, of the same images. `teacher`, if the objective uses
    it, gives the tokens of the averaged network, without condition or gradient.
    """

    tokens: Tensor
    taken: Tensor
    x0: Tensor
    sigma: Tensor
    noise: Tensor
    generator: torch.Generator
    features: Tensor | None = None
    teacher: Look | None = None

    def mean(self, values: Tensor) -> Tensor:
        """The mean () of values (B,) over the images that are taken; 0 if none is."""
        return (values * self.taken).sum() / self.taken.sum().clamp(min=1)


class Objective(Component):
    """An extra term of the training loss, on what one block makes of the noisy images of the step:

    loss = denoising + sum_i weight_i * term_i

    The block is read in the same pass that makes the denoising loss. The term may have a head, a
    network of its own. It is trained with the denoiser and is not there when images are sampled.
    The log shows each term and the ratio of its gradient to that of the rest of the loss.
    """

    kind: ClassVar[str] = "objective"
    depth: ClassVar[float] = 0.5
    """Which block is read if `block` is null, as a share of all; 0.25 is the first of four."""
    uses_teacher: ClassVar[bool] = False
    """Whether its term looks at images with the averaged network, too."""

    weight: float = Field(
        0.5, ge=1e-30, le=1e30, description="weight of the term beside the denoising loss; lambda"
    )
    block: str | None = Field(
        None, description="block whose activations it sees; null is one at its usual depth"
    )
    interval: Interval = Field(
        None, description="noise levels (lo, hi] whose images it takes; null is all"
    )
    _lowest_first = field_validator("interval")(lowest_first)

    @property
    def per_image(self) -> bool:
        """Whether its term is the mean of something that each image that is taken has by itself.
        Only then can `train.accumulate` split batches."""
        return False

    @property
    def target(self) -> Encoder | None:
        """The encoder whose features of the training images its term sees, or None."""
        return None

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"taps"}) | (
            self.target.requires if self.target is not None else frozenset()
        )

    def build(self, width: int, features: int) -> nn.Module:
        """A fresh head for tokens (B, N, width) and the target's features (B, features); 0 without
        a target.

        torch's global generator is seeded before this is called. All that the head learns is in its
        state dict.
        """
        return nn.Identity()

    @abstractmethod
    def term(self, head: nn.Module, seen: Seen) -> Tensor:
        """The term () of those images that are taken; 0 if none is. It depends on its arguments
        alone, and may change only the head. `seen.generator` is for its own randomness, on the
        device of the images."""
