"""`fw sample`: fresh images from a trained arm of a run on disk."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.console import Console

from fw.core.commands.target import check_target
from fw.core.diffusion.generate import generate
from fw.core.errors import FwError, RecipeError
from fw.core.machine.isolation import stock_state
from fw.core.messages.plain import writing
from fw.core.plan.graph import plan
from fw.core.recipe.loading import validate
from fw.core.recipe.model import Recipe
from fw.core.recipe.source import Source
from fw.core.report import provenance
from fw.core.report.runfile import read_resolved
from fw.core.run.devices import checked_device
from fw.core.stages.everything import load_annotation, load_decoder, load_denoiser, load_siblings
from fw.core.stages.grid import save_grid
from fw.core.store.soundness import check_inputs
from fw.core.store.store import Store
from fw.registry import LocalPlugin, UnfitPlugin, installed


def draw(run: Path, arm: str, count: int, output: Path, seed: int, device: str, console: Console) -> None:
    """Write a PNG grid of `count` images of an arm; with the same seed, the first ones are the report's own."""
    written = read_resolved(run)
    check_target(output)
    where = torch.device(checked_device(device))
    recipe = with_one_arm(run, written, arm)
    planned = plan(recipe)
    store = Store(run.resolve().parents[1] / "store")
    stage = planned.stages[planned.arms[arm].sample]
    check_inputs(run, planned, list(stage.inputs.values()), store, console)
    inputs = {role: store.path(source) for role, source in stage.inputs.items()}
    with stock_state(recipe.seed, where, torch.get_num_threads()):
        annotation = load_annotation(inputs)
        model = load_denoiser(stage.needs, inputs, annotation, where)
        to_images = load_decoder(stage.needs, where)
        siblings = load_siblings(stage.needs, inputs, annotation, where)
        batches = generate(model, siblings, stage.needs, annotation, seed, range(count), to_images)
        images = torch.cat(list(batches))
    with writing(output, "-o"):
        save_grid(images, output)


def with_one_arm(run: Path, source: Source, arm: str) -> Recipe:
    """The run's recipe with one arm and no tracker. FwError unless the local plugins of that arm are as they were."""
    if arm not in source.data["arms"]:
        raise FwError(f"--arm {arm}: no such arm in {run} (known: {', '.join(source.data['arms'])})")
    source.data |= {"arms": {arm: source.data["arms"][arm]}, "baseline": arm, "tracker": None}
    copies = {plugin.digest: plugin.path for plugin in kept_plugins(run)}
    missing = [path for digest, path in copies.items() if digest not in {plugin.digest for plugin in installed().files}]
    words = " ".join(f"--plugin {path}" for path in missing)
    asking = f"{run}: arm {arm} needs local plugins as they were when it was run: add {words}"
    try:
        recipe = validate(source, installed(), whole=False)
    except RecipeError:
        if missing:
            raise FwError(asking) from None
        raise
    for plugin in provenance.files(recipe):
        if plugin.digest not in copies:
            raise FwError(asking if missing else f"{run}: this run did not use {plugin.path}; leave it out")
    return recipe


def kept_plugins(run: Path) -> list[LocalPlugin]:
    """The run's copies of the local plugins that it used; FwError if one cannot be read any more."""
    try:
        return [LocalPlugin.read(path) for path in sorted((run / "plugins").glob("*.py"))]
    except UnfitPlugin as error:
        raise FwError(str(error)) from None
