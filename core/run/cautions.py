"""What a user hears of a recipe and its plugins before they are run."""

from __future__ import annotations

from rich.console import Console

from fw.core.messages.console import say
from fw.core.plan.graph import Plan
from fw.core.recipe import checks
from fw.core.recipe.model import Recipe
from fw.core.report import provenance


def warned(recipe: Recipe, plan: Plan, console: Console) -> list[str]:
    """The warnings, once they are printed."""
    warnings = [*map(str, checks.warnings(recipe)), *provenance.notices(plan)]
    for warning in warnings:
        say(console, f"warning: {warning}", style="yellow")
    return warnings
