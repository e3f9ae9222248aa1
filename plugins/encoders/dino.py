"""DINO: self-distillation with no labels (Caron et al., arXiv 2104.14294, algorithm 1), trained
here with lightly."""

from __future__ import annotations

import copy
import warnings
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from fw.core.learning.rows import ALONE, Rows
from fw.core.machine.precision import autocast, lengthened
from fw.plugins.encoders.joint_embedding import JointEmbedding
from fw.plugins.encoders.self_supervised import Learner
from fw.plugins.encoders.trunks import ImageEncoder
from fw.registry import Neutral


class Dino(JointEmbedding):
    """DINO, trained on the training images at their own resolution without labels (arXiv
    2104.14294).

    The features are those of the teacher's backbone; for the published weights take `dinov1`. The
    defaults suit the digits; for photographs take `backbone: resnet18`, momentum 0.996, a wider
    head and many more steps.
    """

    name: ClassVar[str] = "dino"

    hidden: int = Field(256, ge=1, le=65536, description="hidden dimension of the projection head")
    bottleneck: int = Field(
        64, ge=1, le=65536, description="dimension of the head before the prototypes"
    )
    prototypes: int = Field(128, ge=2, le=1_000_000, description="output dimension of the head")
    local_views: int = Field(
        2, ge=0, le=100, description="local views of each image, beside two global ones"
    )
    solarise: Annotated[float, Neutral(0.0)] = Field(
        0.0,
        ge=0,
        le=1,
        description="share of second global views whose bright pixels are inverted; for "
        "photographs DINO has 0.2; its blur, of 2 in 224 pixels, is nothing in small images",
    )
    momentum: float = Field(
        0.95, ge=0, le=1, description="the teacher's momentum at the start; rises to 1"
    )
    teacher_temperature: float = Field(
        0.06, ge=1e-15, description="reached from 0.04 after a third of the steps"
    )
    student_temperature: float = Field(
        0.1, ge=1e-30, description="temperature of the student's softmax"
    )

    def learner(self, network: ImageEncoder) -> Learner:
        return Distillation(self, network)


class Distillation(Learner):
    """A student learns a teacher's assignments to prototypes from other views; the teacher is
    its moving average.

    The loss is the mean over pairs of a teacher's view and another one, as in algorithm 1; eq. 3
    has the sum.
    """

    def __init__(self, method: Dino, network: ImageEncoder):
        from lightly.loss import DINOLoss

        super().__init__()
        self.method = method
        self.student = copy.deepcopy(network.backbone)
        self.teacher = network.backbone.requires_grad_(False)
        self.head = projection_head(method, network.dims)
        self.teacher_head = projection_head(method, network.dims).requires_grad_(
            False
        )  # it cannot be deep-copied
        self.teacher_head.load_state_dict(self.head.state_dict())
        self.criterion = DINOLoss(method.prototypes, student_temp=method.student_temperature)
        self.criterion.update_center = self.move_centre

    def forward(
        self, images: Tensor, step: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        method = self.method
        wholes = method.views(images, 2, generator, rows=self.rows)  # (2 * batch, C, H, W)
        if method.solarise:
            first, second = wholes.chunk(2)
            bright = solarised(second, method.solarise, generator, self.rows)
            wholes = torch.cat([first, bright])
        parts = method.views(images, method.local_views, generator, local=True, rows=self.rows)
        with torch.no_grad():
            targets = self.teacher_head(self.teacher(wholes))  # (2 * batch, prototypes)
        guesses = self.head(self.student(torch.cat([wholes, parts])))
        targets, guesses = lengthened(targets), lengthened(guesses)
        with autocast("fp32", images.device):
            loss = self.criterion(
                list(targets.chunk(2)),
                list(guesses.chunk(2 + method.local_views)),
                teacher_temp=self.temperature(step),
            )
        return self.rows.part(loss), targets

    @torch.no_grad()
    def move_centre(self, targets: Tensor) -> None:
        """The centre follows the mean of targets (2, batch, prototypes) over the images of all
        members; lightly's takes the mean of the members' means, which may differ in size."""
        criterion = self.criterion
        mean = self.rows.mean(targets, dim=(0, 1), keepdim=True)
        kept = criterion.center_momentum
        criterion.center.data = criterion.center * kept + mean * (1 - kept)

    def temperature(self, step: int) -> float:
        """The teacher's temperature: a linear warm-up from 0.04."""
        return 0.04 + (self.method.teacher_temperature - 0.04) * min(
            1.0, 3 * step / self.method.steps
        )

    def follow(self, step: int) -> None:
        from lightly.models.utils import update_momentum
        from lightly.utils.scheduler import cosine_schedule

        momentum = cosine_schedule(step, self.method.steps, self.method.momentum, 1.0)
        update_momentum(self.student, self.teacher, momentum)
        update_momentum(self.head, self.teacher_head, momentum)


def solarised(
    views: Tensor, share: float, generator: torch.Generator, rows: Rows = ALONE
) -> Tensor:
    """Views (B, C, H, W) in -1..1, a share of them with pixels above the middle inverted. DINO also
    blurs, by at most 2 of 224 pixels: of 32 pixels that would be less than a third of one."""
    count = rows.everywhere(len(views))
    chosen = rows.own(torch.rand(count, generator=generator, device=views.device)) < share
    return torch.where(chosen[:, None, None, None], -views.abs(), views)


def projection_head(method: Dino, dims: int) -> nn.Module:
    from lightly.models.modules import DINOProjectionHead

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*weight_norm", category=FutureWarning)
        return DINOProjectionHead(
            dims,
            method.hidden,
            method.bottleneck,
            method.prototypes,
            batch_norm=method.backbone
            != "vit_tiny",  # without any, the loss stays at log(prototypes)
        )
