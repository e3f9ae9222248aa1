"""The scores of several sampling seeds are computed by the members of a team, to the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import teams
import toys
from test_team_faults import Heard, executed

from fw.core.job import Job
from fw.core.machine.team import Team
from fw.core.plan.assembly import plan
from fw.core.plan.graph import Plan
from fw.core.recipe.loading import validate
from fw.core.recipe.source import parse
from fw.core.stages.evaluate import MANY, Evaluate
from fw.core.store.store import Store


def planned(*sets: str) -> Plan:
    source = parse(toys.RECIPE, "r.yaml")
    source.set(["samples.seeds=4", "arms={plain: {annotator: null}}"])
    source.set(sets)
    return plan(validate(source, toys.registry()))


def judged(found: Plan) -> Evaluate:
    (stage,) = [each for each in found.stages.values() if isinstance(each, Evaluate)]
    return stage


def evaluated(team: Team, folder: Path) -> dict[str, Any]:
    """What a member returns: the seeds that it has compared, and the file that the first writes."""
    stage, store = judged(planned()), Store(folder / "store")
    compared: list[int] = []
    own = folder / f"of-{team.rank}-of-{team.size}"
    own.mkdir()
    before = type(stage).compared

    def counted(self: Evaluate, *args: Any) -> Any:
        compared.append(1)
        return before(self, *args)

    type(stage).compared = counted  # type: ignore[assignment, method-assign]
    stage.run(Job(own, 0, team=team), lambda each: store.path(each.id))
    files = {each.name: each.read_bytes() for each in own.iterdir()}
    return {"compared": len(compared), "files": files}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scores")
    assert executed(planned(), folder / "store", Heard(), ranks=1).failed == {}
    return folder


@pytest.mark.parametrize("size", [2, 3])
def test_a_team_shares_the_seeds_and_writes_the_scores_of_one_process(
    finished: Path, size: int
) -> None:
    alone = Store(finished / "store").path(judged(planned()).id) / "scores.json"
    first, *others = teams.together(size, finished, evaluated)
    assert first["files"] == {"scores.json": alone.read_bytes()}
    assert [each["files"] for each in others] == [{}] * (size - 1)
    counts = [first["compared"], *(each["compared"] for each in others)]
    assert sum(counts) == 4
    assert max(counts) == 2


def test_few_samples_and_a_single_seed_are_compared_by_one_process() -> None:
    shared = {
        (count, seeds): judged(planned(f"samples.count={count}", f"samples.seeds={seeds}")).shared(
            "cpu"
        )
        for count in (MANY - 1, MANY)
        for seeds in (1, 2)
    }
    assert [each for each, yes in shared.items() if yes] == [(MANY, 2)]
