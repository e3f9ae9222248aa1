"""Extra terms of the training loss, on the denoiser's activations for the step's own noisy
images (REPA, arXiv 2410.06940; dispersive loss, 2506.09027; DDAE++, 2505.10999)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fw.core.diffusion.taps import as_tokens, blocks_of
from fw.core.errors import FwError
from fw.core.job import Job, Stateful
from fw.core.kinds import Look, Objective, Seen
from fw.core.kinds.boundaries import checked_term
from fw.core.learning.batches import Batch
from fw.core.learning.loop import Step
from fw.core.learning.parts.part import Part, Training
from fw.core.machine.precision import lengthened
from fw.core.machine.tables import Table
from fw.core.machine.team import Team
from fw.core.randomness import seeded


@dataclass(frozen=True)
class Term:
    """An objective in a training: its label in the log, the block that it sees, its head and its
    features."""

    objective: Objective
    label: str
    block: str
    head: nn.Module
    features: Table | None
    """Its encoder's features (N, F) of all training images."""


class Objectives(Part):
    """What an arm's objectives add to the loss, and what they learn beside the denoiser."""

    def __init__(self, objectives: Sequence[Objective], targets: Sequence[Tensor | None]):
        """`targets` are for each objective the features (N, F) of all images that its term sees,
        or None."""
        self.objectives = objectives
        self.targets = targets

    def join(self, training: Training) -> None:
        self.averaged = training.averaged
        self.network = training.model.network
        self.job, self.team = training.job, training.job.team
        device = training.job.device
        numbers = Counter[str]()
        self.terms: list[Term] = []
        for objective, features in zip(self.objectives, self.targets, strict=True):
            numbers[objective.name] += 1
            number = numbers[objective.name]
            label = objective.name if number == 1 else f"{objective.name}_{number}"
            block = objective.block or usual_block(objective, self.averaged.network)
            image = torch.zeros(1, *training.shape, device=device)
            width = self._look(block)(image, torch.ones(1, device=device)).shape[2]
            size = 0 if features is None else features.shape[1]
            head = initial_head(objective, label, width, size, self.job)
            on_device = None if features is None else Table([features]).to(device)
            self.terms.append(Term(objective, label, block, head, on_device))

    @property
    def state(self) -> Mapping[str, Stateful]:
        return {f"objective {term.label}": term.head for term in self.terms}

    def parameters(self) -> Iterator[nn.Parameter]:
        for term in self.terms:
            yield from term.head.parameters()

    @property
    def blocks(self) -> list[str]:
        return [term.block for term in self.terms]

    def add(self, loss: Tensor, batch: Batch, step: Step) -> Tensor:
        """loss + sum_i weight_i * term_i"""
        weighted = {term.label: self._weighted(term, batch, step) for term in self.terms}
        if step.logged and self.terms:
            step.log(self._values(weighted, loss, batch))
        return sum(weighted.values(), loss)

    def _weighted(self, term: Term, batch: Batch, step: Step) -> Tensor:
        """One term (), times its weight; of a part of a batch, what it adds to that of all.

        In a team, an objective that compares images sees those of all members.
        """
        objective = term.objective
        part = [batch.number] if batch.number else []
        tokens = lengthened(as_tokens(batch.activations[term.block]))
        images: tuple[Tensor, ...] = (batch.x0, batch.sigma, batch.noise, batch.chosen)
        gathered = self.team.size > 1 and not objective.per_image  # it compares all images
        if gathered:
            tokens = self.team.whole(tokens, batch.count)
            images = tuple(self.team.whole(each, batch.count) for each in images)
        x0, sigma, noise, chosen = images
        features = None
        if term.features is not None:
            features = term.features.take(chosen) if gathered else batch.taken(term.features)
        inside = taken(objective, sigma)
        seen = Seen(
            tokens,
            inside,
            x0,
            sigma,
            noise,
            self.job.generator("objective", term.label, step.number, *part, device=self.job.device),
            features,
            self._look(term.block) if objective.uses_teacher else None,
        )
        value = objective.weight * checked_term(objective, objective.term(term.head, seen))
        if gathered:
            return self.team.part(value)
        if batch.complete:
            return value
        everywhere = self.team.total(taken(objective, batch.all.sigma).sum())
        return value * inside.sum() / everywhere.clamp(min=1)

    def _values(
        self, weighted: Mapping[str, Tensor], loss: Tensor, batch: Batch
    ) -> dict[str, Tensor]:
        """What is logged: the rest of the loss, and for each term its value and the ratio of
        gradients."""
        weights = {term.label: term.objective.weight for term in self.terms}
        values = {f"train/{label}": term / weights[label] for label, term in weighted.items()}
        values["train/denoising_loss"] = loss
        for label, ratio in gradient_ratios(weighted, loss, self.network, self.team).items():
            values[f"train/{label}_gradient_ratio"] = batch.share * ratio
        return values

    def _look(self, block: str) -> Look:
        @torch.no_grad()
        def look(x: Tensor, sigma: Tensor) -> Tensor:
            self.averaged.network.eval()
            return as_tokens(self.averaged.features(x, sigma, [block])[block])  # (B, N, D)

        return look


def usual_block(objective: Objective, network: nn.Module) -> str:
    """The block at the objective's `depth`: of four, 0.25 is the first and 0.5 the second."""
    blocks = list(blocks_of(network))
    if not blocks:
        raise FwError(
            f"objective {objective.name} sees a block of the network, and this network names none"
        )
    number = math.ceil(objective.depth * len(blocks) - 1e-9)
    return blocks[min(max(number, 1), len(blocks)) - 1]


def initial_head(
    objective: Objective, label: str, width: int, features: int, job: Job
) -> nn.Module:
    """The untrained head, a function of the seed and of the objective's label."""
    with seeded(job.seed, "objective", label):
        return objective.build(width, features).to(job.device)


def taken(objective: Objective, sigma: Tensor) -> Tensor:
    """Which of the noise levels (B,) are in the objective's interval, bool (B,)."""
    low, high = objective.interval or (-math.inf, math.inf)
    return (sigma > low) & (sigma <= high)


def gradient_ratios(
    terms: Mapping[str, Tensor], loss: Tensor, network: nn.Module, team: Team
) -> dict[str, Tensor]:
    """||grad term|| / ||grad loss|| for each term (), over the weights that both reach: the shared
    trunk. Both are summands over the members of the team.

    0 where the loss has no gradient there, as in a transformer whose last layer is still zero.
    """
    weights = [weight for weight in network.parameters() if weight.requires_grad]

    def gradients(value: Tensor) -> tuple[Tensor | None, ...]:
        return torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True)

    ratios: dict[str, Tensor] = {}
    loss_gradients = team.totals(gradients(loss))
    for label, term in terms.items():
        term_gradients = team.totals(gradients(term))
        pairs = zip(term_gradients, loss_gradients, strict=True)
        both = [(one, other) for one, other in pairs if one is not None is not other]
        upper, lower = (norm([pair[side] for pair in both], loss) for side in (0, 1))
        ratios[label] = torch.where(lower > 0, upper / lower, 0.0)
    return ratios


def norm(gradients: Sequence[Tensor], like: Tensor) -> Tensor:
    """The norm () of all gradients together; 0 if there are none."""
    return torch.stack([like.new_zeros(()), *(gradient.norm() for gradient in gradients)]).norm()
