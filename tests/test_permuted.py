"""The control that has the sizes of the clusters that it is compared with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from sklearn.metrics import adjusted_mutual_info_score

from fw.core.errors import FwError
from fw.core.job import Job
from fw.core.kinds import Annotator
from fw.core.plan.assembly import plan
from fw.core.recipe.loading import load
from fw.core.testing import check
from fw.core.types import Observations
from fw.plugins.annotators.features import Representation
from fw.plugins.annotators.kmeans import KMeans
from fw.plugins.annotators.labels import Labels
from fw.plugins.annotators.online import OnlineClusters
from fw.plugins.annotators.permuted import Permuted
from fw.plugins.annotators.random import Random
from fw.plugins.annotators.retrieval import Retrieval
from fw.plugins.datasets.digits import Digits

TINY = Path(__file__).with_name("tiny.yaml")


@pytest.fixture(scope="module")
def digits() -> Observations:
    data = Digits().load("train")
    return Observations(len(data), data.images.flatten(1).float(), data.labels, data.classes)


@pytest.mark.parametrize(
    "inner",
    [KMeans(), Random(), Labels(), Labels(known=0.5), Representation(), Retrieval(k=2)],
    ids=lambda inner: inner.name,
)
def test_it_keeps_the_contract_whatever_it_permutes(inner: Annotator) -> None:
    check(Permuted(of=inner))


def test_it_has_the_clusters_of_the_other_in_another_order(
    digits: Observations, tmp_path: Path
) -> None:
    inner = KMeans(clusters=50)
    own, permuted = (each.annotate(digits, Job(tmp_path)) for each in (inner, Permuted(of=inner)))
    assert permuted.spec == own.spec
    assert not permuted.conditions.equal(own.conditions)
    sizes = own.conditions.bincount(minlength=50)
    assert permuted.conditions.bincount(minlength=50).equal(sizes)
    assert len(sizes.unique()) > 10  # which `random` does not have


def test_the_order_is_that_of_the_seed_and_knows_no_image(
    digits: Observations, tmp_path: Path
) -> None:
    """Labels that are the numbers of the images show the order."""
    numbers = torch.arange(digits.count)
    shown = Observations(digits.count, digits.features, numbers, digits.count)
    orders = [
        Permuted(of=Labels()).annotate(shown, Job(tmp_path, seed=seed)).conditions
        for seed in (0, 0, 1)
    ]
    assert orders[0].equal(orders[1])
    assert not orders[0].equal(orders[2])
    assert orders[0].sort().values.equal(numbers)
    inner = KMeans(clusters=10)
    own, permuted = (each.annotate(digits, Job(tmp_path)) for each in (inner, Permuted(of=inner)))
    assert permuted.conditions.equal(own.conditions[orders[0]])


def test_its_clusters_agree_with_labels_by_chance_alone(
    digits: Observations, tmp_path: Path
) -> None:
    assert digits.labels is not None
    labels = digits.labels.numpy()
    found = torch.tensor(
        [
            adjusted_mutual_info_score(
                labels,
                Permuted(of=KMeans(clusters=20, nredo=1))
                .annotate(digits, Job(tmp_path, seed=seed))
                .conditions,
            )
            for seed in range(20)
        ]
    )
    assert abs(found.mean()) < 4 * found.std() / 20**0.5
    assert found.abs().max() < 0.03


def test_a_bank_and_images_without_a_condition_stay_what_they_are(
    digits: Observations, tmp_path: Path
) -> None:
    for inner in (Labels(known=0.3), Retrieval(k=2)):
        own, permuted = (
            each.annotate(digits, Job(tmp_path)) for each in (inner, Permuted(of=inner))
        )
        assert own.bank is not None
        assert permuted.bank is not None
        assert permuted.bank.equal(own.bank)
        assert permuted.known.sum() == own.known.sum()


@pytest.mark.parametrize(
    "inner", [KMeans(), Labels(), Labels(known=0.5), Random(), Representation(), Retrieval()]
)
def test_it_looks_at_what_the_other_looks_at(inner: Annotator) -> None:
    control = Permuted(of=inner)
    for fact in ("uses_features", "uses_labels", "form", "partial", "requires", "provides"):
        assert getattr(control, fact) == getattr(inner, fact)
    assert control.makes(10) == inner.makes(10)
    assert control.least_images == inner.least_images


def test_an_annotator_that_learns_with_the_model_cannot_be_permuted() -> None:
    with pytest.raises(ValidationError, match="annotator 'online', whose conditions are made"):
        Permuted(of=OnlineClusters())


def recipe(tmp_path: Path, inner: str) -> Path:
    text = TINY.read_text(encoding="utf-8")
    arm = f"  control: {{annotator: {{name: permuted, of: {inner}}}, guidance: self_guidance}}\n"
    path = tmp_path / "recipe.yaml"
    path.write_text(text + arm, encoding="utf-8")
    return path


def test_what_it_permutes_has_to_be_said() -> None:
    """A default would have another number of clusters than the arm that it is the control of."""
    with pytest.raises(ValidationError, match="of"):
        Permuted()  # type: ignore[call-arg]


def test_it_counts_as_made_with_labels_where_the_other_does(tmp_path: Path) -> None:
    assert load(recipe(tmp_path, "kmeans"))
    with pytest.raises(FwError, match="self_guidance"):
        load(recipe(tmp_path, "labels"))


def test_labels_that_are_permuted_have_no_names(tmp_path: Path) -> None:
    control = load(recipe(tmp_path, "random")).arm("control")
    assert not control.model_copy(update={"annotator": Permuted(of=Labels())}).classes_are_labels
    assert control.model_copy(update={"annotator": Labels()}).classes_are_labels


def test_its_arm_shares_the_encoder(tmp_path: Path) -> None:
    planned = plan(load(recipe(tmp_path, "{name: kmeans, clusters: 12}")))
    encoders = {
        stage.id
        for stage in planned.stages.values()
        if stage.kind == "encode" and planned.arms["control"].encode == stage.id
    }
    assert len(encoders) == 1
