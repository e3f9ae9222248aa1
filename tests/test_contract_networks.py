"""The contract kit for processes, backbones, joint models and samplers: built-ins keep to it,
planted faults do not."""

from __future__ import annotations

from collections.abc import Iterator

import faulty_networks
import pytest
import torch
from faulty_networks import FAULTS, HONEST, HonestBackbone, forget
from variants import assert_named

from fw.core.testing import backbone, check, clauses, joint, process, sampler, violations
from fw.plugins.backbones.ddpmpp import DDPMPP
from fw.plugins.backbones.unet import UNet
from fw.plugins.processes.ddpm import DDPM
from fw.plugins.processes.edm import EDM
from fw.plugins.processes.flow import Flow
from fw.plugins.samplers.ddim import DDIM
from fw.plugins.samplers.ddpm import Ancestral
from fw.plugins.samplers.dpmpp import DPMSolverPP
from fw.plugins.samplers.heun import Heun
from fw.registry import Component

BUILT_IN: list[Component] = [
    *(
        EDM(),
        Flow(),
        Flow(time="uniform"),
        DDPM(),
        DDPM(prediction="eps", schedule="linear"),
        DDPM(prediction="x0"),
    ),
    *(UNet(), UNet(channels=(8, 16), groups=4, attention=(0, 1), dropout=0.1)),
    *(UNet(attention=(1,), heads=2, init="ddpm"), DDPMPP(width=8)),
    *(DDIM(), DDIM(eta=1), DDIM(steps=1), Ancestral(), DPMSolverPP(), DPMSolverPP(order=3)),
    *(Heun(), Heun(order=1), Heun(sigma_min=0.1, sigma_max=100)),
]


@pytest.fixture(autouse=True)
def what_faults_leave_behind() -> Iterator[None]:
    """Global state that a faulty component changes is put right for the other tests."""
    with torch.random.fork_rng(devices=[]):
        yield
    forget()


@pytest.mark.parametrize(
    "component", [*BUILT_IN, *HONEST], ids=lambda c: f"{type(c).__name__}-{c.kind}"
)
def test_the_built_in_and_the_honest_keep_to_their_contract(component: Component) -> None:
    check(component)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named(fault: str) -> None:
    faulty = getattr(faulty_networks, fault)
    assert_named(faulty(), *FAULTS[fault])


def test_every_clause_has_a_fault_that_breaks_it() -> None:
    broken = {clause for clause, _ in FAULTS.values()}
    asked = {clause for module in (backbone, joint, process, sampler) for clause in module.CLAUSES}
    assert {clause.__name__ for clause in asked - broken} == {
        "same_on_a_gpu",
        "same_logits_on_a_gpu",
    }


def test_clauses_about_attention_are_not_asked_of_backbones_without_it() -> None:
    network = UNet()
    assert "attention" not in network.provides
    assert len(clauses(network)) == len(clauses(HonestBackbone()))
    assert not [line for line in violations(network) if "attend" in line]
