"""The contract of an annotator, and what this one does."""

import torch

from fw.core.job import Job
from fw.core.templates.annotator import Example
from fw.core.testing import check
from fw.core.types import Observations


def test_it_keeps_the_contract() -> None:
    check(Example(clusters=3))


def test_along_a_line_the_clusters_are_intervals_and_none_is_empty(tmp_job: Job) -> None:
    features = torch.arange(20.0)[:, None].expand(20, 3)  # (N, D)
    clusters = Example(clusters=4).annotate(Observations(20, features), tmp_job).conditions
    assert clusters.unique().tolist() == [0, 1, 2, 3]
    assert int((clusters.diff() != 0).sum()) == 3
