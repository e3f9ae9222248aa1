"""Randomness as a function of words: the same words give the same stream in any process, at any
batch size."""

import hashlib

import torch
from torch import Tensor


def seed_from(*words: int | str) -> int:
    """A 63-bit seed from the words, e.g. `seed_from(run_seed, "noise", step)`."""
    digest = hashlib.sha256("/".join(map(str, words)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*words: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator seeded from the words."""
    return torch.Generator(device).manual_seed(seed_from(*words))


def some(count: int, most: int, *words: int | str) -> Tensor:
    """At most `most` of the numbers 0 to `count` - 1, at random by the words, in ascending order.

    The first so many would be other images: data sets are often sorted by class.
    """
    return torch.randperm(count, generator=generator(*words))[:most].sort().values
