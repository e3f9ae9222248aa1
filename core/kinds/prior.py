"""p(c), from which the conditions of samples are drawn."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor

from fw.core.job import Job
from fw.core.types import Annotation
from fw.registry import Component


class Prior(Component):
    """p(c), from which the conditions of samples are drawn. Without one they are those of random
    training images."""

    kind: ClassVar[str] = "prior"
    forms: ClassVar[frozenset[str]] = frozenset({"class", "vector", "tokens"})
    """The forms of condition that it can draw."""

    @abstractmethod
    def bank(self, annotation: Annotation, job: Job) -> Tensor:
        """Any number of conditions like `annotation.conditions`; each sample draws one of them
        at random."""

    def quality(self, bank: Tensor, annotation: Annotation) -> dict[str, float]:
        """Scores of the bank, for the report."""
        return {}
