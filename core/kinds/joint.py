"""A backbone that also recognises (HybViT, arXiv 2208.07791; JDM, arXiv 2301.13622)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar, Protocol

from pydantic import Field, field_validator
from torch import Tensor, nn

from fw.core.kinds.backbone import Backbone
from fw.core.kinds.network import Network
from fw.core.types import LARGEST, ConditionSpec
from fw.registry import Neutral


class JointNetwork(Network, Protocol):
    """What a joint backbone builds. It reads classes off the image, so `condition` and `dropped`
    do nothing."""

    def both(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The prediction (B, C, H, W) and the class logits (B, K), from one pass through the
        shared trunk."""

    def logits(self, x: Tensor, noise: Tensor) -> Tensor:
        """The class logits (B, K) alone."""


Read = Callable[[Sequence[Tensor]], Tensor]
"""Hidden tensors (B, ...) to class logits (B, K)."""


Move = Callable[[Sequence[Tensor], Read], Sequence[Tensor]]
"""Hidden tensors (B, ...), and the function that reads them, to others of the same shapes."""


class Steerable(JointNetwork, Protocol):
    """What a joint backbone that provides `steerable` builds."""

    def steered(self, x: Tensor, noise: Tensor, move: Move) -> Tensor:
        """The prediction (B, C, H, W) that is decoded from what `move` makes of the hidden
        tensors. They are those that both tasks share, and the logits are a function of them.
        `move` may take gradients with respect to copies of them."""


class Joint(Backbone):
    """A backbone that also recognises: one network that denoises and classifies (HybViT, arXiv
    2208.07791; JDM, arXiv 2301.13622).

    A recipe names it as its `model`. It learns to recognise the arm's annotation, true labels or
    the model's own, on noisy images at every level, with the loss L_denoise + weight * cross
    entropy. An arm without an annotator trains the generator alone: `condition` is None, and there
    is no head. At `weight: .inf` the classifier alone is trained: the cross entropy of the images
    that have a class is the whole loss.

    Where few images have a class, a batch has hardly any to recognise. `labelled` adds so many
    images with a class, to be recognised beside each batch; as many as the batch make a step take
    twice as long. HybViT has a second loader for the purpose, JDM collects labelled images until
    they fill a batch.
    """

    conditions: ClassVar[frozenset[str]] = frozenset({"class"})

    weight: float = Field(
        1e-3,
        gt=0,
        allow_inf_nan=True,
        description=(
            "weight of the cross entropy beside the denoising loss; .inf leaves out the latter"
        ),
    )
    labelled: Annotated[int, Neutral(0, names_folders=True)] = Field(
        0,
        ge=0,
        le=1_000_000,
        description=(
            "images with a class that are recognised beside each batch; 0 recognises those in the "
            "batch"
        ),
    )

    @field_validator("weight")
    @classmethod
    def _held(cls, weight: float) -> float:
        if LARGEST < weight < math.inf:
            raise ValueError(f"{weight:g} overflows; .inf leaves out the denoising loss")
        return weight

    @property
    def provides(self) -> frozenset[str]:
        return frozenset({"logits"})

    @abstractmethod
    def build(self, shape: tuple[int, int, int], condition: ConditionSpec | None) -> nn.Module:
        """A fresh `JointNetwork` for images (C, H, W) with a head for `condition.size` classes."""
