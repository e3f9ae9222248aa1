"""The joint diffusion model JDM (arXiv 2301.13622, section 4): a U-Net whose encoder also
recognises the class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from fw.core.diffusion.taps import pooled
from fw.core.kinds import Attend, Joint, Move
from fw.core.types import ConditionSpec
from fw.plugins.backbones.unet import ConditionedUNet, UNet


class JDM(UNet, Joint):
    """The U-Net `unet` that also recognises, from the features of all levels (arXiv 2301.13622).

    A small network of two layers reads the means over the pixels of every tensor that the U-Net's
    decoder gets: all skips and the middle. The generator never gets the class.

    This differs from the paper. The head is trained on the denoiser's images in noise of every
    level, so that it can guide; the published one is trained on clean images with augmentation and
    MixUp. It does not get the noise level, which is in the features: the paper's raw timestep
    saturates the head at levels that it was not trained at. It has layer norms, which are each
    image's own, in place of batch norms. Labelled images are not collected until they fill a batch:
    see `labelled`. And the noise level is added between convolutions, where theirs also scales.
    Their U-Net has heads 4 and init zero.

    The published weight, 0.001, is for 500,000 steps. A run of minutes wants about 0.1: on the
    digits, 800 steps, the gradients of its logits came closer to the exact ones than with 0.01, and
    denoising did not suffer.
    """

    name: ClassVar[str] = "jdm"
    conditions: ClassVar[frozenset[str]] = frozenset({"class"})

    head_dropout: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="dropout of the features that are read; the paper's 0.7 is for 3,712 of them",
    )

    @property
    def provides(self) -> frozenset[str]:
        return super().provides | {"logits", "steerable"}

    def build(self, shape: tuple[int, int, int], condition: ConditionSpec | None) -> nn.Module:
        unet = super().build(shape, None)
        return JointUNet(unet, None if condition is None else self._head(condition.size))

    def _head(self, classes: int) -> nn.Module:
        levels = [
            width * (self.layers + 1) for width in self.channels
        ]  # the last has no step down,
        width = self.channels[0] + sum(levels)  # and the middle counts in its place
        return nn.Sequential(
            nn.LayerNorm(width),
            nn.Dropout(self.head_dropout),
            nn.Linear(width, width // 2),
            nn.LeakyReLU(),
            nn.LayerNorm(width // 2),
            nn.Dropout(self.head_dropout),
            nn.Linear(width // 2, classes),
        )


class JointUNet(nn.Module):
    """See `fw.core.kinds.Steerable`. The hidden tensors, which both tasks share, are all skips and
    the middle.

    The head is made last: the rest starts from the same weights with and without it.
    """

    def __init__(self, denoise: nn.Module, head: nn.Module | None):
        super().__init__()
        assert isinstance(denoise, ConditionedUNet)
        self.denoise = denoise
        self.head = head

    def forward(
        self,
        x: Tensor,
        noise: Tensor,
        condition: Tensor | None = None,
        dropped: Tensor | None = None,
        attend: Attend | None = None,
    ) -> Tensor:
        """x (B, C, H, W), noise (B,) -> (B, C, H, W). The condition is not used: see `logits`."""
        return self.denoise(x, noise, attend=attend)

    def both(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        hidden, level = self._encoded(x, noise)
        return self._decoded(hidden, level), self._recognised(hidden)

    def logits(self, x: Tensor, noise: Tensor) -> Tensor:
        return self._recognised(self._encoded(x, noise)[0])

    def steered(self, x: Tensor, noise: Tensor, move: Move) -> Tensor:
        hidden, level = self._encoded(x, noise)
        return self._decoded(move(hidden, self._recognised), level)

    def taps(self) -> dict[str, nn.Module]:
        """The blocks of `unet`."""
        return self.denoise.taps()

    def _encoded(self, x: Tensor, noise: Tensor) -> tuple[list[Tensor], Tensor]:
        """The hidden tensors (B, C, h, w), the middle last, and the embedded noise level (B, 4 *
        channels[0])."""
        unet: Any = self.denoise.unet
        level = unet.time_embedding(unet.time_proj(noise).to(x.dtype))
        hidden = unet.conv_in(x)  # (B, channels[0], H, W)
        skips = [hidden]
        for block in unet.down_blocks:
            hidden, outputs = block(hidden, level)
            skips += outputs
        return [*skips, unet.mid_block(hidden, level)], level

    def _decoded(self, hidden: Sequence[Tensor], level: Tensor) -> Tensor:
        unet: Any = self.denoise.unet
        *skips, x = hidden
        for block in unet.up_blocks:
            first = len(skips) - len(block.resnets)
            x = block(x, tuple(skips[first:]), level)
            skips = skips[:first]
        return unet.conv_out(unet.conv_act(unet.conv_norm_out(x)))  # (B, C, H, W)

    def _recognised(self, hidden: Sequence[Tensor]) -> Tensor:
        if self.head is None:
            raise ValueError("this jdm was built without classes, so it has no logits")
        return self.head(torch.cat([pooled(each) for each in hidden], dim=1))  # (B, K)
