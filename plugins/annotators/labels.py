"""True labels as conditions: the oracle that label-free annotations are measured against."""

from __future__ import annotations

from typing import ClassVar

from fw.core.errors import StageFailed
from fw.core.job import Job
from fw.core.kinds import Annotator
from fw.core.types import Annotation, ConditionSpec, Observations


class Labels(Annotator):
    """The dataset's own labels."""

    name: ClassVar[str] = "labels"
    uses_features: ClassVar[bool] = False
    uses_labels: ClassVar[bool] = True

    def annotate(self, data: Observations, job: Job) -> Annotation:
        if data.labels is None:
            raise StageFailed("annotator labels needs a dataset with labels")
        return Annotation(ConditionSpec("class", data.classes), data.labels.long().cpu())
