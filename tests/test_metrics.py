"""The metrics, against closed forms, brute force and independent formulas, on features made up
here."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy.stats import chi2, norm
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch_fidelity.metric_prc import prc_features_to_metric

from fw.core.errors import StageFailed
from fw.core.kinds import Metric
from fw.core.types import Reference
from fw.plugins.metrics.authpct import AuthPct
from fw.plugins.metrics.cmmd import CMMD
from fw.plugins.metrics.fd import FD
from fw.plugins.metrics.fid import FID
from fw.plugins.metrics.fld import FLD
from fw.plugins.metrics.kid import KID
from fw.plugins.metrics.memorisation import Memorisation
from fw.plugins.metrics.mind import MIND
from fw.plugins.metrics.prdc import PRDC

EVERY_METRIC = [
    *(FD(), FID(), KID(subsets=2, subset_size=50), PRDC(), Memorisation()),
    *(MIND(directions=20), CMMD.model_validate({"space": "pca"}), AuthPct(), FLD()),
]
NAMES = [metric.name for metric in EVERY_METRIC]

sizes = st.integers(4, 50)
dimensions = st.integers(2, 10)
seeds = st.integers(0, 2**32)
hypothesis_examples = settings(deadline=None, max_examples=40)


def normal(count: int, dims: int, seed: int, mean: float = 0.0, scale: float = 1.0) -> Tensor:
    """Gaussian features (count, dims), float32, with correlated dimensions."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dims, dims, generator=generator)
    return mean + scale * torch.randn(count, dims, generator=generator) @ mixing


def with_moments(count: int, variances: Tensor, mean: Tensor, seed: int) -> Tensor:
    """Features whose sample mean and sample covariance diag(variances) hold exactly, float64."""
    draws = torch.randn(
        count, len(variances), generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    orthonormal, _ = torch.linalg.qr(draws - draws.mean(0))
    return mean + orthonormal * (count - 1) ** 0.5 * variances.sqrt()


def reference(train: Tensor, held_out: Tensor | None = None) -> Reference:
    return Reference(train, train if held_out is None else held_out)


def compare(metric: Metric, reference: Reference, fake: Tensor) -> dict[str, float]:
    return metric.compare(metric.prepare(reference), fake)


def only(values: dict[str, float]) -> float:
    """The first score, which a metric has its name of."""
    return next(iter(values.values()))


def frechet_by_qr(first: Tensor, second: Tensor) -> float:
    """tr (C1 C2)^(1/2) is the nuclear norm of R1 R2^T, with the data never squared."""
    a, b = first.double().numpy(), second.double().numpy()
    roots = [np.linalg.qr(x - x.mean(0), mode="r") / np.sqrt(len(x) - 1) for x in (a, b)]
    spread = sum((root**2).sum() for root in roots)
    shift = ((a.mean(0) - b.mean(0)) ** 2).sum()
    return float(shift + spread - 2 * np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum())


def global_variance(train: Tensor) -> float:
    return float(train.double().var(dim=0).mean())


# Frechet distance


@hypothesis_examples
@given(sizes, sizes, dimensions, seeds)
def test_fid_agrees_with_a_frechet_distance_by_qr(n, m, dims, seed):
    train, fake = normal(n, dims, seed), normal(m, dims, seed + 1, mean=0.5, scale=1.5)
    expected = frechet_by_qr(train, fake)
    assert only(compare(FID(), reference(train), fake)) == pytest.approx(
        expected, rel=1e-5, abs=1e-5
    )


@hypothesis_examples
@given(sizes, sizes, dimensions, seeds)
def test_fd_is_the_frechet_distance_over_the_variance_of_the_reference(n, m, dims, seed):
    train, fake = normal(n, dims, seed), normal(m, dims, seed + 1, mean=0.5, scale=1.5)
    expected = frechet_by_qr(train, fake) / global_variance(train)
    assert only(compare(FD(), reference(train), fake)) == pytest.approx(
        expected, rel=1e-5, abs=1e-5
    )


def test_fid_agrees_with_torchmetrics_even_with_a_large_mean():
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Same(torch.nn.Module):
        num_features = 12

        def forward(self, features: Tensor) -> Tensor:
            return features

    train, fake = normal(200, 12, 0, mean=30), normal(150, 12, 1, mean=30)
    other = FrechetInceptionDistance(feature=Same(), normalize=True)
    other.update(train.double(), real=True)
    other.update(fake.double(), real=False)
    assert only(compare(FID(), reference(train), fake)) == pytest.approx(
        float(other.compute()), rel=1e-7
    )


@pytest.mark.parametrize("metric", [FD(), FD.model_validate({"space": "pca"}), FID()])
def test_a_set_has_no_frechet_distance_from_itself(metric):
    features = normal(100, 8, 0)
    assert 0 <= only(compare(metric, reference(features), features)) < 1e-6


def test_a_shift_by_delta_costs_delta_squared():
    features, delta = normal(100, 6, 0), torch.tensor([3.0, 0, 0, 4.0, 0, 0])
    assert only(compare(FID(), reference(features), features + delta)) == pytest.approx(
        25, rel=1e-5
    )
    scaled = 25 / global_variance(features)
    assert only(compare(FD(), reference(features), features + delta)) == pytest.approx(
        scaled, rel=1e-5
    )


def test_gaussians_with_diagonal_covariances_have_the_closed_form():
    a, b = torch.tensor([1.0, 4.0, 9.0]).double(), torch.tensor([4.0, 1.0, 0.25]).double()
    first, second = torch.zeros(3), torch.tensor([1.0, -2.0, 0.5])
    train, fake = with_moments(40, a, first, seed=0), with_moments(60, b, second, seed=1)
    expected = float((first - second).square().sum() + (a.sqrt() - b.sqrt()).square().sum())
    assert only(compare(FID(), reference(train), fake)) == pytest.approx(expected, rel=1e-9)
    assert only(compare(FD(), reference(train), fake)) == pytest.approx(
        expected / float(a.mean()), rel=1e-9
    )


@pytest.mark.parametrize("metric", [FD(), KID(subsets=3, subset_size=30)], ids=["fd", "kid"])
@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_in_custom_spaces_neither_scale_nor_offset_matters(metric, factor):
    train, fake = normal(60, 5, 0).double(), normal(50, 5, 1, mean=0.3).double()
    plain = compare(metric, reference(train), fake)
    assert compare(metric, reference(factor * train + 7), factor * fake + 7) == pytest.approx(
        plain, rel=1e-6
    )


def test_fid_does_not_rescale():
    train, fake = normal(60, 5, 0), normal(50, 5, 1)
    plain = only(compare(FID(), reference(train), fake))
    assert only(compare(FID(), reference(10 * train), 10 * fake)) == pytest.approx(
        100 * plain, rel=1e-5
    )


@pytest.mark.parametrize(
    "metric", [FD(), FID(), PRDC(), Memorisation()], ids=["fd", "fid", "prdc", "memorisation"]
)
def test_the_order_of_images_and_of_dimensions_does_not_matter(metric):
    """But for scores of subsets of the samples by position."""
    train, fake = normal(80, 6, 0).double(), normal(70, 6, 1).double()
    generator = torch.Generator().manual_seed(2)
    rows, columns = torch.randperm(70, generator=generator), torch.randperm(6, generator=generator)
    held_out = normal(50, 6, 3).double()
    expected = compare(metric, reference(train, held_out), fake)
    shuffled = compare(
        metric, reference(train.flip(0)[:, columns], held_out[:, columns]), fake[rows][:, columns]
    )
    for key in metric.keys.keys() - metric.by_position:
        assert shuffled[key] == pytest.approx(expected[key], rel=1e-6)


# KID


def squared_mmd(first: np.ndarray, second: np.ndarray) -> float:
    """The unbiased U-statistic with the kernel (x.y / D + 1)^3, pair by pair."""

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / len(x) + 1) ** 3)

    def within(points: np.ndarray) -> float:
        pairs = [kernel(x, y) for i, x in enumerate(points) for j, y in enumerate(points) if i != j]
        return float(np.mean(pairs))

    return (
        within(first)
        + within(second)
        - 2 * float(np.mean([kernel(x, y) for x in first for y in second]))
    )


@settings(deadline=None, max_examples=15)
@given(st.integers(3, 15), st.integers(2, 6), seeds)
def test_kid_is_the_unbiased_squared_mmd(count, dims, seed):
    train, fake = normal(count, dims, seed), normal(count, dims, seed + 1, mean=0.5)
    scale = global_variance(train) ** 0.5
    mean = train.double().mean(0)
    expected = squared_mmd(*(((x.double() - mean) / scale).numpy() for x in (fake, train)))
    assert only(compare(KID(subsets=1), reference(train), fake)) == pytest.approx(
        expected, rel=1e-6, abs=1e-9
    )
    raw = squared_mmd(fake.double().numpy(), train.double().numpy())
    in_inception = KID.model_validate({"space": "inception", "subsets": 1})
    assert compare(in_inception, reference(train), fake) == {
        "kid": pytest.approx(raw, rel=1e-6, abs=1e-9)
    }


def test_kid_is_near_zero_for_one_distribution_and_grows_with_a_shift():
    features = normal(900, 4, 0)
    train, same = features[:500], features[500:]
    scores = [
        only(compare(KID(subsets=5, subset_size=400), reference(train), same + d))
        for d in (0, 0.3, 1)
    ]
    assert abs(scores[0]) < 0.05 * scores[1]
    assert scores[1] < scores[2]


def test_kid_gives_the_same_value_twice_and_leaves_the_global_generators_alone():
    train, fake = normal(60, 4, 0), normal(60, 4, 1)
    before = torch.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
    metric = KID(subsets=3, subset_size=20)
    assert compare(metric, reference(train), fake) == compare(metric, reference(train), fake)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == str(np.random.get_state())  # noqa: NPY002


# precision, recall, density, coverage


def prdc_by_hand(real: np.ndarray, fake: np.ndarray, k: int, coverage_k: int) -> dict[str, float]:
    def radius(points: np.ndarray, i: int, neighbours: int) -> float:
        others = [np.linalg.norm(points[i] - p) for j, p in enumerate(points) if j != i]
        return float(sorted(others)[neighbours - 1])

    def inside(point: np.ndarray, centres: np.ndarray, radii: list[float]) -> list[bool]:
        return [bool(np.linalg.norm(point - c) <= r) for c, r in zip(centres, radii, strict=True)]

    real_balls = [radius(real, i, k) for i in range(len(real))]
    fake_balls = [radius(fake, i, k) for i in range(len(fake))]
    wide_balls = [radius(real, i, coverage_k) for i in range(len(real))]
    hits = np.array([inside(point, real, wide_balls) for point in fake])  # (M, N)
    return {
        "precision": float(np.mean([any(inside(point, real, real_balls)) for point in fake])),
        "recall": float(np.mean([any(inside(point, fake, fake_balls)) for point in real])),
        "density": float(hits.sum() / (coverage_k * len(fake))),
        "coverage": float(hits.any(axis=0).mean()),
    }


@settings(deadline=None, max_examples=15)
@given(
    st.integers(8, 25),
    st.integers(8, 25),
    st.integers(2, 5),
    st.integers(1, 4),
    st.integers(1, 6),
    seeds,
)
def test_prdc_agrees_with_brute_force(n, m, dims, k, coverage_k, seed):
    train, fake = normal(n, dims, seed), normal(m, dims, seed + 1, mean=0.5)
    expected = prdc_by_hand(train.double().numpy(), fake.double().numpy(), k, coverage_k)
    scores = compare(PRDC(nearest_k=k, coverage_k=coverage_k), reference(train), fake)
    assert scores == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("size", [16, 1000])
def test_precision_and_recall_are_those_of_torch_fidelity(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, fake = (
        normal(60, 4, 0),
        torch.cat([normal(50, 4, 1, mean=0.3), normal(60, 4, 0)[:5]]),
    )  # copies tie
    monkeypatch.setattr("fw.plugins.metrics.neighbours.BLOCK", {"cpu": 60 * size})
    scores = compare(PRDC(), reference(train), fake)
    expected = prc_features_to_metric(
        fake.double(),
        train.double(),
        prc_neighborhood=3,
        prc_batch_size=size,
        save_cpu_ram=True,
        verbose=False,
    )
    for key in ("precision", "recall"):  # means of whole numbers, there in single precision
        assert scores[key] == pytest.approx(expected[key], abs=1e-7)


def test_prdc_in_chunks_agrees_with_prdc_in_one_piece(monkeypatch):
    train, fake = normal(130, 5, 0), normal(90, 5, 1)
    whole = compare(PRDC(), reference(train), fake)
    monkeypatch.setattr("fw.plugins.metrics.neighbours.BLOCK", {"cpu": 1000})
    assert compare(PRDC(), reference(train), fake) == pytest.approx(whole, abs=1e-6)


def test_identical_sets_are_precise_and_complete():
    features = normal(100, 4, 0)
    scores = compare(PRDC(), reference(features), features)
    expected = {
        "precision": 1,
        "recall": 1,
        "density": 6 / 5,
        "coverage": 1,
    }  # 5 neighbours and the point itself
    assert scores == pytest.approx(expected)


def test_sets_far_apart_share_nothing():
    scores = compare(PRDC(), reference(normal(100, 4, 0)), normal(100, 4, 1, mean=1000))
    assert scores == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}


def test_dropping_a_mode_lowers_recall_and_coverage_but_not_precision():
    left, right = normal(200, 3, 0), normal(200, 3, 0, mean=100)
    train = torch.cat([left[:100], right[:100]])
    both = compare(PRDC(), reference(train), torch.cat([left[100:150], right[100:150]]))
    one = compare(PRDC(), reference(train), left[100:])
    assert one["recall"] <= 0.5 < both["recall"]
    assert one["coverage"] <= 0.5 < both["coverage"]
    assert one["precision"] == pytest.approx(both["precision"], abs=0.1)


def two_classes(each: int, seed: int) -> Tensor:
    """Features of two classes far apart, one after the other, as a folder of images has them."""
    points = torch.randn(2 * each, 16, generator=torch.Generator().manual_seed(seed))
    points[each:, 0] += 50
    return points


def test_prdc_compares_with_images_of_all_classes_where_it_takes_some_of_them():
    """Of 2,000 images sorted by class the first 1,000 are one class: samples of both would have
    half the precision, and samples of that one class a perfect recall."""
    some, everything = PRDC(real=1000), PRDC()
    train, both = two_classes(1000, 0), two_classes(500, 1)
    halved, whole = (compare(metric, reference(train), both) for metric in (some, everything))
    assert halved["precision"] == pytest.approx(whole["precision"], abs=0.1)
    one_class = compare(some, reference(train), two_classes(1000, 2)[:1000])
    # Of 1,000 at random a half is of one class, with a standard deviation of 0.011.
    assert one_class["recall"] < 0.56
    assert one_class["coverage"] < 0.56


def test_the_order_of_training_images_hardly_matters_where_prdc_takes_some_of_them():
    train, fake = two_classes(1000, 0), two_classes(300, 1)
    sorted_, mixed = (
        compare(PRDC(real=1000), reference(rows), fake)
        for rows in (train, train[torch.randperm(2000, generator=torch.Generator().manual_seed(3))])
    )
    assert sorted_ == pytest.approx(mixed, abs=0.1)


# memorisation


def test_copies_of_training_images_have_ratio_zero_and_are_all_close():
    train, held_out = normal(200, 8, 0), normal(100, 8, 1)
    scores = compare(Memorisation(), reference(train, held_out), train[:60])
    assert scores["memorisation_ratio"] == 0
    assert scores["memorisation_close"] == 1
    assert scores["memorisation_copies"] == pytest.approx(1)
    assert scores["memorisation_z"] > 4


def test_held_out_images_have_ratio_one_and_hardly_any_is_close():
    train, held_out = normal(500, 8, 0).split([300, 200])
    scores = compare(Memorisation(), reference(train, held_out), held_out)
    assert scores["memorisation_ratio"] == pytest.approx(1)
    assert scores["memorisation_close"] == pytest.approx(0.01)
    assert abs(scores["memorisation_z"]) < 3


PLANTED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "new images": lambda new, train: new,
    "shrunk to 0.3": lambda new, train: 0.3 * new,
    "shrunk to 0.8": lambda new, train: 0.8 * new,
    "wider by a half": lambda new, train: 1.5 * new,
    "a shift": lambda new, train: new + 0.5,
}


def memorised(
    make: Callable[[Tensor, Tensor], Tensor], repeats: int = 60
) -> dict[str, NDArray[np.float64]]:
    """The scores of 1,500 samples in 16 dimensions, over repeats with new real images each time."""
    draw = torch.Generator().manual_seed(0)
    found = []
    for _ in range(repeats):
        train, held_out, new = (torch.randn(n, 16, generator=draw) for n in (700, 180, 1500))
        copied = train[torch.randint(700, (1500,), generator=draw)]
        found.append(compare(Memorisation(), reference(train, held_out), make(new, copied)))
    return {
        key.removeprefix("memorisation_"): np.array([score[key] for score in found])
        for key in found[0]
    }


@pytest.mark.parametrize("what", PLANTED)
def test_what_knows_no_training_image_has_a_z_of_mean_0_and_deviation_1(what: str) -> None:
    """Whatever is wrong with its variance: so z tells copies from lost variance, as the ratio of
    distances does not."""
    scores = memorised(PLANTED[what])
    z = scores["z"]
    assert abs(z.mean()) < 4 / len(z) ** 0.5
    assert 1e-4 < chi2.cdf(len(z) * z.var(), len(z) - 1) < 1 - 1e-4
    deviation = (scores["copies"] / z).mean() / len(z) ** 0.5
    assert abs(scores["copies"].mean()) < 4 * deviation
    if what == "shrunk to 0.3":
        assert scores["ratio"].max() < 0.8


def test_the_share_of_copies_is_estimated_without_bias() -> None:
    copies = memorised(lambda new, train: torch.cat([train[:300], new[300:]]))["copies"]
    assert copies.mean() == pytest.approx(0.2, abs=4 * copies.std() / len(copies) ** 0.5)


def test_copies_under_noise_have_a_large_z() -> None:
    scores = memorised(lambda new, train: train + 0.3 * new, repeats=3)
    assert scores["copies"].min() > 0.95
    assert scores["z"].min() > 4


def test_z_is_the_number_of_nearest_training_images_over_permutations() -> None:
    """By scikit-learn's neighbours, and by giving real images other sides many times."""
    train, held_out, fake = (normal(n, 5, seed) for seed, n in enumerate((80, 40, 100)))
    real = torch.cat([train, held_out]).double().numpy()
    neighbours = NearestNeighbors(n_neighbors=1).fit(real).kneighbors(fake.double().numpy())[1]
    nearest_to = np.bincount(neighbours[:, 0], minlength=120)
    draw = np.random.default_rng(0)
    sums = [nearest_to[draw.permutation(120)[:80]].sum() for _ in range(20_000)]
    scores = compare(Memorisation(), reference(train, held_out), fake)
    excess = nearest_to[:80].sum() - 100 * 80 / 120
    assert scores["memorisation_copies"] == pytest.approx(excess / (100 * 40 / 120))
    assert scores["memorisation_z"] == pytest.approx(excess / np.std(sums), rel=0.03)
    assert np.mean(sums) == pytest.approx(100 * 80 / 120, abs=4 * np.std(sums) / 20_000**0.5)


def test_an_image_in_both_splits_is_on_neither_side() -> None:
    train, other = normal(60, 4, 0), normal(30, 4, 1)
    held_out = torch.cat([other, train[:10]])
    beside = train[:10] + 1e-6
    assert compare(Memorisation(), reference(train, held_out), beside)[
        "memorisation_copies"
    ] == pytest.approx((0.5 - 0.6) / 0.4)


def test_by_chance_the_scores_of_new_images_lie_where_closed_forms_have_them() -> None:
    """`close` is binomial, with a share that the held-out images estimate; 95 of 100 z are within
    1.96."""
    metric = Memorisation()
    draw = torch.Generator().manual_seed(0)
    train, held_out = (torch.randn(n, 16, generator=draw) for n in (900, 400))
    limits = metric.by_chance(metric.prepare(reference(train, held_out)), 3000)
    low, high = limits["memorisation_close"]
    deviation = (0.01 * 0.99 * (1 / 3000 + 1 / 400)) ** 0.5
    assert (high - low) / (2 * 1.96) == pytest.approx(deviation, rel=0.25)
    assert norm.cdf(limits["memorisation_z"][1]) - norm.cdf(limits["memorisation_z"][0]) == (
        pytest.approx(0.95, abs=1e-3)
    )
    low, high = limits["memorisation_ratio"]
    assert low < 1 < high


def test_the_scores_of_new_images_lie_within_their_limits_as_often_as_is_said() -> None:
    draw, metric = torch.Generator().manual_seed(0), Memorisation()
    inside: dict[str, list[bool]] = {}
    for _ in range(40):
        train, held_out, new = (torch.randn(n, 8, generator=draw) for n in (300, 150, 400))
        prepared = metric.prepare(reference(train, held_out))
        scores = metric.compare(prepared, new)
        for key, (low, high) in metric.by_chance(prepared, 400).items():
            inside.setdefault(key, []).append(low <= scores[key] <= high)
    for key, each in inside.items():  # of 40 at 0.95, fewer than 32 have a chance of 1.3e-4
        assert sum(each) >= 32, key


def test_the_memorisation_ratio_falls_as_samples_near_the_training_images():
    train, held_out, noise = normal(300, 8, 0), normal(200, 8, 1), normal(300, 8, 2)
    scores = [
        compare(Memorisation(), reference(train, held_out), train + s * noise)
        for s in (1, 0.1, 0.01)
    ]
    ratios = [score["memorisation_ratio"] for score in scores]
    close = [score["memorisation_close"] for score in scores]
    assert ratios == sorted(ratios, reverse=True)
    assert close == sorted(close)
    assert ratios[-1] < 0.2 < 0.8 < close[-1]


def test_memorisation_is_the_ratio_of_median_nearest_distances():
    train, held_out, fake = (normal(n, 5, seed) for seed, n in enumerate((80, 41, 51)))

    def nearest(points: Tensor) -> list[float]:
        return [
            min(float((point - other).norm()) for other in train.double())
            for point in points.double()
        ]

    ratio = np.median(nearest(fake)) / np.median(nearest(held_out))
    close = np.mean(np.array(nearest(fake)) < np.quantile(nearest(held_out), 0.01))
    scores = compare(Memorisation(), reference(train, held_out), fake)
    assert scores["memorisation_ratio"] == pytest.approx(ratio)
    assert scores["memorisation_close"] == pytest.approx(close)


def test_memorisation_refuses_held_out_images_that_are_training_images():
    train = normal(50, 4, 0)
    with pytest.raises(StageFailed, match="held-out images are in the training set"):
        compare(Memorisation(), reference(train, train[:20]), normal(20, 4, 1))


# what all metrics share


@pytest.mark.parametrize("metric", EVERY_METRIC, ids=NAMES)
def test_a_metric_returns_the_keys_that_it_declares(metric):
    scores = compare(metric, reference(normal(60, 4, 0), normal(60, 4, 2)), normal(60, 4, 1))
    assert scores.keys() == metric.keys.keys()
    assert set(metric.keys.values()) <= {"lower", "higher"}
    assert all(type(value) is float for value in scores.values())


@pytest.mark.parametrize("metric", EVERY_METRIC, ids=NAMES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused(metric, bad):
    good, broken = normal(60, 4, 0), normal(60, 4, 1)
    broken[3, 2] = bad
    with pytest.raises(StageFailed, match="1 of 60 samples are not finite"):
        compare(metric, reference(good, normal(60, 4, 2)), broken)
    with pytest.raises(StageFailed, match="real images are not finite"):
        compare(metric, reference(broken), good)


@pytest.mark.parametrize("metric", EVERY_METRIC, ids=NAMES)
def test_too_few_samples_are_refused(metric):
    with pytest.raises(StageFailed, match="too few"):
        compare(metric, reference(normal(60, 4, 0), normal(30, 4, 2)), normal(1, 4, 1))


def test_prdc_needs_more_samples_than_neighbours():
    with pytest.raises(
        StageFailed, match="3 samples are too few for this metric, it needs at least 6"
    ):
        compare(PRDC(), reference(normal(60, 4, 0)), normal(3, 4, 1))


@pytest.mark.parametrize("metric", [FD(), KID()], ids=["fd", "kid"])
def test_a_space_in_which_all_images_are_equal_is_refused(metric):
    with pytest.raises(StageFailed, match="equal"):
        compare(metric, reference(torch.ones(20, 4)), normal(20, 4, 0))


def keys(metric: type[Metric], space: str) -> set[str]:
    return set(metric.model_validate({"space": space}).keys)


def test_keys_name_the_space_and_only_inception_earns_the_bare_names():
    assert keys(FD, "pca") == {"fd_pca", "fd_infinity_pca", "fd_ratio_pca"}
    assert keys(KID, "pca") == {"kid_pca"}
    assert keys(KID, "inception") == {"kid"}
    assert keys(PRDC, "classifier") == {"precision", "recall", "density", "coverage"}
    assert keys(PRDC, "pca") == {"precision_pca", "recall_pca", "density_pca", "coverage_pca"}
    of_memorisation = {"ratio", "close", "copies", "z"}
    assert keys(Memorisation, "pca") == {f"memorisation_{each}" for each in of_memorisation}
    assert keys(FID, "inception") == {"fid", "fid_infinity", "fid_ratio"}
    assert keys(MIND, "inception") == {"mind"}
    assert keys(MIND, "pca") == {"mind_pca"}
    assert keys(CMMD, "clip") == {"cmmd"}
    assert keys(CMMD, "pca") == {"cmmd_pca"}
    assert keys(AuthPct, "pca") == {"authpct"}
    assert keys(FLD, "dinov2") == {"fld", "fld_gap"}
    assert keys(FLD, "classifier") == {"fld_classifier", "fld_gap_classifier"}


def test_fd_and_fid_refuse_each_others_space():
    with pytest.raises(ValidationError, match="use the metric 'fid'"):
        keys(FD, "inception")
    with pytest.raises(ValidationError, match="for the space 'classifier' use the metric 'fd'"):
        keys(FID, "classifier")


def test_fid_passes_the_weights_on_to_its_space(tmp_path):
    short = FID.model_validate({"weights": tmp_path / "x.pth"})
    long = FID.model_validate({"space": {"name": "inception", "weights": tmp_path / "x.pth"}})
    assert short == long
    assert FID.model_validate({k: v for k, v in short.spec().items() if k != "name"}) == short
    with pytest.raises(ValidationError, match="not in both"):
        FID.model_validate({"weights": "x.pth", "space": "inception"})


def test_a_metric_in_the_classifier_space_requires_labels_and_one_in_pca_does_not():
    assert FD().requires == {"labels"}
    assert Memorisation().requires == frozenset()
