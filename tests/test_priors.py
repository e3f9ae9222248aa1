"""Priors: where conditions come from in sampling, what may draw which, and the contract of the
kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import faulty_priors
import pytest
import torch
from faulty_priors import FAULTS, HONEST
from hypothesis import given, settings
from hypothesis import strategies as st
from made import Made, products
from safetensors.torch import load_file
from torch import Tensor
from variants import assert_named

from fw.core.errors import RecipeError, StageFailed
from fw.core.job import Job
from fw.core.kinds import Annotator, Prior
from fw.core.plan.assembly import plan
from fw.core.plan.graph import Plan
from fw.core.randomness import Draws
from fw.core.recipe.loading import validate
from fw.core.recipe.source import parse
from fw.core.stages.base import Stage
from fw.core.stages.conditions import load_annotation
from fw.core.stages.prior import FitPrior
from fw.core.testing import check
from fw.core.types import Annotation, ConditionSpec, Observations
from fw.plugins.priors.rdm import RDM
from fw.plugins.priors.uniform import Uniform
from fw.registry import Provider
from tests.toys import RECIPE, registry


@pytest.fixture(autouse=True)
def generator_that_faulty_priors_move():
    with torch.random.fork_rng(devices=[]):
        yield


@pytest.mark.parametrize(
    "prior",
    [Uniform(), RDM(steps=6, width=16, depth=1, sampling_steps=10, count=20), *HONEST],
    ids=lambda prior: type(prior).__name__,
)
def test_the_honest_pass(prior: Prior) -> None:
    check(prior)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named(fault: str) -> None:
    assert_named(getattr(faulty_priors, fault)(), *FAULTS[fault])


# uniform


@settings(max_examples=30)
@given(classes=st.lists(st.integers(0, 9), min_size=1, max_size=80))
def test_the_uniform_prior_holds_every_class_that_occurs_once_and_no_other(
    tmp_path_factory, classes
) -> None:
    annotation = Annotation(ConditionSpec("class", 10), torch.tensor(classes))
    assert Uniform().bank(annotation, Job(tmp_path_factory.mktemp("job"))).tolist() == sorted(
        set(classes)
    )


def test_drawn_from_it_rare_classes_come_as_often_as_common_ones(tmp_job: Job) -> None:
    images = torch.tensor([0] * 90 + [3] * 10)
    bank = Uniform().bank(Annotation(ConditionSpec("class", 5), images), tmp_job)
    shares = []
    for drawn_from in (None, bank):
        drawn = Annotation(ConditionSpec("class", 5), images, drawn_from).draw(
            Draws("shares", rows=range(4000))
        )
        shares.append((drawn.bincount(minlength=5) / 4000).tolist())
    assert shares[0] == pytest.approx([0.9, 0, 0, 0.1, 0], abs=0.03)
    assert shares[1] == pytest.approx([0.5, 0, 0, 0.5, 0], abs=0.03)


# Priors in recipes


class Means(Annotator):
    """Features as vectors."""

    name: ClassVar[str] = "means"
    form: ClassVar[str] = "vector"

    def annotate(self, data: Observations, job: Job) -> Annotation:
        assert data.features is not None
        return Annotation(ConditionSpec("vector", data.features.shape[1]), data.features)


class Every(Prior):
    """All conditions backwards, of every form."""

    name: ClassVar[str] = "every"
    shift: int = 0

    def bank(self, annotation: Annotation, job: Job) -> Tensor:
        return annotation.conditions.flip(0)

    def quality(self, bank: Tensor, annotation: Annotation) -> dict[str, float]:
        return {"size": len(bank)}


TOYS = registry()
TOYS.add(Provider("priors"), [Means, Every, Uniform, RDM])


def planned(*sets: str) -> Plan:
    source = parse(RECIPE, "r.yaml")
    source.set(sets)
    return plan(validate(source, TOYS))


def refused(*sets: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        planned(*sets)
    return caught.value.problems


def test_a_prior_decides_about_the_sampling_and_not_about_the_training() -> None:
    without, one, other = (
        planned(*sets) for sets in ((), ("prior=every",), ("prior={name: every, shift: 1}",))
    )
    for arm in ("self_1.0", "self_1.5"):
        arms = [found.arms[arm] for found in (without, one, other)]
        assert len({each.train for each in arms}) == 1
        assert len({each.annotate for each in arms}) == 1
        assert len({each.prior for each in arms}) == len({each.sample for each in arms}) == 3
    assert (
        one.arms["self_1.0"].prior == one.arms["self_1.5"].prior != without.arms["self_1.0"].prior
    )
    assert (
        one.arms["plain"].stages() == without.arms["plain"].stages()
    )  # it has no conditions, so nothing draws any


def test_a_prior_that_cannot_draw_the_annotators_conditions_is_refused() -> None:
    (told,) = refused("arms.self_1.0.prior=rdm")
    assert told.endswith("arms.self_1.0.prior: prior 'rdm' draws vector conditions, not class ones")
    (told,) = refused("arms.plain={annotator: null, prior: uniform}")
    assert told.endswith(
        "arms.plain.prior: prior 'uniform' draws conditions, and this arm has no annotator"
    )
    (told,) = refused("arms.self_1.0={annotator: means, prior: uniform}")
    assert told.endswith(
        "arms.self_1.0.prior: prior 'uniform' draws class conditions, not vector ones"
    )


def test_the_prior_stage_stores_the_bank_that_sampling_draws_from(tmp_path: Path) -> None:
    annotation = Annotation(ConditionSpec("class", 4), torch.tensor([0, 0, 2, 3]))
    annotated, folder = tmp_path / "annotate", tmp_path / "prior"
    annotated.mkdir()
    folder.mkdir()
    annotation.save(annotated / "annotation.safetensors")
    annotate = Made(annotated)
    prior = FitPrior(Every(), annotate, seed=0)
    prior.run(Job(folder), products)
    assert load_file(folder / "bank.safetensors")["bank"].tolist() == [3, 2, 0, 0]
    assert json.loads((folder / "quality.json").read_text()) == {"size": 4}

    def lies(stage: Stage) -> Path:
        return folder if stage is prior else annotated

    trained_on = load_annotation(annotate, None, lies)
    drawn_from = load_annotation(annotate, prior, lies)
    assert trained_on is not None
    assert trained_on.bank is None
    assert drawn_from is not None
    assert drawn_from.bank is not None
    assert drawn_from.bank.tolist() == [3, 2, 0, 0]
    assert drawn_from.conditions.equal(annotation.conditions)


def test_a_bank_that_is_not_like_the_conditions_ends_the_stage(tmp_path: Path) -> None:
    class Overdrawn(Every):
        def bank(self, annotation: Annotation, job: Job) -> Tensor:
            return annotation.conditions + 1

    Annotation(ConditionSpec("class", 4), torch.tensor([0, 3])).save(
        tmp_path / "annotation.safetensors"
    )
    with pytest.raises(StageFailed, match=r"prior every: its bank are 1 to 4, not in 0\.\.3"):
        FitPrior(Overdrawn(), Made(tmp_path), seed=0).run(Job(tmp_path), products)
