"""Stored work is found again: stage keys and run folders of every shipped recipe are those that users have.

A key may change only where results do. Then a version is raised, CHANGELOG.md says so, and the file is made again:
`python tests/test_golden.py`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fw.core.loading import load
from fw.core.plan import plan
from fw.core.recipe import Recipe
from fw.core.record import run_key

RECIPES = Path(__file__).parent.parent / "recipes"
GOLDEN = Path(__file__).parent / "golden/keys.json"


def keys(recipe: Recipe) -> dict[str, object]:
    return {"folder": run_key(recipe, ()), "stages": sorted(plan(recipe).stages)}


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_keys_and_run_folder_are_those_that_users_have(path: Path) -> None:
    assert keys(load(path)) == json.loads(GOLDEN.read_text())[path.name]


def test_every_recipe_is_guarded() -> None:
    assert json.loads(GOLDEN.read_text()).keys() == {path.name for path in RECIPES.glob("*.yaml")}


if __name__ == "__main__":
    found = {path.name: keys(load(path)) for path in sorted(RECIPES.glob("*.yaml"))}
    GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
