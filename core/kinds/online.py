"""An annotator that learns beside the denoiser, in its features (SGFM, arXiv 2312.08825)."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Protocol

from pydantic import Field
from torch import Tensor, nn

from fw.core.errors import FwError
from fw.core.job import Job
from fw.core.kinds.annotator import Annotator
from fw.core.types import LARGEST, Annotation, ConditionSpec, Observations


class Grouping(Protocol):
    """What an online annotator builds: a module that groups images by their features (B, F),
    around prototypes."""

    @property
    def prototypes(self) -> Tensor:
        """The conditions (K, D), float32, of length 1."""

    def assign(self, features: Tensor) -> Tensor:
        """The prototype of each image, int64 (B,) in 0..K-1; called in eval mode."""

    def loss(self, features: Tensor, step: int) -> Tensor:
        """What the module's own optimizer minimises, (); called once a step, in training mode."""


class Online(Annotator):
    """An annotator that finds its conditions while the denoiser learns, in the denoiser's own
    features (SGFM, arXiv 2312.08825).

    The train stage makes the annotation, so there is no annotate stage. At every step a block of
    the averaged denoiser, without a condition, makes features of the batch at one noise level. They
    train the grouping, and no gradient reaches the denoiser. From `start` on, an image's condition
    is the prototype that it is assigned to. Before, it has none.
    """

    uses_features: ClassVar[bool] = False
    form: ClassVar[str] = "vector"

    start: float = Field(0.5, ge=0, lt=1, description="share of the training without conditions")
    block: str | None = Field(
        None, description="block whose features are grouped; null is the middle one"
    )
    pool: bool = Field(
        True, description="average features over positions; false keeps their layout"
    )
    sigma: float = Field(
        0.176,
        gt=0,
        description="noise level at which features are read; 0.176 is the paper's t = 0.85",
    )
    draws: int = Field(
        4,
        ge=1,
        le=10_000,
        description="draws of that noise over which an image's last assignment is averaged",
    )
    lr: float = Field(1e-3, gt=0, le=LARGEST, description="learning rate of the grouping (AdamW)")

    @property
    def requires(self) -> frozenset[str]:
        return super().requires | {"taps", "null"}

    @property
    @abstractmethod
    def condition(self) -> ConditionSpec:
        """The form and size of the conditions; read before there are any."""

    def makes(self, classes: int) -> ConditionSpec:
        return self.condition

    def check_batch(self, batch: int) -> None:
        """Raise ValueError if it cannot learn from so many images a step; called when a recipe
        is validated."""

    @abstractmethod
    def build(self, width: int) -> nn.Module:
        """A fresh `Grouping` of features (B, width). torch's global generator is seeded before
        this is called."""

    def annotate(self, data: Observations, job: Job) -> Annotation:
        raise FwError(
            f"annotator {self.name} finds its conditions while a denoiser learns, and has none "
            "before"
        )
