"""Every guidance beside every annotator: what is not refused with a reason is trained and
sampled, for real."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch

from fw.core.catalogue.matrix import NONE, Cell, cells, page, recipe_of
from fw.core.catalogue.reference import builtins
from fw.core.execution.place import Place
from fw.core.execution.stage import execute
from fw.core.plan.assembly import plan
from fw.core.stages.sample import load_samples
from fw.core.store.store import Store
from fw.registry import Registry


class Quiet:
    """Hears nothing."""

    def progress(self, stage: str, label: str, done: int, total: int) -> None:
        pass

    def metrics(self, stage: str, records: Sequence[Mapping[str, float]]) -> None:
        pass

    def told(self, stage: str, text: str) -> None:
        pass

    def waiting(self, stage: str, holder: str) -> None:
        pass


MATRIX = Path(__file__).parents[1] / "docs/matrix.md"


@pytest.fixture(scope="module")
def registry() -> Registry:
    return builtins()


@pytest.fixture(scope="module")
def pairs(registry: Registry) -> dict[tuple[str, str], Cell]:
    return cells(registry)


def test_the_page_says_what_validation_says_now(registry: Registry) -> None:
    assert MATRIX.read_text("utf-8") == page(registry), "run `make reference`"


def test_all_guidance_and_all_annotators_are_in_it(
    registry: Registry, pairs: dict[tuple[str, str], Cell]
) -> None:
    for kind, place in (("guidance", 0), ("annotator", 1)):
        assert {each.name for each in registry.of_kind(kind)} == {pair[place] for pair in pairs} - {
            NONE
        }


def test_a_pair_runs_or_is_refused_with_a_reason(pairs: dict[tuple[str, str], Cell]) -> None:
    assert [
        pair for pair, found in pairs.items() if (found.arm is None) != bool(found.reasons)
    ] == []
    assert pairs["cfg", NONE].arm is None
    assert pairs["self_guidance", "labels"].arm is None
    assert pairs["self_guidance", "kmeans"].arm is not None
    assert pairs["classifier", "kmeans"].joint


def test_every_pair_that_is_not_refused_trains_and_samples(
    registry: Registry, pairs: dict[tuple[str, str], Cell], tmp_path: Path
) -> None:
    """One small recipe with an arm for each; pairs with the same conditions and network share
    their training."""
    arms = {
        f"{guidance}-{annotator}": found.arm
        for (guidance, annotator), found in pairs.items()
        if found.arm
    }
    recipe = recipe_of(arms, registry)
    found = plan(recipe)
    store = Store(tmp_path)
    for stage in found.stages.values():
        if stage.kind != "evaluate":
            execute(stage, Place(tmp_path, "cpu", 1, 60.0), Quiet(), lambda: False)
    plain = load_samples(store.path(found.arms["none"].sample), recipe.samples)[0]
    for arm in arms:
        [samples] = load_samples(store.path(found.arms[arm].sample), recipe.samples)
        assert samples.shape == plain.shape
        assert samples.dtype == torch.uint8
    assert len(arms) > 60
