"""Optimizers: one kernel for all weights, and the same steps as torch's loop over them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from fw.core.job import Job
from fw.core.learning import train as training
from fw.core.learning.loop import down
from fw.core.learning.optimizers import KINDS, adam
from fw.core.settings import Train
from fw.core.testing import tiny
from fw.plugins.backbones.unet import UNet

PLUGINS = Path(training.__file__).parents[2] / "plugins"


class Operations(TorchDispatchMode):
    """Counts what torch is asked to do, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counted = Counter[str]()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        self.counted[str(func)] += 1
        return func(*args, **(kwargs or {}))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 8)).double()


def steps(optimizer: torch.optim.Optimizer, learner: nn.Module, count: int = 30) -> None:
    images = torch.randn(64, 8, generator=torch.Generator().manual_seed(1)).double()
    for _ in range(count):
        down(optimizer, learner(images).sub(images.roll(1, 1)).square().mean(), clip=1.0)


@pytest.mark.parametrize("kind", ["adamw", "adam"])
def test_steps_are_those_of_torchs_own_loop_over_the_weights(kind: Any) -> None:
    settings = {"lr": 1e-2, "weight_decay": 0.1, "betas": (0.9, 0.95)}
    fast, slow = network(), network()
    steps(adam(fast.parameters(), **settings, kind=kind), fast)  # type: ignore[arg-type]
    steps(KINDS[kind](slow.parameters(), **settings, foreach=False), slow)
    for one, other in zip(fast.parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_a_step_takes_as_many_operations_whatever_the_number_of_weights() -> None:
    def operations(layers: int) -> int:
        learner = nn.Sequential(*(nn.Linear(4, 4) for _ in range(layers)))
        optimizer = adam(learner.parameters(), 1e-3, 0.0)
        for weight in learner.parameters():
            weight.grad = torch.ones_like(weight)
        optimizer.step()  # its averages are made
        with Operations() as counter:
            optimizer.step()
        return counter.counted.total()

    assert operations(2) == operations(40) <= 4


def test_a_training_of_a_denoiser_has_no_loop_over_its_weights(tmp_path: Path) -> None:
    settings = Train(steps=3, batch=4, warmup=0)
    backbone = UNet(channels=(8, 16), groups=4)
    with Operations() as counter:
        training.train(backbone, tiny.TinyProcess(), tiny.images(8), None, settings, Job(tmp_path))
    assert counter.counted["aten._fused_adamw_.default"] == settings.steps
    assert "aten.addcdiv_.default" not in counter.counted


def test_every_built_in_that_learns_through_adam_has_it_from_here() -> None:
    """torch's own are slow on the CPU, and nothing would say so."""
    own = re.compile(r"torch\.optim\.Adam")
    files = [*PLUGINS.rglob("*.py"), *Path(training.__file__).parent.rglob("*.py")]
    assert files
    assert [file.name for file in files if own.search(file.read_text(encoding="utf-8"))] == [
        "optimizers.py"
    ]
