"""What the page is made of: a run's record, its plan, and the products that lie in the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from fw.core.errors import Damaged
from fw.core.plan.graph import ArmPlan, Plan
from fw.core.recipe.model import Recipe
from fw.core.report.page.marks import Mark, marks
from fw.core.stages.base import Stage
from fw.core.stages.data import load_split
from fw.core.stages.sample import Sample, load_shard, shard_name, shards
from fw.core.store.store import Store
from fw.core.types import ImageSet, Split


@dataclass(frozen=True)
class Material:
    """A run as its page sees it. What is damaged or gone is None: a page without a picture is
    better than a run without a page."""

    result: Mapping[str, Any]
    """What run.json says."""
    recipe: Recipe
    plan: Plan
    """The stages of all arms."""
    store: Store
    plugins: Sequence[str] = ()
    """The names of the local plugins, which lie in the run's folder."""

    @property
    def seeds(self) -> Sequence[int]:
        """Of the trainings of each arm."""
        first = self.result["seed"]
        return range(first, first + self.result.get("repeats", 1))

    @cached_property
    def finished(self) -> dict[str, ArmPlan]:
        """The plans of the finished arms, by name."""
        arms = self.result["arms"]
        return {name: arm for name, arm in self.plan.arms.items() if is_finished(arms.get(name))}

    @cached_property
    def marks(self) -> dict[str, Mark]:
        """How each arm is drawn, the same in every figure."""
        return marks(self.result["arms"], self.result["baseline"])

    def file(self, stage: str, name: str) -> Path | None:
        """A file of a finished stage, if it is as it was stored."""
        try:
            path = self.store.checked(stage, only=[name]) / name
        except (Damaged, OSError):
            return None
        return path if path.exists() else None

    def folder(self, stage: Stage) -> Path:
        """Where a stage's product lies, as stages are given it."""
        return self.store.path(stage.id)

    def samples(self, sample: Sample) -> Tensor | None:
        """An arm's first samples, uint8 (n, C, H, W), at most one file of them: image i is of the
        first sampling seed and has the same noise in all arms."""
        seed, images = next(shards(sample.samples))
        if self.file(sample.id, shard_name(seed, images)) is None:
            return None
        return load_shard(self.store.path(sample.id), seed, images)

    @cached_property
    def _splits(self) -> dict[Split, ImageSet | None]:
        return {}

    def images(self, split: Split) -> ImageSet | None:
        """The real images of a split; None where they cannot be loaded any more."""
        if split not in self._splits:
            try:
                self._splits[split] = load_split(self.recipe.dataset, split, self.folder)
            except Exception:  # whatever a data set makes of its files
                self._splits[split] = None
        return self._splits[split]


def is_finished(arm: Mapping[str, Any] | None) -> bool:
    return arm is not None and arm["status"] == "finished"
