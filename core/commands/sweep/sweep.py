"""A sweep from its request to its result: the grid or the search, its recipe run like any other,
and the best point once more on fresh seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from fw.core.commands.sweep import search as searching
from fw.core.commands.sweep.again import SEEDS, again_data
from fw.core.commands.sweep.axes import axes
from fw.core.commands.sweep.base import Base, base
from fw.core.commands.sweep.points import (
    Point,
    check_place,
    count,
    cross,
    grid,
    recipe_data,
    text,
    validated,
    write,
)
from fw.core.commands.sweep.search import Search, checked_trials, ranked_by
from fw.core.commands.sweep.tpe import new_study
from fw.core.errors import FwError
from fw.core.execution.options import Options
from fw.core.files.durable import write_text
from fw.core.messages.console import say
from fw.core.messages.plain import writing
from fw.core.plan.assembly import plan
from fw.core.plan.graph import Plan
from fw.core.recipe.loading import validate
from fw.core.recipe.model import Recipe
from fw.core.recipe.source import Source
from fw.core.report import provenance
from fw.core.run.record import run_folder
from fw.core.stages.sample import Sample
from fw.core.stages.train import TrainDenoiser
from fw.core.store.at_work import at_work
from fw.core.store.store import Store
from fw.registry import installed

FILE = "sweep.yaml"
"""The sweep's recipe as it is written into the run's folder."""


@dataclass(frozen=True)
class Request:
    """What the user asks for, as it stands on the command line."""

    over: Sequence[str]
    arm: str | None = None
    sampler: str | None = None
    trials: int | None = None
    minimise: str | None = None
    maximise: str | None = None
    again: int | None = None
    yes: bool = False
    output: Path | None = None
    command: str = "fw sweep"


@dataclass(frozen=True)
class Wanted:
    """A request that can be met."""

    request: Request
    base: Base
    metric: str
    search: Search | None
    points: Sequence[Point]
    """Those of the grid; of a search, points that have every value once."""

    @property
    def seeds(self) -> int:
        """Trainings that the best point is scored on again."""
        if self.request.again is not None:
            return self.request.again
        return 0 if self.search is None else SEEDS

    def data(self, points: Sequence[Point]) -> dict[str, Any]:
        """The recipe of some points as plain data."""
        if self.search is not None:
            return recipe_data(self.base, points, "search", **self.search.facts)
        named = {"metric": self.metric, "chosen_on": tuple(self.base.recipe.seeds)}
        return recipe_data(self.base, points, "sweep", kind="grid", **named)

    def recipe(self, data: Mapping[str, Any]) -> Recipe:
        return validated(data, f"{self.base.source.name} --over")


def wanted(source: Source, request: Request, options: Options) -> Wanted:
    """What a request comes to; FwError in one sentence if it cannot be met, before any work."""
    if request.sampler not in (None, "optuna"):
        raise FwError(f"--sampler {request.sampler}: take optuna, or none for the whole grid")
    if request.sampler is None and request.trials is not None:
        raise FwError("--trials is about a search: add --sampler optuna")
    if request.sampler is not None and request.again == 0:
        raise FwError("--again 0: the result of a search is its best point on fresh seeds")
    if request.output is not None:
        check_place(request.output)
    of = base(source, validate(source, installed()), axes(request.over), request.arm)
    metric = ranked_by(of.recipe, request.minimise, request.maximise)
    search = None
    if request.sampler is not None:
        trials = checked_trials(request.trials)
        search = Search(of, metric, trials, options.jobs or 1)
        new_study("lower")  # whether Optuna is there
    points = cross(of.axes) if search is not None else grid(of.axes, request.yes)
    if len(points) < 2:
        raise FwError("--over: one point is no sweep; name more values")
    found = Wanted(request, of, metric, search, points)
    found.recipe(found.data(points))
    return found


def summary(wanted: Wanted) -> str:
    """How much work it is, in a line."""
    arm = wanted.base.arm
    if wanted.search is not None:
        among = f"{count(wanted.base.axes):,} points of arm {arm}"
        return f"search  {wanted.search.trials} trials among {among}, {wanted.metric}"
    stages = plan(wanted.recipe(wanted.data(wanted.points))).stages.values()
    trainings = sum(isinstance(stage, TrainDenoiser) for stage in stages)
    samplings = sum(isinstance(stage, Sample) and stage.step is None for stage in stages)
    return (
        f"sweep  {len(wanted.points)} points of arm {arm}, and the baseline: {trainings} "
        f"trainings, {samplings} samplings"
    )


def sweep(
    wanted: Wanted,
    run: Callable[[Recipe], Mapping[str, Any]],
    options: Options,
    console: Console,
) -> list[Path]:
    """Do it; `run` is what `fw run` does. Returns the recipes that were written, which `fw run`
    runs again."""
    store = Store(options.store)
    store.create()
    with at_work(store, wanted.base.recipe.name, Plan(), Plan()) as note:
        points = wanted.points
        if wanted.search is not None:
            searching.run(wanted.search, options, console, note)
            points = wanted.search.scored
        return swept(points, wanted, run, options, console)


def swept(
    points: Sequence[Point],
    wanted: Wanted,
    run: Callable[[Recipe], Mapping[str, Any]],
    options: Options,
    console: Console,
) -> list[Path]:
    """Run the recipe of the points, and score the best once more."""
    data = wanted.data(points)
    recipe = wanted.recipe(data)
    written = kept(data, recipe, wanted, options)
    if wanted.request.output is not None:
        write(text(data, wanted.base, wanted.request.command), wanted.request.output)
        written = wanted.request.output
    result = run(recipe)
    named = dict(zip(result["sweep"]["points"], points, strict=True))
    if not wanted.seeds:
        return [written]
    if (best := again_data(wanted.base, named, result, wanted.seeds)) is None:
        raise FwError(f"no point has a score in {wanted.metric} that is a number, so none is best")
    recipe = wanted.recipe(best)
    again = kept(best, recipe, wanted, options)
    seeds = f"{wanted.seeds} fresh seeds, from {recipe.seed}"
    say(console, f"again  {best['sweep']['points'][0]} beside the baseline on {seeds}")
    run(recipe)
    return [written, again]


def kept(data: Mapping[str, Any], recipe: Recipe, wanted: Wanted, options: Options) -> Path:
    """Write the recipe into the folder of its run, before that begins."""
    folder = run_folder(recipe, provenance.files(recipe), options.root)
    with writing(folder, "--out:"):
        write_text(folder / FILE, text(data, wanted.base, wanted.request.command))
    return folder / FILE
