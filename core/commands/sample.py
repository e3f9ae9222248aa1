"""`fw sample`: fresh images from a trained arm of a run on disk."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.console import Console

from fw.core.commands.target import check_target
from fw.core.execution.devices import checked_device
from fw.core.machine.isolation import stock_state
from fw.core.messages.plain import writing
from fw.core.run.finished import FinishedRun
from fw.core.stages.grid import save_grid


def draw(
    run: FinishedRun,
    name: str,
    training: int | None,
    count: int,
    output: Path,
    seed: int,
    device: str,
    batch: int | None,
    console: Console,
) -> None:
    """Write a PNG grid of `count` images of an arm's training, by default the first; with the same
    seed, the first ones are the report's own."""
    run.check()
    check_target(output)
    where = torch.device(checked_device(device))
    arm = run.arm(name, training)
    stage = arm.sample
    arm.check((source for _, source in stage.reads), console)
    with stock_state(arm.recipe.seed, where, torch.get_num_threads()):
        annotation = stage.annotation(arm.products)
        networks = stage.networks(annotation, arm.products, where)
        to_images = stage.decoder(where)
        batches = stage.drawn(networks, annotation, seed, range(count), to_images, where, batch)
        images = torch.cat(batches)
    with writing(output, "-o"):
        save_grid(images, output)
