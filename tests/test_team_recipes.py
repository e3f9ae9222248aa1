"""Every shipped recipe runs with two ranks, shrunk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from simcuda.shrunk import RECIPES
from team_shipped import shipped
from teams import together

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder: Path = tmp_path_factory.mktemp("shipped")
    return dict(together(2, folder, shipped)[0])


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs_with_two_ranks(name: str, answers: dict[str, Any]) -> None:
    assert answers["codes"][name] == 0


def test_both_ranks_have_worked_on_all_kinds_of_stages_that_teams_do(
    answers: dict[str, Any],
) -> None:
    assert {"train", "sample", "encode"} <= set(answers["kinds"])
