"""The distance between mean features: the first term of the Frechet distance (arXiv 1706.08500,
eq. 6)."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from fw.core.kinds import Encoder, Metric
from fw.core.types import Reference
from fw.registry import hookimpl

FW_API = 2


class Example(Metric):
    """The distance between the mean features of samples and of training images."""

    name: ClassVar[str] = "example"

    space: Encoder = Field(
        "pca", validate_default=True, description="encoder whose features are averaged"
    )

    @property
    def keys(self) -> Mapping[str, str]:
        return {f"{self.name}_{self.space.name}": "lower"}

    def prepare(self, reference: Reference) -> Tensor:
        return reference.train.mean(dim=0)  # (D,)

    def compare(
        self, prepared: Tensor, fake: Tensor, wanted: Tensor | None = None
    ) -> dict[str, float]:
        gap = prepared - fake.mean(dim=0)  # (D,)
        return {f"{self.name}_{self.space.name}": float(gap.norm())}


@hookimpl
def fw_components() -> list[type[Metric]]:
    return [Example]
