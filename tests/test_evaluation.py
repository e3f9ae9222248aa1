"""Evaluation as stages: what is measured of real images once, what is taken of samples once, and in
what memory."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from fw.core.errors import FwError
from fw.core.kinds import Metric
from fw.core.kinds.boundaries import checked_measured
from fw.core.plan.assembly import plan
from fw.core.recipe.loading import load
from fw.core.stages.evaluate import Evaluate
from fw.core.types import Reference
from fw.plugins.metrics.fd import FD
from fw.plugins.metrics.fid import FID
from fw.plugins.metrics.kid import KID
from fw.plugins.metrics.memorisation import Memorisation
from fw.plugins.metrics.prdc import PRDC

ROOT = Path(__file__).parents[1]
MEASURING = [FD(), FID(), PRDC(), Memorisation()]


def normal(count: int, dims: int, seed: int, scale: float = 1.0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dims, dims, generator=torch.Generator().manual_seed(9))
    return scale * torch.randn(count, dims, generator=draw) @ mixing + 0.5


@pytest.mark.parametrize("metric", MEASURING, ids=lambda metric: metric.name)
def test_what_was_kept_of_real_images_gives_the_scores_that_measuring_again_gives(
    metric: Metric,
) -> None:
    reference, fake = Reference(normal(80, 6, 0), normal(40, 6, 1)), normal(50, 6, 2, 0.7)
    kept = replace(reference, measured=dict(metric.measure(reference)))
    again = metric.compare(metric.prepare(reference), fake)
    assert metric.compare(metric.prepare(kept), fake) == again


def test_a_metric_that_measures_nothing_has_nothing_kept() -> None:
    assert not KID().measures
    assert all(metric.measures for metric in MEASURING)
    with pytest.raises(FwError, match="fd: measure\\(\\) has float as 'mean', not a tensor"):
        checked_measured(FD(), {"mean": 0.5})  # type: ignore[dict-item]


def test_real_images_are_measured_once_and_samples_are_read_once_in_each_space() -> None:
    recipe = load(ROOT / "recipes/self_guidance.yaml")
    stages = list(plan(recipe).stages.values())
    measuring = [metric for metric in recipe.metrics if metric.measures]
    spaces = {metric.space for metric in recipe.metrics}
    kinds = [stage.kind for stage in stages]
    assert kinds.count("reference") == len(measuring)
    assert kinds.count("features") == len(spaces) * len(recipe.arms)
    for stage in stages:
        if isinstance(stage, Evaluate):
            assert (stage.reference is not None) == stage.metric.measures
            assert stage.features.encoder == stage.metric.space


@pytest.mark.parametrize("count", [900, 150])
def test_the_frechet_distance_is_torch_fidelitys(count: int) -> None:
    real, fake = normal(900, 300, 0), normal(count, 300, 1, 1.1)
    one, other = (fid_features_to_statistics(each.double()) for each in (real, fake))
    expected = fid_statistics_to_metric(one, other, verbose=False)["frechet_inception_distance"]
    scores = FID().compare(FID().prepare(Reference(real, real)), fake)
    assert scores["fid"] == pytest.approx(expected, rel=1e-6)


def test_directions_without_variance_add_nothing_to_the_frechet_distance() -> None:
    """As of units of a classifier that no image excites: rounding gives their variance a root."""
    real, fake = normal(20_000, 64, 0), normal(20_000, 64, 1)
    mixed = torch.linalg.qr(normal(64, 64, 3)).Q
    lean = torch.cat([torch.ones(20), torch.zeros(44)])
    a, b = real.double() * lean, fake.double() * lean
    few = [fid_features_to_statistics(each[:, :20].contiguous()) for each in (a, b)]
    expected = fid_statistics_to_metric(*few, verbose=False)["frechet_inception_distance"]
    turned = Reference(a @ mixed.double(), a)
    score = FID().compare(FID().prepare(turned), b @ mixed.double())
    assert score["fid"] == pytest.approx(expected, rel=1e-6)


def test_samples_are_never_all_in_memory(tmp_path: Path) -> None:
    """16,000 images of 128x128 are 786 MB, here one file linked 16 times."""
    script = str(ROOT / "tests/evaluated.py")
    program = [sys.executable, script, str(tmp_path), "128", "8", "2", "500"]
    run = subprocess.run(program, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    made = json.loads(run.stdout)
    assert made["peak"] - made["before"] < 500
    assert all(len(values) == 2 for values in made["scores"].values())
