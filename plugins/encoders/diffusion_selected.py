"""A denoiser as an encoder whose noise level and block are chosen with labels, by a grid or a
learned mixture.

The grid is step one of arXiv 2407.00783: argmin over cells of the error of a linear probe. The
mixture is that of Diffusion Hyperfeatures (arXiv 2305.14334, section 3.2): each block has its own
bottleneck, each cell a weight, and the weights sum to one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fw.core.diffusion.generate import batch_size
from fw.core.diffusion.taps import blocks_of
from fw.core.errors import StageFailed
from fw.core.features.activations import split
from fw.core.features.logistic import accuracy_of, linear_probe
from fw.core.job import Job
from fw.core.learning.loop import Step, descend
from fw.core.learning.optimizers import adam
from fw.core.learning.rows import Rows
from fw.core.machine.transfer import sent
from fw.core.types import ImageSet
from fw.plugins.encoders.diffusion import DenoiserEncoder, Reader
from fw.plugins.encoders.of_denoiser import Blocks, Sigmas

BATCH = 128
LEARNING_RATE = 1e-2
WEIGHT_DECAY = 0.01


class DiffusionSelected(DenoiserEncoder):
    """The noise level and block of a denoiser at which a linear probe does best, or a learned
    mixture of all.

    The denoiser is trained without labels, but the choice uses those of the training images: it is
    validated on a fifth of them. Self-guidance is refused with it, as with any encoder that uses
    labels.
    """

    name: ClassVar[str] = "diffusion_selected"
    uses_labels: ClassVar[bool] = True

    blocks: Blocks = Field(None, min_length=1, description="blocks to choose from; null is all")
    sigma: Sigmas = Field(
        (0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
        min_length=1,
        description="noise levels to choose from",
        examples=[(0.05, 1.0)],
    )
    selector: Literal["grid", "learned"] = Field(
        "grid", description="the best cell, or a learned mixture of all"
    )
    dims: int = Field(64, ge=1, le=65536, description="number of features of the mixture")
    steps: int = Field(500, ge=1, description="training steps of the mixture", examples=[6])

    def reader(self, network: nn.Module, shape: tuple[int, int, int], classes: int) -> Reader:
        choice = Mixture if self.selector == "learned" else Grid
        return choice(self, network, shape, classes)

    def fit(self, network: nn.Module, data: ImageSet, job: Job) -> None:
        if data.labels is None:
            raise StageFailed(
                f"encoder {self.name} needs a dataset with labels: use `diffusion` instead"
            )
        super().fit(network, data, job)
        assert isinstance(network, Choice)
        network.eval()
        batches = data.images.split(batch_size(data.shape, job.device))
        parts = [
            list(network.read(batch.to(job.device), network.cells))
            for batch in job.track(batches, "read")
        ]
        cells = [torch.cat(column).cpu() for column in zip(*parts, strict=True)]
        fitted, held = split(len(data), job.generator("validation"))
        network.choose([cell[fitted] for cell in cells], data.labels[fitted], job)
        network.judge(cells, data.labels, fitted, held, job)

    def quality(self, network: nn.Module, held_out: ImageSet) -> dict[str, float]:
        """The choice, and the values that it was made by; held-out images have no part in it."""
        assert isinstance(network, Choice)
        names = [f"{block}/{sigma:g}" for sigma, block in network.cells]
        return network.facts() | {
            f"{network.measure}/{name}": value
            for name, value in zip(names, network.values.tolist(), strict=True)
        }


class Choice(Reader):
    """A reader with a value for each cell."""

    measure: ClassVar[str]
    """What the values measure, as in the names of scores."""
    values: Tensor

    def __init__(
        self,
        settings: DiffusionSelected,
        network: nn.Module,
        shape: tuple[int, int, int],
        classes: int,
    ):
        super().__init__(settings, network, settings.blocks or tuple(blocks_of(network)))
        self.register_buffer("values", torch.zeros(len(self.cells)))

    def choose(self, cells: list[Tensor], labels: Tensor, job: Job) -> None:
        """Learn from features (N, D) of each cell and labels (N,)."""

    def judge(
        self, cells: list[Tensor], labels: Tensor, fitted: Tensor, held: Tensor, job: Job
    ) -> None:
        """Compute the values, and whatever else `facts` returns."""
        raise NotImplementedError

    def facts(self) -> dict[str, float]:
        raise NotImplementedError


class Grid(Choice):
    """The cell at which a linear probe does best on the validation split."""

    measure: ClassVar[str] = "accuracy"

    def forward(self, images: Tensor) -> Tensor:
        return next(self.read(images, [self.cells[self.best]]))

    @property
    def best(self) -> int:
        """The number of the best cell, the first of equal ones: noise levels count as listed."""
        return int(self.values.argmax())

    def judge(
        self, cells: list[Tensor], labels: Tensor, fitted: Tensor, held: Tensor, job: Job
    ) -> None:
        for place, cell in enumerate(job.track(cells, "probe")):
            probe = linear_probe(cell[fitted], labels[fitted])
            self.values[place] = accuracy_of(probe, cell[held], labels[held])

    def facts(self) -> dict[str, float]:
        sigma, block = self.cells[self.best]
        return {
            "sigma": sigma,
            "block": self.blocks.index(block),
            "accuracy": float(self.values.max()),
        }


class Mixture(Choice):
    """A learned mixture of all cells."""

    measure: ClassVar[str] = "weight"
    validated: Tensor

    def __init__(
        self,
        settings: DiffusionSelected,
        network: nn.Module,
        shape: tuple[int, int, int],
        classes: int,
    ):
        super().__init__(settings, network, shape, classes)
        self.steps = settings.steps
        widths = [
            cell.shape[1]
            for cell in self.eval().read(torch.zeros(1, *shape, dtype=torch.uint8), self.cells)
        ]
        self.train()
        self.mix = Hyperfeatures(widths, len(self.blocks), settings.dims)
        self.head = nn.Linear(settings.dims, classes)
        self.register_buffer("validated", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        return self.mix(self.side_by_side(images))

    def choose(self, cells: list[Tensor], labels: Tensor, job: Job) -> None:
        features, labels = (
            torch.cat(cells, dim=1).to(job.device),
            labels.to(job.device),
        )  # (N, all widths), (N,)
        self.mix.mean.copy_(features.mean(dim=0))
        self.mix.scale.copy_(1 / features.std(dim=0).clamp(min=1e-6))
        optimizer = adam(
            [*self.mix.parameters(), *self.head.parameters()], LEARNING_RATE, WEIGHT_DECAY
        )

        rows = Rows.shared(BATCH, job.team)

        def loss(step: Step) -> Tensor:
            chosen = sent(rows.own(torch.randint(len(features), (BATCH,))), job.device)
            logits = self.head(self.mix(features[chosen]))
            return rows.part(cross_entropy(logits, labels[chosen]))

        descend(
            job,
            self.steps,
            loss,
            optimizer,
            {"mix": self.mix, "head": self.head},
            label="select",
            prefix="select/",
            log_last=False,
            split=rows.split,
        )

    @torch.no_grad()
    def judge(
        self, cells: list[Tensor], labels: Tensor, fitted: Tensor, held: Tensor, job: Job
    ) -> None:
        features = torch.cat([cell[held] for cell in cells], dim=1).to(job.device)
        guessed = self.head(self.mix(features)).argmax(dim=1).cpu()
        self.validated.fill_((guessed == labels[held]).double().mean())
        self.values.copy_(self.mix.weights)

    def facts(self) -> dict[str, float]:
        return {"accuracy": float(self.validated)}


class Hyperfeatures(nn.Module):
    """sum_i w_i P_b(i)(f_i) of standardised cells f_i: the weights w are a softmax, and P_b
    belongs to the block."""

    mean: Tensor
    scale: Tensor

    def __init__(self, widths: Sequence[int], blocks: int, dims: int):
        """`widths` are the cells' feature dimensions: all `blocks` for each noise level in turn."""
        super().__init__()
        self.widths = list(widths)
        self.bottlenecks = nn.ModuleList(nn.Linear(width, dims) for width in widths[:blocks])
        self.mixing = nn.Parameter(torch.zeros(len(widths)))
        self.register_buffer("mean", torch.zeros(sum(widths)))
        self.register_buffer("scale", torch.ones(sum(widths)))

    @property
    def weights(self) -> Tensor:
        """How much each cell counts; together one."""
        return self.mixing.softmax(dim=0)

    def forward(self, features: Tensor) -> Tensor:
        """The features of all cells side by side (B, all widths) -> (B, dims)"""
        cells = ((features - self.mean) * self.scale).split(self.widths, dim=1)
        projected = [
            self.bottlenecks[place % len(self.bottlenecks)](cell)
            for place, cell in enumerate(cells)
        ]
        return torch.einsum("i,ibd->bd", self.weights, torch.stack(projected))
