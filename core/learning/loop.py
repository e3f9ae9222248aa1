"""The loop of every training: it draws, takes a step down the gradient, logs, and resumes exactly.

A training is its loss and a few settings:

    def loss(step: Step) -> Tensor:
        rows = batch_indices(len(images), self.batch, step.number, job.seed)
        return network.error(images[rows].to(job.device))

    optimizer = adam(network.parameters(), lr=1e-3, weight_decay=0.0)
    descend(job, self.steps, loss, optimizer, {"network": network}, clip=1.0)

Stopped at any step, it goes on with the same bits if the loss depends on nothing but its step and
what `state` holds. For randomness there are `job.generator("words", step.number)` and torch's
global generator, which is seeded before each step.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fw.core.job import Job, Stateful
from fw.core.learning.gradients import Addition
from fw.core.randomness import generator

LOG_EVERY = 10
"""Steps from one line of a log to the next."""


@dataclass
class Step:
    """One step of a training."""

    number: int
    logged: bool
    """Whether it is logged. Values that are costly to compute are computed for such steps alone."""
    values: dict[str, Tensor] = field(default_factory=dict)

    def log(self, values: Mapping[str, Tensor]) -> None:
        """Log these values of the step. A name that has a value keeps its first."""
        self.values = {**values, **self.values}


def descend(
    job: Job,
    steps: int,
    loss: Callable[[Step], Tensor | Iterable[Tensor]],
    optimizer: Optimizer,
    state: Mapping[str, Stateful],
    *,
    label: str = "train",
    rate: Callable[[int], float] | None = None,
    clip: float | None = None,
    follow: Callable[[Step], None] | None = None,
    prefix: str | None = "",
    log_every: int = LOG_EVERY,
    log_last: bool = True,
    split: bool = False,
    terms: int = 1,
) -> None:
    """Take `steps` steps down the gradient of `loss`, which is called for the loss () of each.

    It may be a generator of terms () that are summed up; the memory of each is free before the next
    is computed.

    state      all that steps change beside the optimizer, by its names in a checkpoint; unfinished
               trainings are continued from it, so the names stay
    label      the checkpoint's name; two loops of one job need two labels
    rate       the learning rate of a step, by its number; None leaves the optimizer's
    clip       the norm to which the gradient of all that is learned is clipped; None is off
    follow     called after the optimizer's step, for averages and momentum networks
    prefix     stands before `loss`, and `grad_norm` where it is clipped, in the log; None leaves
               both out, so that only the values of `Step.log` are logged
    log_every  steps from one line of the log to the next, the first step included
    log_last   whether the last step is logged whatever its number
    split      whether, in a team, `loss` and what is logged are what this member's rows of the
               batch add to those of all (core/machine/team.py); else every member does the whole
    terms      how many terms the loss has, so that gradients are sent during the last
    """
    if "optimizer" in state:
        raise ValueError("a checkpoint holds the optimizer under `optimizer`: name yours otherwise")
    addition = Addition(learned_by(optimizer), job.team) if split else None
    for number in job.steps(steps, {**state, "optimizer": optimizer}, label, split):
        last = log_last and number == steps - 1
        step = Step(number, logged=number % log_every == 0 or last)
        value = loss(step)
        if rate is not None:
            for group in optimizer.param_groups:
                group["lr"] = rate(number)
        value, norm = down(optimizer, value, clip, addition, terms)
        if follow is not None:
            follow(step)
        values: dict[str, Tensor] = {}
        if prefix is not None:
            values = {f"{prefix}loss": value}
            if norm is not None:
                values[f"{prefix}grad_norm"] = job.team.part(norm) if split else norm
        if step.logged and (values or step.values):
            job.log(number, values | step.values)


def down(
    optimizer: Optimizer,
    loss: Tensor | Iterable[Tensor],
    clip: float | None = None,
    addition: Addition | None = None,
    terms: int = 1,
) -> tuple[Tensor, Tensor | None]:
    """One step of the optimizer down the gradient of the loss (), clipped to the norm `clip`. The
    loss may be terms () that are summed up, and with `addition` those of a team's members.

    Returns the loss (), of this member, and the norm () that the gradient had before; None if it is
    not clipped.
    """
    optimizer.zero_grad(set_to_none=True)
    value = differentiated([loss] if isinstance(loss, Tensor) else loss, addition, terms)
    norm = None
    if clip is not None:
        norm = nn.utils.clip_grad_norm_(learned_by(optimizer), clip)
    optimizer.step()
    return value, norm


def differentiated(terms: Iterable[Tensor], addition: Addition | None, count: int) -> Tensor:
    """The sum () of the terms (), `count` of them, whose gradients are added up."""
    total = None
    for number, term in enumerate(terms):
        if addition is not None and number == count - 1:
            addition.begin()
        term.backward()
        total = term.detach() if total is None else total + term.detach()
        del term  # and with it what its gradient needed
    assert total is not None, "a loss has at least one term"
    if addition is not None:
        addition.finish()
    return total


def learned_by(optimizer: Optimizer) -> list[nn.Parameter]:
    return [each for group in optimizer.param_groups for each in group["params"]]


def batch_indices(count: int, batch: int, step: int, seed: int) -> Tensor:
    """The numbers of one step's images (batch,), where epochs are laid end to end.

    An epoch is a permutation of the `count` images, a function of (seed, epoch).
    """
    positions = torch.arange(step * batch, (step + 1) * batch)
    epochs = positions // count
    orders = {epoch: permutation(count, seed, epoch) for epoch in epochs.unique().tolist()}
    return torch.cat([orders[e][positions[epochs == e] % count] for e in orders])


@functools.lru_cache(maxsize=4)
def permutation(count: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=generator(seed, "epoch", epoch))
