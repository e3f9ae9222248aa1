"""The contract kit itself: it passes the honest, names what the faulty break, and gives authors
fixtures."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import faulty_guidance
import pytest
import torch
from faulty_guidance import FAULTS, Honest, Misspelled
from saying import says
from variants import assert_named

from fw.core import kinds
from fw.core.kinds import Guidance
from fw.core.testing import ContractViolated, check, clauses, common, violations
from fw.core.testing.contract import sentence
from fw.plugins.guidance.cfg import CFG
from fw.plugins.guidance.self_guidance import SelfGuidance
from fw.registry import Component


@pytest.fixture(autouse=True)
def what_faults_leave_behind() -> Any:
    """Global state that a faulty component changes is put right for the other tests."""
    dtype = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]):
        yield
    torch.set_default_dtype(dtype)


@pytest.mark.parametrize(
    "mode", [CFG(), SelfGuidance(), CFG(scale=2.5, interval=(0.1, 3.0)), Honest()], ids=repr
)
def test_the_honest_pass(mode: Guidance) -> None:
    check(mode)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named(fault: str) -> None:
    faulty = getattr(faulty_guidance, fault)
    assert_named(faulty(scale=1.5), *FAULTS[fault])


def test_all_violated_clauses_are_told_at_once_after_a_line_that_says_whose() -> None:
    class Unreachable(Honest):
        __doc__ = ""

    with pytest.raises(ContractViolated) as caught:
        check(Unreachable())
    head, *lines = str(caught.value).splitlines()
    assert says(head, f"guidance 'honest' ... 2 of {len(clauses(Honest()))} clauses")
    assert says(lines[0], f"{sentence(common.explained)}: ")
    assert says(lines[1], f"{sentence(common.same_key_elsewhere)}: ... worker process")
    assert len(lines) == 2


def test_a_bug_is_told_once_with_its_line() -> None:
    with pytest.raises(ContractViolated) as caught:
        check(Misspelled())
    [head, line] = str(caught.value).splitlines()
    assert says(head, "guidance 'honest' ... 1 of ")
    assert re.search(r"NameError: .*'goood'.* \(faulty_guidance.py:\d+\)$", line)


@pytest.mark.parametrize(
    "module", ["common", *sorted({name for kind in kinds.TABLE for name in kind.contracts})]
)
def test_every_clause_is_one_sentence_and_no_two_are_the_same(module: str) -> None:
    said = [sentence(clause) for clause in import_module(f"fw.core.testing.{module}").CLAUSES]
    assert len(said) >= 3
    assert len(set(said)) == len(said)
    for each in said:
        assert 20 < len(each) < 130, each
        assert re.match(r"[A-Z]|\w+\(\)", each), each


def test_the_sentence_of_a_clause_is_the_first_paragraph_of_its_docstring_on_one_line() -> None:
    def wrapped(component: Component) -> None:
        """It gives the same whatever was called
        before, and leaves
        its inputs alone.

        This is said elsewhere.
        """

    def without_docstring(component: Component) -> None: ...

    assert (
        sentence(wrapped)
        == "It gives the same whatever was called before, and leaves its inputs alone"
    )
    assert sentence(without_docstring) == "without_docstring"


def test_there_is_a_contract_for_every_kind() -> None:
    classes = {each for each in vars(kinds).values() if is_component(each)}
    parts = {each for each in classes if issubclass(each, kinds.Probe)} - {kinds.Probe}
    held = classes - parts - {kinds.Steering}  # which is a mode or a rule
    assert held == {kind.type for kind in kinds.TABLE}


def is_component(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Component) and value is not Component


def test_a_component_of_a_kind_that_fw_does_not_know_is_held_to_what_all_are_held_to() -> None:
    from faulty_kind import Box

    check(Box())
    assert 5 < len(clauses(Box())) < len(clauses(Honest()))


def test_authors_get_the_fixtures_without_asking_for_them(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        """
def test_fixtures(tiny_dataset, tiny_denoiser, tmp_store, tmp_job):
    import torch
    data = tiny_dataset.load("train")
    x = data.images[:2].float() / 127.5 - 1
    assert tiny_denoiser(x, 0.5, data.labels[:2]).shape == x.shape
    assert not torch.equal(tiny_denoiser(x, 0.5, data.labels[:2]), tiny_denoiser(x, 0.5))
    assert tiny_denoiser.logits(x, 0.5).shape == (2, tiny_dataset.classes)
    assert tmp_store.status("train-0").state == "absent"
    assert list(tmp_job.steps(3, {})) == [0, 1, 2]
"""
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_pytest_plugin_imports_nothing_heavy() -> None:
    code = "import sys, fw.core.fixtures; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"torch", "numpy", "hypothesis", "mlflow"} & set(done.stdout.split())


class Local(Guidance):
    """Cannot be imported anywhere else when it is defined in a function; here it can."""

    name: ClassVar[str] = "local"

    def worse(self, model: Any, x: Any, sigma: float, condition: Any, good: Any) -> Any:
        return model(x, sigma + 0.1, condition)


def test_a_component_of_a_test_module_can_be_checked() -> None:
    found = list(violations(Local()))
    assert [line for line in found if "another process" not in line] == []
