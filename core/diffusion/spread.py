"""What a sampler makes of Gaussian data, whose denoiser is known: is their spread right, and how
much does it make of a network's errors?

Of pixels N(0, s^2) the denoiser is D(x; sigma) = s^2 / (s^2 + sigma^2) x, so a sampler is a linear
map of the noise that it starts from and of what it adds, and its samples are right if their
standard deviation is s. No network is needed, and a thousand steps are a thousand products.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from fw.core.diffusion import trials
from fw.core.kinds import Process, Sampler
from fw.core.randomness import Draws, forked

FINE = 5
"""Detail is this many times narrower than the data. Of images, most principal components are."""

SMALL = 1e-6
"""The size of what is put in, so that no clamp acts."""

MOST_CALLS = 2000
"""Samplers with more calls are not tried."""

SIDE = 64
"""Of the images that are drawn where a sampler cannot be taken apart."""


@dataclass(frozen=True)
class Spread:
    """What a sampler makes of Gaussian data, and of errors."""

    data: float
    """The standard deviation of the data."""
    whole: float
    """The standard deviation of samples in units of the data's; 1 is right."""
    detail: float
    """The same for structure that is `FINE` times narrower."""
    standard_error: float
    """Of both; 0 where they are exact."""
    gain: float
    """The standard deviation of samples' errors in units of the data's, where the network's
    outputs have independent errors of standard deviation 1."""


def spread(sampler: Sampler, process: Process, data: float) -> Spread | None:
    """What the sampler makes of Gaussian data of this standard deviation; None if it does not work
    on single pixels or has too many calls. A sampler may be anybody's, so none of its exceptions
    comes out.
    """
    key = json.dumps([sampler.spec(), process.spec(), data]), type(sampler), type(process)
    if key not in KNOWN:
        KNOWN[key] = remembered(sampler, process, data)
    return KNOWN[key]


KNOWN: dict[tuple[str, type[Sampler], type[Process]], Spread | None] = {}


def remembered(sampler: Sampler, process: Process, data: float) -> Spread | None:
    """As an earlier command tried it, or tried now."""
    memory = trials.memory((sampler, process), __file__, data)
    if memory is None:
        return tried(sampler, process, data)
    if (known := trials.read(memory)) is not None:
        return Spread(**known) if known else None
    result = tried(sampler, process, data)
    trials.write(memory, {} if result is None else asdict(result))
    return result


def tried(sampler: Sampler, process: Process, data: float) -> Spread | None:
    for way in (taken_apart, drawn):
        try:
            if sampler.nfe <= MOST_CALLS:
                with forked(), torch.inference_mode():
                    return way(sampler, process, data)
        except Exception:  # it may need other images than these, and that is no fault of a recipe
            continue
    return None


def taken_apart(sampler: Sampler, process: Process, data: float) -> Spread:
    """The exact numbers: variances add up over the noise that a sampler starts from, what it draws
    and the errors that it meets, so each of these is put into an image of its own, alone."""
    calls = sampler.nfe
    one = 1 + calls  # an image for the start and one for each draw, of which there are fewer
    stds = torch.tensor([data] * one + [data / FINE] * one + [data] * calls, dtype=torch.float64)
    start = torch.zeros_like(stds)
    start[[0, one]] = SMALL
    denoise = Known(process, stds, [[2 * one + call] for call in range(calls)])
    fresh = Alone(len(stds), [[1 + draw, one + 1 + draw] for draw in range(calls)])
    samples = sampler.sample(denoise, start.view(-1, 1, 1, 1), fresh).flatten() / SMALL
    whole, detail, errors = samples.split([one, one, calls])
    norms = (float(torch.linalg.vector_norm(part)) for part in (whole, detail, errors))
    return of_samples(data, *norms)


def drawn(sampler: Sampler, process: Process, data: float) -> Spread:
    """The same from many pixels, for samplers that draw by generators of their own; a clamp of
    theirs acts. The first and the last image differ in the errors alone."""
    noise = Draws("start", rows=[0]).normal(1, SIDE, SIDE).expand(3, -1, -1, -1)
    stds = torch.tensor([data, data / FINE, data], dtype=torch.float64)
    denoise = Known(process, stds, [[2]] * sampler.nfe, Draws("errors", rows=[0]))
    samples = sampler.sample(denoise, noise.clone(), Draws("fresh", rows=[0, 1, 0])).double()
    whole, detail, gain = (
        float(part.square().mean().sqrt())
        for part in (samples[0], samples[1], samples[2] - samples[0])
    )
    return of_samples(data, whole, detail, gain, 1 / math.sqrt(2 * SIDE**2))


def of_samples(
    data: float, whole: float, detail: float, gain: float, standard_error: float = 0.0
) -> Spread:
    """The numbers in units of the data; infinite where a sampler diverges."""
    ratios = (whole / data, FINE * detail / data, gain / data)
    whole, detail, gain = (each if math.isfinite(each) else math.inf for each in ratios)
    return Spread(data, whole, detail, standard_error, gain)


class Known:
    """The denoiser of pixels N(0, std^2), one std for each image (B,). At call k it errs in the
    images `errs[k]`: by `SMALL`, or as `errors` are drawn."""

    def __init__(
        self, process: Process, stds: Tensor, errs: list[list[int]], errors: Draws | None = None
    ):
        self.process = process
        self.sigma_min, self.sigma_max = process.sigma_range
        self.variances = stds.square().view(-1, 1, 1, 1)
        self.errs = iter(errs)
        self.errors = errors

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        x0 = (self.variances / (self.variances + sigma**2)).to(x) * x
        level = torch.tensor([sigma], dtype=torch.float64)
        out = float(self.process.coefficients(level).out)
        error = SMALL if self.errors is None else self.errors.normal(*x.shape[1:]).to(x)
        x0[next(self.errs)] += out * error
        return x0


class Alone(Draws):
    """Fresh noise that is `SMALL` in the images `places[k]` of draw k, and nothing elsewhere."""

    def __init__(self, count: int, places: list[list[int]]):
        super().__init__("alone", rows=range(count))
        self.places = iter(places)

    def normal(self, *shape: int) -> Tensor:
        made = torch.zeros(len(self), *shape, dtype=torch.float64)
        made[next(self.places)] = SMALL
        return made

    def __getitem__(self, place: object) -> torch.Generator:  # type: ignore[override]
        raise LookupError("there are no generators here: see `drawn`")
