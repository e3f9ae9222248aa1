"""RCG: representations as conditions, a diffusion model that draws them, and guidance by them
(arXiv 2312.03701)."""

from __future__ import annotations

import math
import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made import Made, products
from safetensors.torch import load_file
from torch import Tensor, nn

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.guided import Guided
from fw.core.errors import FwError, Interrupted, RecipeError
from fw.core.job import Job
from fw.core.plan.assembly import plan
from fw.core.recipe.loading import load
from fw.core.stages.prior import FitPrior
from fw.core.testing import check
from fw.core.testing.stopping import Stop
from fw.core.types import Annotation, ConditionSpec, Observations
from fw.plugins.annotators.features import Representation
from fw.plugins.backbones.unet import UNet
from fw.plugins.guidance.rcg import RCG
from fw.plugins.priors.rdm import RDM
from fw.plugins.priors.residual_mlp import ResidualMLP
from fw.plugins.processes.ddpm import DDPM
from fw.plugins.shared.frechet import distance, gaussian

RECIPE = Path(str(files("fw.recipes"))) / "rcg.yaml"
TINY = RDM(steps=6, batch=8, width=16, depth=1, sampling_steps=10, count=20)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def vectors(conditions: Tensor) -> Annotation:
    return Annotation(ConditionSpec("vector", conditions.shape[1]), conditions)


# Representations as conditions


@pytest.mark.parametrize(
    "component", [Representation(), Representation(dims=4), RCG(scale=1.5)], ids=repr
)
def test_the_contract_is_kept(component) -> None:
    check(component)


@given(
    count=st.integers(1, 40),
    size=st.integers(2, 300),
    scale=st.floats(-6, 6).map(lambda power: 10**power),
    seed=st.integers(0, 2**31),
)
def test_every_condition_has_mean_zero_and_unbiased_deviation_one(
    tmp_path_factory, count, size, scale, seed
) -> None:
    features = scale * (normal(count, size, seed=seed) + 3)
    annotation = Representation().annotate(
        Observations(count, features), Job(tmp_path_factory.mktemp("job"))
    )
    conditions = annotation.conditions
    assert annotation.spec == ConditionSpec("vector", size)
    torch.testing.assert_close(conditions.mean(dim=1), torch.zeros(count), atol=1e-5, rtol=0)
    torch.testing.assert_close(conditions.std(dim=1), torch.ones(count), atol=1e-4, rtol=0)
    cosines = torch.nn.functional.cosine_similarity(
        conditions, features - features.mean(dim=1, keepdim=True)
    )
    torch.testing.assert_close(cosines, torch.ones(count), atol=1e-4, rtol=0)


def test_an_images_brightness_and_contrast_in_feature_space_and_the_other_images_do_not_matter(
    tmp_job: Job,
) -> None:
    features = normal(10, 32)
    lengths = 0.5 + torch.rand(10, 1, generator=torch.Generator().manual_seed(1))
    plain, changed, alone = (
        Representation().annotate(Observations(len(seen), seen), tmp_job).conditions
        for seen in (features, lengths * features - 2, features[3:4])
    )
    torch.testing.assert_close(changed, plain, atol=1e-5, rtol=1e-5)
    assert alone[0].equal(plain[3])


def test_dims_takes_the_axes_of_largest_variance_first(tmp_job: Job) -> None:
    features = normal(400, 8) * torch.tensor([0.1, 8, 0.1, 4, 0.1, 2, 0.1, 0.1])
    features = features - features.mean(dim=0)
    found = Representation(dims=3).annotate(Observations(400, features), tmp_job)
    _, _, axes = np.linalg.svd(features.double().numpy(), full_matrices=False)
    projected = features.double() @ torch.from_numpy(axes[:3].T)  # each component up to its sign
    gaps = []
    for signs in torch.cartesian_prod(*3 * [torch.tensor([-1.0, 1.0])]):
        signed = projected * signs
        wanted = (signed - signed.mean(dim=1, keepdim=True)) / signed.std(dim=1, keepdim=True)
        gaps.append(float((found.conditions - wanted).abs().max()))
    assert found.spec == ConditionSpec("vector", 3)
    assert min(gaps) < 1e-5


@pytest.mark.parametrize(
    ("annotator", "features", "told"),
    [
        (Representation(), None, "give the arm an encoder"),
        (Representation(), torch.full((4, 3), torch.nan), "not all finite"),
        (Representation(), torch.eye(4)[:, :1], "one feature per image says nothing"),
        (
            Representation(),
            torch.cat([torch.eye(4), torch.zeros(2, 4)]),
            "the same number in 2 of 6 images",
        ),
        (Representation(), 0.1 + torch.zeros(3, 7), "the same number in 3 of 3 images"),
        (
            Representation(dims=5),
            normal(4, 8),
            "dims is 5, but 4 images with 8 features have at most 4",
        ),
        (
            Representation(dims=9),
            normal(20, 8),
            "dims is 9, but 20 images with 8 features have at most 8",
        ),
    ],
)
def test_features_that_cannot_be_standardised_or_projected_are_refused_in_words(
    annotator, features, told, tmp_job
) -> None:
    with pytest.raises(FwError, match=told):
        annotator.annotate(
            Observations(4 if features is None else len(features), features), tmp_job
        )


# The prior


def mixture(count: int, seed: int) -> Tensor:
    """Two Gaussians of unequal weight in a plane that lies askew in 6 dimensions, and little
    besides."""
    draw = torch.Generator().manual_seed(seed)
    first = torch.rand(count, 1, generator=draw) < 0.7
    flat = torch.where(first, torch.tensor([1.5, 0.0]), torch.tensor([-1.5, 1.0]))
    flat = flat + 0.3 * torch.randn(count, 2, generator=draw)  # (N, 2)
    axes, _ = torch.linalg.qr(normal(6, 2))
    return flat @ axes.T + 0.05 * torch.randn(count, 6, generator=draw)  # (N, 6)


def test_a_trained_prior_recovers_the_moments_of_a_mixture_and_an_untrained_one_does_not(
    tmp_path: Path,
) -> None:
    known = mixture(2000, seed=1)
    between = (
        known @ torch.linalg.eigh(known.T.cov()).eigenvectors[:, -1:]
    )  # along it the two modes lie apart
    middle = (between.min() + between.max()) / 2
    found = {}
    for steps in (1, 400):
        folder = tmp_path / str(steps)
        folder.mkdir()
        prior = RDM(
            steps=steps, batch=128, lr=2e-3, width=32, depth=2, sampling_steps=50, count=1000
        )
        bank = prior.bank(vectors(known), Job(folder))
        sides = [
            (each @ torch.linalg.lstsq(known, between).solution > middle).float().mean()
            for each in (bank, known)
        ]
        found[steps] = {
            "mean": float((bank.mean(dim=0) - known.mean(dim=0)).norm()),
            "cov": float((bank.T.cov() - known.T.cov()).norm() / known.T.cov().norm()),
            "share": abs(float(sides[0] - sides[1])),
            "fd": prior.quality(bank, vectors(known))["rep_fd"],
        }
    trained, untrained = found[400], found[1]
    assert trained["mean"] < 0.25 < untrained["mean"], found
    assert trained["cov"] < 0.2 < untrained["cov"], found
    assert trained["share"] < 0.1 < untrained["share"], found
    assert trained["fd"] < untrained["fd"] / 10, found


class Exact(nn.Module):
    """E[x0 | x_t] of vectors with independent N(mean, deviation^2) numbers."""

    def __init__(self, mean: float, deviation: float):
        super().__init__()
        self.mean, self.variance = mean, deviation**2
        self.kept = torch.linspace(0.0015**0.5, 0.0195**0.5, 1000).square().neg().add(1).cumprod(0)

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        kept = self.kept[timesteps.long()][:, None]
        gain = self.variance * kept.sqrt() / (self.variance * kept + 1 - kept)
        return self.mean + gain * (x - kept.sqrt() * self.mean)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_with_an_exact_network_the_sampler_draws_the_distribution_itself(
    eta: float, tmp_job: Job
) -> None:
    drawn = RDM(eta=eta, sampling_steps=250, count=2000)._drawn(Exact(0.7, 0.4), 8, tmp_job)
    assert float(drawn.mean()) == pytest.approx(0.7, abs=0.02)
    assert float(drawn.std()) == pytest.approx(0.4, rel=0.05)


def test_fresh_noise_is_drawn_in_every_step_exactly_if_eta_is_not_zero(tmp_job: Job) -> None:
    known = vectors(normal(50, 4))
    banks = [TINY.model_copy(update={"eta": eta}).bank(known, tmp_job) for eta in (0.0, 0.0, 1.0)]
    assert banks[0].equal(banks[1])
    assert not banks[0].equal(banks[2])


@pytest.mark.parametrize("sampling_steps", [steps for steps in range(10, 501) if 1000 % steps == 0])
def test_sampling_goes_from_the_noise_to_the_prediction_in_equal_steps(sampling_steps: int) -> None:
    scheduler = RDM(sampling_steps=sampling_steps)._scheduler()
    scheduler.set_timesteps(sampling_steps)
    times = scheduler.timesteps
    assert len(times) == sampling_steps
    assert set(times.diff().tolist()) == {-1000 // sampling_steps}
    assert times[-1] == 1
    x0, kept = normal(500, 4), scheduler.alphas_cumprod[1]
    x = kept.sqrt() * x0 + (1 - kept).sqrt() * normal(500, 4, seed=1)
    last = scheduler.step(
        x0, times[-1], x, eta=1.0, generator=torch.Generator().manual_seed(0)
    ).prev_sample
    assert float((last - x0).std()) == pytest.approx(
        0.0015**0.5, rel=0.1
    )  # the noise of timestep 0


def test_the_noise_levels_are_the_papers_and_sampling_begins_at_pure_noise() -> None:
    betas = torch.linspace(math.sqrt(0.0015), math.sqrt(0.0195), 1000, dtype=torch.float64).square()
    kept = RDM()._scheduler().alphas_cumprod.double()
    torch.testing.assert_close(kept, (1 - betas).cumprod(0), atol=0, rtol=1e-3)
    assert kept[997] < 2e-4


@pytest.mark.parametrize("steps", [11, 300, 499])
def test_sampling_steps_that_do_not_divide_the_timesteps_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match=f"cannot be divided by {steps}"):
        RDM(sampling_steps=steps)


@settings(max_examples=8)
@given(count=st.sampled_from([1, 2, 999, 1000, 1001, 2500]), size=st.integers(2, 12))
def test_the_bank_is_as_large_as_it_is_asked_to_be(tmp_path_factory, count: int, size: int) -> None:
    prior = TINY.model_copy(update={"count": count, "steps": 1})
    bank = prior.bank(vectors(normal(30, size)), Job(tmp_path_factory.mktemp("job")))
    assert bank.shape == (count, size)
    assert len(bank.unique(dim=0)) == count


def test_the_bank_is_in_the_units_of_the_conditions(tmp_path: Path) -> None:
    banks = []
    for scale in (1.0, 1000.0):
        folder = tmp_path / str(scale)
        folder.mkdir()
        banks.append(TINY.bank(vectors(scale * normal(50, 4)), Job(folder)) / scale)
    torch.testing.assert_close(banks[1], banks[0], atol=1e-3, rtol=1e-3)


def test_the_network_begins_as_zero_and_its_blocks_as_the_identity() -> None:
    network = ResidualMLP(6, 16, 2)
    x, times = normal(4, 6), torch.tensor([0, 10, 500, 999])
    assert network(x, times).equal(torch.zeros(4, 6))
    hidden = normal(4, 16)
    assert network.blocks[0](hidden, network.time(times)).equal(hidden)


@pytest.mark.parametrize("at", [1, 4, 7])
def test_a_prior_stage_that_is_stopped_and_continued_ends_with_the_same_bytes(
    at: int, tmp_path: Path
) -> None:
    """It is asked to stop before each of 6 steps and before the first vectors are drawn."""
    vectors(normal(40, 5)).save(tmp_path / "annotation.safetensors")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()

    def stage(folder: Path, **options) -> None:
        FitPrior(TINY, Made(tmp_path), seed=3).run(Job(folder, seed=3, **options), products)

    stage(whole, checkpoint_seconds=0)
    with pytest.raises(Interrupted):
        stage(broken, stopping=Stop(at=at))
    assert not (broken / "bank.safetensors").exists()
    torch.manual_seed(at)
    stage(broken)
    for file in ("bank.safetensors", "quality.json", "log.jsonl"):
        assert (broken / file).read_bytes() == (whole / file).read_bytes()
    shutil.rmtree(whole)
    whole.mkdir()
    FitPrior(TINY, Made(tmp_path), seed=4).run(Job(whole, seed=4), products)
    other = load_file(whole / "bank.safetensors")["bank"]
    assert not other.equal(load_file(broken / "bank.safetensors")["bank"])


def test_the_frechet_distance_is_the_closed_form_of_gaussians_along_the_axes() -> None:
    one, other = normal(500, 3), normal(500, 3, seed=1)
    for sample in (one, other):  # exactly mean 0 and covariance 1
        sample -= sample.mean(dim=0)
        sample @= torch.linalg.inv(torch.linalg.cholesky(sample.T.cov())).T
    scales, shift = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([3.0, 0.0, 4.0])
    wanted = float(shift.square().sum() + (scales - 1).square().sum())
    assert distance(gaussian(one), gaussian(scales * other + shift)) == pytest.approx(
        wanted, rel=1e-3
    )
    assert distance(gaussian(one), gaussian(one)) == pytest.approx(0, abs=1e-6)


def test_a_bank_that_is_as_good_as_the_training_vectors_scores_the_floor_and_a_worse_one_more() -> (
    None
):
    known, fresh = vectors(normal(2000, 4)), normal(3000, 4, seed=1)
    good, shifted = (TINY.quality(bank, known) for bank in (fresh, fresh + 1))
    assert good["rep_fd"] == pytest.approx(good["rep_fd_floor"], abs=0.02)
    assert shifted["rep_fd"] == pytest.approx(4 + good["rep_fd"], abs=0.3)
    assert shifted["rep_fd_floor"] == good["rep_fd_floor"]


def test_the_floor_is_what_fresh_vectors_score_on_average_however_few_there_are() -> None:
    scores = [
        TINY.quality(normal(50, 4, seed=seed), vectors(normal(100, 4, seed=-seed - 1)))
        for seed in range(40)
    ]
    mean, floor = (sum(score[key] for score in scores) for key in ("rep_fd", "rep_fd_floor"))
    assert mean == pytest.approx(floor, rel=0.2)


def test_a_small_bank_is_compared_with_a_floor_of_the_same_size() -> None:
    known = vectors(normal(2000, 4))
    small = TINY.quality(normal(40, 4, seed=1), known)
    assert small["rep_fd_floor"] > 3 * TINY.quality(normal(1000, 4, seed=1), known)["rep_fd_floor"]
    assert TINY.quality(normal(40, 4), vectors(normal(3, 4))) == {}


# Guidance


def unet() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = UNet(channels=(8, 16), groups=4).build((1, 8, 8), ConditionSpec("vector", 6))
        for weights in network.parameters():  # diffusers begins with zeros in places
            nn.init.normal_(weights, std=0.2)
    return network.eval()


@torch.no_grad()
def test_the_null_path_is_the_path_of_dropped_representations() -> None:
    network, x, noise, condition = (
        unet(),
        normal(4, 1, 8, 8),
        torch.full((4,), 0.3),
        normal(4, 6, seed=1),
    )
    null = network(x, noise, None)
    every, some = torch.ones(4, dtype=torch.bool), torch.tensor([True, False, True, False])
    assert network(x, noise, condition, every).equal(null)
    assert network(x, noise, 5 * condition, every).equal(null)
    given = network(x, noise, condition)
    assert not given.allclose(null, atol=1e-3)
    mixed = network(x, noise, condition, some)
    torch.testing.assert_close(
        mixed, torch.where(some[:, None, None, None], null, given), atol=1e-5, rtol=1e-5
    )


@torch.no_grad()
def test_the_scale_is_the_papers_tau_plus_one() -> None:
    model, x, condition = NetworkDenoiser(unet(), DDPM()), normal(2, 1, 8, 8), normal(2, 6, seed=1)
    conditional, unconditional = model(x, 0.5, condition), model(x, 0.5, None)
    for tau in (0.5, 6.0):
        guided = Guided(model, (RCG(scale=1 + tau),), condition, 0.01, 80.0)(x, 0.5)
        torch.testing.assert_close(guided, conditional + tau * (conditional - unconditional))
    before = model.evaluations
    assert Guided(model, (RCG(scale=1.0),), condition, 0.01, 80.0)(x, 0.5).equal(conditional)
    assert model.evaluations == before + 1


# The recipe


def refused(*sets: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load(RECIPE, sets)
    return caught.value.problems


def test_generated_and_real_representations_share_the_generator_and_every_guidance_scale_does() -> (
    None
):
    arms = plan(load(RECIPE)).arms
    conditional = [arms[name] for name in ("rcg", "rcg_1.5", "real", "real_1.5")]
    assert len({arm.train for arm in conditional}) == 1
    assert len({arm.sample for arm in conditional}) == 4
    assert arms["rcg"].prior == arms["rcg_1.5"].prior is not None
    assert arms["real"].prior is arms["real_1.5"].prior is arms["cluster_1.0"].prior is None
    assert len({arm.train for arm in arms.values()}) == 3
    assert len({arm.encode for arm in arms.values() if arm.encode}) == 1


def test_rcgs_guidance_is_refused_where_conditions_are_classes_and_where_labels_came_in() -> None:
    told = refused(
        "arms.cluster_1.0={annotator: kmeans, prior: null, guidance: {name: rcg, scale: 1.5}}"
    )
    [line] = [line for line in told if "guidance 'rcg'" in line]
    assert "needs an annotator whose conditions are vectors" in line
    assert any("label" in line for line in refused("encoder=classifier"))
    [line] = refused("arms.unconditional={annotator: null, guidance: {name: rcg, scale: 1.5}}")
    assert "needs an annotator (this arm has none)" in line
