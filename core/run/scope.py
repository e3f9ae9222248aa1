"""What a run is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fw.core.plan.graph import Plan
from fw.core.recipe.model import Recipe
from fw.core.report import provenance
from fw.core.store.store import Store
from fw.registry import LocalPlugin


@dataclass(frozen=True)
class Scope:
    """What is known of a run before its first stage starts."""

    recipe: Recipe
    plan: Plan
    """The stages of the arms that are to be run now."""
    everything: Plan
    """The stages of all arms, which the report is about."""
    store: Store
    folder: Path
    """Where the run's record is written."""
    plugins: Sequence[LocalPlugin]
    """The plugins in single files that the recipe names."""
    made_by: provenance.Record
    """All plugins, as they were when the run began: a source may be edited while it is on."""
    warnings: Sequence[str]
    """Of the recipe, its plugins and its data set."""
    class_names: Sequence[str]
