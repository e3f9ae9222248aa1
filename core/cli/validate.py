"""The command line of `fw validate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fw.core.cli import completing
from fw.core.cli.answers import answer
from fw.core.cli.arguments import Plugins, Sets, recipe_files
from fw.core.cli.beginning import add_plugins
from fw.core.errors import RecipeError


def validate(
    recipes: Annotated[
        list[Path],
        typer.Argument(
            help="recipes: files, or names of those that come with fw",
            metavar="RECIPE",
            callback=recipe_files,
            autocompletion=completing.recipes,
        ),
    ],
    set_: Sets = None,
    plugin: Plugins = None,
) -> None:
    """Check recipes without running them: every fault, its line, and what would be right."""
    from fw.core.plan.assembly import plan
    from fw.core.recipe import checks
    from fw.core.recipe.class_names import numbered_names
    from fw.core.recipe.loading import load
    from fw.core.report import provenance

    add_plugins(plugin)
    problems: list[str] = []
    for path in recipes:
        try:
            loaded = load(path, set_ or ())
        except RecipeError as error:
            problems += error.problems
            continue
        planned = plan(loaded)
        answer(f"{path}: fine ({len(loaded.arms)} arms, {len(planned.stages)} stages)")
        if names := loaded.dataset.class_names:
            answer(f"{path}: classes: {numbered_names(names)}")
        for warning in (*checks.warnings(loaded), *provenance.notices(planned)):
            answer(f"{path}: warning: {warning}")
    if problems:
        raise RecipeError(problems)
