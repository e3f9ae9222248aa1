"""A plan as a user sees it: what there is to do; once it is done, the table, and where the report
and the tracker's page are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fw.core.cli.answers import answer, wide_console

if TYPE_CHECKING:
    from rich.console import Console

    from fw.core.commands.estimate import Estimate
    from fw.core.execution.options import Options
    from fw.core.plan.graph import Plan
    from fw.core.recipe.model import Recipe
    from fw.core.store.store import Store


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


def show_plan(plan: Plan, store: Store, options: Options) -> None:
    """The stages in running order, whether they are done, what the others will take, and each arm's
    network evaluations."""
    from fw.core.commands.estimate import estimates
    from fw.core.errors import FwError
    from fw.core.execution.devices import checked_device, known_device
    from fw.core.machine.memory import in_words
    from fw.core.messages.spans import span
    from fw.core.store.shorter import going_on

    if options.out.exists() and not options.out.is_dir():
        raise FwError(f"--out: {options.out} is a file, and runs lie in a folder")
    missing = [stage for stage in plan.stages if store.status(stage).state != "done"]
    auto = options.device == "auto"  # another device may be that of another machine
    device = checked_device("auto") if auto else known_device(options.device).type
    begun = going_on((plan.stages[stage] for stage in missing), store)
    known = estimates(plan, missing, store, device, begun)
    for stage in plan.stages.values():
        line = f"{'to do' if stage.id in known else 'done':6} {stage.id:26} {stage.title}"
        if (start := begun.get(stage.id)) is not None:
            line += f", from step {start.steps} of {start.id} on"
        if (about := known.get(stage.id)) is not None:
            line += f": about {span(about.seconds)}, {in_words(round(about.size))}, {about.why}"
        answer(line)
    for name, arm in plan.arms.items():
        answer(
            f"arm {name}: at most {arm.nfe} network evaluations per image, trained in {arm.train}"
        )
    if missing:
        answer(in_all(plan, known, options, device))


def in_all(plan: Plan, known: Mapping[str, Estimate | None], options: Options, device: str) -> str:
    """What the missing stages take together, as far as anything is known."""
    from fw.core.commands.estimate import together
    from fw.core.machine.memory import in_words
    from fw.core.messages.spans import span

    some = {stage: about for stage, about in known.items() if about is not None}
    kinds = sorted({plan.stages[stage].kind for stage in known.keys() - some.keys()})
    lacking = f"{len(known) - len(some)} stages ({', '.join(kinds)})"
    if not some:
        nothing = f"no earlier stage of their kinds is in {options.store}"
        return (
            f"in all: {len(known)} stages; how long they take is not known: {nothing} for {device}"
        )
    jobs = side_by_side(options, len(known))
    seconds = together(plan, {stage: about.seconds for stage, about in some.items()}, jobs)
    size = in_words(round(sum(about.size for about in some.values())))
    side = f"{jobs} jobs side by side" if jobs > 1 else "one after the other"
    text = f"in all: {len(known)} stages: about {span(seconds)}, {side}, and {size}"
    if kinds:
        text += f"; without {lacking} for which there is no basis in {options.store}"
    return text


def side_by_side(options: Options, stages: int) -> int:
    """How many jobs there would be; 1 where that is for another machine to say."""
    from fw.core.errors import FwError
    from fw.core.execution.options import places

    if options.cluster is not None:
        return 1
    try:
        return len(places(options, stages, ()))
    except FwError:
        return options.jobs or 1
