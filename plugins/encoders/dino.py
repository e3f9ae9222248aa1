"""DINO: self-distillation with no labels (Caron et al. 2021, arXiv 2104.14294, algorithm 1), trained here with lightly."""

from __future__ import annotations

import copy
import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from fw.core.diffusion import to_unit
from fw.core.errors import StageFailed
from fw.core.job import Job
from fw.core.kinds import Encoder
from fw.core.randomness import seed_from
from fw.core.types import ImageSet
from fw.plugins.encoders.views import VIEWS


class Dino(Encoder):
    """DINO, trained on the training images at their own resolution without labels (arXiv 2104.14294).

    The features are those of the teacher's backbone. The defaults suit the digits; for photographs take
    `backbone: resnet18`, `augment: photos`, wider heads and many more steps.
    """

    name: ClassVar[str] = "dino"

    steps: int = Field(250, ge=1, description="training steps")
    batch: int = Field(128, ge=2, description="images per step")
    lr: float = Field(2e-3, gt=0, description="AdamW's learning rate; falls to 0 along a cosine")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's weight decay")
    backbone: Literal["conv", "resnet18", "vit_tiny"] = Field(
        "conv", description="conv: a few convolutions; resnet18: with a 3x3 stem for small images; vit_tiny: 8x8 patches"
    )
    width: int = Field(128, ge=8, description="feature dimension of the conv backbone")
    hidden: int = Field(256, ge=1, description="hidden dimension of the projection head")
    bottleneck: int = Field(64, ge=1, description="dimension before the prototypes")
    prototypes: int = Field(512, ge=2, description="output dimension of the projection head")
    local_views: int = Field(2, ge=0, description="local views beside the two global ones")
    augment: Literal["digits", "photos"] = Field("digits", description="which random views; see the file views.py")
    momentum: float = Field(0.98, ge=0, le=1, description="the teacher's momentum at the start; rises to 1")
    teacher_temperature: tuple[float, float] = Field((0.04, 0.06), description="from, to; linear over a third")
    student_temperature: float = Field(0.1, gt=0, description="the student's temperature")

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        return ImageEncoder(BACKBONES[self.backbone](shape, self.width))

    def fit(self, network: nn.Module, data: ImageSet, job: Job) -> None:
        from lightly.loss import DINOLoss
        from lightly.models.utils import update_momentum
        from lightly.utils.scheduler import cosine_schedule

        network = network.to(job.device).train()
        teacher = network.backbone
        student = copy.deepcopy(teacher)
        head, teacher_head = self._heads(student, data, job)
        criterion = DINOLoss(self.prototypes, student_temp=self.student_temperature).to(job.device)
        parameters = [*student.parameters(), *(p for p in head.parameters() if p.requires_grad)]
        optimizer = torch.optim.AdamW(parameters, lr=self.lr, weight_decay=self.weight_decay)
        state = {
            "student": student,
            "teacher": teacher,
            "head": head,
            "teacher_head": teacher_head,
            "criterion": criterion,
            "optimizer": optimizer,
        }
        images = data.images.to(job.device)
        view = VIEWS[self.augment]
        for step in job.steps(self.steps, state):
            generator = job.generator("views", step, device=job.device)
            chosen = torch.randint(len(images), (self.batch,), generator=generator, device=job.device)
            batch = images[chosen].float() / 255
            whole = 2 * view(batch.repeat(2, 1, 1, 1), False, generator) - 1  # (2 * batch, C, H, W)
            parts = 2 * view(batch.repeat(self.local_views, 1, 1, 1), True, generator) - 1
            with torch.no_grad():
                features = teacher(whole)
                targets = teacher_head(features).chunk(2)
            guesses = head(student(torch.cat([whole, parts]))).chunk(2 + self.local_views)
            loss = criterion(list(targets), list(guesses), teacher_temp=self._temperature(step))
            for group in optimizer.param_groups:
                group["lr"] = cosine_schedule(step, self.steps, self.lr, 0.0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            momentum = cosine_schedule(step, self.steps, self.momentum, 1.0)
            update_momentum(student, teacher, momentum)
            update_momentum(head, teacher_head, momentum)
            if step % LOG_EVERY == 0:
                job.log(step, {"loss": loss, "spread": spread(features)})
