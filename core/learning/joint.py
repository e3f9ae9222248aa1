"""The loss of a joint model: denoising, and recognising the images whose class is known (JDM, arXiv 2301.13622)."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from fw.core.diffusion.denoiser import Denoiser
from fw.core.kinds import Joint
from fw.core.learning.objectives import gradient_ratios
from fw.core.types import Annotation


class Noisy(NamedTuple):
    """Training images of one step: their places (B,), x0 (B, C, H, W), noise levels (B,), noise like x0, and which of
    their conditions are dropped, bool (B,)."""

    chosen: Tensor
    x0: Tensor
    sigma: Tensor
    noise: Tensor
    dropped: Tensor


class Losses(NamedTuple):
    """The denoising loss (), the cross entropy () and how often it recognised the class ()."""

    denoising: Tensor
    recognition: Tensor
    accuracy: Tensor


class Take(Protocol):
    """`count` of the images `rows` (N,) in noise, as a function of the step and the stream."""

    def __call__(self, rows: Tensor, count: int, step: int, *stream: str) -> Noisy: ...


class JointLoss:
    """What a joint backbone learns at one step, of an arm with conditions."""

    def __init__(self, backbone: Joint, annotation: Annotation | None, take: Take):
        """Without an annotation, as where conditions are found online, all classes are known."""
        self.backbone = backbone
        self.take = take
        known = None if annotation is None else annotation.known
        self.partial = known is not None and not bool(known.all())
        self.known = None if known is None else known.nonzero().flatten()
        self.conditions = None if annotation is None else annotation.conditions

    @property
    def alone(self) -> bool:
        """Whether recognition is all that is learned."""
        return math.isinf(self.backbone.weight)

    def __call__(self, model: Denoiser, batch: Noisy, classes: Tensor) -> Losses:
        """The losses of a batch with these classes (B,), of which -1 is none."""
        denoising, recognising, recognised = model.joint_loss(batch.x0, batch.sigma, batch.noise, classes)
        known = classes >= 0 if self.partial else None
        return Losses(denoising.mean(), mean(recognising, known), mean(recognised.float(), known))

    def beside(self, model: Denoiser, losses: Losses, step: int) -> Losses:
        """The same with the recognition of images beside the batch, if the backbone asks for any."""
        if not self.backbone.labelled or self.known is None or not len(self.known):
            return losses
        assert self.conditions is not None
        batch = self.take(self.known, self.backbone.labelled, step, "labelled")
        found = self(model, batch, self.conditions.to(batch.chosen.device)[batch.chosen])
        return Losses(losses.denoising, found.recognition, found.accuracy)

    def shown(self, count: int) -> Tensor:
        """Of `count` training images those that batches are made of: all, or for recognition alone those of a class."""
        return self.known if self.alone and self.known is not None else torch.arange(count)

    def log(self, losses: Losses, network: nn.Module) -> dict[str, Tensor]:
        """The losses, and how long the gradient of recognition is beside that of denoising, in what they share."""
        values = {"train/denoising_loss": losses.denoising, "train/accuracy": losses.accuracy}
        if self.alone:
            return values
        ratio = gradient_ratios({"": self.backbone.weight * losses.recognition}, losses.denoising, network)[""]
        return {**values, "train/recognition_gradient_ratio": ratio}

    def total(self, losses: Losses) -> Tensor:
        return losses.recognition if self.alone else losses.denoising + self.backbone.weight * losses.recognition


def mean(values: Tensor, known: Tensor | None) -> Tensor:
    """The mean of values (B,), of the known ones alone if a bool (B,) says which; the others are 0. 0 if none is."""
    return values.mean() if known is None else values.sum() / known.sum().clamp(min=1)
