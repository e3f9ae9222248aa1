"""`fw sample`: fresh images from a trained arm of a run on disk."""

from __future__ import annotations

from pathlib import Path

import torch

from fw.core.errors import FwError
from fw.core.executor import checked_device
from fw.core.generate import generate
from fw.core.isolation import stock_state
from fw.core.loading import load
from fw.core.pictures import save_grid
from fw.core.plan import plan
from fw.core.stages import load_annotation, load_denoiser
from fw.core.store import Store
from fw.registry import LocalPlugin, installed


def draw(run: Path, arm: str, count: int, output: Path, seed: int, device: str) -> None:
    """Write a PNG grid of `count` images of an arm; with the same seed, the first ones are the report's own."""
    resolved = run / "recipe.resolved.yaml"
    if not resolved.exists():
        raise FwError(f"{run}: not a run folder (it has no {resolved.name}); such as runs/<recipe>/latest")
    if output.suffix.lower() != ".png" or not output.absolute().parent.is_dir():
        raise FwError(f"-o {output}: name a .png file in a folder that exists")
    where = torch.device(checked_device(device))
    ask_for_plugins(run)
    recipe = load(resolved)
    planned = plan(recipe, [arm])
    store = Store(run.resolve().parents[1] / "store")
    stage = planned.stages[planned.arms[arm].sample]
    for source in stage.inputs.values():
        if store.status(source).state != "done":
            raise FwError(f"{run}: {planned.stages[source].title} is not finished; run the recipe first")
    inputs = {role: store.path(source) for role, source in stage.inputs.items()}
    with stock_state(recipe.seed, where, torch.get_num_threads()):
        annotation = load_annotation(inputs)
        model = load_denoiser(stage.needs, inputs, annotation, where)
        batches = generate(model, stage.needs, annotation, seed, range(count))
        save_grid(torch.cat(list(batches)), output)


def ask_for_plugins(run: Path) -> None:
    """Raise FwError unless the run's local plugins were given again, as they were."""
    given = {plugin.digest for plugin in installed().files}
    copies = [LocalPlugin.read(file) for file in sorted((run / "plugins").glob("*.py"))]
    if missing := [copy.path for copy in copies if copy.digest not in given]:
        words = " ".join(f"--plugin {path}" for path in missing)
        raise FwError(f"{run}: this run used local plugins that were not given, or were changed since: add {words}")
