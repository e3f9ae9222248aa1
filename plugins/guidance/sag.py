"""Self-attention guidance (arXiv 2210.00939; with classifier-free guidance, eq. 25)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import interpolate

from fw.core.kinds import Denoiser, scaled_dot_product
from fw.plugins.guidance.attention import AttentionGuidance, token_grid
from fw.plugins.guidance.blur import NARROWEST, blurred

AVERAGE = 1 + 1e-6
"""The paper's threshold psi = 1 is what a token gets on average; rounding must not lift uniform
attention above it."""


class SAG(AttentionGuidance):
    """Self-attention guidance (arXiv 2210.00939): worse is the prediction after blurring what is
    attended to most.

    Tokens that get more than average attention are blurred in the predicted x0, and the same noise
    is added again: x_bar = degraded + (x - x0). In the paper's rule, eps + s (eps - eps_bar),
    eps_bar is that of x_bar and not of x:

        sigma (eps - eps_bar) = (x - x0) - (x_bar - D(x_bar)) = D(x_bar) - degraded,

    so the guided x0 is good + s (degraded - D(x_bar)), and worse = good - (degraded - D(x_bar)).

    s is scale - 1, and the `guide_scale` of the paper's code is fw's scale. The paper takes s below
    1, and blurs of 9 pixels at 256x256, 3 at 128x128 and 1 in 64x64 latents. `branch:
    unconditional` looks, blurs and compares without the condition, as the paper does beside CFG.

    Two more evaluations: the first repeats the branch's prediction to read its attention, which the
    paper's code keeps from the prediction itself. `layers` as in every mode through attention:
    parts of layer names or two fractions of the depth; by default the layers with `mid` in their
    name, else those at 40 to 60 %. The paper reads one layer; here the mean over several counts.
    """

    name: ClassVar[str] = "sag"
    evaluations: ClassVar[int] = 2

    blur: float = Field(1.0, ge=0, description="sigma of the blur, in pixels; 1 suits 8x8 images")
    branch: Literal["conditional", "unconditional"] = Field(
        "conditional", description="whether the degraded prediction is made with the condition"
    )

    @property
    def requires(self) -> frozenset[str]:
        return super().requires | (
            {"conditions", "null"} if self.branch == "unconditional" else frozenset()
        )

    @property
    def on_a_grid(self) -> bool:
        return True

    def idle(self) -> str | None:
        nothing = self.blur <= NARROWEST
        return super().idle() or (
            f"a blur of {self.blur:g} pixels reaches no other pixel" if nothing else None
        )

    def worse(
        self, model: Denoiser, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor
    ) -> Tensor:
        received: list[Tensor] = []

        def look(query: Tensor, key: Tensor, value: Tensor, layer: str) -> Tensor:
            grid = token_grid(key.shape[2], x, layer)
            tokens = attention_received(query, key).unflatten(
                1, (1, *grid)
            )  # (B, 1, rows, columns)
            received.append(interpolate(tokens, x.shape[2:], mode="nearest"))  # (B, 1, H, W)
            return scaled_dot_product(query, key, value, layer)

        if self.branch == "unconditional":
            condition = None
        again = self.changed(model, x, sigma, condition, look)
        x0 = good if self.branch == "conditional" else again
        mask = torch.stack(received).mean(dim=0) > AVERAGE
        degraded = torch.where(mask, blurred(x0, self.blur), x0)
        return good - (degraded - model(x + (degraded - x0), sigma, condition))


def attention_received(query: Tensor, key: Tensor) -> Tensor:
    """The column sums (B, N) of the attention maps of query and key (B, heads, N, d), averaged over
    heads.

    They are made head by head and in float32: all maps at once would be large, and in bf16 rounding
    would move the sums away from 1.
    """
    with torch.autocast(query.device.type, enabled=False):
        maps = (
            torch.softmax(
                one @ other.mT / one.shape[-1] ** 0.5, dim=-1
            )  # (B, N, N), whose rows sum to 1
            for one, other in zip(query.float().unbind(1), key.float().unbind(1), strict=True)
        )
        return torch.stack([each.sum(dim=1) for each in maps]).mean(dim=0)
