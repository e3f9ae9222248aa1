"""Floors, limits and ratios of Frechet distances, against Gaussians whose distances and whose bias
are closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import fmean, stdev
from typing import Any, ClassVar

import pytest
import torch
from pydantic import Field
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import train_test_split
from torch import Tensor

from fw.core.kinds import Encoder, Metric
from fw.core.types import Reference
from fw.plugins.metrics.extrapolated import line
from fw.plugins.metrics.fd import FD
from fw.plugins.metrics.fid import FID
from fw.plugins.metrics.frechet import bias as measured_bias
from fw.plugins.metrics.frechet import distance, moments_of_real
from fw.plugins.metrics.memorisation import Memorisation
from fw.plugins.metrics.mind import MIND
from fw.plugins.metrics.prdc import PRDC

TRAIN, HELD_OUT, COUNT = 1437, 360, 3000
"""As the digits and the flagship have them."""

REPEATS = 30

VARIANCES = 1 / torch.arange(1.0, 25.0, dtype=torch.float64)
"""Of 24 dimensions, whose trace is 3.8."""


def normal(count: int, draw: torch.Generator, variances: Tensor = VARIANCES) -> Tensor:
    noise = torch.randn(count, len(variances), generator=draw, dtype=torch.float64)
    return (noise * variances.sqrt()).float()


def classes(labels: Tensor, draw: torch.Generator) -> Tensor:
    """Images of ten classes, which are what tells them apart most."""
    means = 2 * torch.eye(10)
    return means[labels] + 0.3 * torch.randn(len(labels), 10, generator=draw)


def bias(variances: Tensor) -> float:
    """What a Frechet distance between Gaussian samples has in excess, to first order, times n: the
    trace for the mean, and for the covariance half the sum of E e_ij^2 / (v_i + v_j), where the
    error e of a covariance has the variance v_i v_j (1 + [i = j]) / n."""
    one, other = variances[:, None], variances[None]
    errors = one * other * (1 + torch.eye(len(variances)))
    return float(variances.sum() + 0.5 * (errors / (one + other)).sum())


def to_population(train: Tensor, variances: Tensor) -> float:
    """The distance of the moments of train to a Gaussian of mean 0 with these variances: a closed
    form, without any sample."""
    real = moments_of_real(train)
    root = real["root"]
    both = torch.linalg.eigvalsh((root * variances) @ root.T).clamp(min=0).sqrt().sum()
    shift = real["mean"].square().sum()
    return float(shift + real["trace"] + variances.sum() - 2 * both)


class Repeat:
    """New samples, held-out images and training images of one distribution, and what is made of
    them."""

    def __init__(self, number: int, count: int = COUNT, wider: float = 1.0):
        draw = torch.Generator().manual_seed(number)
        train, self.held_out = normal(TRAIN, draw), normal(HELD_OUT, draw)
        prepared = FID().prepare(Reference(train, self.held_out))
        self.scores = FID().compare(prepared, normal(count, draw, wider * VARIANCES))
        self.floor = FID().floor(prepared, self.held_out, count)
        self.slope = prepared.new.line.slope
        self.too_few = prepared.new.line.score
        self.truth = to_population(train, wider * VARIANCES)


def in_noise(values: list[float], expected: float, tolerance: float) -> bool:
    """Whether the mean is the expected value within the tolerance and three standard errors."""
    return abs(fmean(values) - expected) < tolerance + 3 * stdev(values) / len(values) ** 0.5


@pytest.fixture(scope="module")
def repeats() -> list[Repeat]:
    return [Repeat(number) for number in range(REPEATS)]


def test_the_floor_is_what_new_samples_score_and_that_of_fewer_images_is_not(
    repeats: list[Repeat],
) -> None:
    score = fmean(each.scores["fid"] for each in repeats)
    differences = [each.floor["fid"] - each.scores["fid"] for each in repeats]
    assert in_noise(differences, 0, tolerance=0.1 * bias(VARIANCES) / HELD_OUT)
    assert fmean(each.too_few for each in repeats) > 2.5 * score


@pytest.mark.parametrize("wider", [1.0, 1.3])
def test_the_limit_is_the_distance_to_the_population(wider: float) -> None:
    """Within a tenth of the bias that n samples have, whether the samples are right or not."""
    cases = [Repeat(number, HELD_OUT, wider) for number in range(REPEATS)]
    excess = bias(VARIANCES) / HELD_OUT
    apart = [each.scores["fid_infinity"] - each.truth for each in cases]
    assert in_noise(apart, 0, tolerance=0.1 * excess)
    biased = fmean(each.scores["fid"] - each.truth for each in cases)
    assert biased > 0.7 * excess


def test_the_floor_says_both_terms_of_the_bias(repeats: list[Repeat]) -> None:
    """The difference of the floors is that of n samples, the limit's that of the training images,
    and the slope both by their numbers."""
    expected = bias(VARIANCES)
    assert in_noise([each.slope for each in repeats], expected, tolerance=0.1 * expected)
    of_samples = [each.floor["fid"] - each.floor["fid_infinity"] for each in repeats]
    assert in_noise(of_samples, expected / COUNT, tolerance=0.1 * expected / COUNT)
    of_training = [each.floor["fid_infinity"] for each in repeats]
    assert in_noise(of_training, expected / TRAIN, tolerance=0.1 * expected / HELD_OUT)


@pytest.mark.parametrize("made", ["normal", "classes"])
def test_the_bias_is_that_of_draws_from_the_features(made: str) -> None:
    draw = torch.Generator().manual_seed(0)
    many = normal(20_000, draw) if made == "normal" else classes(torch.arange(2000) % 10, draw)
    if made == "normal":
        assert measured_bias(many) == pytest.approx(bias(VARIANCES), rel=0.03)
    moments = moments_of_real(many)
    draws = [many[torch.randint(len(many), (1000,), generator=draw)] for _ in range(60)]
    excess = [1000 * distance(moments, each) for each in draws]
    assert in_noise(excess, measured_bias(many), tolerance=0.03 * measured_bias(many))


def test_of_digits_the_floor_is_what_images_score_that_were_never_held_out() -> None:
    """Real images, and a space that tells their classes apart; the split is stratified, as fw's.
    Some images are left out of it, at random, and score as new ones."""
    digits = load_digits()
    told = LinearDiscriminantAnalysis(n_components=9).fit_transform(digits.data, digits.target)
    features, draw = torch.from_numpy(told).float(), torch.Generator().manual_seed(0)
    scores, floors, as_they_are = [], [], []
    for number in range(40):
        order = torch.randperm(len(features), generator=draw).numpy()
        new, rest = order[:180], order[180:]
        train, held_out = train_test_split(
            rest, test_size=180, random_state=number, stratify=digits.target[rest]
        )
        prepared = FID().prepare(Reference(features[train], features[held_out]))
        scores.append(prepared.distance(features[new]))
        floors.append(prepared.floor(180))
        as_they_are.append(prepared.distance(features[held_out]))
    assert in_noise(floors, fmean(scores), tolerance=0.1 * fmean(scores))
    assert fmean(as_they_are) < 0.6 * fmean(scores)


@pytest.mark.parametrize("count", [100, HELD_OUT, 2 * HELD_OUT, COUNT])
def test_new_samples_have_the_ratio_one_whatever_their_number(count: int) -> None:
    ratios = [Repeat(number, count).scores["fid_ratio"] for number in range(REPEATS)]
    assert in_noise(ratios, 1, tolerance=0.03)


def test_the_floor_of_few_samples_is_the_mean_over_sets_of_so_many_held_out_images() -> None:
    draw = torch.Generator().manual_seed(0)
    train, held_out = normal(300, draw), normal(200, draw)
    prepared = FD().prepare(Reference(train, held_out))
    floor = FD().floor(prepared, held_out, 50)
    sets = held_out[torch.randperm(200, generator=draw)].split(50)
    others = fmean(FD().compare(prepared, each)["fd_classifier"] for each in sets)
    assert floor["fd_classifier"] == pytest.approx(others, rel=0.2)
    assert floor["fd_ratio_classifier"] == 1
    whole = FD().compare(prepared, held_out)
    assert FD().floor(prepared, held_out, 200)["fd_classifier"] == whole["fd_classifier"]
    assert whole["fd_ratio_classifier"] == 1


@pytest.mark.parametrize("count", [HELD_OUT, COUNT])
def test_the_floor_is_of_drawn_images_where_the_held_out_ones_have_equal_shares_of_the_classes(
    count: int,
) -> None:
    """As in a stratified split, where drawn images differ in their shares, and by that most of
    all."""
    floors, scores, as_they_are = [], [], []
    for number in range(REPEATS):
        draw = torch.Generator().manual_seed(number)
        train, held_out = (classes(torch.arange(n) % 10, draw) for n in (TRAIN, HELD_OUT))
        prepared = FID().prepare(Reference(train, held_out))
        new = classes(torch.randint(10, (count,), generator=draw), draw)
        scores.append(FID().compare(prepared, new)["fid"])
        floors.append(FID().floor(prepared, held_out, count)["fid"])
        as_they_are.append(prepared.new.line.at(count))
    expected = fmean(scores)
    assert fmean(floors) == pytest.approx(expected, rel=0.15)
    assert fmean(as_they_are) < 0.6 * expected


def test_held_out_images_that_are_further_away_lift_nothing() -> None:
    """As of a space that has learned the training images by heart."""
    draw = torch.Generator().manual_seed(0)
    prepared = FID().prepare(Reference(normal(TRAIN, draw), normal(HELD_OUT, draw) + 0.2))
    assert prepared.new.lift == 0
    assert prepared.new.limit == pytest.approx(24 * 0.2**2, rel=0.15)


def test_samples_that_are_no_distribution_of_the_data_have_larger_ratios_the_worse_they_are() -> (
    None
):
    ratios = [Repeat(0, COUNT, wider).scores["fid_ratio"] for wider in (1.0, 1.2, 1.5, 2.0)]
    assert ratios == sorted(ratios)
    assert ratios[-1] > 3 * ratios[0]


def test_a_line_goes_through_the_score_and_ends_at_its_limit() -> None:
    features = torch.arange(100.0)[:, None]
    through = line(features, lambda part: 3 + 50 / len(part))
    assert through.at(100) == 3.5
    assert through.at(25) == pytest.approx(5)
    assert through.limit == pytest.approx(3)
    odd = line(features[:99], lambda part: 3 + 50 / len(part))
    assert odd.limit == pytest.approx(3)


def test_the_splits_lose_no_image_and_are_a_function_of_their_number_alone() -> None:
    parts: list[Tensor] = []
    line(torch.arange(10.0)[:, None], noted(parts))
    whole, *halves = parts
    for one, other in zip(halves[::2], halves[1::2], strict=True):
        assert torch.cat([one, other]).sort(dim=0).values.equal(whole)
    again: list[Tensor] = []
    torch.manual_seed(1)
    line(torch.arange(10.0)[:, None], noted(again))
    assert all(map(torch.equal, parts, again))


def noted(parts: list[Tensor]) -> Callable[[Tensor], float]:
    """A distance that is nothing, of parts that are written down."""

    def distance(part: Tensor) -> float:
        parts.append(part)
        return 0.0

    return distance


def test_minds_floor_is_what_new_samples_score() -> None:
    metric, differences, scores = MIND(directions=30), [], []
    for number in range(10):
        draw = torch.Generator().manual_seed(number)
        train, held_out = normal(TRAIN, draw), normal(HELD_OUT, draw)
        prepared = metric.prepare(Reference(train, held_out))
        scores.append(metric.compare(prepared, normal(COUNT, draw))["mind_classifier"])
        floor = metric.floor(prepared, held_out, COUNT)["mind_classifier"]
        differences.append(floor - scores[-1])
    assert in_noise(differences, 0, tolerance=0.1 * fmean(scores))


def test_recall_and_coverage_have_no_floor_of_fewer_images_than_samples() -> None:
    draw = torch.Generator().manual_seed(0)
    held_out = normal(60, draw)
    prepared = PRDC().prepare(Reference(normal(100, draw), held_out))
    assert PRDC().floor(prepared, held_out, 61).keys() == {"precision", "density"}
    assert PRDC().floor(prepared, held_out, 60) == PRDC().compare(prepared, held_out)
    assert PRDC().floor(prepared, held_out, 20).keys() == PRDC().keys.keys()


def test_the_floor_of_copies_is_of_other_held_out_images() -> None:
    draw = torch.Generator().manual_seed(0)
    held_out = normal(200, draw)
    prepared = Memorisation().prepare(Reference(normal(800, draw), held_out))
    floor = Memorisation().floor(prepared, held_out, 50)
    assert abs(floor["memorisation_copies"]) < 0.5
    assert floor["memorisation_ratio"] == pytest.approx(1, abs=0.1)


class Obeys(Metric):
    """The share of samples whose first feature is their class."""

    name: ClassVar[str] = "obeys"
    reads_conditions: ClassVar[bool] = True
    space: Encoder = Field("pixels", validate_default=True)

    @property
    def keys(self) -> Mapping[str, str]:
        return {"obeys": "higher"}

    def compare(
        self, prepared: Any, fake: Tensor, wanted: Tensor | None = None
    ) -> dict[str, float]:
        assert wanted is not None
        return {"obeys": float((fake[:, 0] == wanted).double().mean())}


@pytest.mark.parametrize("count", [7, 100, 300])
def test_held_out_images_keep_their_classes_in_the_floor(count: int) -> None:
    classes = torch.arange(100) % 7
    held_out = classes[:, None].float()
    assert Obeys().floor(None, held_out, count, classes) == {"obeys": 1.0}


def test_figures_show_the_distance_and_not_its_other_forms() -> None:
    metric = FD()
    assert metric.in_figures == tuple(metric.keys)[:1]
    assert PRDC().in_figures == tuple(PRDC().keys)


def test_the_floor_of_so_many_images_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(0)
    prepared = FD().prepare(Reference(normal(300, draw), normal(200, draw)))
    compared: list[int] = []

    def counted(moments: Mapping[str, Tensor], features: Tensor) -> float:
        compared.append(len(features))
        return distance(moments, features)

    monkeypatch.setattr("fw.plugins.metrics.frechet_metric.distance", counted)
    first = FD().compare(prepared, normal(50, draw))
    once = len(compared)
    assert compared.count(50) == 1 + 4
    again = FD().compare(prepared, normal(50, draw))
    assert len(compared) - once == once - 4
    assert FD().floor(prepared, prepared.held_out, 50)["fd_classifier"] == pytest.approx(
        first["fd_classifier"] / first["fd_ratio_classifier"]
    )
    assert again != first


class Cancelling(Metric):
    """Infinite in one set and minus that in the next."""

    name: ClassVar[str] = "cancelling"
    space: Encoder = Field("pca", validate_default=True)

    @property
    def keys(self) -> Mapping[str, str]:
        return {"cancelling": "lower", "far": "lower"}

    def compare(
        self, prepared: Reference, fake: Tensor, wanted: Tensor | None = None
    ) -> dict[str, float]:
        away = math.inf if fake.sum() > 0 else -math.inf
        return {"cancelling": away, "far": math.inf}


def test_infinite_scores_that_cancel_have_no_floor_and_end_no_stage() -> None:
    held_out = torch.cat([torch.ones(20, 2), -torch.ones(20, 2)])
    reference = Reference(held_out, held_out)
    assert Cancelling().floor(reference, held_out, 1) == {"far": math.inf}
