"""Conditions that were made before the training: an annotation of its images."""

from __future__ import annotations

from fw.core.learning.batches import Batch
from fw.core.learning.loop import Step
from fw.core.learning.parts.part import Part, Training
from fw.core.machine.tables import Table
from fw.core.types import Annotation, ConditionSpec


class Conditions(Part):
    """Gives each image its condition. Class -1, of partial labels, means none."""

    def __init__(self, annotation: Annotation, null: bool):
        """`null`: whether an image of class -1 gets the null condition. A joint model reads classes
        off the image and gets the -1 itself: it is not trained to recognise such an image."""
        self.annotation = annotation
        self.null = null and not bool(annotation.known.all())

    @property
    def spec(self) -> ConditionSpec:
        return self.annotation.spec

    def join(self, training: Training) -> None:
        self.conditions = Table([self.annotation.conditions]).to(training.job.device)

    def begin(self, batch: Batch, step: Step) -> None:
        condition = batch.taken(self.conditions)
        if self.null:
            batch.dropped = batch.dropped | (condition < 0)
            condition = condition.clamp(min=0)
        batch.condition = condition
