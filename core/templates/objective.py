"""The covariance between the channels of a block, as a term of the training loss."""

from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from fw.core.kinds import Objective, Seen
from fw.registry import hookimpl

FW_API = 2


class Example(Objective):
    """Decorrelates the dimensions of a projection of the images' activations (VICReg, arXiv
    2105.04906, eq. 4)."""

    name: ClassVar[str] = "example"
    depth: ClassVar[float] = 0.5

    dims: int = Field(32, ge=2, le=4096, description="dimension of the projection")

    def build(self, width: int, features: int) -> nn.Module:
        return nn.Linear(width, self.dims)

    def term(self, head: nn.Module, seen: Seen) -> Tensor:
        projected = head(seen.tokens.mean(dim=1))  # (B, dims)
        share = seen.taken / seen.taken.sum().clamp(
            min=1
        )  # (B,), which sums to 1, or to 0 if no image is taken
        centred = projected - share @ projected
        covariance = centred.T @ (share[:, None] * centred)  # (dims, dims)
        return (covariance - covariance.diag().diag()).square().sum() / self.dims


@hookimpl
def fw_components() -> list[type[Objective]]:
    return [Example]
