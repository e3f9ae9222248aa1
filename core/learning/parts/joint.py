"""The loss of a joint model: denoising, and recognising the images whose class is known (JDM,
arXiv 2301.13622)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fw.core.kinds import Joint
from fw.core.learning.batches import Batch
from fw.core.learning.loop import Step
from fw.core.learning.parts.denoising import Denoising
from fw.core.learning.parts.objectives import gradient_ratios
from fw.core.learning.parts.part import Training
from fw.core.types import Annotation


class Losses(NamedTuple):
    """The denoising loss (), the cross entropy () and how often it recognised the class ()."""

    denoising: Tensor
    recognition: Tensor
    accuracy: Tensor


class Recognition(Denoising):
    """What a joint backbone learns. While batches have no conditions, that is denoising alone."""

    losses: Losses | None = None
    """Those of the last batch, if it had conditions."""

    def __init__(self, backbone: Joint, annotation: Annotation | None):
        """Without an annotation, as with an online annotator, all classes are known."""
        self.backbone = backbone
        known = None if annotation is None else annotation.known
        self.partial = known is not None and not bool(known.all())
        self.known = None if known is None else known.nonzero().flatten()
        self.conditions = None if annotation is None else annotation.conditions

    @property
    def alone(self) -> bool:
        """Whether recognition is all that is learned."""
        return math.isinf(self.backbone.weight)

    def join(self, training: Training) -> None:
        super().join(training)
        self.draw = training.draw
        if self.conditions is not None:
            self.conditions = self.conditions.to(training.job.device)

    def rows(self, rows: Tensor) -> Tensor:
        """All; if recognition is all that is learned, those with a class."""
        if not self.alone or self.known is None:
            return rows
        return rows[torch.isin(rows, self.known)]

    def loss(self, batch: Batch) -> Tensor:
        self.losses = None
        if batch.condition is None:
            return super().loss(batch)
        self.losses = self._losses(batch, batch.condition)
        return self.losses.denoising

    def add(self, loss: Tensor, batch: Batch, step: Step) -> Tensor:
        """L_denoise + weight * cross entropy; at weight .inf the latter alone."""
        if self.losses is None:
            return loss
        losses = self._beside(self.losses, step)
        if step.logged:
            step.log(self._values(losses))
        if self.alone:
            return losses.recognition
        return loss + self.backbone.weight * losses.recognition

    def _losses(self, batch: Batch, classes: Tensor) -> Losses:
        """The losses of a batch with these classes (B,), where -1 means no class."""
        losses = self.model.joint_loss(batch.x0, batch.sigma, batch.noise, classes)
        denoising, recognition, recognised = losses
        known = classes >= 0 if self.partial else None
        return Losses(denoising.mean(), mean(recognition, known), mean(recognised.float(), known))

    def _beside(self, losses: Losses, step: Step) -> Losses:
        """The same, recognising other labelled images than the batch if the backbone wants any."""
        if not self.backbone.labelled or self.known is None or not len(self.known):
            return losses
        assert self.conditions is not None
        batch = self.draw(self.known, self.backbone.labelled, step.number, "labelled")
        beside = self._losses(batch, self.conditions[batch.chosen])
        return Losses(losses.denoising, beside.recognition, beside.accuracy)

    def _values(self, losses: Losses) -> dict[str, Tensor]:
        """What is logged: the losses, and the norm of recognition's gradient over that of
        denoising, in what they share."""
        values = {"train/denoising_loss": losses.denoising, "train/accuracy": losses.accuracy}
        if self.alone:
            return values
        weighted = {"": self.backbone.weight * losses.recognition}
        ratio = gradient_ratios(weighted, losses.denoising, self.model.network)[""]
        return {**values, "train/recognition_gradient_ratio": ratio}


def mean(values: Tensor, known: Tensor | None) -> Tensor:
    """The mean () of values (B,). With `known`, bool (B,), of those alone: the others must be 0.
    0 if none is known."""
    return values.mean() if known is None else values.sum() / known.sum().clamp(min=1)
