"""SwAV: swapping assignments between views (Caron et al., arXiv 2006.09882, algorithm 1), with
lightly."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import normalize

from fw.core.machine.precision import autocast, lengthened
from fw.plugins.encoders.joint_embedding import JointEmbedding
from fw.plugins.encoders.queues import checkpointed
from fw.plugins.encoders.self_supervised import Learner
from fw.plugins.encoders.trunks import ImageEncoder


class SwAV(JointEmbedding):
    """SwAV: predict from one view to which prototypes Sinkhorn assigned another one (arXiv
    2006.09882).

    The features are the backbone's. The defaults suit the digits; for photographs take `backbone:
    resnet18`, hidden 2048, dims 128, 3000 prototypes (CIFAR: 512) frozen for the first epoch, 6
    local views and many more steps; with a batch of 256 or less also a queue of 3840 after 15
    epochs.
    """

    name: ClassVar[str] = "swav"

    steps: int = Field(200, ge=1, description="training steps; 200 suit the digits", examples=[8])
    hidden: int = Field(256, ge=1, le=65536, description="hidden dimension of the projection head")
    dims: int = Field(
        64,
        ge=2,
        le=65536,
        description="dimension of projections and prototypes, which have length 1",
    )
    prototypes: int = Field(64, ge=2, le=1_000_000, description="number of prototypes; K")
    freeze_prototypes: int = Field(
        10, ge=0, description="steps in which the prototypes stay as they are"
    )
    local_views: int = Field(
        2, ge=0, le=100, description="local views of each image, beside two global ones"
    )
    temperature: float = Field(
        0.1, ge=1e-30, description="temperature of the predictions' softmax; tau"
    )
    epsilon: float = Field(0.05, ge=0.02, description="entropy of the assignments; lower is harder")
    sinkhorn_iterations: int = Field(
        3, ge=1, description="iterations that balance the prototypes over the batch"
    )
    queue: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="earlier images that are assigned with the batch; best a multiple of it",
    )
    queue_start: int = Field(
        0, ge=0, description="step from which the queue is used, if it is full by then"
    )

    def learner(self, network: ImageEncoder) -> Learner:
        return SwappedPrediction(self, network)


class SwappedPrediction(Learner):
    """Cross entropy of one view's softmax over prototypes with another's assignment (eq. 2),
    which is balanced.

    It is the mean over pairs of a global view and another one, where the paper's eq. 1 and its
    multi-crop have their sum; its code has the mean, too.
    """

    def __init__(self, method: SwAV, network: ImageEncoder):
        from lightly.loss import SwaVLoss
        from lightly.models.modules import SwaVProjectionHead, SwaVPrototypes
        from lightly.models.modules.memory_bank import MemoryBankModule

        super().__init__()
        self.method = method
        self.backbone = network.backbone
        self.head = SwaVProjectionHead(network.dims, method.hidden, method.dims)
        self.prototypes = SwaVPrototypes(method.dims, method.prototypes, method.freeze_prototypes)
        self.prototypes.heads[0].register_parameter(
            "bias", None
        )  # the paper's are directions, compared by cosine
        sizes = [(method.queue, method.dims)] * 2 if method.queue else []
        self.queues = nn.ModuleList(
            [checkpointed(MemoryBankModule(size, feature_dim_first=False)) for size in sizes]
        )
        self.criterion = SwaVLoss(method.temperature, method.sinkhorn_iterations, method.epsilon)

    def forward(
        self, images: Tensor, step: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        method, rows = self.method, self.rows
        wholes = method.views(images, 2, generator, rows=rows)  # (2 * batch, C, H, W)
        parts = method.views(images, method.local_views, generator, local=True, rows=rows)
        embedded = normalize(
            self.head(self.backbone(torch.cat([wholes, parts])))
        )  # (views * batch, dims)
        self.prototypes.normalize()
        compared = rows.whole(lengthened(embedded))  # prototypes are balanced over all images
        with autocast("fp32", images.device):  # Sinkhorn divides by sums of exponentials
            scores = self.prototypes(compared, step).chunk(
                2 + method.local_views
            )  # (batch, prototypes) each, in -1..1
            loss = self.criterion(
                list(scores[:2]), list(scores[2:]), self.earlier(step, len(scores[0]))
            )
        for queue, view in zip(self.queues, compared.chunk(2 + method.local_views), strict=False):
            queue(view, update=True)
        return rows.team.part(loss.squeeze()), embedded

    @torch.no_grad()
    def earlier(self, step: int, batch: int) -> list[Tensor] | None:
        """The scores (queue, prototypes) of earlier images' global views, once there are enough
        of them."""
        if not self.queues or step < self.method.queue_start or step * batch < self.method.queue:
            return None
        return [self.prototypes(queue.bank, step) for queue in self.queues]
