"""SimCLR: a simple framework for contrastive learning (Chen et al., arXiv 2002.05709, algorithm
1), with lightly."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fw.core.machine.precision import autocast
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
        from lightly.loss import NTXentLoss
        from lightly.models.modules import SimCLRProjectionHead

        super().__init__()
        self.method = method
        self.backbone = network.backbone
        self.head = SimCLRProjectionHead(network.dims, method.hidden, method.dims)
        self.criterion = NTXentLoss(method.temperature)

    def forward(
        self, images: Tensor, step: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        views = self.method.views(images, 2, generator)  # (2 * batch, C, H, W)
        projected = self.head(self.backbone(views))  # (2 * batch, dims)
        with autocast("fp32", images.device):
            return self.criterion(*projected.float().chunk(2)), projected
