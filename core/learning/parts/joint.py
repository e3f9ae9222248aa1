"""The loss of a joint model: denoising, and recognising the images whose class is known (JDM,
arXiv 2301.13622)."""

from __future__ import annotations

import math
from collections.abc import Iterator
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
    beside: Iterator[Batch] | None = None
    """Other labelled images that are recognised, for each part of a batch, if there are any."""

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
        self.draw, self.splits = training.draw, training.settings.accumulate
        self.team = training.job.team
        if self.conditions is not None:
            self.conditions = self.conditions.to(training.job.device)

    def rows(self, rows: Tensor) -> Tensor:
        """All; if recognition is all that is learned, those with a class."""
        if not self.alone or self.known is None:
            return rows
        return rows[torch.isin(rows, self.known)]

    def begin(self, batch: Batch, step: Step) -> None:
        """Draw the other labelled images that are recognised in place of the batch's, if the
        backbone wants any."""
        if not self.backbone.labelled or self.known is None or not len(self.known):
            return
        assert self.conditions is not None
        beside = self.draw(self.known, self.backbone.labelled, step.number, "labelled")
        beside.condition = self.conditions[beside.chosen]
        self.beside = iter(beside.split(self.splits))

    def loss(self, batch: Batch) -> Tensor:
        self.losses = None
        if batch.condition is None:
            return super().loss(batch)
        self.losses = self._losses(batch)
        return self.losses.denoising

    def add(self, loss: Tensor, batch: Batch, step: Step) -> Tensor:
        """L_denoise + weight * cross entropy; at weight .inf the latter alone."""
        if self.losses is None:
            return loss
        losses = self._beside(self.losses)
        if step.logged:
            step.log(self._values(losses, batch))
        if self.alone:
            return losses.recognition
        return loss + self.backbone.weight * losses.recognition

    def _losses(self, batch: Batch) -> Losses:
        """The losses of a batch with its classes (B,), where -1 means no class. Recognition is the
        mean over the images with a class: of the others it is 0."""
        classes, of_all = batch.condition, batch.all.condition
        assert classes is not None
        assert of_all is not None
        losses = self.model.joint_loss(batch.x0, batch.sigma, batch.noise, classes)
        denoising, recognition, recognised = losses
        if not self.partial:
            return Losses(*map(batch.mean, (denoising, recognition, recognised.float())))
        known = self.team.total((of_all >= 0).sum()).clamp(min=1)
        right = recognised.float().sum()
        return Losses(batch.mean(denoising), recognition.sum() / known, right / known)

    def _beside(self, losses: Losses) -> Losses:
        """The same, recognising the other labelled images if there are any."""
        if self.beside is None:
            return losses
        beside = self._losses(next(self.beside))
        return Losses(losses.denoising, beside.recognition, beside.accuracy)

    def _values(self, losses: Losses, batch: Batch) -> dict[str, Tensor]:
        """What is logged: the losses, and the norm of recognition's gradient over that of
        denoising, in what they share."""
        values = {"train/denoising_loss": losses.denoising, "train/accuracy": losses.accuracy}
        if self.alone:
            return values
        weighted = {"": self.backbone.weight * losses.recognition}
        ratio = gradient_ratios(weighted, losses.denoising, self.model.network, self.team)[""]
        return {**values, "train/recognition_gradient_ratio": batch.share * ratio}
