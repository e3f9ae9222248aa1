"""Averaged weights that are kept on the way: those of `train.ema`, and power-function averages from
which any length can be made afterwards (core/learning/posthoc.py).

Nothing that is learned depends on them: with and without, a training ends with the same weights.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from fw.core.job import Stateful
from fw.core.learning.averages import average
from fw.core.learning.loop import Step
from fw.core.learning.parts.part import Part, Training
from fw.core.learning.posthoc import PowerAverage, power_decay
from fw.core.settings import Train


def snapshot_file(step: int) -> str:
    """The averaged weights of `train.ema` after this step, which is not the last."""
    return f"snapshot-{step}.safetensors"


def average_file(average: PowerAverage) -> str:
    """The parameters of a power-function average, without the network's buffers."""
    return f"average-{average.width}-{average.step}.safetensors"


class Snapshots(Part):
    """Writes the files of each snapshot when its step is done. A training whose checkpoint is later
    than a snapshot that is damaged or gone begins again."""

    def __init__(self, settings: Train, note: Mapping[str, str]):
        self.settings = settings
        self.note = note
        """The metadata of the files."""

    def join(self, training: Training) -> None:
        self.job = training.job
        self.network, self.averaged = training.model.network, training.averaged.network
        self.tracked = {
            width: copy.deepcopy(self.network).eval().requires_grad_(False)
            for width in self.settings.averages
        }
        reached = self.job.reached()
        before = [step for step in self.settings.snapshot_steps if step <= reached]
        lost: list[str] = []
        if self.job.team.leads:
            lost = [name for step in before for name in self.files(step) if not self.job.kept(name)]
        if self.job.team.any(bool(lost)):
            lacking = "".join(lost[:1])
            self.job.say(f"{lacking} of an earlier try is lost; the training begins again")
            self.job.restart()

    @property
    def state(self) -> Mapping[str, Stateful]:
        return {f"average_{width}": network for width, network in self.tracked.items()}

    def follow(self, decay: float, step: Step) -> None:
        done = step.number + 1
        for width, network in self.tracked.items():
            average(network, self.network, power_decay(width, done))
        if done in self.settings.snapshot_steps:
            self.keep(done)

    def keep(self, step: int) -> None:
        files: dict[str, Mapping[str, Tensor]] = {}
        if step < self.settings.steps:
            files[snapshot_file(step)] = self.averaged.state_dict()
        for width, network in self.tracked.items():
            weights = dict(network.named_parameters(remove_duplicate=False))
            files[average_file(PowerAverage(width, step))] = weights
        self.job.keep_beside(files, self.write)

    def write(self, tensors: Mapping[str, Tensor], path: Path) -> None:
        whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(whole, path, metadata=dict(self.note))

    def files(self, step: int) -> list[str]:
        """What is kept of this step; at the end, `ema`'s weights are the training's own."""
        own = [snapshot_file(step)] if step < self.settings.steps else []
        return own + [average_file(PowerAverage(w, step)) for w in self.settings.averages]
