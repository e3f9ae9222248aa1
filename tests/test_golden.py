"""Stored work is found again: stage keys and run folders are those that users have, of every
shipped recipe and of three recipes with plugins; and what the smoke recipe makes is the same, bit
for bit (test_docs.py runs it).

A key or a bit may change only where results do, on purpose. Then a version is raised, CHANGELOG.md
says so, and the files are made again: `python tests/test_golden.py [STORE OF A SMOKE RUN]`.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import bits
import pytest

from fw.core.plan.assembly import plan
from fw.core.recipe.loading import load
from fw.core.recipe.model import Recipe
from fw.core.run.record import run_key
from fw.registry import Registry, discover

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden/keys.json"
RECIPES = sorted(
    [*(ROOT / "recipes").glob("*.yaml"), *(ROOT / "docs/examples").glob("*/recipe.yaml")]
)
PLUGINS = {"fw-joint": "fw_joint", "fw-sharpen": "fw_sharpen", "fw-timm-gmm": "fw_timm_gmm"}


@pytest.fixture(scope="module")
def registry() -> Registry:
    """The built-ins, and the plugins in docs/examples as if they were installed."""
    with pytest.MonkeyPatch.context() as patch:
        for folder in PLUGINS:
            patch.syspath_prepend(str(ROOT / "docs/examples" / folder))
        return with_examples()


def with_examples() -> Registry:
    modules = {"builtin": "fw.plugins", **PLUGINS}
    found = discover([EntryPoint(name, module, "fw") for name, module in modules.items()], allow="")
    assert not found.broken
    return found


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def keys(recipe: Recipe) -> dict[str, object]:
    return {"folder": run_key(recipe, ()), "stages": sorted(plan(recipe).stages)}


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_keys_and_run_folder_are_those_that_users_have(path: Path, registry: Registry) -> None:
    assert keys(load(path, registry=registry)) == json.loads(GOLDEN.read_text())[name_of(path)]


def test_every_recipe_is_guarded() -> None:
    assert json.loads(GOLDEN.read_text()).keys() == set(map(name_of, RECIPES))


def test_the_arithmetic_of_this_machine_is_the_same_each_time() -> None:
    assert bits.arithmetic() == bits.arithmetic()


if __name__ == "__main__":
    sys.path += [str(ROOT / "docs/examples" / folder) for folder in PLUGINS]
    known = with_examples()
    found = {name_of(path): keys(load(path, registry=known)) for path in RECIPES}
    GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    for store in sys.argv[1:]:
        bits.record(Path(store))
