"""What a trial of a sampler gave is remembered from one command to the next, as long as nothing
changed that it hangs on."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fw.core.diffusion import spread as spreads
from fw.core.diffusion import trials
from fw.core.diffusion.spread import Spread, remembered
from fw.core.kinds import Sampler
from fw.plugins.processes.ddpm import DDPM
from fw.plugins.processes.edm import EDM
from fw.plugins.samplers.ddim import DDIM

SMOKE = Path(__file__).parent.parent / "recipes/smoke.yaml"

VALIDATE = """
import sys
from fw.core.cli import app

try:
    app(["validate", sys.argv[1]], standalone_mode=False)
finally:
    print("imported", [name for name in ("diffusers", "torch._dynamo") if name in sys.modules])
"""

OWN = '''
from typing import ClassVar

from fw.core.kinds import Sampler


class Own(Sampler):
    """Euler's steps in four equal ones."""

    name: ClassVar[str] = "own"

    @property
    def nfe(self):
        return 4

    def sample(self, denoise, noise, draws):
        x = denoise.sigma_max * noise
        for step in range(4):
            sigma = denoise.sigma_max * (1 - step / 4)
            x = x + (denoise(x, sigma) - x) / (4 - step)
        return x
'''


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache that is empty."""
    monkeypatch.setenv("FW_CACHE_DIR", str(tmp_path / "cache"))


def never(*_: Any) -> Spread | None:
    raise AssertionError("it was tried again")


def test_a_recipe_that_was_validated_before_is_validated_without_its_samplers_library() -> None:
    command = [sys.executable, "-c", VALIDATE, str(SMOKE)]
    first, second = (
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        for _ in range(2)
    )
    assert first[:-1] == second[:-1]
    assert first[-1] != "imported []"
    assert second[-1] == "imported []"


def test_what_is_remembered_is_what_was_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = remembered(DDIM(steps=7), DDPM(), 0.5)
    monkeypatch.setattr(spreads, "tried", never)
    assert remembered(DDIM(steps=7), DDPM(), 0.5) == tried


def test_that_nothing_can_be_said_of_a_sampler_is_remembered_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    many = DDIM(steps=spreads.MOST_CALLS + 1)
    assert remembered(many, DDPM(), 0.5) is None
    monkeypatch.setattr(spreads, "tried", never)
    assert remembered(many, DDPM(), 0.5) is None


def test_another_sampler_process_or_spread_of_the_data_is_another_trial() -> None:
    paths = {
        trials.memory((sampler, process), spreads.__file__, data)
        for sampler in (DDIM(steps=7), DDIM(steps=8))
        for process in (DDPM(), EDM())
        for data in (0.5, 1.0)
    }
    assert len(paths) == 8
    assert None not in paths


def test_it_is_tried_again_with_another_version_of_a_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = trials.memory((DDIM(), DDPM()), spreads.__file__, 0.5)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: f"another {name}")
    assert trials.memory((DDIM(), DDPM()), spreads.__file__, 0.5) != before


def module(path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The file as an installed module."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, made)
    spec.loader.exec_module(made)
    return made


def test_it_is_tried_again_when_the_samplers_file_was_edited_whatever_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plugin that is being written is installed as it stands."""

    def result(text: str) -> Spread | None:
        file = tmp_path / "own_sampler.py"
        file.write_text(text)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        sampler: Sampler = module(file, "own_sampler", monkeypatch).Own()
        return remembered(sampler, EDM(), 0.5)

    assert result(OWN) != result(OWN.replace("/ (4 - step)", "/ (5 - step)"))


def test_a_class_that_a_function_makes_is_not_remembered() -> None:
    class Inner(DDIM):
        """Nobody can say what it closes over."""

    assert trials.memory((Inner(), DDPM()), spreads.__file__, 0.5) is None
    assert remembered(Inner(steps=7), DDPM(), 0.5) == remembered(DDIM(steps=7), DDPM(), 0.5)


def test_a_damaged_memory_counts_as_absent() -> None:
    tried = remembered(DDIM(steps=7), DDPM(), 0.5)
    path = trials.memory((DDIM(steps=7), DDPM()), spreads.__file__, 0.5)
    assert path is not None
    path.write_text(path.read_text().replace('"whole": ', '"whole": 1'))
    assert remembered(DDIM(steps=7), DDPM(), 0.5) == tried


def test_a_cache_that_cannot_be_written_costs_no_more_than_the_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FW_CACHE_DIR", str(tmp_path / "file"))
    assert remembered(DDIM(steps=7), DDPM(), 0.5) is not None
