"""MoCo v2: momentum contrast (He et al., arXiv 1911.05722, algorithm 1; v2 is arXiv 2003.04297),
with lightly."""

from __future__ import annotations

import copy
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fw.core.machine.precision import autocast, lengthened
from fw.plugins.encoders.joint_embedding import JointEmbedding
from fw.plugins.encoders.queues import checkpointed
from fw.plugins.encoders.self_supervised import Learner
from fw.plugins.encoders.trunks import ImageEncoder


class MoCo(JointEmbedding):
    """MoCo v2: a view is to recognise its key among a queue of keys of earlier images (arXiv
    2003.04297).

    The features are those of the query's backbone. The defaults suit the digits; for photographs
    take `backbone: resnet18`, hidden 2048, dims 128, queue 4096 (ImageNet: 65536), momentum 0.999
    and many more steps.
    """

    name: ClassVar[str] = "moco"

    hidden: int = Field(256, ge=1, le=65536, description="hidden dimension of the projection head")
    dims: int = Field(
        64, ge=2, le=65536, description="dimension that queries and keys are compared in"
    )
    temperature: float = Field(
        0.2, ge=1e-3, description="temperature of the softmax over similarities; tau"
    )
    queue: int = Field(
        1024,
        ge=2,
        le=1_000_000,
        description="keys of earlier images to tell apart from; best a multiple of batch",
    )
    momentum: float = Field(0.99, ge=0, le=1, description="how slowly the key encoder follows; m")

    def learner(self, network: ImageEncoder) -> Learner:
        return MomentumContrast(self, network)


class MomentumContrast(Learner):
    """InfoNCE (arXiv 1911.05722, eq. 1); the keys come from a moving average of the query
    encoder (eq. 2)."""

    def __init__(self, method: MoCo, network: ImageEncoder):
        from lightly.loss import NTXentLoss
        from lightly.models.modules import MoCoProjectionHead

        super().__init__()
        self.method = method
        self.backbone = network.backbone
        self.head = MoCoProjectionHead(network.dims, method.hidden, method.dims)
        self.key_backbone = copy.deepcopy(self.backbone).requires_grad_(False)
        self.key_head = copy.deepcopy(self.head).requires_grad_(False)
        self.criterion = NTXentLoss(
            method.temperature, memory_bank_size=(method.queue, method.dims)
        )
        checkpointed(self.criterion.memory_bank)

    def forward(
        self, images: Tensor, step: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        views = self.method.views(images, 2, generator, rows=self.rows)
        one, other = views.chunk(2)  # (batch, C, H, W) each
        queries = self.head(self.backbone(one))  # (batch, dims)
        with torch.no_grad():
            keys = self.key_head(self.key_backbone(other))
        compared = (self.rows.whole(lengthened(each)) for each in (queries, keys))
        with autocast("fp32", images.device):
            loss = self.criterion(*compared)  # it puts the keys into the queue
        return self.rows.team.part(loss), queries

    def follow(self, step: int) -> None:
        from lightly.models.utils import update_momentum

        update_momentum(self.backbone, self.key_backbone, self.method.momentum)
        update_momentum(self.head, self.key_head, self.method.momentum)
