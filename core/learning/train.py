"""Train a denoiser: the method, top to bottom. All of it is a function of (seed, step)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fw.core.diffusion.compiled import compile_network, worth_compiling
from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.latents import Latents
from fw.core.diffusion.taps import tapped
from fw.core.errors import FwError
from fw.core.files.finished import FinishedWeights
from fw.core.files.weights import misfitting
from fw.core.job import Job, Stateful
from fw.core.kinds import Backbone, Joint, Process
from fw.core.kinds.boundaries import checked_network
from fw.core.learning.averages import average, decay
from fw.core.learning.batch_norm import normed_together
from fw.core.learning.batches import Batch, Draw, training_examples
from fw.core.learning.ignoring import ignores_condition
from fw.core.learning.loop import Step, descend
from fw.core.learning.optimizers import adam
from fw.core.learning.parts.augmentation import Augmentation
from fw.core.learning.parts.conditions import Conditions
from fw.core.learning.parts.denoising import Denoising
from fw.core.learning.parts.joint import Recognition
from fw.core.learning.parts.part import Part, Training
from fw.core.learning.recomputing import recompute_blocks
from fw.core.learning.splitting import check_splits
from fw.core.machine.precision import shortened
from fw.core.machine.transfer import placed
from fw.core.randomness import seeded
from fw.core.settings import Train
from fw.core.types import Annotation, ConditionSpec, ImageSet

LOWEST = 0.05
"""The learning rate at the end of the cosine, as a share of the highest."""


def train(
    backbone: Backbone,
    process: Process,
    data: ImageSet | Latents,
    annotation: Annotation | None,
    settings: Train,
    job: Job,
    more: Sequence[Part] = (),
) -> nn.Module:
    """Train on images or latents and their conditions; returns the network with averaged weights.

    `more` are the parts of this training beside denoising and recognition; whoever made them can
    read from them afterwards what they have learned.
    """
    task = Recognition(backbone, annotation) if isinstance(backbone, Joint) else Denoising()
    null = not isinstance(task, Recognition)
    conditions = [] if annotation is None else [Conditions(annotation, null)]
    # Last, so that the other parts begin with the images as they are.
    augmentation = [] if settings.augment is None else [Augmentation(settings.augment)]
    parts: list[Part] = [*conditions, task, *more, *augmentation]

    spec = next((part.spec for part in parts if part.spec is not None), None)
    if not isinstance(task, Recognition) and spec is not None and job.team.leads:
        warn_if_ignored(backbone, process, data.shape, spec, job)
    network, averaged = (initial_network(backbone, data.shape, spec, job) for _ in range(2))
    if settings.start is not None:
        begin_with(settings.start, network, averaged)
    if settings.accumulate > 1:
        check_splits(backbone, network)
    bf16 = settings.precision == "bf16"  # autocast alone: weights, loss and averages stay float32
    model, slow = (NetworkDenoiser(each, process, bf16) for each in (network, averaged))
    draw = Draw(training_examples(data).to(job.device), process, settings, job)
    for part in parts:
        part.join(Training(model, slow, draw, data.shape, settings, job))
    if worth_compiling(settings.compile, job.device, settings.steps):
        for each in (network, averaged):
            compile_network(each, job.warn)
    if settings.checkpointing:
        recompute_blocks(backbone, network)
    blocks = list(dict.fromkeys(block for part in parts for block in part.blocks))
    rows = torch.arange(len(data))
    for part in parts:
        rows = part.rows(rows)

    learned = [*network.parameters(), *(each for part in parts for each in part.parameters())]
    optimizer = adam(
        learned, settings.lr, settings.weight_decay, settings.betas, settings.optimizer
    )
    state: dict[str, Stateful] = {"network": network, "averaged": averaged}
    for part in parts:
        assert not state.keys() & part.state.keys(), "two parts by the same name in a checkpoint"
        state |= part.state

    def loss(step: Step) -> Iterator[Tensor]:
        """Noisy images and their conditions, one pass of the network, and what the parts add."""
        whole = draw(rows, settings.batch, step.number)
        for part in parts:
            part.begin(whole, step)
        logs = []
        for batch in whole.split(settings.accumulate):
            own = Step(step.number, step.logged)
            with own_dropout(job, own, batch), tapped(network, blocks) as batch.activations:
                value = task.loss(batch)
            for part in parts:
                value = part.add(value, batch, own)
            logs.append(own.values)
            yield value
            del value, batch  # before the next one, with all that its gradient needed
        step.log(summed(logs))

    def follow(step: Step) -> None:
        kept = decay(settings, step.number)
        average(averaged, network, kept)
        for part in parts:
            part.follow(kept, step)

    with shortened(settings.precision, job.device), normed_together(network, job.team):
        descend(
            job,
            settings.steps,
            loss,
            optimizer,
            state,
            rate=lambda number: learning_rate(number, settings),
            clip=settings.clip,  # of the whole gradient, heads included
            follow=follow,
            prefix="train/",
            split=True,
            terms=settings.accumulate,
        )
    return averaged


def initial_network(
    backbone: Backbone, shape: tuple[int, int, int], spec: ConditionSpec | None, job: Job
) -> nn.Module:
    """The untrained network; arms with the same architecture start from the same weights."""
    return placed(untrained(backbone, shape, spec, job.seed), job.device)


def untrained(
    backbone: Backbone, shape: tuple[int, int, int], spec: ConditionSpec | None, seed: int
) -> nn.Module:
    """The same on the CPU."""
    with seeded(seed, "init"):
        return checked_network(backbone, backbone.build(shape, spec))


def warn_if_ignored(
    backbone: Backbone,
    process: Process,
    shape: tuple[int, int, int],
    spec: ConditionSpec,
    job: Job,
) -> None:
    """Warn of a network that takes a condition and does nothing with it; before the first step.

    It is tried on the CPU, so that no GPU is waited for.
    """
    with contextlib.suppress(Exception):  # what fails here fails in the first step, and is said
        trial = NetworkDenoiser(untrained(backbone, shape, spec, job.seed), process)
        if ignores_condition(trial, spec, shape, job.generator("ignoring")):
            job.warn(
                f"backbone '{backbone.name}' ignores its condition: its predictions are the same, "
                "to the last bit, whatever the condition, so this training is an unconditional one "
                "and guidance by the condition does nothing; let the third argument of its "
                "forward, condition, have a part in what it returns"
            )


def begin_with(start: FinishedWeights, network: nn.Module, averaged: nn.Module) -> None:
    """Load the weights of a finished training into both."""
    weights = load_file(start.file())
    if reason := misfitting(network, {name: each.shape for name, each in weights.items()}):
        raise FwError(f"train.from: {start} {reason}")
    for each in (network, averaged):
        each.load_state_dict(weights)


def own_dropout(job: Job, step: Step, batch: Batch) -> AbstractContextManager[None]:
    """In a team, every member's pass has random numbers of its own; all else has the same."""
    if job.team.size == 1:
        return nullcontext()
    return seeded(job.seed, "rows", step.number, batch.number, job.team.rank)


def summed(logs: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """What the parts of a batch logged, which are summands."""
    first, *others = logs
    return {name: sum((log[name].detach() for log in others), first[name]) for name in first}


def learning_rate(step: int, settings: Train) -> float:
    """Linear warm-up, then lr or a cosine from it to `LOWEST` of it; with `warmup` 0 it begins at
    lr."""
    warm = min(1.0, (step + 1) / (settings.warmup + 1))
    if settings.schedule == "constant":
        return settings.lr * warm
    along = max(0, step - settings.warmup) / max(1, settings.steps - settings.warmup)
    cosine = (1 + math.cos(math.pi * along)) / 2
    return settings.lr * warm * (LOWEST + (1 - LOWEST) * cosine)
