"""`fw clusters`: what an annotator makes of an arm's features at several K, from the store and
without any training."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from pydantic import Field
from rich.console import Console
from sklearn.cluster import KMeans as ReferenceKMeans
from torch.nn.functional import normalize

from fw.core.commands.clusters import bound, numbers, show, spread, survey
from fw.core.errors import FwError, StageFailed
from fw.core.execution.options import Options
from fw.core.job import Job
from fw.core.kinds import Annotator
from fw.core.plan.assembly import plan
from fw.core.recipe.loading import load
from fw.core.recipe.model import Recipe
from fw.core.types import Annotation, ConditionSpec, Observations
from fw.plugins.annotators.random import Random
from fw.plugins.datasets.digits import Digits

TINY = Path(__file__).parent / "tiny.yaml"


class Lazy(Annotator):
    """Uses only the first `busy` clusters."""

    name: ClassVar[str] = "lazy"
    clusters: int = Field(2, ge=2)
    busy: int = 20
    broken: bool = False

    def annotate(self, data: Observations, job: Job) -> Annotation:
        if self.broken:
            raise FwError("annotator lazy: not today")
        return Annotation(
            ConditionSpec("class", self.clusters),
            torch.arange(data.count) % min(self.clusters, self.busy),
        )


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load(TINY)


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(tmp_path, "cpu", jobs=1)


@pytest.fixture
def quiet(tmp_path: Path) -> Console:
    return Console(file=(tmp_path / "said").open("w"), width=200)


def with_annotator(recipe: Recipe, annotator: Annotator | None) -> Recipe:
    return recipe.model_copy(update={"annotator": annotator})


def test_each_k_is_measured_on_the_features_that_the_annotator_saw(recipe, options, quiet):
    answer = survey(recipe, None, [30, 3, 30], options, quiet)
    assert answer["arm"] == "self_1.0"
    assert answer["images"] == 1437
    assert [row["clusters"] for row in answer["rows"]] == [3, 30]
    three, thirty = answer["rows"]
    pixels = Digits().load("train").images.flatten(1).float() / 127.5 - 1
    reference = ReferenceKMeans(30, n_init=5, random_state=0).fit_predict(normalize(pixels).numpy())
    means = [pixels[reference == cluster].mean(dim=0) for cluster in range(30)]
    distance = (pixels - torch.stack(means)[reference]).norm(dim=1).mean()
    assert thirty["spread"] == pytest.approx(float(distance), rel=0.03)
    assert answer["spread"] > three["spread"] > thirty["spread"]
    assert three["smallest"] > 200
    assert 0 < thirty["smallest"] < 1437 // 30
    assert three["used"] == thirty["used"] == 1
    assert {"nmi", "ari"} == three["with_labels"].keys()
    assert thirty["with_labels"]["nmi"] > three["with_labels"]["nmi"]


def test_the_spread_is_the_mean_distance_to_the_mean_of_the_cluster():
    features = torch.tensor([[0.0, 0.0], [2.0, 0.0], [5.0, 1.0], [5.0, 7.0], [1.0, 1.0]])
    assert spread(features, torch.tensor([0, 0, 2, 2, 3]), 4) == pytest.approx(
        (1 + 1 + 3 + 3 + 0) / 5
    )


def test_nothing_is_computed_twice_and_a_run_finds_what_was_computed_here(
    recipe, options, quiet, monkeypatch
):
    survey(recipe, "self_1.5", [5, 7], options, quiet)
    store = options.out / "store"
    made = {path.name for path in store.iterdir() if path.is_dir()} - {"locks"}
    assert sorted(name.partition("-")[0] for name in made) == ["annotate", "annotate", "encode"]
    arm = plan(recipe).arms["self_1.5"]
    assert {arm.encode, arm.annotate} <= made  # 5 is the recipe's own number
    started = []
    monkeypatch.setattr(
        "fw.core.run.board.Board.started", lambda board, stage: started.append(board.title(stage))
    )
    again = survey(recipe, "self_1.5", [5, 7, 9], options, quiet)
    assert started == ["annotate kmeans, 9 clusters"]
    assert [row["clusters"] for row in again["rows"]] == [5, 7, 9]


def test_without_numbers_those_of_a_ladder_are_tried_up_to_half_the_images(recipe, options, quiet):
    answer = survey(with_annotator(recipe, Lazy()), None, [], options, quiet)
    assert [row["clusters"] for row in answer["rows"]] == [10, 20, 50, 100, 200, 500]


def test_the_bound_is_the_largest_k_that_is_used_enough(recipe, options, quiet):
    answer = survey(
        with_annotator(recipe, Lazy(busy=120)), None, [10, 100, 125, 200], options, quiet
    )
    assert [row["used"] for row in answer["rows"]] == pytest.approx([1, 1, 0.96, 0.6])
    assert answer["upper_bound"] == 125
    assert "Upper bound: 125," in bound(answer)
    assert "25 to 83" in bound(answer)


def test_the_bound_says_where_it_was_not_found(recipe, options, quiet):
    lazy = with_annotator(recipe, Lazy())
    assert "even 20 has" in bound(survey(lazy, None, [10, 20], options, quiet))
    none = survey(lazy, None, [40, 80], options, quiet)
    assert none["upper_bound"] is None
    assert "below 40;" in bound(none)


def test_agreement_with_labels_is_shown_for_reading_only_and_left_out_without_labels(
    recipe, options, quiet, tmp_path
):
    def shown(answer: dict[str, Any]) -> str:
        path = tmp_path / "shown"
        with path.open("w") as file:
            show(answer, Console(file=file, width=200))
        return path.read_text()

    answer = survey(recipe, None, [5], options, quiet)
    assert "(nmi)" in shown(answer)
    assert "Choosing K by it uses labels" in shown(answer)
    for row in answer["rows"]:
        row["with_labels"] = {}
    assert "nmi" not in shown(answer)
    assert "labels" not in shown(answer)


@pytest.mark.parametrize(
    ("annotator", "arm", "counts", "said"),
    [
        (
            Lazy(),
            "nobody",
            [5],
            r"--arm nobody: no such arm in recipe 'tiny' \(known: unconditional, self_1.0, "
            r"self_1.5\)",
        ),
        (Lazy(), "unconditional", [5], r"--arm unconditional: it has no annotator"),
        (
            Random(),
            "self_1.0",
            [5],
            r"--arm self_1.0: it has annotator 'random', which does not cluster features",
        ),
        (Random(), None, [5], r"no arm's annotator clusters features"),
        (
            Lazy(),
            None,
            [5, 1438],
            r"-k 1438: 1438 clusters need as many images, and there are 1437",
        ),
        (Lazy(), None, [1], r"-k 1: annotator 'lazy': input should be greater than or equal to 2"),
    ],
)
def test_what_cannot_be_surveyed_is_told_in_one_sentence(
    recipe, options, quiet, annotator, arm, counts, said
):
    with pytest.raises(FwError, match=said):
        survey(with_annotator(recipe, annotator), arm, counts, options, quiet)


def test_an_annotator_that_fails_ends_it_with_its_reason(recipe, options, quiet):
    with pytest.raises(StageFailed, match=r"annotate lazy, 5 clusters: annotator lazy: not today"):
        survey(with_annotator(recipe, Lazy(broken=True)), None, [5], options, quiet)


def test_numbers_are_read_from_the_command_line():
    assert numbers("10, 20,50") == [10, 20, 50]
    for wrong in ("", "10,", "ten", "-5", "1.5"):
        with pytest.raises(FwError, match=r"such as -k 10,20,50"):
            numbers(wrong)


def test_the_command_answers_with_json_and_nothing_else_on_standard_output(tmp_path):
    command = [
        sys.executable,
        "-m",
        "fw.core",
        "clusters",
        str(TINY),
        "--arm",
        "self_1.0",
        "-k",
        "4",
        "--json",
    ]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [row["clusters"] for row in json.loads(done.stdout)["rows"]] == [4]
