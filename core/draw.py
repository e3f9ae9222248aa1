"""`fw sample`: fresh images from a trained arm of a run on disk."""

from __future__ import annotations

from pathlib import Path

import torch

from fw.core.errors import FwError
from fw.core.generate import draw_conditions, generate, image_generators
from fw.core.pictures import save_grid
from fw.core.plan import plan
from fw.core.recipe import load
from fw.core.stages import load_annotation, load_denoiser
from fw.core.store import Store

BATCH = 250


def draw(run: Path, arm: str, count: int, output: Path, seed: int, device: str) -> None:
    """Write a PNG grid of `count` images of an arm; with the same seed, the first ones are the report's own."""
    resolved = run / "recipe.resolved.yaml"
    if not resolved.exists():
        raise FwError(f"{run}: not a run folder (it has no {resolved.name}); such as runs/<recipe>/latest")
    recipe = load(resolved)
    planned = plan(recipe, [arm])
    store = Store(run.resolve().parents[1] / "store")
    stage = planned.stages[planned.arms[arm].sample]
    inputs = {role: store.path(source) for role, source in stage.inputs.items()}
    for source in stage.inputs.values():
        if store.status(source).state != "done":
            raise FwError(f"{run}: {planned.stages[source].title} is not finished; run the recipe first")
    where = torch.device("cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu"))
    model = load_denoiser(stage.needs, inputs, where)
    total = max(count, recipe.samples.count)
    conditions = draw_conditions(load_annotation(inputs), recipe.seed, seed, total)
    images = []
    for start in range(0, count, BATCH):
        indices = range(start, min(start + BATCH, count))
        condition = conditions[indices.start : indices.stop] if conditions is not None else None
        generators = image_generators(recipe.seed, seed, indices)
        shape = recipe.dataset.shape
        images.append(
            generate(model, stage.needs["guidance"], stage.needs["sampler"], condition, shape, generators, where)
        )
    save_grid(torch.cat(images), output)
