"""What does nothing is said before it is run, and in how many calls guidance acts is said in the
report."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
import torch
from made import Made, products
from torch import Tensor

from fw.core.diffusion.guided import Guided
from fw.core.job import Job
from fw.core.kinds import Denoise, Guidance, Recorder, Rule, Sampler, Steering
from fw.core.randomness import Draws
from fw.core.recipe.checks import warnings
from fw.core.recipe.effect import acting
from fw.core.recipe.loading import validate
from fw.core.recipe.model import Recipe
from fw.core.recipe.source import parse, read
from fw.core.stages.prior import FitPrior
from fw.core.testing import tiny
from fw.core.types import Annotation, ConditionSpec
from fw.plugins.guidance.apg import APG
from fw.plugins.guidance.cfg import CFG
from fw.plugins.guidance.pag import PAG
from fw.plugins.guidance.rescale import Rescale
from fw.plugins.guidance.sag import SAG
from fw.plugins.guidance.seg import SEG
from fw.plugins.priors.uniform import Uniform
from fw.plugins.processes.edm import EDM
from fw.plugins.samplers.ddim import DDIM
from fw.plugins.samplers.dpmpp import DPMSolverPP
from fw.plugins.samplers.heun import Heun
from fw.registry import Provider, installed
from tests.toys import RECIPE, Euler, registry

TINY = Path(__file__).parent / "tiny.yaml"


def made(*sets: str) -> Recipe:
    source = read(TINY)
    source.set(sets)
    return validate(source, installed())


def warned(*sets: str) -> list[str]:
    """What is warned about beyond what always is of this recipe, which has 3 steps."""
    usual = [str(finding) for finding in warnings(made())]
    found = [str(finding) for finding in warnings(made(*sets)) if "Gaussian" not in finding.reason]
    return [finding for finding in found if finding not in usual]


def guided(change: str) -> str:
    return f"arms.self_1.5.guidance={change}"


# Guidance in an interval


def test_guidance_whose_interval_holds_no_noise_level_of_the_sampler_is_warned_about() -> None:
    [told] = warned(
        guided("{name: self_guidance, scale: 1.5, interval: [1000, 2000]}"), "process=edm"
    )
    assert told.startswith(
        "arms.self_1.5.guidance: guidance 'self_guidance' never acts: its interval is (1000, 2000]"
    )
    assert "sampler 'dpmpp' asks the model 3 times, at sigma 80 to " in told
    assert (
        warned(guided("{name: self_guidance, scale: 1.5, interval: [1, 2000]}"), "process=edm")
        == []
    )


def test_guidance_of_all_arms_is_warned_about_in_each() -> None:
    found = warned(
        "guidance={name: cfg, scale: 2, interval: [1000000, 2000000]}",
        "arms.unconditional.guidance=null",
    )
    assert [line.split(": ")[0] for line in found] == ["arms.self_1.0"]


@pytest.mark.parametrize(
    "sampler",
    [
        DPMSolverPP(steps=7),
        DDIM(steps=9, eta=1),
        Heun(steps=6),
        Heun(steps=6, churn=8),
        Heun(steps=5, order=1),
        Euler(),
    ],
    ids=lambda sampler: repr(sampler)[:40],
)
def test_a_sampler_says_at_which_noise_levels_it_asks(sampler: Sampler) -> None:
    process = EDM(sigma_min=0.01, sigma_max=1.0)
    recorder = Recorder(*process.sigma_range)
    with torch.random.fork_rng(devices=[]):
        before = torch.get_rng_state()
        sampler.sample(recorder, torch.zeros(2, 3, 4, 4), Draws("effect", rows=range(2)))
        torch.set_rng_state(before)
        assert sampler.asks(process.sigma_range) == recorder.levels
        assert torch.equal(torch.get_rng_state(), before)
    assert len(recorder.levels) == sampler.nfe


class Picky(Euler):
    """Needs images of another size than it is tried with."""

    name: ClassVar[str] = "picky"

    def sample(self, denoise: Denoise, noise: Tensor, draws: Draws) -> Tensor:
        if noise.shape[1:] != (1, 4, 4):
            raise KeyError(noise.shape)
        return super().sample(denoise, noise, draws)


def test_a_sampler_that_cannot_say_when_it_asks_is_no_fault_and_no_claim_is_made() -> None:
    toys = registry()
    toys.add(Provider("picky"), [Picky])
    source = parse(RECIPE, "r.yaml")
    source.set(["sampler={name: picky, steps: 3}", "arms.self_1.5.guidance.interval=[5, 6]"])
    recipe = validate(source, toys)
    assert not [finding for finding in warnings(recipe) if "never acts" in finding.reason]
    assert acting(recipe.arm("self_1.5")) == []


def test_the_calls_in_which_each_mode_acts_are_counted() -> None:
    arm = made(
        "process=edm",
        "sampler={name: heun, steps: 9}",
        guided(
            "[{name: cfg, scale: 2, interval: [0.1, 3]}, {name: self_guidance, scale: 1.5}, {name: "
            "cfg, scale: 1}]"
        ),
    ).arm("self_1.5")
    levels = Heun(steps=9).asks(EDM().sigma_range)
    inside = sum(0.1 < sigma <= 3 for sigma in levels)
    assert 0 < inside < 17
    assert [(each.mode.name, each.acts, each.calls) for each in acting(arm)] == [
        ("cfg", inside, 17),
        ("self_guidance", 17, 17),
    ]


# What is off


OFF: list[Steering] = [
    PAG(scale=2, soft=0),
    SEG(scale=2, blur=0),
    SEG(scale=2, blur=0.16),
    SAG(scale=2, blur=0),
    SAG(scale=2, blur=0.16, branch="unconditional"),
    CFG(scale=1),
]
ON: list[Steering] = [
    PAG(scale=2, soft=0.1),
    SEG(scale=2, blur=0.5),
    SEG(scale=2),
    SAG(scale=2, blur=0.5),
    CFG(scale=1.1),
]
RULES_OFF: list[Steering] = [APG(momentum=0, norm=None, eta=1), Rescale(phi=0)]
RULES_ON: list[Steering] = [
    APG(momentum=0, norm=None, eta=0.9),
    APG(momentum=0, norm=0.1, eta=1),
    Rescale(phi=0.1),
]


def prediction(*guidance: Steering) -> Tensor:
    """Of a network with attention, at one noise level."""
    model, condition = tiny.denoiser(), torch.arange(3)
    model.sharing = False
    with torch.inference_mode():
        return Guided(model, guidance, condition, *tiny.TinyProcess().sigma_range)(
            tiny.noisy(3, 0.5), 0.5
        )


@pytest.mark.parametrize("mode", OFF, ids=repr)
def test_a_mode_that_says_it_is_idle_changes_nothing(mode: Guidance) -> None:
    assert mode.idle()
    torch.testing.assert_close(prediction(mode), prediction(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ON, ids=repr)
def test_a_mode_that_changes_something_does_not_say_it_is_idle(mode: Guidance) -> None:
    assert mode.idle() is None
    assert (prediction(mode) - prediction()).abs().max() > 1e-6


@pytest.mark.parametrize("rule", RULES_OFF, ids=repr)
def test_a_rule_that_says_it_is_idle_changes_nothing(rule: Rule) -> None:
    assert rule.idle()
    assert torch.equal(prediction(CFG(scale=3), rule), prediction(CFG(scale=3)))


@pytest.mark.parametrize("rule", RULES_ON, ids=repr)
def test_a_rule_that_changes_something_does_not_say_it_is_idle(rule: Rule) -> None:
    assert rule.idle() is None
    assert not torch.equal(prediction(CFG(scale=3), rule), prediction(CFG(scale=3)))


@pytest.mark.parametrize(
    ("guidance", "told"),
    [
        ("{name: cfg, scale: 1}", "guidance 'cfg' changes nothing: scale 1 is off"),
        ("cfg", "guidance 'cfg' changes nothing: scale 1 is off"),
        (
            "[{name: cfg, scale: 2}, {name: rescale, phi: 0}]",
            "guidance 'rescale' changes nothing: phi 0",
        ),
        (
            "[{name: cfg, scale: 2}, {name: apg, momentum: 0, eta: 1}]",
            "guidance 'apg' changes nothing: momentum 0",
        ),
    ],
)
def test_what_a_recipe_switches_off_is_warned_about(guidance: str, told: str) -> None:
    [found] = warned(guided(guidance))
    assert found.startswith(f"arms.self_1.5.guidance: {told}")


# What training hardly sees


@pytest.mark.parametrize(
    ("sets", "told"),
    [
        (
            ("train.cond_drop=0.0001",),
            "arms.self_1.5: train.cond_drop 0.0001: the model will learn about 0.19 of its ",
        ),
        (
            ("train.ema=0.99", "train.ema_ramp=false"),
            "train: without ema_ramp, averaged weights are still 55% untrained after 60 steps",
        ),
        (
            ("train={steps: 60, ema_ramp: false, ema_halflife: 1e6}",),
            "train: without ema_ramp, averaged weights are still ",
        ),
        (
            ("train.cond_drop=0.9999",),
            "arms.self_1.5: train.cond_drop 0.9999: the model will learn about 0.19 of its ",
        ),
        (
            ("arms.x={objectives: {name: dispersive, interval: [0.0203, 0.0204]}}", "process=ddpm"),
            "arms.x.objectives: objective 'dispersive' takes noise levels from 0.0203 to 0.0204: "
            "the model will learn",
        ),
        (
            (
                "arms.x={objectives: {name: dispersive, interval: [3.2, 3.3]}}",
                "process={name: edm, p_std: 0.5}",
            ),
            "arms.x.objectives: objective 'dispersive' takes noise levels from 3.2 to 3.3: the "
            "model will learn about 0 ",
        ),
        (
            ("arms.x={annotator: {name: online, start: 0.999, clusters: 20}}",),
            "arms.x.annotator: annotator 'online' starts after the last of 60 steps",
        ),
        (
            ("arms.x={model: {name: jdm, channels: [8, 16], groups: 4}, prior: uniform}",),
            "arms.x.prior: prior 'uniform' changes no sample: a joint model takes no conditions",
        ),
        (("arms.x={}",), "arms.x: it is the same as arm self_1.0"),
        (
            ("arms.x={annotator: null, encoder: pca}",),
            "arms.x: it is the same as arm unconditional",
        ),
    ],
)
def test_what_will_not_be_learned_or_drawn_is_warned_about(
    sets: tuple[str, ...], told: str
) -> None:
    assert any(line.startswith(told) for line in warned(*sets)), warned(*sets)


def test_what_will_be_learned_is_not_warned_about() -> None:
    assert warned("train.ema=0.9", "train.ema_ramp=false") == []
    assert warned("train.cond_drop=0.01") == []
    assert warned("arms.x={objectives: {name: dispersive, interval: [0, 1]}}") == []
    assert (
        warned("arms.x={annotator: {name: online, start: 0.9, clusters: 20}, encoder: null}") == []
    )


# Priors


@pytest.mark.parametrize(
    ("sizes", "warns"),
    [((5, 5), True), ((400, 404), True), ((4, 6), False), ((1, 1, 8), False)],
    ids=repr,
)
def test_a_prior_that_draws_what_is_drawn_without_it_is_warned_about(
    tmp_path: Path, sizes: tuple[int, ...], warns: bool
) -> None:
    conditions = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    Annotation(ConditionSpec("class", len(sizes)), conditions).save(
        tmp_path / "annotation.safetensors"
    )
    job = Job(tmp_path)
    FitPrior(Uniform(), Made(tmp_path)).run(job, products)
    assert [text.startswith("prior uniform changes only 0.") for text in job.warnings] == [
        True
    ] * warns
