"""Randomness as a function of words: the same words give the same stream in any process, at any
batch size.

No two streams share their numbers by accident, however many there are. torch's CPU generator keeps
32 bits of a seed, so among 100,000 seeds one pair would be expected to be the same; here its whole
state comes from the words.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fw.core import philox

INITIAL_SEED = slice(0, 8)
TWISTER = slice(24, 24 + 624 * 8)
"""Where the seed and the 624 words of the Mersenne Twister, 64 bits each, stand in the state of
torch's CPU generator."""

AT_ONCE = 2**18
"""Normal numbers that are made at once; so many stay in a processor's cache."""


def seed_from(*words: int | str) -> int:
    """A 63-bit seed from the words, e.g. `seed_from(run_seed, "noise", step)`."""
    return int.from_bytes(hashlib.sha256(text(words)).digest()[:8], "big") >> 1


def generator(*words: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator whose numbers are a function of the words, and of the type of the device:
    on the CPU its whole state, elsewhere its seed, of which 63 bits count."""
    if torch.device(device).type != "cpu":
        return torch.Generator(device).manual_seed(seed_from(*words))
    made = torch.Generator()
    made.set_state(state(words))
    return made


def seed_torch(*words: int | str) -> None:
    """Seed torch's global generators from the words: that of the CPU, and those of all GPUs once
    torch has begun to use one."""
    torch.set_rng_state(state(words))
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed_from(*words))


@contextlib.contextmanager
def seeded(*words: int | str) -> Iterator[None]:
    """With torch's global generators seeded from the words; they are given back."""
    with forked():
        seed_torch(*words)
        yield


@contextlib.contextmanager
def forked() -> Iterator[None]:
    """Whatever happens in here, torch's global generators are given back as they were.

    `torch.random.fork_rng(devices=[])` keeps that of the CPU alone, although `torch.manual_seed`
    moves those of all GPUs; without `devices` it warns where there are several.
    """
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=gpus):
        yield


def some(count: int, most: int, *words: int | str) -> Tensor:
    """At most `most` of the numbers 0 to `count` - 1, at random by the words, in ascending order.

    The first so many would be other images: data sets are often sorted by class.
    """
    return torch.randperm(count, generator=generator(*words))[:most].sort().values


class Draws(Sequence[torch.Generator]):
    """The random numbers of a batch of images: those of image i are a function of the words and of
    i, whatever else is in the batch.

    Numbers come from Philox, whose integers are the same on every device; normal numbers agree to
    rounding. As a sequence, it has a torch generator (CPU) for each image, for libraries that want
    one; these are other streams than that of `normal`, and as independent.
    """

    def __init__(
        self, *words: int | str, rows: Sequence[int], device: torch.device | str = "cpu"
    ) -> None:
        """`rows` are the numbers i of the images, from 0 to 2^128; on a GPU a range."""
        self.words = words
        self.rows = rows
        self.device = torch.device(device)
        self._calls = 0
        self._generators: dict[int, torch.Generator] = {}

    def normal(self, *shape: int) -> Tensor:
        """Fresh normal numbers, float32 (B, *shape), by Box and Muller's method.

        Each call gives the next ones, and none is beyond 6.8 standard deviations.
        """
        count = math.prod(shape)
        each = math.ceil(count / (2 * philox.WORDS))  # two numbers from a word
        made = torch.empty(len(self), 2 * philox.WORDS * each, device=self.device)
        key, done = self._key(each), 0
        for rows in pieces(self.rows, max(1, AT_ONCE // max(1, count))):
            blocks = philox.blocks(key, rows.start * each, len(rows) * each, self.device)
            box_muller(blocks.view(len(rows), -1), made[done : done + len(rows)])
            done += len(rows)
        return made[:, :count].reshape(len(self), *shape)

    def below(self, limit: int) -> Tensor:
        """A fresh integer in 0..limit - 1 for each image, int64 (B,); all are equally likely, to
        one part in 2^63 / limit."""
        made = torch.empty(len(self), dtype=torch.int64, device=self.device)
        key, done = self._key(1), 0
        for rows in pieces(self.rows, AT_ONCE):
            words = philox.blocks(key, rows.start, len(rows), self.device)[:, 0]
            made[done : done + len(rows)] = (words & (2**63 - 1)) % limit
            done += len(rows)
        return made

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> torch.Generator: ...

    @overload
    def __getitem__(self, place: slice) -> Draws: ...

    def __getitem__(self, place: int | slice) -> torch.Generator | Draws:
        if isinstance(place, slice):
            part = Draws(*self.words, rows=self.rows[place], device=self.device)
            part._calls, part._generators = self._calls, self._generators
            return part
        row = self.rows[place]
        if row not in self._generators:
            self._generators[row] = generator(*self.words, row)
        return self._generators[row]

    def _key(self, each: int) -> int:
        """The key of the next call, which takes `each` blocks for each image."""
        words = (*self.words, "draws", self._calls, each)
        self._calls += 1
        return int.from_bytes(hashlib.sha256(text(words)).digest()[:16], "big")


def pieces(rows: Sequence[int], most: int) -> Iterator[range]:
    """The rows as ranges of at most `most` consecutive numbers."""
    if isinstance(rows, range) and rows.step == 1:
        for start in range(rows.start, rows.stop, most):
            yield range(start, min(start + most, rows.stop))
    else:
        for row in rows:
            yield range(row, row + 1)


def box_muller(blocks: Tensor, into: Tensor) -> None:
    """Normal numbers (n, 2 * m) from random words, int64 (n, m) with even m."""
    radius, angle = halves(blocks).chunk(2, dim=1)
    radius.add_(0.5).mul_(2**-32).log_().mul_(-2).sqrt_()
    angle.mul_(2 * math.pi * 2**-32)
    cosine, sine = into.chunk(2, dim=1)
    torch.cos(angle, out=cosine).mul_(radius)
    torch.sin(angle, out=sine).mul_(radius)


def halves(blocks: Tensor) -> Tensor:
    """Random words, int64 (n, m), as integers from 0 to 2^32, float32 (n, 2 * m)."""
    if blocks.device.type == "cpu":
        return torch.from_numpy(blocks.numpy().view(np.uint32).astype(np.float32))
    parts = torch.stack([blocks & philox.HALF, (blocks >> 32) & philox.HALF], dim=-1)
    return parts.flatten(1).float()


def state(words: tuple[int | str, ...]) -> Tensor:
    """The state of torch's CPU generator for these words, as its `get_state` gives it.

    Its `initial_seed`, by which others seed their generators, is `seed_from` of the words.
    """
    made = fresh_state().copy()
    twister = np.frombuffer(hashlib.shake_256(text(words)).digest(624 * 4), dtype=np.uint32)
    made[INITIAL_SEED].view(np.uint64)[:] = seed_from(*words)
    made[TWISTER].view(np.uint64)[:] = twister
    return torch.frombuffer(made, dtype=torch.uint8)


@functools.cache
def fresh_state() -> npt.NDArray[np.uint8]:
    """The state of a generator that has drawn nothing yet."""
    return torch.Generator().manual_seed(0).get_state().numpy()


def text(words: tuple[int | str, ...]) -> bytes:
    return "/".join(map(str, words)).encode()
