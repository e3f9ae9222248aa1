"""gmm keeps fw's contract, and finds the components that made the features."""

import pytest
import torch
from fw_timm_gmm import GMM

from fw.core.errors import FwError
from fw.core.job import Job
from fw.core.testing import check
from fw.core.types import Observations

TRUTH = torch.arange(400) % 2


def concentric(unit: float = 1.0) -> torch.Tensor:
    """Two clusters with one centre, (400, 4): a core, and a cloud ten times as wide, which no
    centroid tells apart."""
    draw = torch.Generator().manual_seed(0)
    return unit * torch.randn(400, 4, generator=draw) * torch.tensor([0.3, 3.0])[TRUTH][:, None]


def agreement(conditions: torch.Tensor) -> float:
    """The share of images in the most frequent truth of their cluster."""
    counts = torch.zeros(2, 2).index_put((conditions, TRUTH), torch.ones(()), accumulate=True)
    return float(counts.max(dim=1).values.sum()) / len(TRUTH)


@pytest.mark.parametrize("covariance", ["full", "tied", "diag", "spherical"])
def test_it_keeps_the_contract(covariance: str) -> None:
    check(GMM.model_validate({"clusters": 3, "covariance": covariance, "n_init": 1}))


@pytest.mark.parametrize("covariance", ["full", "diag", "spherical"])
def test_it_tells_apart_what_differs_in_spread_alone(covariance: str, tmp_job: Job) -> None:
    mixture = GMM.model_validate({"clusters": 2, "covariance": covariance})
    found = mixture.annotate(Observations(400, features=concentric()), tmp_job)
    assert (found.spec.form, found.spec.size) == ("class", 2)
    assert agreement(found.conditions) > 0.95


def test_clusters_of_one_common_shape_cannot(tmp_job: Job) -> None:
    found = GMM(clusters=2, covariance="tied").annotate(
        Observations(400, features=concentric()), tmp_job
    )
    assert agreement(found.conditions) < 0.8


def test_the_unit_of_the_features_does_not_matter(tmp_job: Job) -> None:
    small, one, large = (
        GMM(clusters=2).annotate(Observations(400, features=concentric(unit)), tmp_job)
        for unit in (1e-4, 1.0, 1e4)
    )
    assert torch.equal(small.conditions, one.conditions)
    assert torch.equal(large.conditions, one.conditions)


def test_the_seed_decides_where_the_fit_starts(tmp_path_factory: pytest.TempPathFactory) -> None:
    noise = Observations(
        300, features=torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    )
    mode = GMM(clusters=8, n_init=1)
    first, again, other = (
        mode.annotate(noise, Job(tmp_path_factory.mktemp("job"), seed=seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first.conditions, again.conditions)
    assert not torch.equal(first.conditions, other.conditions)


@pytest.mark.parametrize("features", [None, torch.zeros(2, 4)])
def test_too_few_features_are_refused_in_one_sentence(
    features: torch.Tensor | None, tmp_job: Job
) -> None:
    with pytest.raises(FwError, match="3 components need as many images"):
        GMM(clusters=3).annotate(Observations(2, features=features), tmp_job)


def test_features_that_are_not_finite_are_refused_in_one_sentence(tmp_job: Job) -> None:
    broken = concentric()
    broken[7, 1] = torch.nan
    with pytest.raises(FwError, match="finite features"):
        GMM(clusters=3).annotate(Observations(400, features=broken), tmp_job)
