"""Guidance away from a blurred copy of the prediction: unsharp masking at every step of
sampling."""

from typing import ClassVar

from pydantic import Field
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from fw.core.kinds import Denoiser, Guidance
from fw.registry import hookimpl

FW_API = 2


class Sharpen(Guidance):
    """Worse is the prediction after a box blur. Asks the network nothing more."""

    name: ClassVar[str] = "sharpen"
    evaluations: ClassVar[int] = 0

    radius: int = Field(1, ge=1, description="half the width of the blur, in pixels")

    def worse(
        self, model: Denoiser, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor
    ) -> Tensor:
        r = self.radius
        return avg_pool2d(pad(good, (r, r, r, r), mode="replicate"), 2 * r + 1, stride=1)


@hookimpl
def fw_components() -> list[type[Guidance]]:
    return [Sharpen]
