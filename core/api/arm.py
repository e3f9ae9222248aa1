"""An arm of a finished run: draw from it, or take its networks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from fw.core.api.denoiser import Denoiser
from fw.core.api.drawing import Drawer, drawer
from fw.core.api.encoder import FeatureEncoder
from fw.core.api.guiding import Guiding, in_recipe
from fw.core.diffusion.given import Condition
from fw.core.errors import FwError
from fw.core.job import Job
from fw.core.machine.isolation import stock_state
from fw.core.recipe.arm import Arm
from fw.core.run.finished import FinishedArm, FinishedRun
from fw.core.stages.sample import load_shard, shards
from fw.core.types import Annotation
from fw.registry.once import one_look

CPU = torch.device("cpu")


@dataclass(eq=False, repr=False)
class LoadedArm:
    """See the module's docstring. `training` is the seed that it was trained from, where the run
    has several; None is the first."""

    run: FinishedRun
    name: str
    training: int | None = None
    console: Console = field(default_factory=lambda: Console(stderr=True, force_jupyter=False))
    _latest: tuple[str, Drawer] | None = None

    def sample(
        self,
        n: int,
        seed: int = 0,
        condition: Condition | None = None,
        guidance: Guiding | None = None,
        device: str = "auto",
        batch: int | None = None,
    ) -> Tensor:
        """The first `n` images of a sampling seed, uint8 (n, C, H, W) in 0..255, on the CPU.

        They are those of `fw sample`, and the first ones of seeds 0, 1, ... are the run's own,
        where the device is the same. `condition` is the number of a class or cluster, the name of a
        class where classes are labels, or several, which are taken in turn; for vectors and tokens
        the number of a training image, or the numbers themselves. None draws conditions as the arm
        does. `guidance` is a scale for the arm's own mode, or modes as a recipe has them; None is
        the arm's own. `batch` is how many images are computed at once. FwError for what cannot be.
        """
        check_counts({"n": (n, 1), "seed": (seed, 0), "batch": (batch, 1)})
        with one_look():
            return self._drawer(guidance, device).images(range(n), seed, condition, batch)

    def samples(self, seed: int = 0) -> Tensor:
        """The samples of a sampling seed that the run scored, uint8 (N, C, H, W)."""
        arm, stage = self.finished, self.finished.sample
        if seed not in range(stage.samples.seeds):
            raise FwError(
                f"seed {seed}: the run has samples of seeds 0 to {stage.samples.seeds - 1}; "
                "`sample` draws others"
            )
        arm.check([stage], self.console)
        folder = arm.products(stage)
        return torch.cat(
            [load_shard(folder, s, few) for s, few in shards(stage.samples) if s == seed]
        )

    @cached_property
    def finished(self) -> FinishedArm:
        """The recipe, plan and products of the arm."""
        with one_look():
            return self.run.arm(self.name, self.training)

    @property
    def sections(self) -> Arm:
        """The sections of the recipe that the arm has: `model`, `process`, `guidance`, ..."""
        return self.finished.arm

    @cached_property
    def denoiser(self) -> Denoiser:
        """Its trained network as D(x; sigma, c), without guidance, on the CPU."""
        arm, stage = self.finished, self.finished.sample
        arm.check((source for _, source in stage.reads), self.console)
        with stock_state(arm.recipe.seed, CPU, torch.get_num_threads()):
            annotation = stage.annotation(arm.products)
            network = stage.networks(annotation, arm.products, CPU).own
        return Denoiser(
            network,
            stage.train.shape,
            annotation,
            arm.class_names,
            arm.arm.works_without_condition,
        )

    @cached_property
    def encoder(self) -> FeatureEncoder:
        """The fitted encoder whose features its conditions are made of, on the CPU; FwError if it
        has none."""
        arm = self.finished
        stage = arm.plan.arms[self.name].conditioned
        if stage is None:
            raise FwError(f"arm {self.name}: its conditions are not made of an encoder's features")
        arm.check([stage], self.console)
        job = Job(arm.run.folder, seed=stage.seed or 0, device=CPU)
        with stock_state(arm.recipe.seed, CPU, torch.get_num_threads()):
            return FeatureEncoder(stage, stage.network(arm.products(stage), job))

    @cached_property
    def annotation(self) -> Annotation | None:
        """The condition of each training image, and its `spec`; None of an arm without."""
        arm, stage = self.finished, self.finished.sample
        arm.check(filter(None, [stage.annotate, stage.prior]), self.console)
        return stage.annotation(arm.products)

    def __repr__(self) -> str:
        return f"<arm {self.name} of {self.run.path}>"

    def _drawer(self, guidance: Guiding | None, device: str) -> Drawer:
        """Loaded once for calls with the same guidance on the same device."""
        arm, asked = self.finished, None
        if guidance is not None:
            asked = in_recipe(guidance, arm.arm, self.name)
        key = json.dumps([asked, device], default=repr)
        if self._latest is None or self._latest[0] != key:
            self._latest = None
            if asked is not None:
                arm = self.run.arm(self.name, self.training, asked)
            self._latest = key, drawer(arm, device, self.console)
        return self._latest[1]


def check_counts(given: Mapping[str, tuple[Any, int]]) -> None:
    """FwError unless each value, where there is one, is a whole number from its least on."""
    for name, (value, least) in given.items():
        if value is not None and not (isinstance(value, Integral) and int(value) >= least):
            raise FwError(f"{name} {value}: it is a whole number from {least}")
