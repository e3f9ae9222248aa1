"""Guide away from a blurred copy of the prediction."""

from typing import ClassVar

from pydantic import Field
from torch import Tensor
from torch.nn.functional import avg_pool2d

from fw.core.kinds import Denoiser, Guidance
from fw.registry import hookimpl

FW_API = 2


class Example(Guidance):
    """Worse is the prediction after a box blur: unsharp masking at every step."""

    name: ClassVar[str] = "example"
    evaluations: ClassVar[int] = 0  # `worse` does not call the model again

    radius: int = Field(1, ge=1, le=64, description="half the width of the blur, in pixels")

    def worse(
        self, model: Denoiser, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor
    ) -> Tensor:
        width = 2 * self.radius + 1
        return avg_pool2d(
            good, width, stride=1, padding=self.radius, count_include_pad=False
        )  # (B, C, H, W)


@hookimpl
def fw_components() -> list[type[Guidance]]:
    return [Example]
