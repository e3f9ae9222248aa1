"""BYOL: bootstrap your own latent (Grill et al., arXiv 2006.07733, algorithm 1), with lightly."""

from __future__ import annotations

import copy
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fw.core.machine.precision import autocast, lengthened
from fw.plugins.encoders.joint_embedding import JointEmbedding
from fw.plugins.encoders.self_supervised import Learner
from fw.plugins.encoders.trunks import ImageEncoder


class BYOL(JointEmbedding):
    """BYOL: predict a moving average's projection of another view, without negatives (arXiv
    2006.07733).

    The features are those of the online backbone. The defaults suit the digits; for photographs
    take `backbone: resnet18`, hidden 4096, dims 256, momentum 0.996 and many more steps.
    """

    name: ClassVar[str] = "byol"

    hidden: int = Field(
        256, ge=1, le=65536, description="hidden dimension of projector and predictor"
    )
    dims: int = Field(64, ge=2, le=65536, description="dimension of the projections")
    momentum: float = Field(
        0.95, ge=0, le=1, description="the target's momentum at the start; rises to 1; tau"
    )

    def learner(self, network: ImageEncoder) -> Learner:
        return Bootstrap(self, network)


class Bootstrap(Learner):
    """The squared distance 2 - 2 cos between prediction and target (eq. 2), both ways; the
    target gets no gradient.

    It is the mean over both ways, half of the paper's sum. AdamW's steps do not depend on such a
    factor, but for its epsilon.
    """

    def __init__(self, method: BYOL, network: ImageEncoder):
        from lightly.loss import NegativeCosineSimilarity
        from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead

        super().__init__()
        self.method = method
        self.backbone = network.backbone
        self.head = BYOLProjectionHead(network.dims, method.hidden, method.dims)
        self.predictor = BYOLPredictionHead(method.dims, method.hidden, method.dims)
        self.target_backbone = copy.deepcopy(self.backbone).requires_grad_(False)
        self.target_head = copy.deepcopy(self.head).requires_grad_(False)
        self.criterion = NegativeCosineSimilarity()

    def forward(
        self, images: Tensor, step: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        views = self.method.views(images, 2, generator, rows=self.rows)  # (2 * batch, C, H, W)
        predicted = self.predictor(self.head(self.backbone(views)))  # (2 * batch, dims)
        with torch.no_grad():
            targets = self.target_head(self.target_backbone(views)).roll(
                len(images), dims=0
            )  # the other view's
        with autocast("fp32", images.device):
            loss = 2 + 2 * self.criterion(lengthened(predicted), lengthened(targets))
        return self.rows.part(loss), targets

    def follow(self, step: int) -> None:
        from lightly.models.utils import update_momentum
        from lightly.utils.scheduler import cosine_schedule

        momentum = cosine_schedule(step, self.method.steps, self.method.momentum, 1.0)
        update_momentum(self.backbone, self.target_backbone, momentum)
        update_momentum(self.head, self.target_head, momentum)
