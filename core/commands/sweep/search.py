"""`--sampler optuna`: points are suggested by the scores of those before, one after the other or in
rounds, and scored by the stages of any run, which are not done twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from fw.core.commands.sweep.base import Base
from fw.core.commands.sweep.points import Point, count, recipe_data, validated
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
from fw.core.store.at_work import Note
from fw.core.store.store import Store

TRIALS = 20

ASKED = 20
"""Rounds of suggestions for each trial that is wanted, after which a search ends."""


@dataclass
class Search:
    """What is searched for, and what is known of it."""

    base: Base
    metric: str
    trials: int
    at_once: int
    """How many suggestions are made before the first of them has a score."""
    known: dict[Places, float | None] = field(default_factory=dict)
    """The scores of the trials, None where there is none, in their order."""

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
            "trials": len(self.known) or self.trials,
            "failed": list(self.known.values()).count(None),
            "seed": SEED,
            "chosen_on": tuple(self.base.recipe.seeds),
        }


def checked_trials(trials: int | None) -> int:
    """FwError for more trials than a recipe has arms."""
    if (wanted := TRIALS if trials is None else trials) >= ARMS:
        raise FwError(f"--trials {wanted}: a recipe has at most {ARMS - 1} of them as arms")
    return wanted


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


def run(search: Search, options: Options, console: Console, note: Note) -> None:
    """Have as many points as there are trials suggested and scored. FwError if none has a score.
    What the trials use is noted, for it is in no run's folder before the end.

    A suggestion that is repeated is no trial: its score is known. So a search ends early only where
    hardly anything new is suggested any more.
    """
    suggestions = Suggestions(search.base.axes, search.better)
    wanted = min(search.trials, count(search.base.axes))
    failure: FwError | None = None
    for _ in range(ASKED * search.trials):
        if (left := wanted - len(search.known)) == 0:
            break
        suggested = suggestions.make(search.at_once)  # of any --trials the same
        fresh = [each for each in dict.fromkeys(suggested) if each not in search.known][:left]
        failure = score(search, fresh, options, console, note) or failure
        suggestions.tell([search.known.get(places) for places in suggested])
        for number, places in enumerate(fresh, start=len(search.known) - len(fresh) + 1):
            say(console, f"trial  {number} of {wanted}: {in_words(search, places)}")
    if not search.scored:
        raise failure or FwError(f"no trial has a score in {search.metric} that is a number")


def in_words(search: Search, places: Places) -> str:
    """A trial and its score."""
    keys, score = [axis.key for axis in search.base.axes], search.known[places]
    where = ", ".join(
        f"{key} {in_yaml(value)}" for key, value in zip(keys, search.point(places), strict=True)
    )
    return f"{where}: {'no score' if score is None else f'{search.metric} {score:.4g}'}"


def score(
    search: Search, fresh: Sequence[Places], options: Options, console: Console, note: Note
) -> FwError | None:
    """Score points that have no score yet; returns why one has none after all."""
    failure: FwError | None = None
    valid = []
    for places in fresh:
        search.known[places] = None
        try:
            recipe_of(search, [search.point(places)])
            valid.append(places)
        except RecipeError as error:
            failure = error
            say(console, f"warning: {error}", style="yellow")
    if not valid:
        return failure
    recipe = recipe_of(search, [search.point(places) for places in valid])
    planned = plan(recipe, recipe.sweep.points if recipe.sweep is not None else ())
    note.use(planned)
    try:
        finish(recipe, planned, options, console)
    except StageFailed as error:
        failure = error
        say(console, f"warning: {error}", style="yellow")
    for places, arm in zip(valid, planned.arms.values(), strict=True):
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
