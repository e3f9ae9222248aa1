"""The network of joint_unet: a trunk that knows the noise level, a denoising head and a
recognising head."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from fw.core.kinds import Attend

GROUPS = 8
FREQUENCIES = 32


class TwoHeads(nn.Module):
    """A `fw.core.kinds.JointNetwork`; without `classes` it has no second head.

    The second head is made last: the rest starts from the same weights with and without it.
    """

    def __init__(self, colours: int, channels: Sequence[int], classes: int | None):
        super().__init__()
        widths = [channels[0], *channels]
        level = 4 * channels[0]
        self.level = nn.Sequential(
            nn.Linear(2 * FREQUENCIES, level), nn.SiLU(), nn.Linear(level, level), nn.SiLU()
        )
        self.stem = nn.Conv2d(colours, channels[0], 3, padding=1)
        self.down = nn.ModuleList(
            Block(before, after, level) for before, after in itertools.pairwise(widths)
        )
        self.middle = Block(channels[-1], channels[-1], level)
        self.up = nn.ModuleList(
            Block(deeper + width, width, level)
            for width, deeper in reversed(
                [*zip(channels, [*channels[1:], channels[-1]], strict=True)]
            )
        )
        self.denoise = nn.Sequential(
            nn.GroupNorm(GROUPS, channels[0]),
            nn.SiLU(),
            nn.Conv2d(channels[0], colours, 3, padding=1),
        )
        self.recognise = None if classes is None else head(channels[-1], classes)

    def forward(
        self,
        x: Tensor,
        noise: Tensor,
        condition: Tensor | None = None,
        dropped: Tensor | None = None,
        attend: Attend | None = None,
    ) -> Tensor:
        """x (B, C, H, W), noise (B,) -> (B, C, H, W). The condition is what it recognises; it is
        not told."""
        return self._denoised(*self._trunk(x, noise))

    def both(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        deepest, skips, level = self._trunk(x, noise)
        return self._denoised(deepest, skips, level), self._recognised(deepest)

    def logits(self, x: Tensor, noise: Tensor) -> Tensor:
        deepest, _, _ = self._trunk(x, noise)
        return self._recognised(deepest)

    def _trunk(self, x: Tensor, noise: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """The deepest features, those of every level on the way down, and the embedded noise
        level."""
        level = self.level(waves(noise))  # (B, 4 * channels[0])
        hidden, skips = self.stem(x), []
        for depth, block in enumerate(self.down):
            hidden = block(avg_pool2d(hidden, 2) if depth else hidden, level)
            skips.append(hidden)
        return self.middle(hidden, level), skips, level

    def _denoised(self, hidden: Tensor, skips: list[Tensor], level: Tensor) -> Tensor:
        for block, skip in zip(self.up, reversed(skips), strict=True):
            if hidden.shape[2:] != skip.shape[2:]:
                hidden = interpolate(hidden, skip.shape[2:], mode="nearest")
            hidden = block(torch.cat([hidden, skip], dim=1), level)
        return self.denoise(hidden)

    def _recognised(self, deepest: Tensor) -> Tensor:
        if self.recognise is None:
            raise ValueError(
                "this joint_unet was built without conditions, so it has no classes to recognise"
            )
        return self.recognise(deepest)


class Block(nn.Module):
    """A residual block; the noise level scales and shifts each channel between its two
    convolutions."""

    def __init__(self, before: int, after: int, level: int):
        super().__init__()
        self.first = nn.Sequential(
            nn.GroupNorm(GROUPS, before), nn.SiLU(), nn.Conv2d(before, after, 3, padding=1)
        )
        self.norm = nn.GroupNorm(GROUPS, after)
        self.modulate = nn.Linear(level, 2 * after)
        self.second = nn.Sequential(nn.SiLU(), nn.Conv2d(after, after, 3, padding=1))
        self.past = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        scale, shift = self.modulate(level)[:, :, None, None].chunk(
            2, dim=1
        )  # (B, after, 1, 1) each
        return self.past(x) + self.second(self.norm(self.first(x)) * (1 + scale) + shift)


def head(width: int, classes: int) -> nn.Sequential:
    """Classes from the deepest features on a 2x2 map. They know the noise level, which no raw
    number tells the head:

    JDM's head gets the timestep itself through a batch norm, which breaks down at levels that
    training never showed.
    """
    return nn.Sequential(
        nn.SiLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * width, 64),
        nn.SiLU(),
        nn.Linear(64, classes),
    )


def waves(noise: Tensor) -> Tensor:
    """Noise levels (B,) as sines and cosines (B, 2 * FREQUENCIES), the timestep embedding of
    arXiv 2006.11239."""
    steps = torch.arange(FREQUENCIES, device=noise.device, dtype=noise.dtype)
    angles = noise[:, None] * torch.exp(-math.log(10_000) * steps / FREQUENCIES)
    return torch.cat([angles.sin(), angles.cos()], dim=1)
