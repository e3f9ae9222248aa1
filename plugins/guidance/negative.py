"""Guidance away from one class of conditions, as negative prompts are used (arXiv 2207.12598,
eq. 6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor

from fw.core.kinds import Denoiser, Guidance
from fw.core.types import ConditionSpec


class Negative(Guidance):
    """Negative guidance: worse is the same network conditioned on another class, such as a cluster
    to avoid.

    It is the rule of `cfg` (arXiv 2207.12598) with that class in place of no condition, as negative
    prompts are used: scale is w in D(c_negative) + w (D(c) - D(c_negative)). Images whose own
    condition is this class are not steered. To steer away from several classes, list it several
    times; the pushes add up. One more evaluation.
    """

    name: ClassVar[str] = "negative"

    condition: Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern=r"\D")] = Field(
        description=(
            "the class to steer away from: a number from 0, or a name where conditions are labels"
        ),
        examples=[0],
    )

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"conditions", "class_conditions", "told"})

    @property
    def names_classes(self) -> bool:
        return isinstance(self.condition, str)

    def numbered(self, names: Sequence[str]) -> Self:
        if self.condition in names:
            return self.model_copy(update={"condition": list(names).index(str(self.condition))})
        known = (
            ", ".join(names) or "none, because the data set names none or its files are not there"
        )
        raise ValueError(f"no class is called '{self.condition}' (known: {known})")

    def check(self, condition: ConditionSpec | None) -> None:
        if isinstance(self.condition, str):
            raise ValueError(
                f"class '{self.condition}' is a name; loading a recipe makes it a number"
            )
        if condition is None or self.condition >= condition.size:
            count = condition.size if condition else 0
            raise ValueError(
                f"there is no class {self.condition}: the arm has {count}, counted from 0"
            )

    def worse(
        self, model: Denoiser, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor
    ) -> Tensor:
        assert condition is not None
        assert isinstance(self.condition, int)
        return model(x, sigma, torch.full_like(condition, self.condition))
