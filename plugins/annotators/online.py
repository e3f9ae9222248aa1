"""Clusters found during training, in the diffusion model's own features (SGFM, arXiv
2312.08825), with lightly."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import dropout, normalize

from fw.core.errors import FwError
from fw.core.kinds import Online
from fw.core.types import ConditionSpec


class OnlineClusters(Online):
    """Prototypes that Sinkhorn balances over the images, in the denoiser's own features (SGFM,
    arXiv 2312.08825).

    The paper takes K = 300 for 100 classes of ImageNet and 5000 for all, dims 1024 and hidden 512,
    the middle block, and in sampling scale 1.4 (its 0.4 is scale - 1). Its code has no queue,
    although more prototypes than images in a batch need one; it reads assignments through a null
    condition that is no longer trained, and starts from class-conditional weights. Here K <= batch
    + queue, the null is trained all along, and weights start at random. On digits, `pool: false`,
    epsilon 0.03 and a queue of 1024 do better than the paper's choices.
    """

    name: ClassVar[str] = "online"

    clusters: int = Field(
        30, ge=2, description="number of prototypes, K; no more than batch + queue"
    )
    hidden: int = Field(256, ge=1, le=65536, description="hidden dimension of the head")
    dims: int = Field(
        64, ge=2, le=65536, description="dimension of the prototypes, which are the conditions"
    )
    hide: float = Field(
        0.8,
        ge=0,
        lt=1,
        description="share of the features that predictions do not see; the paper's is 0",
    )
    temperature: float = Field(
        0.1, ge=1e-30, description="temperature of the predictions' softmax; tau"
    )
    epsilon: float = Field(0.05, ge=0.02, description="entropy of the assignments; lower is harder")
    iterations: int = Field(3, ge=1, description="Sinkhorn-Knopp iterations")
    queue: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="earlier images that are assigned with the batch, once there are so many",
    )
    freeze: int = Field(100, ge=0, description="steps in which the prototypes stay as they are")

    @property
    def condition(self) -> ConditionSpec:
        return ConditionSpec("vector", self.dims)

    def check_batch(self, batch: int) -> None:
        if batch + self.queue < self.clusters:
            raise ValueError(
                f"annotator online: {self.clusters} prototypes need as many images at once, and a "
                f"batch and the queue are {batch + self.queue}: raise `queue`"
            )

    def build(self, width: int) -> nn.Module:
        return Prototypes(self, width)


class Prototypes(nn.Module):
    """A head and the directions that it is compared with by cosine; a `fw.core.kinds.Grouping`."""

    earlier: Tensor
    """The queue of directions (queue, D), the latest first."""
    seen: Tensor
    """How many images were trained on (); its name is in checkpoints."""

    def __init__(self, method: OnlineClusters, width: int):
        from lightly.loss import SwaVLoss
        from lightly.models.modules import SwaVProjectionHead

        super().__init__()
        self.method = method
        self.head = SwaVProjectionHead(
            width, method.hidden, method.dims
        )  # Linear, BatchNorm, ReLU, Linear
        self.directions = nn.Parameter(torch.randn(method.clusters, method.dims))
        self.criterion = SwaVLoss(method.temperature, method.iterations, method.epsilon)
        self.register_buffer("earlier", torch.zeros(method.queue, method.dims))
        self.register_buffer("seen", torch.tensor(0))
        self.count = 0  # the same, for which a GPU need not be waited for

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        loaded = super().load_state_dict(*args, **kwargs)
        self.count = int(self.seen)
        return loaded

    @property
    def prototypes(self) -> Tensor:
        return normalize(self.directions, dim=1)  # (K, D)

    def scores(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, F) as directions (B, D), and their cosines with the prototypes (B, K)."""
        embedded = normalize(self.head(features), dim=1)
        return embedded, embedded @ self.prototypes.T

    def assign(self, features: Tensor) -> Tensor:
        return self.scores(features)[1].argmax(dim=1)

    def loss(self, features: Tensor, step: int) -> Tensor:
        """The cross entropy of an image's softmax over prototypes with what Sinkhorn assigns to it
        (SwAV, eq. 2).

        The assignment comes from all features, its prediction from some of them, which stand for
        SwAV's second view: a prediction from the same features need not mean anything.
        """
        count = len(features) + self.method.queue
        if count < self.method.clusters:
            raise FwError(
                f"annotator online: {self.method.clusters} prototypes need as many images at once, "
                f"and a batch and the queue are {count}: raise `queue`"
            )
        self.directions.requires_grad_(step >= self.method.freeze)
        some = dropout(features, self.method.hide)
        embedded, scores = (
            both.chunk(2) for both in self.scores(torch.cat([features, some]))
        )  # (B, D), (B, K) twice
        full = self.method.queue and self.count >= self.method.queue
        queued = [self.earlier @ self.prototypes.T] if full else None
        loss = self.criterion(scores[:1], scores[1:], queued)
        self.earlier.copy_(torch.cat([embedded[0].detach(), self.earlier])[: self.method.queue])
        self.seen += len(features)
        self.count += len(features)
        return loss.squeeze()
