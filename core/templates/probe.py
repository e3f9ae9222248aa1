"""The nearest class mean: a reader with nothing to choose (Mensink et al., 2013, section 3)."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field

from fw.core.errors import StageFailed
from fw.core.job import Job
from fw.core.kinds import FeatureProbe, Probe
from fw.core.types import Examples
from fw.registry import hookimpl

FW_API = 2


class Example(FeatureProbe):
    """Accuracy of the class whose mean of the training images' features is nearest."""

    name: ClassVar[str] = "example"

    power: float = Field(
        2.0, ge=1, description="the p of the distance: 2 is Euclid's, 1 the sum over dimensions"
    )

    @property
    def keys(self) -> Mapping[str, str]:
        return {f"{self.name}_p{self.power}_{self.protocol}": "higher"}

    def score(self, train: Examples, test: Examples, job: Job) -> dict[str, float]:
        if train.labels is None or test.labels is None:
            raise StageFailed(f"probe {self.name} needs a dataset with labels")
        known = train.labels.unique()  # (K,), fewer than classes where some do not occur
        means = torch.stack(
            [train.features[train.labels == label].mean(dim=0) for label in known]
        )  # (K, D)
        nearest = known[torch.cdist(test.features, means, p=self.power).argmin(dim=1)]  # (M,)
        return {key: float((nearest == test.labels).double().mean()) for key in self.keys}


@hookimpl
def fw_components() -> list[type[Probe]]:
    return [Example]
