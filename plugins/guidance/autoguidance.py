"""Autoguidance: a model guided by a bad version of itself (Karras et al., arXiv 2406.02507, eq.
3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import Field, model_validator
from torch import Tensor

from fw.core.kinds import Backbone, Denoiser, Guidance, Sibling
from fw.core.settings import Width
from fw.registry import Neutral

if TYPE_CHECKING:
    from fw.core.settings import Train


class AutoGuidance(Guidance):
    """Autoguidance (arXiv 2406.02507): worse is a smaller, less trained network, on the same data
    and conditions.

    It is trained as a stage of its own, which arms share. The paper's w is scale. In its best
    results the worse network has a third of the width or less and a sixteenth to a quarter of the
    training; less training alone does more than less capacity alone. A degraded copy of the same
    network (dropout, noise) did not help in the paper, so it is not offered. One more evaluation,
    of the smaller network, counted like any other. With `ema_width`, the length of its average is
    chosen after training, and it may differ from the arm's own network in that alone.
    """

    name: ClassVar[str] = "autoguidance"

    model: Backbone | None = Field(
        None, description="the worse network; null is the arm's own architecture"
    )
    trained: float = Field(
        0.25, gt=0, le=1, description="its training steps, as a share of the arm's"
    )
    ema: float | None = Field(
        None, ge=0, lt=1, description="decay of its averaged weights; null is the arm's"
    )
    ema_width: Annotated[Width | None, Neutral(None)] = Field(
        None,
        description="relative width of its averaged weights, as `ema` of an arm; null takes the "
        "average that its training makes",
    )

    @model_validator(mode="after")
    def _worse(self) -> Self:
        averaged_alike = self.ema is None and self.ema_width is None
        if self.model is None and self.trained == 1 and averaged_alike:
            raise ValueError(
                "the same network, trained as long, is not worse: give `model`, `trained` < 1, "
                "`ema` or `ema_width`"
            )
        return self

    def sibling(self, model: Backbone, train: Train) -> Sibling:
        steps = max(1, round(self.trained * train.steps))
        average = {} if self.ema is None else {"ema": self.ema, "ema_halflife": None}
        shorter = train.model_copy(update={"steps": steps, **average})
        return Sibling(self.model or model, shorter, self.ema_width)

    def worse(
        self, model: Denoiser, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor
    ) -> Tensor:
        return model(x, sigma, condition)
