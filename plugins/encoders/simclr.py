"""SimCLR: a simple framework for contrastive learning (Chen et al., arXiv 2002.05709, algorithm
1), with lightly's head."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from fw.core.machine.precision import autocast, lengthened
from fw.plugins.encoders.joint_embedding import JointEmbedding
from fw.plugins.encoders.self_supervised import Learner
from fw.plugins.encoders.trunks import ImageEncoder


class SimCLR(JointEmbedding):
    """SimCLR: two views of an image attract each other and repel all others in the batch (arXiv
    2002.05709).

    The features are the backbone's, before the projection head. The defaults suit the digits; for
    photographs take `backbone: resnet18`, hidden 2048, dims 128, a batch of 512 or more and many
    more steps.
    """

    name: ClassVar[str] = "simclr"

    hidden: int = Field(256, ge=1, le=65536, description="hidden dimension of the projection head")
    dims: int = Field(64, ge=2, le=65536, description="dimension that the views are compared in")
    temperature: float = Field(
        0.5, ge=1e-3, description="temperature of the softmax over similarities; tau"
    )

    def learner(self, network: ImageEncoder) -> Learner:
        return Contrast(self, network)


class Contrast(Learner):
    """The NT-Xent loss (eq. 1): which of the other 2 * batch - 1 views shows the same image? The
    mean over all views, as in algorithm 1."""

    def __init__(self, method: SimCLR, network: ImageEncoder):
        from lightly.models.modules import SimCLRProjectionHead

        super().__init__()
        self.method = method
        self.backbone = network.backbone
        self.head = SimCLRProjectionHead(network.dims, method.hidden, method.dims)

    def forward(
        self, images: Tensor, step: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        views = self.method.views(images, 2, generator, rows=self.rows)  # (2 * batch, C, H, W)
        projected = self.head(self.backbone(views))  # (2 * batch, dims)
        one, two = self.rows.whole(lengthened(projected)).chunk(2)  # each repels those of all
        with autocast("fp32", images.device):
            loss = nt_xent(one, two, self.method.temperature)
        return self.rows.team.part(loss), projected


def nt_xent(one: Tensor, two: Tensor, temperature: float) -> Tensor:
    """Equation 1 for two views (B, D) of the same images, the mean over all views.

    As in lightly's NTXentLoss to the bit, without the mask of its diagonal, for which a GPU makes
    the host wait.
    """
    one, two = normalize(one, dim=1), normalize(two, dim=1)
    pairs = ((one, one), (one, two), (two, one), (two, two))
    alike = [torch.einsum("nd,md->nm", mine, other) / temperature for mine, other in pairs]
    first = torch.cat([alike[1], off_diagonal(alike[0])], dim=1)
    second = torch.cat([alike[2], off_diagonal(alike[3])], dim=1)
    logits = torch.cat([first, second])  # (2 * B, 2 * B - 1)
    return cross_entropy(logits, torch.arange(len(one), device=one.device).repeat(2))


def off_diagonal(square: Tensor) -> Tensor:
    """The entries of (B, B) that are not on its diagonal, row by row: (B, B - 1)"""
    count = len(square)
    return square.flatten()[1:].view(count - 1, count + 1)[:, :-1].reshape(count, count - 1)
