"""What every training learns of a batch: to denoise it (EDM, arXiv 2206.00364, eq. 8)."""

from __future__ import annotations

from torch import Tensor

from fw.core.learning.batches import Batch
from fw.core.learning.parts.part import Part, Training


class Denoising(Part):
    """The part of a training that calls the network."""

    def join(self, training: Training) -> None:
        self.model = training.model

    def loss(self, batch: Batch) -> Tensor:
        """The loss () of the batch, or what this part of it adds to it, from one pass of the
        network."""
        dropped = None if batch.condition is None else batch.dropped
        errors = self.model.loss(
            batch.x0, batch.sigma, batch.noise, batch.condition, dropped, batch.augmentation
        )
        return batch.mean(errors)
