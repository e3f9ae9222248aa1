"""`fw run`: plan, check, do what is missing, log it, report it. Running the same command again continues."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fw.core.errors import FwError, Interrupted, StageFailed
from fw.core.files.durable import write_text
from fw.core.kinds import ArmDescription, RunDescription, TrackedRun
from fw.core.machine.cores import cores
from fw.core.machine.stopping import stop_on_signals
from fw.core.messages.console import say
from fw.core.messages.escaping import visible
from fw.core.messages.plain import writing
from fw.core.messages.secrets import redact, redacted
from fw.core.plan.graph import Plan
from fw.core.plan.graph import plan as plan_all
from fw.core.recipe.model import Recipe
from fw.core.report import provenance, report
from fw.core.report.figures import save_arms_figure
from fw.core.report.runfile import RESOLVED, RUN_FILE, handle_in
from fw.core.run import splits
from fw.core.run.board import Board, arm_params, arm_scores
from fw.core.run.executor import Outcome, checked_device, devices, run_here, run_in_workers
from fw.core.run.owner import owner
from fw.core.run.record import Turn, describe, link_latest, previous_run, run_folder, write_run
from fw.core.run.untracked import Untracked
from fw.core.run.work import Settings
from fw.core.store.soundness import disappeared, mixtures, usable_stages
from fw.core.store.store import Store
from fw.registry import LocalPlugin

FIGURE_KEYS = 4

BETWEEN = 3
"""Characters between the texts of two columns of a table: a line between blanks."""


@dataclass(frozen=True)
class Options:
    """How to run. None of it changes a stage's key."""

    out: Path
    device: str = "auto"
    jobs: int | None = None
    threads: int | None = None
    checkpoint_seconds: float = 20.0
    keep_dependents: bool = False
    """Whether products stay that were made of other inputs than those in the store."""


class Finished(NamedTuple):
    """What run.json says, and why stages failed, or None."""

    result: dict[str, Any]
    failure: StageFailed | None


def run(recipe: Recipe, plan: Plan, options: Options, warnings: Sequence[str], console: Console) -> Finished:
    """Run a plan. Stages that fail do not hide what the others found. Raises Interrupted after all is tidied up."""
    out = options.out.absolute()
    store = Store(out / "store")
    store.create()
    everything = plan_all(recipe)
    sound = usable_stages(everything, store, console, options.keep_dependents)
    finished = [stage for stage in plan.stages if stage in sound]
    preflight(plan, finished)
    data = splits.examine(recipe.dataset, store.root)
    for warning in data.warnings:
        say(console, f"warning: {warning}", style="yellow")
    files = provenance.files(recipe)
    settings = settings_for(plan, finished, options, store, files)
    folder = run_folder(recipe, files, out)
    made_by = provenance.record(everything)  # now, because a plugin's source may be edited while the run is on
    with stop_on_signals() as stopping, Turn(folder) as turn:

        def opening() -> TrackedRun:
            return open_tracker(recipe, plan, made_by, options, folder, previous_run(folder))

        mine = turn.take()
        if not mine:
            other = f"{owner(folder)} writes the record of this very run"
            say(console, f"{other}; this one works along, and writes when that has ended", style="yellow")
        with Board(plan, store, console, opening, stopping.shield) as board:
            ended = "killed"
            try:
                if mine:
                    describe(recipe, files, folder)
                    board.begin_tracking()
                for stage in finished:
                    board.track(stage)
                outcome = start(plan, finished, settings, board, stopping)
                if mine:
                    board.catch_up()
                else:
                    turn.wait(stopping)
                    board.open_late()
                describe(recipe, files, folder)
                if not outcome.stopped:
                    outcome.failed |= disappeared(plan, store, [*outcome.failed, *outcome.skipped])
                with writing(folder):
                    result = conclude(
                        recipe, everything, made_by, store, folder, outcome, warnings, data, board.tracked
                    )
                log_results(result, plan, store, folder, outcome, board)
                if board.catch_up():  # it failed only now
                    log_results(result, plan, store, folder, outcome, board)
                ended = "killed" if outcome.stopped else "failed" if outcome.failed else "finished"
            finally:
                board.end(ended)
                turn.ended = not board.failed_to_track
    if outcome.stopped:
        raise Interrupted("stopped; everything finished is kept, and the same command continues from here")
    return Finished(result, StageFailed(failure(plan, outcome)) if outcome.failed else None)


def preflight(plan: Plan, finished: Sequence[str]) -> None:
    """Let every component that still has work look for its files, before anything is computed."""
    missing = [stage for stage in plan.stages.values() if stage.id not in finished]
    distinct = {repr(component): component for stage in missing for component in stage.components}
    problems = []
    for component in distinct.values():
        try:
            component.preflight()
        except FwError as error:
            problems.append(str(error))
    if problems:
        raise FwError("\n".join(dict.fromkeys(problems)))


def settings_for(
    plan: Plan, finished: Sequence[str], options: Options, store: Store, files: Sequence[LocalPlugin]
) -> list[Settings]:
    """One entry per job. On CPU: a job per core with one thread each; on CUDA: a job per device."""
    device = checked_device(options.device)
    available = cores()
    side_by_side = {"cpu": min(available, 8), "cuda": torch.cuda.device_count()}.get(device, 1)
    jobs = max(1, min(options.jobs or side_by_side, len(plan.stages) - len(finished)))
    threads = options.threads or (1 if device == "cpu" else max(1, available // jobs))
    plugins = tuple(files)
    return [
        Settings(store.root, each, threads, options.checkpoint_seconds, options.keep_dependents, plugins)
        for each in devices(device, jobs)
    ]


def open_tracker(
    recipe: Recipe, plan: Plan, made_by: provenance.Record, options: Options, folder: Path, previous: Mapping[str, Any]
) -> TrackedRun:
    """Open the recipe's tracker, if it names one, and remember the handle at once, so that a crash cannot lose it."""
    if recipe.tracker is None:
        return Untracked()
    shared: dict[str, Any] = {"dataset": recipe.dataset, "samples": recipe.samples, "seed": recipe.seed}
    if recipe.latents is not None:
        shared["latents"] = recipe.latents
    if recipe.probes:
        shared["probes"] = recipe.probes
    tracked = recipe.tracker.open(
        RunDescription(
            recipe=recipe.name,
            key=folder.name,
            folder=folder,
            root=options.out.absolute(),
            baseline=recipe.baseline,
            headline=f"eval/{report.headline(recipe)}",
            arms=[ArmDescription(name, arm_params(arm, shared)) for name, arm in plan.arms.items()],
            tags={
                "fw.version": report.versions()["fw"],
                "fw.seed": str(recipe.seed),
                **provenance.tags(made_by),
            },
            previous=handle_in(previous, recipe.tracker.name),
        )
    )
    try:
        with writing(folder):
            write_run({**previous, "recipe": recipe.name, recipe.tracker.name: dict(tracked.handle)}, folder)
    except BaseException:
        tracked.end("killed")
        raise
    return tracked


def start(
    plan: Plan,
    finished: Sequence[str],
    settings: Sequence[Settings],
    board: Board,
    stopping: Callable[[], bool],
) -> Outcome:
    if len(settings) == 1:
        return run_here(plan, finished, settings[0], board, stopping)
    return run_in_workers(plan, finished, settings, board, stopping)


def conclude(
    recipe: Recipe,
    everything: Plan,
    made_by: provenance.Record,
    store: Store,
    folder: Path,
    outcome: Outcome,
    warnings: Sequence[str],
    data: splits.Findings,
    tracked: TrackedRun,
) -> dict[str, Any]:
    """Write run.json, the report and the pictures; of all arms, also those that `--arm` left for another time."""
    result = report.collect(recipe, everything, made_by, store, outcome.failed)
    told_by_stages = [*report.stage_warnings(everything, store), *mixtures(everything, store)]
    result["classes"] = data.class_names
    result["warnings"] = [*warnings, *data.warnings, *told_by_stages, *report.indistinct(result)]
    if recipe.tracker is not None:
        result[recipe.tracker.name] = dict(tracked.handle)
        result["look"] = redact(tracked.hint)
    result["warnings"] = redacted(result["warnings"])
    for arm in result["arms"].values():
        if "error" in arm:
            arm["error"] = redact(arm["error"])
    write_run(result, folder)
    link_latest(folder)
    finished = {name: arm for name, arm in result["arms"].items() if arm["status"] == "finished"}
    for name in finished:
        shutil.copyfile(store.path(everything.arms[name].sample) / "grid.png", folder / f"samples-{name}.png")
    if finished:
        keys = list(result["better"])[:FIGURE_KEYS]
        save_arms_figure(finished, keys, recipe.baseline, folder / "arms.png")
    write_text(folder / "report.md", report.markdown(result))
    return result


def log_results(
    result: Mapping[str, Any], plan: Plan, store: Store, folder: Path, outcome: Outcome, board: Board
) -> None:
    """Show the tracker what was concluded, arm by arm and for the run as a whole."""
    with board.tracking() as tracked:
        for name in plan.arms:
            arm = result["arms"][name]
            if arm["status"] == "finished":
                scores = arm_scores(arm)
                tracked.scores(name, scores)
                tracked.model(name, store.path(plan.arms[name].train) / "model.safetensors", scores)
            unfinished = "killed" if outcome.stopped else "failed"
            tracked.end_arm(name, "finished" if arm["status"] == "finished" else unfinished)
            for what, _ in report.SECTIONS:
                tracked.scores(None, {f"{what}/{name}/{key}": value for key, value in arm.get(what, {}).items()})
        documents = [folder / name for name in ("report.md", RUN_FILE, RESOLVED, "arms.png")]
        others = [*sorted(folder.glob("samples-*.png")), *sorted(folder.glob("plugins/*.py"))]
        tracked.files(None, [path for path in (*documents, *others) if path.exists()])
        tracked.note(report.note(result))


def failure(plan: Plan, outcome: Outcome) -> str:
    lines = [f"{plan.stages[stage].title}: {reason}" for stage, reason in outcome.failed.items()]
    if outcome.skipped:
        lines.append(f"{len(outcome.skipped)} stages that needed it were not tried; the others are finished and kept")
    return "\n".join(lines)


def show(result: Mapping[str, Any], console: Console) -> None:
    """The comparison as a table on standard output, below each other in parts if it is wider than that."""
    rows = [[visible(cell) for cell in row] for row in report.rows(result)]
    for header, *body in parts(rows, console.width):
        title = Text(visible(f"{result['recipe']}, seed {result['seed']}"))
        table = Table(title=title, title_justify="left")
        for column in header:
            table.add_column(Text(column), justify="left" if column == "arm" else "right", no_wrap=True)
        for row in body:
            table.add_row(*map(Text, row))
        console.print(table)
    console.print(visible(report.verdict(result)), markup=False, highlight=False)


def parts(rows: Sequence[Sequence[str]], width: int) -> Iterator[list[list[str]]]:
    """A table in parts that are no wider than `width` characters if they can be, each with the first column."""
    first, *others = (BETWEEN + max(map(len, column)) for column in zip(*rows, strict=True))
    start = 1
    while start < len(rows[0]):
        end, used = start + 1, 1 + first + others[start - 1]
        while end < len(rows[0]) and used + others[end - 1] <= width:
            used += others[end - 1]
            end += 1
        yield [[row[0], *row[start:end]] for row in rows]
        start = end
