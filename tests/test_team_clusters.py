"""A team finds the clusters that one process finds: each member has its rows of the features."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from teams import together
from test_team_faults import Heard, executed
from torch import Tensor
from torch.nn.functional import normalize

from fw.core.errors import FwError, Interrupted
from fw.core.features.kmeans import MANY, Centroids
from fw.core.features.lloyd import Lloyd
from fw.core.features.points import check_range
from fw.core.job import Job
from fw.core.kinds import Annotator
from fw.core.machine.team import Team
from fw.core.plan.assembly import plan
from fw.core.plan.graph import Plan
from fw.core.recipe.loading import load
from fw.core.stages.annotate import Annotate
from fw.core.store.store import Store
from fw.core.types import Observations
from fw.plugins.annotators.kmeans import KMeans
from fw.plugins.annotators.labels import Labels
from fw.plugins.annotators.sinkhorn import Sinkhorn, shares
from fw.plugins.datasets.digits import Digits

TINY = Path(__file__).parent / "tiny.yaml"

ANNOTATORS: dict[str, Annotator] = {
    "kmeans": KMeans(clusters=20),
    "kmeans, cosines": KMeans(clusters=20, spherical=True),
    "kmeans, raw": KMeans(clusters=20, normalise=False),
    "kmeans, three starts": KMeans(clusters=20, nredo=3),
    # With 64 points for each centroid, the others start from some of the images.
    "kmeans, many": KMeans(clusters=300),
    "sinkhorn": Sinkhorn(clusters=20),
}

AGREES = {"kmeans, cosines": 0.95, "sinkhorn": 0.9}
"""faiss ends by cosines where torch ends by distances, with a team or without, and sinkhorn starts
from there; the others agree by 0.99."""


def digits() -> Observations:
    data = Digits().load("train")
    return Observations(len(data), data.images.flatten(1).float(), data.labels, data.classes)


def points() -> Tensor:
    features = digits().features
    assert features is not None
    return normalize(features)


def iterated(team: Team) -> tuple[Tensor, float]:
    """Of a start whose last centroids are so far away that they have no points."""
    start = points()[:400].clone()
    start[350:] = 5.0
    return Lloyd(400, 25, spherical=False, tolerance=0.0, team=team).descend(
        team.own(points()), start
    )


def found(team: Team, folder: Path) -> dict[str, Any]:
    """What a member finds."""
    own = folder / f"of-{team.rank}-of-{team.size}"
    own.mkdir()
    job = Job(own, seed=0, team=team)
    annotated = {
        name: annotator.annotate(digits(), job).conditions for name, annotator in ANNOTATORS.items()
    }
    cosines = points() @ points()[::70].T
    return {
        "annotated": annotated,
        "iterated": iterated(team),
        "shares": shares(team.own(cosines), 0.01, 50, team=team),
        "refused": [refused(team, own), vanishing(team)],
        "stopped": stopped(team, own),
    }


def refused(team: Team, folder: Path) -> str:
    """What is said where each member's features differ, and those of all are too few."""
    same = points()[:30].repeat(40, 1)
    try:
        KMeans(clusters=31).annotate(Observations(len(same), same), Job(folder, team=team))
    except FwError as error:
        return str(error)
    return ""


def vanishing(team: Team) -> str:
    """What is said of features of which one member's are as they should be."""
    features = torch.zeros(40, 3)
    features[0] = 1e16
    try:
        check_range(team.own(features), "these", team)
    except FwError as error:
        return str(error)
    return ""


def stopped(team: Team, folder: Path) -> list[int]:
    """The items that were begun where the last member alone is asked to stop, at the third."""
    begun: list[int] = []
    job = Job(folder, team=team, stopping=lambda: team.rank == team.size - 1 and len(begun) == 2)
    try:
        for item in job.track(range(5), "items", together=True):
            begun.append(item)
            team.wait()
    except Interrupted:
        pass
    return begun


@pytest.fixture(scope="module", params=[2, 3])
def teams(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What one process finds, and each member of a team."""
    folder = tmp_path_factory.mktemp("clusters")
    return found(Team(), folder), together(request.param, folder / "team", found)


Teams = tuple[dict[str, Any], list[dict[str, Any]]]


@pytest.mark.parametrize("name", ANNOTATORS)
def test_all_members_return_the_clusters_of_one_process(teams: Teams, name: str) -> None:
    alone, members = teams
    first, *others = (each["annotated"][name] for each in members)
    assert all(first.equal(each) for each in others)
    agrees = adjusted_rand_score(alone["annotated"][name], first)
    assert agrees > AGREES.get(name, 0.99)


def test_centroids_without_points_move_to_the_same_points(teams: Teams) -> None:
    alone, members = teams
    centroids, distortion = alone["iterated"]
    for each in members:
        torch.testing.assert_close(each["iterated"][0], centroids, rtol=0, atol=1e-5)
        assert each["iterated"][1] == pytest.approx(distortion, rel=1e-6)
    assert members[0]["iterated"][0].equal(members[-1]["iterated"][0])


def test_prototypes_are_preferred_as_by_one_process(teams: Teams) -> None:
    alone, members = teams
    for each in members:
        torch.testing.assert_close(each["shares"], alone["shares"], rtol=0, atol=1e-4)


def test_all_members_refuse_what_one_process_refuses(teams: Teams) -> None:
    alone, members = teams
    assert "31 clusters need as many different features, and there are 30" in alone["refused"][0]
    assert "the features reach 1e+16" in alone["refused"][1]
    assert [each["refused"] for each in members] == [alone["refused"]] * len(members)


def test_members_that_exchange_stop_before_the_same_item(teams: Teams) -> None:
    _, members = teams
    assert [each["stopped"] for each in members] == [[0, 1]] * len(members)


def test_a_team_is_for_many_clusters() -> None:
    kinds: tuple[type[KMeans | Sinkhorn], ...] = (KMeans, Sinkhorn)
    for kind in kinds:
        assert kind(clusters=MANY).shares
        assert not kind(clusters=MANY - 1).shares
    assert not Labels().shares
    assert Annotate(Digits(), KMeans(clusters=MANY)).shared("cuda")
    assert not Annotate(Digits(), Labels()).shared("cuda")


def test_a_team_writes_one_annotation(tmp_path: Path) -> None:
    recipe = load(TINY, [f"annotator.clusters={MANY}", "tracker=null"])
    stages = {
        name: stage
        for name, stage in plan(recipe, ["self_1.0"]).stages.items()
        if stage.kind in ("encode", "annotate") and "pca" not in stage.label
    }
    written = {}
    for ranks in (1, 2):
        root = tmp_path / str(ranks)
        heard = Heard()
        assert executed(Plan(stages), root, heard, ranks).failed == {}
        (stage,) = (each for each in stages.values() if isinstance(each, Annotate))
        assert Store(root).manifest(stage.id).get("ranks", 1) == ranks
        product = Store(root).product(stage.id)
        assert {each.name for each in product.iterdir()} >= set(stage.files)
        written[ranks] = json.loads((product / "quality.json").read_text("utf-8"))
        assert not [text for text in heard.said if "have no image" in text]
    assert written[2] == pytest.approx(written[1], abs=0.02)


def test_centroids_of_one_process_are_those_of_faiss() -> None:
    assert type(Centroids(points(), 5, 0).by).__name__ == "ByFaiss"
