"""fw's own scores of images that anything else made: the same reference, spaces and metrics as
those of a recipe's baseline."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor

from fw.core.execution.options import Options
from fw.core.job import Job
from fw.core.machine.isolation import stock_state
from fw.core.plan.assembly import plan
from fw.core.plan.graph import Plan
from fw.core.recipe.model import Recipe
from fw.core.run.missing import finish
from fw.core.stages.base import Stage
from fw.core.stages.evaluate import Evaluate
from fw.core.stages.sample import shard_name, shards
from fw.core.store.store import Store


class Ruler:
    """Fits the spaces of the recipe's metrics in the runs folder `out` and measures the real images
    in them, or takes what is there."""

    def __init__(self, recipe: Recipe, out: Path):
        judged = plan(recipe, [recipe.baseline]).arms[recipe.baseline].judged
        self.evaluations = [stage for stage in judged if isinstance(stage, Evaluate)]
        self.samples = recipe.samples
        self.store = Store(Options(out).store)
        of_real = [(each.space, each.reference) for each in self.evaluations]
        stages: dict[str, Stage] = {
            stage.id: stage for both in zip(*of_real, strict=True) for stage in both if stage
        }
        finish(recipe, Plan(stages), Options(out, "cpu", jobs=1), Console(stderr=True))

    def scores(self, images: Sequence[Tensor]) -> dict[str, list[float]]:
        """Of each sampling seed, by the metrics' keys; `images` are uint8 (count, C, H, W) for each
        seed, as many as the recipe's."""
        found: dict[str, list[float]] = {}
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            for seed, numbers in shards(self.samples):
                shard = images[seed][numbers.start : numbers.stop].contiguous()
                save_file({"images": shard}, folder / shard_name(seed, numbers))
            for evaluation in self.evaluations:
                found |= self.evaluated(evaluation, folder)
        return found

    def evaluated(self, evaluation: Evaluate, samples: Path) -> dict[str, list[float]]:
        """What the stage finds of the samples in a folder, which take the place of the arm's."""

        with tempfile.TemporaryDirectory() as features, tempfile.TemporaryDirectory() as scores:
            places = {evaluation.sample.id: samples, evaluation.features.id: Path(features)}

            def products(stage: Stage) -> Path:
                return places.get(stage.id) or self.store.path(stage.id)

            for stage, folder in ((evaluation.features, features), (evaluation, scores)):
                job = Job(Path(folder), seed=evaluation.seed or 0)
                with stock_state(job.seed, job.device, torch.get_num_threads()):
                    stage.run(job, products)
            written = Path(scores, "scores.json").read_text(encoding="utf-8")
        return json.loads(written)["scores"]
