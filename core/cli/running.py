"""A plan done with everything that a user sees of it: warnings before, then the table, and where
the report and the tracker's page are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fw.core.cli.answers import answer, wide_console

if TYPE_CHECKING:
    from rich.console import Console

    from fw.core.execution.options import Options
    from fw.core.plan.graph import Plan
    from fw.core.recipe.model import Recipe
    from fw.core.store.store import Store


def warned(recipe: Recipe, plan: Plan, console: Console) -> list[str]:
    """What is to be said of a recipe and its plugins before they are run, once it is printed."""
    from fw.core.messages.console import say
    from fw.core.recipe import checks
    from fw.core.report import provenance

    warnings = [*map(str, checks.warnings(recipe)), *provenance.notices(plan)]
    for warning in warnings:
        say(console, f"warning: {warning}", style="yellow")
    return warnings


def run_and_show(
    recipe: Recipe, plan: Plan, options: Options, warnings: list[str], console: Console
) -> dict[str, Any]:
    """Run a plan and print what came out; returns what run.json says. Raises what made stages fail
    after all that is done."""
    from fw.core.messages.console import say
    from fw.core.report.page.write import PAGE
    from fw.core.report.terminal import show
    from fw.core.run.run import run

    result, failure = run(recipe, plan, options, warnings, console)
    stdout = wide_console()
    show(result, stdout)
    say(stdout, f"report  {options.out / recipe.name / 'latest' / PAGE}")
    if result.get("look"):
        say(stdout, f"look    {result['look']}")
    if failure is not None:
        raise failure
    return result


def show_plan(plan: Plan, store: Store) -> None:
    """The stages in running order, whether they are done, and each arm's network evaluations."""
    for stage in plan.stages.values():
        state = store.status(stage.id).state
        answer(f"{'done' if state == 'done' else 'to do':6} {stage.id:26} {stage.title}")
    for name, arm in plan.arms.items():
        answer(
            f"arm {name}: at most {arm.nfe} network evaluations per image, trained in {arm.train}"
        )
