"""Random numbers are a function of words: no two streams share any, on any device, and they are
normal."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from fw.core import philox
from fw.core.randomness import Draws, generator, seed_from, seed_torch
from fw.plugins.samplers.ddim import DDIM

keys = st.integers(0, 2**128 - 1)

VECTORS = (
    # (key, number of the block, words), of Random123's known answers (Salmon et al., SC 2011)
    (0, 0, (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B)),
)


@pytest.mark.parametrize(("key", "number", "words"), VECTORS)
def test_philox_gives_the_known_answers(key: int, number: int, words: tuple[int, ...]) -> None:
    expected = torch.tensor([philox.signed(word) for word in words])
    assert torch.equal(philox.by_numpy(key, number, 1)[0], expected)
    assert torch.equal(philox.by_torch(key, torch.tensor([number]))[0], expected)


@given(keys, st.integers(0, 2**62), st.integers(1, 50))
def test_philox_has_the_same_integers_by_numpy_and_by_torch(key: int, at: int, count: int) -> None:
    numbers = torch.arange(at, at + count)
    assert torch.equal(philox.by_numpy(key, at, count), philox.by_torch(key, numbers))


@given(keys, st.integers(0, 2**256 - 1))
def test_philox_gives_numpys_words_whatever_the_blocks_number(key: int, at: int) -> None:
    reference = np.random.Philox(
        key=np.array([key % 2**64, key >> 64], dtype=np.uint64), counter=at
    ).random_raw(8)
    words = philox.blocks(key, (at + 1) % 2**256, 2).flatten().numpy().view(np.uint64)
    assert words.tolist() == reference.tolist()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_the_same_images() -> None:
    cpu, gpu = (Draws(0, rows=range(9), device=device) for device in ("cpu", "cuda"))
    for _ in range(2):
        torch.testing.assert_close(gpu.normal(3, 5, 5).cpu(), cpu.normal(3, 5, 5))
    assert torch.equal(gpu.below(10**9).cpu(), cpu.below(10**9))


def test_normal_numbers_from_torchs_integers_are_those_from_numpys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a GPU computes, here on the CPU."""
    expected = Draws(0, rows=range(9)).normal(3, 5, 5)
    monkeypatch.setattr(philox, "by_numpy", on_a_gpu)
    torch.testing.assert_close(Draws(0, rows=range(9)).normal(3, 5, 5), expected)


def on_a_gpu(key: int, first: int, count: int) -> Tensor:
    return philox.by_torch(key, torch.arange(first, first + count))


rows = st.lists(st.integers(0, 2**128 - 1), min_size=1, max_size=6)


@given(rows, st.integers(1, 20))
def test_the_numbers_of_an_image_do_not_depend_on_its_batch(batch: list[int], count: int) -> None:
    def numbers(rows: list[int]) -> list[Tensor]:
        draws = Draws("seed", "words", rows=rows)
        return [draws.normal(count), draws.normal(count, 2), draws.below(1000)]

    for place, row in enumerate(batch):
        for one, several in zip(numbers([row]), numbers(batch), strict=True):
            assert torch.equal(one[0], several[place])


@given(st.integers(0, 1000), st.integers(1, 300))
def test_a_range_of_images_is_made_as_one_by_one(start: int, count: int) -> None:
    together = Draws(0, rows=range(start, start + count)).normal(3)
    assert torch.equal(together, Draws(0, rows=list(range(start, start + count))).normal(3))


def test_large_images_are_made_in_pieces_that_do_not_show() -> None:
    shape = (3, 200, 200)  # more than are made at once with two
    together = Draws(0, rows=range(3)).normal(*shape)
    assert torch.equal(together[1:], Draws(0, rows=range(1, 3)).normal(*shape))


def test_a_part_of_a_batch_goes_on_where_the_batch_is() -> None:
    whole = Draws(0, rows=range(6))
    whole.normal(4)
    part = whole[2:5]
    assert torch.equal(part.normal(4), whole.normal(4)[2:5])
    assert part[0] is whole[2]


def test_calls_words_shapes_and_images_have_streams_of_their_own() -> None:
    batch = [Draws(*words, rows=range(50)) for words in ((0, "a"), (0, "b"), (1, "a"))]
    numbers = [draws.normal(*shape) for draws in batch for shape in ((8,), (8,), (4,), (16,))]
    numbers += [torch.stack([torch.randn(8, generator=each) for each in batch[0]])]
    every = torch.cat([each.flatten() for each in numbers])
    assert every.unique().numel() == every.numel()


def test_a_million_images_of_ten_seeds_start_from_noise_of_their_own() -> None:
    """128 bits of each image are compared: if they were random, two would agree with probability
    1e-25. torch's CPU generator keeps 32 bits of a seed, and so had 116 pairs in each million."""
    key_of_first = []
    for seed in range(10):
        key = Draws(seed, "sample", 0, rows=range(1))._key(8)  # 64 pixels
        words = philox.blocks(key, 0, 8_000_000)[::8, :2].contiguous()
        key_of_first.append(words.numpy().view(np.dtype([("a", "<u8"), ("b", "<u8")])).ravel())
    every = np.concatenate(key_of_first)
    assert len(np.unique(every)) == len(every) == 10_000_000


def test_a_hundred_thousand_generators_differ() -> None:
    """By 32 bits of seed, 1.2 pairs of 100,000 were expected to be the same."""
    first = {
        torch.empty(2, dtype=torch.int64).random_(generator=generator("g", number)).sum().item()
        for number in range(100_000)
    }
    assert len(first) == 100_000


@pytest.mark.parametrize("where", ["generator", "torch's own"])
def test_a_generators_whole_state_comes_from_its_words(where: str) -> None:
    """NumPy's Mersenne Twister in the same state gives the same integers."""
    with torch.random.fork_rng(devices=[]):
        if where == "generator":
            made = generator(3, "words")
        else:
            seed_torch(3, "words")
            made = torch.default_generator
        state = made.get_state().numpy()
        twister = np.random.MT19937()
        words = state[24 : 24 + 624 * 8].view(np.uint64).astype(np.uint32)
        twister.state = {"bit_generator": "MT19937", "state": {"key": words, "pos": 624}}
        found = torch.randint(2**24, (1000,), generator=made, dtype=torch.int32)
    assert (found.numpy() == twister.random_raw(1000) % 2**24).all()
    assert len(np.unique(words)) > 620


def test_global_generators_are_seeded_by_all_words() -> None:
    def drawn(*words: int | str) -> float:
        seed_torch(*words)
        return torch.rand(1).item()

    with torch.random.fork_rng(devices=[]):
        assert len({drawn(0, "a"), drawn(0, "b"), drawn(1, "a")}) == 3
        assert drawn(0, "a") == drawn(0, "a")


def test_what_others_seed_by_torchs_seed_depends_on_the_words() -> None:
    """`numpy.random.seed(torch.initial_seed() % 2**32)` is common; the seed was 0 for all words."""
    with torch.random.fork_rng(devices=[]):
        seed_torch(0, "a")
        assert torch.initial_seed() == seed_from(0, "a")
    assert generator(0, "a").initial_seed() != generator(0, "b").initial_seed()


COUNT = 200_000


def streams() -> Iterator[tuple[str, Tensor]]:
    """Normal numbers (2, COUNT) that must be independent, by what they differ in."""
    images = Draws(0, "sample", 0, rows=range(COUNT // 50 + 1)).normal(50)
    yield "image", torch.stack([images[:-1].flatten(), images[1:].flatten()])
    yield "pixel", torch.stack([images[:-1].flatten(), images[:-1].roll(1, dims=1).flatten()])
    draws = Draws(0, "sample", 0, rows=range(COUNT // 50))
    yield "step", torch.stack([draws.normal(50).flatten(), draws.normal(50).flatten()])
    for what, words in (
        ("sampling seed", ((0, "sample", 0), (0, "sample", 1))),
        ("training seed", ((0, "sample", 0), (1, "sample", 0))),
        ("arm", ((0, "sample", 0), (0, "sibling", 0))),
    ):
        pair = [Draws(*each, rows=range(COUNT // 50)).normal(50).flatten() for each in words]
        yield what, torch.stack(pair)


@pytest.mark.parametrize(("what", "pair"), list(streams()), ids=[what for what, _ in streams()])
def test_normal_numbers_are_normal_and_independent(what: str, pair: Tensor) -> None:
    """Each statistic is within 4.5 of its own standard deviations under independence."""
    a, b = pair.double()
    n = len(a)
    assert stats.kstest(a.numpy(), "norm").pvalue > 1e-5
    for found, sd in (
        (a.mean(), 1.0),
        (a.square().mean() - 1, math.sqrt(2)),
        (a.pow(3).mean(), math.sqrt(15)),
        (a.pow(4).mean() - 3, math.sqrt(96)),
        ((a * b).mean(), 1.0),
        ((a.square() * b).mean(), math.sqrt(3)),
        ((a.square() * b.square()).mean() - 1, math.sqrt(8)),
    ):
        assert abs(float(found)) < 4.5 * sd / math.sqrt(n)
    cells = torch.histogramdd(
        pair.T.contiguous(), bins=[torch.tensor([-9.0, -1, -0.3, 0.3, 1, 9])] * 2
    ).hist
    edges = stats.norm.cdf([-np.inf, -1, -0.3, 0.3, 1, np.inf])
    expected = n * np.outer(np.diff(edges), np.diff(edges))
    assert stats.chisquare(cells.numpy().ravel(), expected.ravel()).pvalue > 1e-5


def test_the_tails_reach_as_far_as_thirty_two_bits_do() -> None:
    farthest = Draws(0, rows=range(4000)).normal(1000).abs().max().item()
    assert 4.6 < farthest < 6.8  # of 4 million: all but 1 in 20 such sets are beyond 4.9


@given(st.integers(1, 2**40))
def test_integers_below_a_limit_are_below_it(limit: int) -> None:
    drawn = Draws("below", rows=range(100)).below(limit)
    assert drawn.dtype == torch.int64
    assert drawn.min() >= 0
    assert drawn.max() < limit


def test_integers_below_a_limit_are_equally_likely() -> None:
    counts = Draws("below", rows=range(70_000)).below(7).bincount(minlength=7)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-5


def test_noise_costs_about_what_torchs_generators_of_one_image_each_cost_or_less() -> None:
    """CPU seconds, interleaved; 64 pixels and 3x64x64."""

    def before(shape: tuple[int, ...], count: int) -> None:
        seeded = (torch.Generator().manual_seed(seed_from(0, row)) for row in range(count))
        torch.stack([torch.randn(shape, generator=each) for each in seeded])

    def now(shape: tuple[int, ...], count: int) -> None:
        Draws(0, rows=range(count)).normal(*shape)

    def ratio(shape: tuple[int, ...], count: int) -> float:
        spent = [time.process_time()]
        for draw in (before, now):
            draw(shape, count)
            spent.append(time.process_time())
        first, second = (b - a for a, b in itertools.pairwise(spent))
        return second / first

    for shape, count, most in (((1, 8, 8), 250, 0.5), ((3, 64, 64), 60, 1.5)):
        assert min(ratio(shape, count) for _ in range(7)) < most


def test_fresh_noise_of_samplers_is_drawn_for_all_images_at_once() -> None:
    """No generator is made for any image."""

    class Grey:
        sigma_min, sigma_max = 0.01, 10.0

        def __call__(self, x: Tensor, sigma: float) -> Tensor:
            return torch.zeros_like(x)

    draws = Draws(0, rows=range(5))
    DDIM(steps=4, eta=1.0).sample(Grey(), draws.normal(1, 8, 8), draws)
    assert not draws._generators
    assert draws._calls > 3
