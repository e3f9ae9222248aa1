"""A run that has ended, read back from disk: what it found, its recipe, and its arms' trained
models."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from fw.core.errors import FwError, RecipeError
from fw.core.files.layout import RUN_FILE, STORE
from fw.core.messages.console import say
from fw.core.plan.assembly import plan
from fw.core.plan.graph import Plan
from fw.core.recipe.anchoring import anchor
from fw.core.recipe.arm import Arm
from fw.core.recipe.keys import Assignment
from fw.core.recipe.loading import validate
from fw.core.recipe.model import Recipe
from fw.core.recipe.source import Source
from fw.core.report import provenance
from fw.core.report.runfile import (
    RESOLVED,
    read_resolved,
    read_results,
    read_run,
    resolved,
)
from fw.core.stages.base import Stage
from fw.core.stages.sample import Sample
from fw.core.store.soundness import check_inputs
from fw.core.store.store import Store
from fw.registry import LocalPlugin, UnfitPlugin, installed


@dataclass(frozen=True)
class FinishedRun:
    """What lies at `path`, a run's folder or its run.json, as the user wrote it."""

    path: Path

    @property
    def folder(self) -> Path:
        return self.path.parent if self.path.is_file() else self.path

    @property
    def root(self) -> Path:
        """The runs folder that it lies in."""
        return self.folder.resolve().parent.parent

    @property
    def store(self) -> Store:
        return Store(self.root / STORE)

    def record(self) -> dict[str, Any]:
        """Its run.json, which may be of a run that was stopped early; FwError if it is damaged."""
        return read_run(self.path)

    def results(self) -> dict[str, Any]:
        """The same of a run that has results; FwError if it was stopped before."""
        return read_results(self.path)

    def source(self) -> Source:
        """The resolved recipe as it was written; FwError if this is no run's folder."""
        return read_resolved(self.folder)

    def anchored(self) -> Source:
        """The same, to be read here: its relative paths begin in the folder where the run was
        begun, if they still lead somewhere from there."""
        source = self.source()
        with contextlib.suppress(FwError):  # of a damaged record, who needs it says so
            if begun_in := self.record().get("begun_in"):
                anchor(source, Path(begun_in), installed())
        return source

    def check(self) -> None:
        """FwError if this is no run's folder."""
        resolved(self.path)

    def sections(self, results: dict[str, Any]) -> dict[str, Any]:
        """The resolved recipe as plain data; FwError if it is of other arms than the results."""
        recipe = self.source().data
        if recipe["arms"].keys() != results["arms"].keys():
            raise FwError(
                f"{self.folder}: {RUN_FILE} and {RESOLVED} are of other arms; run the recipe again"
            )
        return recipe

    def recipe(self) -> Recipe:
        """The recipe, with its tracker."""
        return validate(self.anchored(), installed(), finished=True)

    def arm(self, name: str, training: int | None = None, guidance: Any = None) -> FinishedArm:
        """One arm, without the tracker, as it was trained from the seed `training`; None is the
        first. FwError unless the local plugins of that arm are as they were.

        `guidance`: what its recipe would say in the place of the arm's own; None leaves that.
        """
        source = self.anchored()
        if name not in source.data["arms"]:
            raise FwError(
                f"--arm {name}: no such arm in {self.path} (known: "
                f"{', '.join(source.data['arms'])})"
            )
        source.data |= {
            "arms": {name: source.data["arms"][name]},
            "baseline": name,
            "question": None,
            "sweep": None,
            "tracker": None,
        }
        if guidance is not None:
            own = Assignment(("arms", name, "guidance"), frozenset(range(3)), "", appends=False)
            source.put(own, Source("guidance", guidance), "guidance")
        copies = {plugin.digest: plugin.path for plugin in self.plugins()}
        there = {plugin.digest for plugin in installed().files}
        missing = " ".join(
            f"--plugin {path}" for digest, path in copies.items() if digest not in there
        )
        lacking = FwError(
            f"{self.path}: arm {name} needs local plugins as they were when it was run: add "
            f"{missing}"
        )
        try:
            recipe = validate(source, installed(), whole=False, finished=True)
        except RecipeError:
            if missing:
                raise lacking from None
            raise
        for plugin in provenance.files(recipe):
            if plugin.digest not in copies:
                raise (
                    lacking
                    if missing
                    else FwError(f"{self.path}: this run did not use {plugin.path}; leave it out")
                )
        seed = recipe.seed if training is None else checked_training(recipe, training)
        first = seed == recipe.seed  # the only one whose key run.json has
        recipe = recipe.model_copy(update={"seed": seed, "repeats": 1})
        made = plan(recipe)
        if guidance is not None:
            before = self.arm(name, training).stored
        else:
            before = self._stored(name, made.arms[name].drawn) if first else {}
        return FinishedArm(self, name, recipe, made, before)

    def _stored(self, name: str, sample: Stage) -> dict[str, str]:
        """What the stages up to an arm's samples are called in the store, by their ids of today."""
        try:
            key = (self.record().get("arms") or {})[name]["sample_key"]
        except (FwError, LookupError, TypeError):
            return {}
        return dict(stored(sample, str(key), self.store))

    def plugins(self, where: str = "plugins") -> list[LocalPlugin]:
        """The run's copies of the local plugins that it used, in this part of its folder; FwError
        if one cannot be read any more."""
        try:
            return [LocalPlugin.read(path) for path in sorted(self.folder.glob(f"{where}/*.py"))]
        except UnfitPlugin as error:
            raise FwError(str(error)) from None


def checked_training(recipe: Recipe, seed: int) -> int:
    """A seed that the arms of a recipe are trained from; FwError for another one."""
    if seed not in recipe.seeds:
        known = ", ".join(map(str, recipe.seeds))
        raise FwError(f"--training {seed}: no arm was trained from this seed (known: {known})")
    return seed


@dataclass(frozen=True)
class FinishedArm:
    """One arm of a finished run, and where the products of its stages lie."""

    run: FinishedRun
    name: str
    recipe: Recipe
    plan: Plan
    stored: Mapping[str, str]
    """The stages' ids in the store, by those of today: where a version was raised since the run, or
    its images are gone, they differ."""
    said: list[str] = field(default_factory=list, compare=False, repr=False)
    """The note, once it was given."""

    @property
    def arm(self) -> Arm:
        return self.plan.arms[self.name].arm

    @property
    def class_names(self) -> list[str]:
        """Of its conditions, where these are the data set's own classes."""
        return list(self.recipe.dataset.class_names) if self.arm.classes_are_labels else []

    @property
    def sample(self) -> Sample:
        return self.plan.arms[self.name].drawn

    def products(self, stage: Stage) -> Path:
        return self.run.store.product(self._id(stage))

    def has(self, stage: Stage) -> bool:
        """Whether the stage was finished, here or by an earlier fw."""
        return self.run.store.present(self._id(stage))

    def check(self, stages: Iterable[Stage], console: Console) -> None:
        """FwError unless these stages are finished; aloud where they do not belong together and,
        once, where they are not what the recipe says today."""
        titles = {self._id(stage): stage.title for stage in stages}
        check_inputs(self.run.path, self.plan, titles, self.run.store, console)
        if not self.said and not titles.keys() <= self.plan.stages.keys():
            self.said.append(self._otherwise())
            say(console, f"note: {self.said[0]}")

    def _otherwise(self) -> str:
        """Why stages have other ids today."""
        parts = dict.fromkeys(part for stage in self.stored for part in self._apart(stage))
        if "version" in parts or not parts:
            return (
                f"{self.run.path} was made before fw changed some of its results (see the "
                "changelog): what it trained is used as it is, and images are made as today, not "
                "as for its report"
            )
        return (
            f"{self.run.path}: what the recipe names as {' and '.join(parts)} is not here, or not "
            "what it was for the run (relative paths begin where fw is called); what the run has "
            "made is used as it is"
        )

    def _apart(self, stage: str) -> Iterator[str]:
        """In which parts of its key a stage of today differs from what the store has for it;
        `version` where that of the stage or of a component does."""
        if stage not in self.plan.stages or not self.run.store.readable(self.stored[stage]):
            return
        own = self.plan.stages[stage].payload
        theirs = self.run.store.manifest(self.stored[stage])["payload"]
        for part in sorted(own.keys() | theirs.keys()):
            one, other = own.get(part), theirs.get(part)
            if part != "inputs" and one != other:
                yield "version" if version_in(one) != version_in(other) else part

    def _id(self, stage: Stage) -> str:
        """As the store has it: of today, or else as the run made it."""
        there = self.run.store.path(stage.id).exists()
        return stage.id if there else self.stored.get(stage.id, stage.id)


def version_in(part: Any) -> Any:
    """The version that a part of a key is of: a component's, or that of the stage itself."""
    return part.get("version") if isinstance(part, Mapping) else part


def stored(stage: Stage, key: str, store: Store) -> Iterator[tuple[str, str]]:
    """The id of a stage and of all that it reads, and what each is called in the store, where
    `key` is what the stage is called there."""
    yield stage.id, key
    if not store.readable(key):
        return
    inputs = store.manifest(key).get("payload", {}).get("inputs", {})
    for role, source in stage.reads:
        if role in inputs:
            yield from stored(source, inputs[role], store)
