"""`--sampler optuna`: points are suggested by the scores of those before, one after the other or in
rounds, and scored by the stages of any run, which are not done twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from fw.core.commands.sweep.base import Base
from fw.core.commands.sweep.points import Point, recipe_data, validated
from fw.core.commands.sweep.tpe import SEED, Places, Suggestions
from fw.core.errors import FwError, RecipeError, StageFailed
from fw.core.execution.options import Options
from fw.core.messages.console import say
from fw.core.plan.assembly import plan
from fw.core.plan.graph import ArmPlan
from fw.core.recipe.finding import in_yaml
from fw.core.recipe.model import ARMS, Recipe
from fw.core.report.collect import directions, headline, scores
from fw.core.report.selection import comparable
from fw.core.run.missing import finish
from fw.core.store.store import Store

TRIALS = 20


@dataclass
class Search:
    """What is searched for, and what is known of it."""

    base: Base
    metric: str
    trials: int
    at_once: int
    """How many suggestions are made before the first of them has a score."""
    known: dict[Places, float | None] = field(default_factory=dict)
    """The scores, None where there is none, in the order of the suggestions."""
    failed: int = 0
    """Trials without a score."""

    @property
    def scored(self) -> list[Point]:
        return [self.point(places) for places, score in self.known.items() if score is not None]

    @property
    def better(self) -> str:
        return directions(self.base.recipe)[self.metric]

    def point(self, places: Places) -> Point:
        pairs = zip(self.base.axes, places, strict=True)
        return tuple(axis.values[place] for axis, place in pairs)

    @property
    def facts(self) -> dict[str, Any]:
        """What the recipe of its points says of it."""
        return {
            "kind": "search",
            "metric": self.metric,
            "trials": self.trials,
            "failed": self.failed,
            "seed": SEED,
            "chosen_on": tuple(self.base.recipe.seeds),
        }


def checked_trials(trials: int | None) -> int:
    """FwError for more trials than a recipe has arms."""
    if (count := TRIALS if trials is None else trials) >= ARMS:
        raise FwError(f"--trials {count}: a recipe has at most {ARMS - 1} of them as arms")
    return count


def ranked_by(recipe: Recipe, minimise: str | None, maximise: str | None) -> str:
    """The score that points are ranked by, the headline unless one is named; FwError for one that
    no metric reports, or that is better the other way round."""
    if minimise is not None and maximise is not None:
        raise FwError("--minimise and --maximise: name one")
    option, key = ("--minimise", minimise) if maximise is None else ("--maximise", maximise)
    if key is None:
        return headline(recipe)
    known = directions(recipe)
    if key not in known:
        raise FwError(f"{option} {key}: no metric reports it (known: {', '.join(known)})")
    if (known[key] == "lower") != (option == "--minimise"):
        raise FwError(f"{option} {key}: of this score, {known[key]} is better")
    return key


def run(search: Search, options: Options, console: Console) -> None:
    """Have all trials suggested and scored. FwError if none has a score."""
    suggestions = Suggestions(search.base.axes, search.better)
    done = 0
    failure: FwError | None = None
    while done < search.trials:
        suggested = suggestions.make(min(search.at_once, search.trials - done))
        failure = score(search, suggested, options, console) or failure
        values = [search.known[places] for places in suggested]
        suggestions.tell(values)
        search.failed += values.count(None)
        for places, value in zip(suggested, values, strict=True):
            done += 1
            say(console, f"trial  {done} of {search.trials}: {in_words(search, places, value)}")
    if not search.scored:
        raise failure or StageFailed(f"no trial has a score in {search.metric} that is a number")


def in_words(search: Search, places: Places, score: float | None) -> str:
    keys = (axis.key for axis in search.base.axes)
    where = ", ".join(
        f"{key} {in_yaml(value)}" for key, value in zip(keys, search.point(places), strict=True)
    )
    return f"{where}: {'no score' if score is None else f'{search.metric} {score:.4g}'}"


def score(
    search: Search, suggested: Sequence[Places], options: Options, console: Console
) -> FwError | None:
    """Score what has no score yet; returns why a point has none."""
    failure: FwError | None = None
    fresh = []
    for places in dict.fromkeys(suggested):
        if places in search.known:
            continue
        search.known[places] = None
        try:
            recipe_of(search, [search.point(places)])
            fresh.append(places)
        except RecipeError as error:
            failure = error
            say(console, f"warning: {error}", style="yellow")
    if not fresh:
        return failure
    recipe = recipe_of(search, [search.point(places) for places in fresh])
    planned = plan(recipe, recipe.sweep.points if recipe.sweep is not None else ())
    try:
        finish(recipe, planned, options, console)
    except StageFailed as error:
        failure = error
        say(console, f"warning: {error}", style="yellow")
    for places, arm in zip(fresh, planned.arms.values(), strict=True):
        search.known[places] = score_of(arm, search.metric, Store(options.store))
    return failure


def score_of(arm: ArmPlan, metric: str, store: Store) -> float | None:
    """What an arm scores, if all of its trainings are finished."""
    own = {stage for training in arm.trainings.values() for stage in training.stages()}
    finished = store.finished(own)
    found = scores(arm, store, finished)["metrics"]
    if not own <= finished.keys() or metric not in found:
        return None
    return comparable(found[metric]["mean"])


def recipe_of(search: Search, points: Sequence[Point]) -> Recipe:
    """The recipe of these points, validated."""
    data = recipe_data(search.base, points, "search", **search.facts)
    return validated(data, f"{search.base.source.name} --over")
