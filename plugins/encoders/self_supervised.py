"""How encoders are trained without labels: one resumable loop over random images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import normalize

from fw.core.errors import StageFailed
from fw.core.job import Job
from fw.core.kinds import Encoder
from fw.core.learning.batch_norm import normed_together
from fw.core.learning.loop import Step, descend
from fw.core.learning.optimizers import adam
from fw.core.learning.rows import ALONE, Rows
from fw.core.machine.precision import ABOUT, Precision, autocast, lengthened
from fw.core.machine.tables import Table
from fw.core.randomness import seeded, some
from fw.core.types import LARGEST, ImageSet
from fw.plugins.encoders.epochs import too_short
from fw.plugins.encoders.trunks import ImageEncoder
from fw.plugins.encoders.weights import existing, load_weights, sha256
from fw.plugins.shared.stated import Stated, check_stated, of_weights
from fw.registry import Neutral, Supervision

COLLAPSED = 1e-3


class Learner(nn.Module):
    """All that a training changes: the backbone and what only the training needs.

    Its children are checkpointed, so everything that has to survive a crash is in the state dict of
    one of them. The optimizer gets only what requires gradients.
    """

    rows: Rows = ALONE
    """Which of the step's images the learner gets, where a team shares the batch."""

    def forward(
        self, images: Tensor, step: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """What images (B, C, H, W) in 0..1 add to the loss of the step's; vectors (N, D) whose
        spread shows collapse."""
        raise NotImplementedError

    def follow(self, step: int) -> None:
        """Let momentum networks follow, after the optimizer's step."""


class SelfSupervised(Encoder):
    """Trains a backbone on the training images without labels, or loads one."""

    version: ClassVar[int] = 2

    steps: int = Field(
        250, ge=1, description="training steps; the default suits the digits", examples=[8]
    )
    batch: int = Field(128, ge=2, le=1_000_000, description="images per step")
    lr: float = Field(
        2e-3, gt=0, le=LARGEST, description="AdamW's learning rate, which falls to 0 along a cosine"
    )
    warmup: Annotated[int, Neutral(0)] = Field(
        0, ge=0, description="steps of linear warm-up before that; DINO's has 10 epochs"
    )
    clip: Annotated[float | None, Neutral(None)] = Field(
        None, gt=0, description="gradient norm is clipped to this, DINO's to 3; null never clips"
    )
    weight_decay: float = Field(0.01, ge=0, le=LARGEST, description="AdamW's weight decay")
    precision: Annotated[Precision, Neutral("fp32")] = Field("fp32", description=ABOUT)
    weights: Annotated[Path | None, Neutral(None, names_folders=True)] = Field(
        None, description="a file with the backbone's weights, loaded instead of training"
    )
    supervision: Stated = None

    @model_validator(mode="after")
    def _warmed_up(self) -> Self:
        if self.warmup and self.warmup >= self.steps:
            raise ValueError(f"warmup ({self.warmup}) must be shorter than steps ({self.steps})")
        return self

    @model_validator(mode="after")
    def _says_it_of_weights(self) -> Self:
        check_stated(self.supervision, self.weights)
        return self

    @property
    def computes_in(self) -> Precision:
        return self.precision

    @property
    def own_supervision(self) -> Supervision:
        return of_weights(self.weights, self.supervision)

    @abstractmethod
    def learner(self, network: ImageEncoder) -> Learner:
        """The learner for `network.backbone`. Torch's global generator is seeded by the job."""

    def cautions(self, shape: tuple[int, int, int], images: int | None) -> Iterator[str]:
        if self.weights is None:
            yield from too_short(self.name, self.steps, self.batch, images)

    def preflight(self) -> None:
        if self.weights is not None:
            existing(self.weights)

    def identity(self) -> dict[str, Any]:
        """The content of `weights` counts, not where it lies."""
        identity = super().identity()
        return identity if self.weights is None else {**identity, "weights": sha256(self.weights)}

    def fit(self, network: nn.Module, data: ImageSet, job: Job) -> None:
        assert isinstance(network, ImageEncoder)
        network.to(job.device)
        if self.weights is not None:
            load_weights(network, self.weights)
        else:
            self._train(network, data, job)

    def _train(self, network: ImageEncoder, data: ImageSet, job: Job) -> None:
        network.train().requires_grad_(True)
        with seeded(job.seed, "head"):
            learner = self.learner(network).to(job.device)
        rows = learner.rows = Rows.shared(self.batch, job.team)
        learned = [parameter for parameter in learner.parameters() if parameter.requires_grad]
        optimizer = adam(learned, self.lr, self.weight_decay)
        images = Table([data.images]).to(job.device)

        def loss(step: Step) -> Tensor:
            draw = job.generator("views", step.number, device=job.device)
            chosen = torch.randint(len(images), (self.batch,), generator=draw, device=job.device)
            shown = images.take(rows.own(chosen)).to(torch.get_default_dtype()) / 255
            with autocast(self.precision, job.device):
                value, vectors = learner(shown, step.number, draw)
            if step.logged:
                everywhere = lengthened(rows.whole(vectors.detach()))
                step.log({"spread": rows.team.part(spread(everywhere))})
            return lengthened(value)

        with normed_together(learner, rows.team):
            descend(
                job,
                self.steps,
                loss,
                optimizer,
                dict(learner.named_children()),
                rate=self.rate,
                clip=self.clip,
                follow=lambda step: learner.follow(step.number),
                log_last=False,
                split=rows.split,
            )
        with torch.no_grad():
            looked_at = some(len(images), 1000, job.seed, "collapse").to(job.device)
            if spread(network.eval()(images.take(looked_at))) < COLLAPSED:
                raise StageFailed(
                    f"encoder {self.name} collapsed, all images have the same features: lower lr "
                    "or weight_decay?"
                )

    def rate(self, step: int) -> float:
        """The learning rate: up along a line, down along a cosine."""
        from lightly.utils.scheduler import cosine_schedule

        if step < self.warmup:
            return self.lr * (step + 1) / (self.warmup + 1)
        return cosine_schedule(step - self.warmup, self.steps - self.warmup, self.lr, 0.0)


def spread(vectors: Tensor) -> Tensor:
    """How different the directions of vectors (B, D) are: 0 when all are alike, 1 when their
    mean is 0."""
    return normalize(vectors, dim=1).var(dim=0, correction=0).sum().sqrt()
