"""The conditions of a few training images, drawn at random."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fw.core.job import Job
from fw.core.kinds import Prior
from fw.core.types import Annotation
from fw.registry import hookimpl

FW_API = 2


class Example(Prior):
    """The conditions of a few training images: how many are needed to make samples of all kinds?"""

    name: ClassVar[str] = "example"

    images: int = Field(100, ge=1, description="training images whose conditions are kept")

    def bank(self, annotation: Annotation, job: Job) -> Tensor:
        order = torch.randperm(len(annotation.conditions), generator=job.generator(self.name))
        return annotation.conditions[
            order[: self.images]
        ]  # (images, ...), fewer where there are fewer

    def quality(self, bank: Tensor, annotation: Annotation) -> dict[str, float]:
        return {"kept": len(bank) / len(annotation.conditions)}


@hookimpl
def fw_components() -> list[type[Prior]]:
    return [Example]
