"""DINO: self-distillation with no labels (Caron et al., arXiv 2104.14294, algorithm 1), trained here with lightly."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import normalize

from fw.core.diffusion import to_unit
from fw.core.errors import StageFailed
from fw.core.job import Job
from fw.core.kinds import Encoder
from fw.core.randomness import seed_from
from fw.core.types import ImageSet
from fw.plugins.encoders.views import VIEWS

LOG_EVERY = 10


class Dino(Encoder):
    """DINO, trained on the training images at their own resolution without labels (arXiv 2104.14294).

    The features are those of the teacher's backbone. The defaults suit the digits; for photographs take
    `backbone: resnet18`, `augment: photos`, momentum 0.996, a wider head and many more steps.
    """

    name: ClassVar[str] = "dino"

    steps: int = Field(250, ge=1, description="training steps", examples=[8])
    batch: int = Field(128, ge=2, description="images per step")
    lr: float = Field(2e-3, gt=0, description="AdamW's learning rate, which falls to 0 along a cosine")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's weight decay")
    backbone: Literal["conv", "resnet18", "vit_tiny"] = Field(
        "conv", description="conv: a few convolutions; resnet18: with a 3x3 stem; vit_tiny: with 8x8 patches"
    )
    width: int = Field(128, ge=8, multiple_of=4, description="feature dimension of the conv backbone")
    hidden: int = Field(256, ge=1, description="hidden dimension of the projection head")
    bottleneck: int = Field(64, ge=1, description="dimension of the head before the prototypes")
    prototypes: int = Field(128, ge=2, description="output dimension of the head")
    local_views: int = Field(2, ge=0, description="local views of each image, beside two global ones")
    augment: Literal["digits", "photos"] = Field("digits", description="the random views, see views.py")
    momentum: float = Field(0.95, ge=0, le=1, description="the teacher's momentum at the start; rises to 1")
    teacher_temperature: float = Field(0.06, gt=0, description="reached from 0.04 after a third of the steps")
    student_temperature: float = Field(0.1, gt=0, description="temperature of the student's softmax")

    def check(self, shape: tuple[int, int, int]) -> None:
        _, height, width = shape
        if self.backbone == "vit_tiny" and (height != width or height % 8):
            raise ValueError(
                f"encoder dino: vit_tiny needs square images whose side divides by 8, not {height}x{width}"
            )

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        self.check(shape)
        return ImageEncoder(*BACKBONES[self.backbone](shape, self.width))

    def fit(self, network: nn.Module, data: ImageSet, job: Job) -> None:
        from lightly.loss import DINOLoss
        from lightly.models.utils import update_momentum
        from lightly.utils.scheduler import cosine_schedule

        assert isinstance(network, ImageEncoder)
        teacher = network.to(job.device).train().backbone
        student = copy.deepcopy(teacher)
        head, teacher_head = (self._head(network.dims, job).to(job.device) for _ in range(2))
        criterion = DINOLoss(self.prototypes, student_temp=self.student_temperature).to(job.device)
        learned = [p for p in [*student.parameters(), *head.parameters()] if p.requires_grad]
        optimizer = torch.optim.AdamW(learned, lr=self.lr, weight_decay=self.weight_decay)
        state = {
            "student": student,
            "teacher": teacher,
            "head": head,
            "teacher_head": teacher_head,
            "criterion": criterion,
            "optimizer": optimizer,
        }
        images = data.images.to(job.device)
        for step in job.steps(self.steps, state):
            wholes, parts = self._views(images, job.generator("views", step, device=job.device))
            with torch.no_grad():
                targets = teacher_head(teacher(wholes))  # (2 * batch, prototypes)
            guesses = head(student(torch.cat([wholes, parts]))).chunk(2 + self.local_views)
            loss = criterion(list(targets.chunk(2)), list(guesses), teacher_temp=self._temperature(step))
            for group in optimizer.param_groups:
                group["lr"] = cosine_schedule(step, self.steps, self.lr, 0.0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            momentum = cosine_schedule(step, self.steps, self.momentum, 1.0)
            update_momentum(student, teacher, momentum)
            update_momentum(head, teacher_head, momentum)
            if step % LOG_EVERY == 0:
                job.log(step, {"loss": loss, "spread": spread(targets)})
        with torch.no_grad():
            if spread(network.eval()(images[:1000])) < COLLAPSED:
                raise StageFailed("encoder dino collapsed, all images have the same features: lower lr or momentum?")

    def _head(self, dims: int, job: Job) -> nn.Module:
        """A projection head with this job's initial weights, the same on every call (heads cannot be deep-copied)."""
        from lightly.models.modules import DINOProjectionHead

        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*weight_norm", category=FutureWarning)
            torch.manual_seed(seed_from(job.seed, "head"))
            return DINOProjectionHead(
                dims,
                self.hidden,
                self.bottleneck,
                self.prototypes,
                batch_norm=self.backbone != "vit_tiny",  # without any, the loss stays at log(prototypes)
            )

    def _views(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Global (2 * batch, C, H, W) and local (local_views * batch, C, H, W) views of random images, in -1..1."""
        view = VIEWS[self.augment]
        chosen = torch.randint(len(images), (self.batch,), generator=generator, device=images.device)
        batch = images[chosen].float() / 255
        wholes = view(batch.repeat(2, 1, 1, 1), False, generator)
        parts = view(batch.repeat(self.local_views, 1, 1, 1), True, generator) if self.local_views else wholes[:0]
        return 2 * wholes - 1, 2 * parts - 1

    def _temperature(self, step: int) -> float:
        """The teacher's temperature: a linear warm-up from 0.04."""
        return 0.04 + (self.teacher_temperature - 0.04) * min(1.0, 3 * step / self.steps)


class ImageEncoder(nn.Module):
    """A backbone with its feature dimension: uint8 images (B, C, H, W) to features (B, dims)."""

    def __init__(self, backbone: nn.Module, dims: int):
        super().__init__()
        self.backbone = backbone
        self.dims = dims

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone(to_unit(images))


COLLAPSED = 1e-3


def spread(vectors: Tensor) -> Tensor:
    """How different the directions of vectors (B, D) are: 0 when all are alike, 1 when their mean is 0."""
    return normalize(vectors, dim=1).var(dim=0, correction=0).sum().sqrt()


def conv(shape: tuple[int, int, int], width: int) -> tuple[nn.Module, int]:
    """Convolutions that halve the side down to about 4, then a normalised linear layer on a 2x2 map."""
    channels, *sides = shape
    halvings = max(1, round(math.log2(max(sides) / 4)))
    layers: list[nn.Module] = []
    wider = width // 4
    for stride in [1, *[2] * halvings, 1]:
        layers += [nn.Conv2d(channels, wider, 3, stride, padding=1, bias=False), nn.BatchNorm2d(wider), nn.ReLU()]
        channels, wider = wider, min(2 * wider, width)
    layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, width), nn.BatchNorm1d(width)]
    return nn.Sequential(*layers), width


def resnet18(shape: tuple[int, int, int], width: int) -> tuple[nn.Module, int]:
    """ResNet-18 with a 3x3 stem and no pooling after it, as is usual for 32x32 images; 512 features."""
    from torchvision.models import resnet18 as torchvision_resnet18

    network = torchvision_resnet18(weights=None)
    network.conv1 = nn.Conv2d(shape[0], 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    network.fc = nn.Identity()
    return network, 512


def vit_tiny(shape: tuple[int, int, int], width: int) -> tuple[nn.Module, int]:
    """ViT-Ti (12 blocks, 192 features) on 8x8 patches per image; the features are the class token's."""
    from timm.models.vision_transformer import VisionTransformer

    channels, height, _ = shape
    network = VisionTransformer(
        img_size=height, patch_size=height // 8, in_chans=channels, num_classes=0, embed_dim=192, num_heads=3
    )
    return network, 192


BACKBONES: Mapping[str, Callable[[tuple[int, int, int], int], tuple[nn.Module, int]]] = {
    "conv": conv,
    "resnet18": resnet18,
    "vit_tiny": vit_tiny,
}
