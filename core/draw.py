"""`fw sample`: fresh images from a trained arm of a run on disk."""

from __future__ import annotations

from pathlib import Path

import torch

from fw.core.errors import FwError
from fw.core.executor import checked_device
from fw.core.generate import generate
from fw.core.loading import load
from fw.core.pictures import save_grid
from fw.core.plan import plan
from fw.core.stages import load_annotation, load_denoiser
from fw.core.store import Store


def draw(run: Path, arm: str, count: int, output: Path, seed: int, device: str) -> None:
    """Write a PNG grid of `count` images of an arm; with the same seed, the first ones are the report's own."""
    resolved = run / "recipe.resolved.yaml"
    if not resolved.exists():
        raise FwError(f"{run}: not a run folder (it has no {resolved.name}); such as runs/<recipe>/latest")
    if output.suffix.lower() != ".png" or not output.absolute().parent.is_dir():
        raise FwError(f"-o {output}: name a .png file in a folder that exists")
    where = torch.device(checked_device(device))
    recipe = load(resolved)
    planned = plan(recipe, [arm])
    store = Store(run.resolve().parents[1] / "store")
    stage = planned.stages[planned.arms[arm].sample]
    for source in stage.inputs.values():
        if store.status(source).state != "done":
            raise FwError(f"{run}: {planned.stages[source].title} is not finished; run the recipe first")
    inputs = {role: store.path(source) for role, source in stage.inputs.items()}
    annotation = load_annotation(inputs)
    model = load_denoiser(stage.needs, inputs, annotation, where)
    batches = generate(model, stage.needs, annotation, seed, range(count))
    save_grid(torch.cat(list(batches)), output)
