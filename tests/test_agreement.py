"""`agreement`: do samples show what they were asked for? Closed forms, and a model that does
exactly as it is told."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import toys
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from torch import Tensor, nn

from fw.core.commands.plot import plot
from fw.core.errors import RecipeError, StageFailed
from fw.core.execution.options import Options
from fw.core.features.logistic import accuracy_of, linear_probe
from fw.core.kinds import Attend, Backbone
from fw.core.plan.assembly import plan
from fw.core.recipe.loading import validate
from fw.core.recipe.model import Recipe
from fw.core.recipe.source import parse
from fw.core.report.runfile import read_run
from fw.core.report.tables import rows
from fw.core.run.finished import FinishedRun
from fw.core.run.run import run
from fw.core.run.tracking import arm_scores
from fw.core.testing import check, violations
from fw.core.types import ConditionSpec, Reference
from fw.plugins.annotators.labels import Labels
from fw.plugins.encoders.pixels import Pixels
from fw.plugins.metrics.agreement import Agreement
from fw.plugins.priors.uniform import Uniform
from fw.registry import Provider

METRIC = Agreement(space=Pixels())
AXES = 8 * torch.eye(4)


def compared(conditions: Tensor, train: Tensor, asked: Tensor, fake: Tensor) -> float:
    prepared = METRIC.prepare(Reference(train, train, conditions))
    [score] = METRIC.compare(prepared, fake, asked).values()
    return score


def blobs(classes: Tensor, seed: int = 0) -> Tensor:
    """Features (N, 4), each around the axis of its class."""
    return AXES[classes] + torch.randn(
        len(classes), 4, generator=torch.Generator().manual_seed(seed)
    )


# What it says of features


def test_it_keeps_to_the_contract_of_metrics() -> None:
    check(METRIC)


def test_a_metric_that_writes_into_the_classes_is_found() -> None:
    class InPlace(Agreement):
        name: ClassVar[str] = "in_place"

        def compare(
            self, prepared: Any, fake: Tensor, wanted: Tensor | None = None
        ) -> dict[str, float]:
            assert wanted is not None
            score = super().compare(prepared, fake, wanted)
            wanted.zero_()
            return score

    assert any("classes of the samples" in line for line in violations(InPlace(space=Pixels())))


@settings(deadline=None, max_examples=20)
@given(wrong=st.integers(0, 40))
def test_it_is_the_share_of_samples_of_the_class_that_was_asked_for(wrong: int) -> None:
    classes = torch.arange(40) % 4
    asked = torch.where(torch.arange(40) < wrong, (classes + 1) % 4, classes)
    assert compared(classes, blobs(classes), asked, blobs(classes, 1)) == (40 - wrong) / 40


def test_images_of_unknown_class_do_not_teach_the_judge() -> None:
    classes = torch.arange(40) % 4
    train = torch.cat([blobs(classes), blobs(classes.flip(0), 2)])
    known = torch.cat([classes, torch.full((40,), -1)])
    assert compared(known, train, classes, blobs(classes, 1)) == 1


def test_one_class_is_nothing_to_judge() -> None:
    with pytest.raises(StageFailed, match="two classes or more"):
        compared(
            torch.zeros(40, dtype=torch.int64),
            blobs(torch.zeros(40, dtype=torch.int64)),
            AXES[0].long(),
            AXES,
        )


# In a recipe


class Paint(nn.Module):
    """Predicts an image as bright as its class, or, blind, as bright as the noise happens to be."""

    def __init__(self, blind: bool):
        super().__init__()
        self.blind = blind
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(
        self,
        x: Tensor,
        noise: Tensor,
        condition: Tensor | None = None,
        dropped: Tensor | None = None,
        attend: Attend | None = None,
    ) -> Tensor:
        told = x.mean(dim=(1, 2, 3)) > 0 if self.blind or condition is None else condition
        return (told.to(x.dtype) - 0.5).view(-1, 1, 1, 1).expand_as(x) - x + self.unused


class Painter(Backbone):
    """What it is told, exactly."""

    name: ClassVar[str] = "painter"
    blind: bool = False

    def build(self, shape: tuple[int, int, int], condition: ConditionSpec | None) -> nn.Module:
        return Paint(self.blind)


ARMS = """\
  plain:   {annotator: null}
  obeys:   {}
  blind:   {model: {name: painter, blind: true}}
  evenly:  {prior: uniform, annotator: {name: labels, known: 0.5}}
  halves:  {annotator: {name: halves, clusters: 2}}
  nothing: {annotator: coin}
  free_2:  {guidance: {name: free, scale: 2}}
  free_3:  {guidance: {name: free, scale: 3}}
"""


def recipe(*sets: str) -> Recipe:
    registry = toys.registry()
    registry.add(Provider("agreement"), [Agreement, Labels, Painter, Pixels, Uniform])
    source = parse(toys.RECIPE[: toys.RECIPE.index("  plain:")] + ARMS, "r.yaml")
    source.set(
        [
            *(
                "annotator=labels",
                "model=painter",
                "samples={count: 100, seeds: 3}",
                "dataset={name: dots, count: 60}",
            ),
            "metrics=[{name: gap, space: flat}, {name: agreement, space: pixels}]",
        ]
    )
    source.set(sets)
    return validate(source, registry)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    made, out = recipe(), tmp_path_factory.mktemp("agreement")
    found, failed = run(
        made, plan(made), Options(out=out, device="cpu", jobs=1, threads=1), [], Console(quiet=True)
    )
    assert failed is None, failed
    return out / "toy" / "latest", found


def test_a_model_that_obeys_agrees_and_one_that_is_blind_agrees_by_chance(
    result: tuple[Path, dict[str, Any]],
) -> None:
    arms = result[1]["arms"]
    for name in ("obeys", "evenly", "halves"):
        assert arms[name]["metrics"]["agreement_pixels"]["values"] == [1.0] * 3
    for name in ("blind", "nothing"):  # no judge can see classes that are tossed with a coin
        values = arms[name]["metrics"]["agreement_pixels"]["values"]
        assert 0.35 < sum(values) / 3 < 0.65
        assert len(set(values)) > 1  # each sampling seed asks for classes of its own


def test_a_metric_prepares_once_for_all_seeds_and_the_floor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Counter[str] = Counter()

    def fit(*given: Any, **more: Any) -> Any:
        calls["judges"] += 1
        return linear_probe(*given, **more)

    def score(*given: Any) -> float:
        calls["scores"] += 1
        return accuracy_of(*given)

    monkeypatch.setattr("fw.plugins.metrics.agreement.linear_probe", fit)
    monkeypatch.setattr("fw.plugins.metrics.agreement.accuracy_of", score)
    made = recipe("arms={obeys: {}}", "baseline=obeys", "samples={count: 20, seeds: 3}")
    _, failed = run(
        made,
        plan(made),
        Options(out=tmp_path, device="cpu", jobs=1, threads=1),
        [],
        Console(quiet=True),
    )
    assert failed is None, failed
    assert calls == {"judges": 1, "scores": 3 + 3}  # the floor is of three sets of held-out images


def test_arms_without_classes_are_not_scored_and_clusters_have_no_floor(
    result: tuple[Path, dict[str, Any]],
) -> None:
    arms = result[1]["arms"]
    assert "agreement_pixels" not in arms["plain"]["metrics"]
    assert all(
        arms[name]["metrics"]["agreement_pixels"]["floor"] == 1
        for name in ("obeys", "blind", "evenly")
    )
    assert arms["nothing"]["metrics"]["agreement_pixels"]["floor"] is None
    assert "floor/agreement_pixels" in arm_scores(arms["obeys"])
    assert arm_scores(arms["nothing"]).keys() ^ arm_scores(arms["obeys"]).keys() == {
        "floor/agreement_pixels"
    }
    header, plain, obeys, *_, floor = rows(result[1])
    column = header.index("agreement_pixels ↑")
    assert [row[column] for row in (plain, obeys, floor)] == ["", "1.000 ± 0.000", "1.000"]


def test_figures_leave_out_what_is_not_scored(
    result: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, _ = result
    assert (folder / "arms.png").stat().st_size > 0
    assert read_run(folder)["arms"]["plain"]["status"] == "finished"
    scores = ["gap_flat", "agreement_pixels"]  # its baseline has none
    plot(FinishedRun(folder), "guidance.0.scale", scores, tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").stat().st_size > 0


def test_other_metrics_have_the_keys_that_they_had() -> None:
    with_it, without = plan(recipe()), plan(recipe("metrics=[{name: gap, space: flat}]"))
    assert {
        stage for arm in without.arms.values() for stage in arm.evaluate
    } <= with_it.stages.keys()
    [score] = [
        stage
        for stage in with_it.arms["evenly"].evaluate
        if "agreement" in with_it.stages[stage].title
    ]
    assert with_it.stages[score].inputs.keys() == {
        "sample",
        "space",
        "features",
        "annotate",
        "prior",
    }
    assert len(with_it.arms["plain"].evaluate) == 1


def test_a_recipe_without_classes_is_told() -> None:
    with pytest.raises(
        RecipeError, match="agreement reads the classes of conditions, and no arm has any"
    ):
        recipe("annotator=null", "arms={plain: {}, other: {}}")
