"""A conditional denoiser as a classifier: near Bayes where the denoiser is exact, and what each
of its fields buys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made import trained
from pydantic import ValidationError
from test_probes import ran
from torch import Tensor

from fw.core.errors import RecipeError, StageFailed
from fw.core.features.reading import ArmReader
from fw.core.job import Job
from fw.core.plan.assembly import plan
from fw.core.recipe.loading import validate
from fw.core.recipe.model import Recipe
from fw.core.recipe.source import parse
from fw.core.stages.probe import ApplyProbe
from fw.core.testing import check, tiny
from fw.core.types import Examples, Told
from fw.plugins.annotators.labels import Labels
from fw.plugins.backbones.unet import UNet
from fw.plugins.joint.jdm import JDM
from fw.plugins.metrics.fd import FD
from fw.plugins.probes.diffusion_classifier import DiffusionClassifier, schedule
from fw.plugins.processes.edm import EDM
from fw.registry import Provider
from tests import toys

CLASSES, STD = 6, 0.8
DRAW = torch.Generator().manual_seed(3)
MEANS = 0.45 * torch.randn(CLASSES, 1, 4, 4, generator=DRAW)
LABELS = torch.randint(0, CLASSES, (300,), generator=DRAW)
IMAGES = MEANS[LABELS] + STD * torch.randn(300, 1, 4, 4, generator=DRAW)
BAYES = (IMAGES[:, None] - MEANS).square().sum(dim=(2, 3, 4)).argmin(dim=1)
"""The best guess for Gaussians of equal variance: the nearest mean. It is right in about three
cases of four."""


class Exact:
    """E[x0 | x, c] of N(MEANS[c], STD^2); counts what it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.seen: list[tuple[float, Tensor]] = []

    def __call__(self, x: Tensor, sigma: float, told: Tensor) -> Tensor:
        self.asked += len(x)
        self.seen.append((sigma, told))
        return (STD**2 * x + sigma**2 * MEANS[told]) / (STD**2 + sigma**2)


def classified(folder: Path, images: Tensor = IMAGES, **fields: Any) -> tuple[Tensor, Exact]:
    folder.mkdir(parents=True, exist_ok=True)
    exact = Exact()
    marks = [str(place) for place in range(len(images))]
    probe = DiffusionClassifier(**fields)
    return probe.classify(Told(exact, EDM().sigmas, CLASSES), images, marks, Job(folder)), exact


def agreement(found: Tensor) -> float:
    return float((found == BAYES).double().mean())


def plain(samples: int, **fields: Any) -> dict[str, Any]:
    """No racing."""
    return {"samples": (samples,), "keep": (1,), **fields}


@pytest.mark.parametrize("paired", [True, False])
def test_it_keeps_the_contract_of_a_probe(paired: bool) -> None:
    check(DiffusionClassifier(samples=(5, 20), keep=(2, 1), paired=paired))


# Against the best classifier there is


def test_an_exact_denoiser_classifies_nearly_as_well_as_bayes_and_better_with_more_samples(
    tmp_path: Path,
) -> None:
    found = {count: classified(tmp_path / str(count), **plain(count))[0] for count in (2, 10, 250)}
    shares = {count: agreement(each) for count, each in found.items()}
    assert shares[2] + 0.1 < shares[10] < shares[250] - 0.02
    assert shares[250] > 0.9
    best, ours = ((each == LABELS).double().mean() for each in (BAYES, found[250]))
    assert 0.6 < best < 0.9
    assert ours > best - 0.04


def test_paired_noise_beats_fresh_noise_for_each_class(tmp_path: Path) -> None:
    for count in (10, 60):
        shares = [
            agreement(classified(tmp_path / f"{count}{paired}", **plain(count, paired=paired))[0])
            for paired in (True, False)
        ]
        assert shares[0] > shares[1] + 0.2, (count, shares)


def test_a_race_finds_the_same_class_for_a_fraction_of_the_evaluations(tmp_path: Path) -> None:
    whole, every = classified(tmp_path / "whole", **plain(100))
    raced, few = classified(tmp_path / "raced", samples=(20, 100), keep=(2, 1))
    assert every.asked == 300 * CLASSES * 100
    assert few.asked == 300 * (CLASSES * 20 + 2 * 80)
    assert few.asked < 0.5 * every.asked
    assert float((whole == raced).double().mean()) > 0.95


def test_more_places_than_classes_let_all_of_them_go_on(tmp_path: Path) -> None:
    whole, _ = classified(tmp_path / "whole", IMAGES[:40], **plain(20))
    raced, exact = classified(tmp_path / "raced", IMAGES[:40], samples=(5, 20), keep=(9, 1))
    assert exact.asked == 40 * CLASSES * 20
    assert torch.equal(whole, raced)


# What is compared


def test_errors_are_of_the_noise_at_levels_spread_evenly_over_those_of_training(
    tmp_path: Path,
) -> None:
    """By hand, with eps = (x - D) / sigma and the same noise for all classes."""
    job, images = Job(tmp_path), IMAGES[:8]
    exact = Exact()
    total = torch.zeros(8, CLASSES, dtype=torch.float64)
    levels = EDM().sigmas((torch.arange(7) + 0.5) / 7)
    for place, sigma in enumerate(levels.tolist()):
        eps = torch.stack(
            [
                torch.randn(1, 4, 4, generator=job.generator("classify", str(i), place))
                for i in range(8)
            ]
        )
        for told in range(CLASSES):
            x = images + sigma * eps
            guess = (x - exact(x, sigma, torch.full((8,), told))) / sigma
            total[:, told] += (guess - eps).double().square().sum(dim=(1, 2, 3))
    found, asked = classified(tmp_path / "probe", images, **plain(7))
    assert found.tolist() == total.argmin(dim=1).tolist()
    assert [sigma for sigma, _ in asked.seen] == pytest.approx(levels.tolist())
    assert all(told.tolist() == list(range(CLASSES)) * 8 for _, told in asked.seen)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=3, unique=True).map(sorted))
def test_each_part_of_a_race_sees_fresh_levels_spread_over_all_of_them(samples: list[int]) -> None:
    order = schedule(tuple(samples))
    assert sorted(order) == list(range(samples[-1]))
    first = sorted(order[: samples[0]])
    gaps = [b - a for a, b in zip([-1, *first], [*first, samples[-1]], strict=True)]
    assert max(gaps) <= samples[-1] / samples[0] + 1


def test_an_image_is_classified_alike_whatever_is_beside_it(tmp_path: Path) -> None:
    few, many = (classified(tmp_path / str(n), IMAGES[:n], **plain(5))[0] for n in (20, 40))
    assert torch.equal(few, many[:20])


def test_what_is_not_finite_ends_the_stage(tmp_path: Path) -> None:
    told = Told(lambda x, sigma, told: x / 0, EDM().sigmas, 2)
    with pytest.raises(StageFailed, match="not finite"):
        DiffusionClassifier().classify(told, IMAGES[:2], ["0", "1"], Job(tmp_path))


# Scores


def examples(**fields: Any) -> tuple[Examples, Examples]:
    """Held-out images with an exact model; the training images' classes are their labels,
    renamed."""
    told = Told(Exact(), EDM().sigmas, CLASSES)
    train = Examples((LABELS + 2) % CLASSES, LABELS, CLASSES, told=told, **fields)
    return train, Examples(IMAGES, LABELS, CLASSES, told=told, **fields)


def test_clusters_are_named_by_the_conditions_of_training_images(tmp_path: Path) -> None:
    """The clusters are renamed labels, so an image that is taken for cluster c has the label c -
    2."""
    train, test = examples()
    probe = DiffusionClassifier(**plain(40), images=300)
    tmp_path.joinpath("score").mkdir()
    [(key, share)] = probe.score(train, test, Job(tmp_path / "score")).items()
    assert key == "diffusion_classifier_matched_n40_k1_i300_model"
    assert (
        share < 0.2
    )  # chance is 1/6: cluster c of the model is label c, and the training images say c - 2
    unnamed = Examples(
        torch.where(torch.arange(300) < 250, LABELS, -1), LABELS, CLASSES, told=test.told
    )
    [right] = probe.score(unnamed, test, Job(tmp_path / "score")).values()
    assert right > 0.6


def test_only_some_images_are_classified_the_same_in_any_order(tmp_path: Path) -> None:
    train, test = examples(named=True)
    probe = DiffusionClassifier(**plain(6), images=30)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    shuffled = Examples(IMAGES[order], LABELS[order], CLASSES, True, test.told)
    found = []
    for place, each in enumerate((test, shuffled)):
        folder = tmp_path / str(place)
        folder.mkdir()
        found.append(probe.score(train, each, Job(folder)))
    assert found[0] == found[1]
    assert isinstance(test.told, Told)
    assert isinstance(test.told.denoise, Exact)
    assert test.told.denoise.asked == 2 * 30 * CLASSES * 6
    assert list(found[0]) == ["diffusion_classifier_n6_k1_i30_model"]


def test_labels_of_held_out_images_only_score(tmp_path: Path) -> None:
    """Told that all images are of one class, it says how many were said to be: these shares add
    up to one."""
    train, test = examples(named=True)
    shares: list[float] = []
    for label in range(CLASSES):
        folder = tmp_path / str(label)
        folder.mkdir()
        all_alike = Examples(IMAGES, torch.full((300,), label), CLASSES, True, test.told)
        shares += DiffusionClassifier(**plain(3)).score(train, all_alike, Job(folder)).values()
    assert sum(shares) == pytest.approx(1)
    assert max(shares) < 0.6


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"samples": (10,)}, "they go together"),
        ({"samples": (10, 10)}, "so they rise"),
        ({"keep": (2, 2)}, "falls to 1"),
        ({"keep": (5, 2)}, "falls to 1"),
        ({"sigma": 0.1}, "0.05"),
        ({"of": "encoder"}, "model"),
    ],
)
def test_a_race_that_is_none_is_refused(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        DiffusionClassifier(**fields)


# In a recipe

RECIPE = """\
fw: 1
name: asked
dataset: dots
encoder: {name: mean, cells: 2}
annotator: halves
model: {name: unet, channels: [8], groups: 4}
process: unit
train: {steps: 4, batch: 8, warmup: 1}
sampler: {name: euler, steps: 2}
samples: {count: 6, seeds: 3}
metrics: [{name: fd, space: {name: flat, cells: 2}}]
probes: [{name: diffusion_classifier, samples: [2, 4], keep: [2, 1]}]
baseline: unconditional
arms:
  unconditional: {annotator: null}
  clusters: {train: {cond_drop: 0.0}}
  many: {annotator: {name: halves, clusters: 4}}
  labels: {annotator: labels}
  joint: {model: {name: jdm, channels: [8], groups: 4}, annotator: labels}
"""


def recipe(*sets: str) -> Recipe:
    registry = toys.registry()
    registry.add(Provider("asked"), [DiffusionClassifier, FD, JDM, Labels, UNet])
    source = parse(RECIPE, "r.yaml")
    source.set(sets)
    return validate(source, registry)


def test_arms_that_are_told_classes_are_asked_and_others_are_not(tmp_path: Path) -> None:
    made = recipe()
    result = ran(made, tmp_path)
    end = "n2-4_k2-1_i500_model"
    assert {name: list(arm.get("probes", {})) for name, arm in result["arms"].items()} == {
        "unconditional": [],
        "clusters": [f"diffusion_classifier_matched_{end}"],
        "many": [f"diffusion_classifier_majority_{end}"],
        "labels": [f"diffusion_classifier_{end}"],
        "joint": [],
    }
    stage = plan(made).stages[plan(made).arms["labels"].probes[0]]
    assert isinstance(stage, ApplyProbe)
    model = trained(stage, tmp_path / "store")
    test = made.dataset.load("test")
    x0 = ArmReader(stage.probe, {"test": test.images}, Job(tmp_path)).diffused("test")
    told = Told(lambda *given: model(*given).detach(), model.process.sigmas, 2)
    examples = Examples(x0, test.labels, 2, named=True, told=told)
    again = stage.probe.score(examples, examples, Job(tmp_path))
    assert again == result["arms"]["labels"]["probes"]


def test_a_recipe_without_any_such_arm_is_refused() -> None:
    with pytest.raises(RecipeError) as caught:
        recipe("arms={unconditional: {annotator: null}}")
    assert any(
        "no arm has a model that is told classes" in problem for problem in caught.value.problems
    )


def test_what_is_diffused_is_in_minus_one_to_one(tmp_path: Path) -> None:
    images = tiny.images(5).images
    shown = ArmReader(DiffusionClassifier(), {"test": images}, Job(tmp_path)).diffused("test")
    assert torch.allclose(shown, images / 127.5 - 1)
