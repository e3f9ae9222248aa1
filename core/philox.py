"""Philox 4x64-10, a random generator without state (Salmon et al., SC 2011): a block of random
words is a function of a key and of the block's number.

The words are the same on every device. On the CPU NumPy computes them; elsewhere torch's integers
do, which are 64 bits wide and signed, so products of words are put together from halves.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

WORDS = 4
"""64-bit words in a block."""

ROUNDS = 10
MULTIPLIERS = 0xD2E7470EE14C6C93, 0xCA5A826395121157
BUMPS = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B
"""What is added to the two halves of the key after each round."""

HALF = 0xFFFFFFFF


def blocks(key: int, first: int, count: int, device: torch.device | str = "cpu") -> Tensor:
    """The random bits of the blocks `first` to `first + count`, int64 (count, 4), on the device.

    `key` has 128 bits; numbers of blocks have 256 on the CPU and 63 elsewhere.
    """
    device = torch.device(device)
    if device.type == "cpu":
        return by_numpy(key, first, count)
    return by_torch(key, torch.arange(first, first + count, device=device))


def by_numpy(key: int, first: int, count: int) -> Tensor:
    halves = np.array([key % 2**64, key >> 64], dtype=np.uint64)
    # NumPy adds one to the block's number before it makes a block
    generator = np.random.Philox(key=halves, counter=(first - 1) % 2**256)
    words = generator.random_raw(count * WORDS)
    return torch.from_numpy(words.view(np.int64)).view(count, WORDS)


def by_torch(key: int, numbers: Tensor) -> Tensor:
    """The same for blocks by number, int64 (count,) below 2^63, with torch's integers."""
    zero = torch.zeros_like(numbers)
    a, b, c, d = numbers, zero, zero, zero
    low, high = key % 2**64, key >> 64
    for _ in range(ROUNDS):
        high_a, low_a = product(a, MULTIPLIERS[0])
        high_c, low_c = product(c, MULTIPLIERS[1])
        a, b, c, d = high_c ^ b ^ signed(low), low_c, high_a ^ d ^ signed(high), low_a
        low, high = (low + BUMPS[0]) % 2**64, (high + BUMPS[1]) % 2**64
    return torch.stack([a, b, c, d], dim=-1)


def product(words: Tensor, by: int) -> tuple[Tensor, Tensor]:
    """The high and the low 64 bits of unsigned words times a constant, as int64."""
    low, high = words & HALF, (words >> 32) & HALF
    by_low, by_high = by & HALF, by >> 32
    middle = high * by_low + ((low * by_low >> 32) & HALF)  # each term stays below 2^64
    other = low * by_high + (middle & HALF)
    return (
        high * by_high + ((middle >> 32) & HALF) + ((other >> 32) & HALF),
        words * signed(by),
    )


def signed(word: int) -> int:
    """The int64 with the bits of an unsigned word."""
    return word - 2**64 if word >= 2**63 else word
