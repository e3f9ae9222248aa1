"""The contract kit for rules: the built-in and the honest keep to it, planted faults do not."""

from __future__ import annotations

from collections.abc import Iterator

import faulty_rules
import pytest
import torch
from faulty_rules import FAULTS, SEEN, Honest, HonestClamp, KnowsTheMemoryItself
from variants import assert_named

from fw.core.kinds import Rule
from fw.core.testing import check, clauses, guidance, rule
from fw.plugins.guidance.apg import APG
from fw.plugins.guidance.cfg import CFG
from fw.plugins.guidance.rescale import Rescale


@pytest.fixture(autouse=True)
def what_faults_leave_behind() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        yield
    SEEN.clear()
    KnowsTheMemoryItself._known = ()


@pytest.mark.parametrize(
    "component",
    [
        APG(),
        APG(momentum=0, norm=2.5),
        APG(eta=1, norm=0.1),
        Rescale(),
        Rescale(phi=0),
        Honest(),
        HonestClamp(),
    ],
    ids=repr,
)
def test_the_built_in_and_the_honest_keep_to_their_contract(component: Rule) -> None:
    check(component)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named(fault: str) -> None:
    faulty = getattr(faulty_rules, fault)
    assert_named(faulty(), *FAULTS[fault])


def test_every_clause_has_a_fault_that_breaks_it() -> None:
    assert {clause for clause, _ in FAULTS.values()} == set(rule.CLAUSES)


def test_a_rule_is_asked_the_clauses_of_rules_and_a_mode_those_of_modes() -> None:
    assert set(rule.CLAUSES) <= set(clauses(APG()))
    assert not set(guidance.CLAUSES) & set(clauses(APG()))
    assert not set(rule.CLAUSES) & set(clauses(CFG()))
