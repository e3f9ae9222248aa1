"""Sampling: the flagship's unconditional denoiser, beside a loop by hand around the same scheduler
of diffusers, and beside diffusers' pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench import peer
from bench.speed import bare, counted
from bench.speed.interleaved import paired, timed
from bench.speed.row import Goal, Row, cost, speed
from bench.speed.training import Flagship
from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.generate import Drawing, generate
from fw.plugins.samplers.ddim import DDIM
from fw.plugins.samplers.dpmpp import DPMSolverPP

BARE = "a loop by hand around the same scheduler"


@dataclass(frozen=True)
class Size:
    images: int = 250
    """At once: as many as fw has on a CPU."""
    steps: int = 20
    pairs: int = 12


SMALL = Size(images=4, steps=2, pairs=1)


def rows(size: Size = Size()) -> Iterator[Row]:
    drawn = Drawn(size)
    what = f"sampling {size.images} images, dpmpp {size.steps}"
    ours, by_hand = drawn.by_fw, drawn.by_hand
    yield cost(what, BARE, paired(timed(ours), timed(by_hand), size.pairs), 1.03)
    counts = [counted.flops(work) for work in (ours, by_hand)]
    yield compared(what, "x the FLOPs", counts, 1.0)
    counts = [counted.dispatched(work).operations for work in (ours, by_hand)]
    yield compared(what, "x the operations", counts, None)
    pipeline = paired(timed(lambda: drawn.by_fw(DDIM)), timed(drawn.by_pipeline), size.pairs)
    what = f"sampling {size.images} images, ddim {size.steps}"
    yield speed(what, "diffusers' DDIMPipeline", pipeline)


def compared(what: str, unit: str, counts: list[int], goal: float | None) -> Row:
    ours, theirs = counts
    bound = None if goal is None else Goal(goal)
    return Row(what, BARE, ours / theirs, unit, bound, counts={"ours": ours, "theirs": theirs})


class Drawn:
    """The baseline of recipes/self_guidance.yaml, sampled in three ways."""

    def __init__(self, size: Size):
        self.size = size
        flagship = Flagship()
        self.process, self.shape = flagship.arm.process, flagship.images.shape
        self.network: nn.Module = flagship.network().eval()
        setting = peer.Setting.of(flagship.recipe)
        self.unet = peer.network(setting, self.shape).eval()

    def by_fw(self, sampler: type[DPMSolverPP | DDIM] = DPMSolverPP) -> Tensor:
        size = self.size
        drawing = Drawing(self.shape, sampler(steps=size.steps), (), 0)
        model = NetworkDenoiser(self.network, self.process)
        images = range(size.images)
        return torch.cat(list(generate(model, [], drawing, None, 0, images, batch=size.images)))

    def by_hand(self) -> Tensor:
        from diffusers import DPMSolverMultistepScheduler

        scheduler = DPMSolverMultistepScheduler(**self.config)
        shape = (self.size.images, *self.shape)
        return bare.sampled(self.network, scheduler, self.size.steps, shape)

    def by_pipeline(self) -> Any:
        from diffusers import DDIMPipeline, DDIMScheduler

        pipeline: Any = DDIMPipeline(self.unet, DDIMScheduler(**self.config))
        pipeline.set_progress_bar_config(disable=True)
        return pipeline(self.size.images, num_inference_steps=self.size.steps, output_type="np")

    @property
    def config(self) -> dict[str, Any]:
        return {
            "num_train_timesteps": 1000,
            "beta_schedule": "squaredcos_cap_v2",
            "prediction_type": "v_prediction",
        }
