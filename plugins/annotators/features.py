"""An encoder's features as conditions, as in RCG (arXiv 2312.03701, section 3)."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fw.core.errors import FwError, StageFailed
from fw.core.files.stacked import stacked
from fw.core.job import Job
from fw.core.kinds import Annotator
from fw.core.machine.tables import all_finite, in_parts
from fw.core.types import Annotation, ConditionSpec, Observations

CONSTANT = 1e-6
"""Features that vary by less than this times the largest of them are constant up to rounding."""


class Representation(Annotator):
    """Each image's own features as its condition, standardised per image (RCG, arXiv 2312.03701).

    Without a `prior`, samples are made for the representations of random training images: RCG's
    oracle, whose samples may come close to copies. With `prior: rdm` it is RCG, which samples from
    nothing but noise.
    """

    name: ClassVar[str] = "representation"
    form: ClassVar[str] = "vector"

    dims: int | None = Field(
        None,
        ge=2,
        description=(
            "project on so many principal components first; RCG is best at 256 and worse at 768"
        ),
    )

    @property
    def least_images(self) -> int:
        return self.dims or 1

    def annotate(self, data: Observations, job: Job) -> Annotation:
        if data.features is None:
            raise StageFailed(
                "annotator representation takes features as conditions: give the arm an encoder"
            )
        features = data.features.cpu()  # (N, D)
        if not all_finite(features):
            raise StageFailed("annotator representation: the encoder's features are not all finite")
        if features.shape[1] < 2:
            raise FwError(
                "annotator representation: one feature per image says nothing once it is "
                "standardised"
            )
        if self.dims is not None:
            features = self._projected(features, self.dims)
        conditions = stacked(map(standardised, in_parts(features)), job.folder)
        return Annotation(ConditionSpec("vector", conditions.shape[1]), conditions)

    def _projected(self, features: Tensor, dims: int) -> Tensor:
        """The first principal components (N, dims) of features (N, D)."""
        from sklearn.decomposition import PCA

        most = min(features.shape)
        if dims > most:
            raise FwError(
                f"annotator representation: dims is {dims}, but {features.shape[0]} images with "
                f"{features.shape[1]} features have at most {most} principal components"
            )
        return torch.from_numpy(
            PCA(dims, svd_solver="full").fit_transform(features.double().numpy())
        )


def standardised(features: Tensor) -> Tensor:
    """Each image's features (N, D) with mean 0 and unbiased standard deviation 1, as float32."""
    exact = features.double()
    spread = exact.std(dim=1, keepdim=True)  # (N, 1)
    constant = int((spread <= CONSTANT * exact.abs().amax(dim=1, keepdim=True)).sum())
    if constant:
        raise StageFailed(
            f"annotator representation: all features of an image are the same number in {constant} "
            f"of {len(exact)} images, so they cannot be standardised; is the encoder trained?"
        )
    return ((exact - exact.mean(dim=1, keepdim=True)) / spread).float()
