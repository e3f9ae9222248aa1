"""Contrastive self-distillation of a denoiser (DDAE++, arXiv 2505.10999): L_diffusion + lambda *
L_contrastive."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from fw.core.kinds import Interval, Objective, Seen


class Contrastive(Objective):
    """Two noisy views of an image attract each other in a block's features and repel all others
    (NT-Xent; DDAE++).

    One view is the step's own noisy image, read by the network that learns. The other is the image,
    shifted by up to `shift` pixels, with other noise of the same level, read by the averaged
    network. That is a teacher without gradient, which costs one more pass but no more memory. Both
    go through the same projection, which learns from both. Few features survive much noise, so only
    images at noise levels in `interval` take part. Its default covers a quarter of them on DDPM's
    linear schedule, and half on the cosine one and with flow matching. The paper has released no
    code: the loss is SimCLR's (arXiv 2002.05709, eq. 1). Its self-conditioning, which feeds the
    features back into the decoder, is left out: it would be another network, not another term.
    """

    name: ClassVar[str] = "contrastive"
    uses_teacher: ClassVar[bool] = True

    weight: float = Field(
        0.1, ge=1e-30, le=1e30, description="weight of the term beside the denoising loss; lambda"
    )
    interval: Interval = Field(
        (0, 1), description="noise levels (lo, hi] whose images it takes; null is all"
    )
    temperature: float = Field(
        0.5, ge=1e-2, description="temperature of the softmax over similarities; tau"
    )
    shift: int = Field(
        1,
        ge=0,
        le=4096,
        description=(
            "pixels by which the other view is shifted at most, either way; 1 suits 8x8 images"
        ),
    )
    hidden: int = Field(128, ge=1, le=65536, description="hidden dimension of the projection")
    dims: int = Field(64, ge=2, le=65536, description="dimension that the views are compared in")

    def build(self, width: int, features: int) -> nn.Module:
        return nn.Sequential(
            nn.Linear(width, self.hidden), nn.ReLU(), nn.Linear(self.hidden, self.dims)
        )

    def term(self, head: nn.Module, seen: Seen) -> Tensor:
        assert seen.teacher is not None
        noise = torch.randn(seen.x0.shape, generator=seen.generator, device=seen.x0.device)
        x = (
            shifted(seen.x0, self.shift, seen.generator) + seen.sigma[:, None, None, None] * noise
        )  # (B, C, H, W)
        views = seen.tokens, seen.teacher(x, seen.sigma)  # (B, N, D) each
        one, other = (head(tokens.mean(dim=1)) for tokens in views)  # (B, dims) each
        return nt_xent(one, other, seen.taken, self.temperature)


def shifted(images: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Images (B, C, H, W), each shifted by its own number of pixels up to `most`; the border is
    repeated."""
    count, channels, height, width = images.shape
    by = torch.randint(-most, most + 1, (2, count, 1), generator=generator, device=images.device)
    rows = (torch.arange(height, device=images.device) + by[0]).clamp(0, height - 1)  # (B, H)
    columns = (torch.arange(width, device=images.device) + by[1]).clamp(0, width - 1)  # (B, W)
    image = torch.arange(count, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[:, None, None]
    return images[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


def nt_xent(one: Tensor, other: Tensor, taken: Tensor, temperature: float) -> Tensor:
    """The NT-Xent loss () of views (B, D) of the same images; only those in `taken`, bool (B,),
    count.

    It equals lightly's, which would have to get fewer images: the GPU would wait for their number.
    """
    views = normalize(torch.cat([one, other]), dim=1)  # (2 B, D)
    valid = taken.repeat(2)
    hidden = torch.eye(len(views), dtype=torch.bool, device=views.device) | (
        valid[:, None] & ~valid
    )
    similarities = (views @ views.T / temperature).masked_fill(hidden, -torch.inf)  # (2 B, 2 B)
    same = torch.arange(len(views), device=views.device).roll(len(one))
    errors = cross_entropy(similarities, same, reduction="none")  # (2 B,)
    return (errors * valid).sum() / valid.sum().clamp(min=1)
