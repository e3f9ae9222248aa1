"""Images in, features out: what annotators cluster and what metrics measure in."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Self

from torch import nn

from fw.core.job import Job
from fw.core.machine.precision import Precision
from fw.core.types import ImageSet
from fw.registry import Component


class Encoder(Component):
    """Images in, features out: what annotators cluster and what metrics measure in."""

    kind: ClassVar[str] = "encoder"
    control: ClassVar[bool] = False
    """Whether it is what encoders are compared with, so that nobody is warned that it is no
    better."""
    uses_labels: ClassVar[bool] = False
    """Whether it is trained with labels; without this it is never given any."""

    @property
    def computes_in(self) -> Precision:
        """The precision that its features are computed in; the encode stage sees to it. In `fit`
        its networks run under `fw.core.machine.precision.autocast`, if it can be other than fp32.
        """
        return "fp32"

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"labels"}) if self.uses_labels else frozenset()

    @property
    def gives_logits(self) -> bool:
        """Whether its features are the logits of a classifier."""
        return False

    @property
    def least_images(self) -> int:
        """How many training images it needs; fewer are refused when a recipe is validated."""
        return 1

    def check(self, shape: tuple[int, int, int]) -> None:
        """Raise ValueError if it cannot take images (C, H, W); called when a recipe is
        validated."""

    def suited(self, shape: tuple[int, int, int]) -> Self:
        """The encoder with all decided that its fields leave to the images (C, H, W), such as
        `augment: auto`. Called when a recipe is read, so keys and run folders hold what was
        chosen."""
        return self

    def cautions(self, shape: tuple[int, int, int], images: int | None) -> Iterator[str]:
        """Warnings to give before it is fitted to images (C, H, W) that its fields do not suit.
        `images` is their number, None if that is not known."""
        return iter(())

    @property
    def in_short(self) -> str:
        """What plans and progress call it: its name, and what was chosen for the images."""
        return self.name

    @abstractmethod
    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """An unfitted module whose forward maps uint8 images (B, C, H, W) to float32 features (B,
        D).

        `shape` is (C, H, W). `classes` is 0 unless the encoder declares `uses_labels`. All that
        fitting learns must be in the module's state dict, because that is what is stored. torch's
        global generator is seeded before this is called. The fitted module is called in eval mode,
        without gradients, on the job's device and in batches.
        """

    def fit(self, network: nn.Module, data: ImageSet, job: Job) -> None:
        """Train `network` on the training split, in place. Labels are absent unless `uses_labels`.

        An encoder whose weights are pretrained, or that has none, has nothing to do here.
        """

    def quality(self, network: nn.Module, held_out: ImageSet) -> dict[str, float]:
        """Scores of the fitted network on held-out images, for the report."""
        return {}
