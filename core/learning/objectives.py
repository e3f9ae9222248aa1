"""Extra terms of the training loss, on what blocks of the denoiser make of the step's own noisy images (REPA, arXiv
2410.06940; dispersive loss, 2506.09027; DDAE++, 2505.10999)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fw.core.diffusion.denoiser import Denoiser
from fw.core.diffusion.taps import as_tokens, blocks_of
from fw.core.errors import FwError
from fw.core.job import Job, Stateful
from fw.core.kinds import Look, Objective, Seen
from fw.core.kinds.boundaries import checked_term
from fw.core.randomness import seed_from


@dataclass(frozen=True)
class Term:
    """An objective in a training: what it is called in the log, the block it sees, its head and its target."""

    objective: Objective
    label: str
    block: str
    head: nn.Module
    features: Tensor | None
    """Its encoder's features (N, F) of all training images."""


class Terms:
    """What an arm's objectives add to the loss, and what they learn beside the denoiser. Empty, it does nothing."""

    def __init__(
        self,
        objectives: Sequence[Objective],
        targets: Sequence[Tensor | None],
        averaged: Denoiser,
        shape: tuple[int, int, int],
        job: Job,
    ):
        """`targets` are the features (N, F) that each objective asked for; `averaged` is the teacher."""
        self.averaged = averaged
        self.job = job
        numbers = Counter[str]()
        self.terms: list[Term] = []
        for objective, features in zip(objectives, targets, strict=True):
            numbers[objective.name] += 1
            number = numbers[objective.name]
            label = objective.name if number == 1 else f"{objective.name}_{number}"
            block = objective.block or usual_block(objective, averaged.network)
            width = self._look(block)(torch.zeros(1, *shape, device=job.device), torch.ones(1, device=job.device))
            head = initial_head(objective, label, width.shape[2], 0 if features is None else features.shape[1], job)
            on_device = None if features is None else features.to(job.device)
            self.terms.append(Term(objective, label, block, head, on_device))

    @property
    def blocks(self) -> list[str]:
        return list(dict.fromkeys(term.block for term in self.terms))

    @property
    def state(self) -> Mapping[str, Stateful]:
        """What a checkpoint of the training holds of it."""
        return {f"objective {term.label}": term.head for term in self.terms}

    def parameters(self) -> Iterator[nn.Parameter]:
        for term in self.terms:
            yield from term.head.parameters()

    def __call__(
        self,
        activations: Mapping[str, Tensor],
        x0: Tensor,
        sigma: Tensor,
        noise: Tensor,
        chosen: Tensor,
        step: int,
    ) -> dict[str, Tensor]:
        """Each term (), times its weight, by its label. `activations` are those of `blocks` for the noisy images
        x0 + sigma * noise (B, C, H, W), and `chosen` (B,) says which training images they are."""
        found = {}
        for term in self.terms:
            objective = term.objective
            seen = Seen(
                as_tokens(activations[term.block]).float(),
                taken(objective, sigma),
                x0,
                sigma,
                noise,
                self.job.generator("objective", term.label, step, device=self.job.device),
                None if term.features is None else term.features[chosen],
                self._look(term.block) if objective.uses_teacher else None,
            )
            found[term.label] = objective.weight * checked_term(objective, objective.term(term.head, seen))
        return found

    def log(self, weighted: Mapping[str, Tensor], loss: Tensor, network: nn.Module) -> dict[str, Tensor]:
        """The rest of the loss, and of each term, as this class returned it, its value and the ratio of gradients."""
        if not self.terms:
            return {}
        values = {f"train/{term.label}": weighted[term.label] / term.objective.weight for term in self.terms}
        values["train/denoising_loss"] = loss
        for label, ratio in gradient_ratios(weighted, loss, network).items():
            values[f"train/{label}_gradient_ratio"] = ratio
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
        raise FwError(f"objective {objective.name} sees a block of the network, and this network names none")
    number = math.ceil(objective.depth * len(blocks) - 1e-9)
    return blocks[min(max(number, 1), len(blocks)) - 1]


def initial_head(objective: Objective, label: str, width: int, features: int, job: Job) -> nn.Module:
    """The untrained head, a function of the seed and of the objective's label."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_from(job.seed, "objective", label))
        return objective.build(width, features).to(job.device)


def taken(objective: Objective, sigma: Tensor) -> Tensor:
    """Which noise levels (B,) the objective's interval takes in, bool (B,)."""
    low, high = objective.interval or (-math.inf, math.inf)
    return (sigma > low) & (sigma <= high)


def gradient_ratios(terms: Mapping[str, Tensor], loss: Tensor, network: nn.Module) -> dict[str, Tensor]:
    """||grad term|| / ||grad loss|| for each term (), over the weights that both reach: the shared trunk.

    0 where the loss has no gradient there, as in a transformer whose last layer is still zero.
    """
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    ratios: dict[str, Tensor] = {}
    of_loss = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
    for label, term in terms.items():
        of_term = torch.autograd.grad(term, weights, retain_graph=True, allow_unused=True)
        both = [(one, other) for one, other in zip(of_term, of_loss, strict=True) if one is not None is not other]
        upper, lower = (length([pair[side] for pair in both], loss) for side in (0, 1))
        ratios[label] = torch.where(lower > 0, upper / lower, 0.0)
    return ratios


def length(gradients: Sequence[Tensor], like: Tensor) -> Tensor:
    """The norm () of all gradients together; 0 of none."""
    return torch.stack([like.new_zeros(()), *(gradient.norm() for gradient in gradients)]).norm()
