"""`fw sample`: fresh images from a trained arm of a run on disk."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from fw.core.api.arm import LoadedArm
from fw.core.commands.target import check_target
from fw.core.execution.devices import checked_device
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
    checked_device(device)
    images = LoadedArm(run, name, training, console).sample(count, seed, device=device, batch=batch)
    with writing(output, "-o"):
        save_grid(images, output)
