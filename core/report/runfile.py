"""What lies in a run's folder, read back: run.json and the resolved recipe, checked as whatever
comes from a disk.

A file that was cut, edited or overwritten is refused with the place in it that is wrong; nobody
else has to doubt it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fw.core.errors import FwError
from fw.core.files.layout import RUN_FILE
from fw.core.files.strict import in_numbers
from fw.core.messages.escaping import visible
from fw.core.recipe.source import Source, cut, read

RESOLVED = "recipe.resolved.yaml"

BYTES = 100_000_000
"""A run.json of a thousand arms has about a hundredth of that."""


class Facts(BaseModel):
    """A part of run.json; it may say more than is named here."""

    model_config = ConfigDict(extra="allow", strict=True)


class Score(Facts):
    mean: float
    std: float
    values: list[float]
    floor: float | None
    trainings: dict[str, list[float]] = {}
    """Of each sampling seed, by training seed; a run of before has none."""


class LabelFacts(Facts):
    value: Literal["yes", "no", "unknown"]
    why: str


class SnapshotScore(Facts):
    mean: float
    values: list[float]
    floor: float | None


class SnapshotFacts(Facts):
    """An arm's training after `step` steps: `count` samples of one sampling seed."""

    step: int
    count: int
    metrics: dict[str, SnapshotScore]


class ArmFacts(Facts):
    status: str
    metrics: dict[str, Score]
    real_images: dict[str, int]
    nfe: int
    seconds: float
    probes: dict[str, float] = {}
    probe_trainings: dict[str, dict[str, float]] = {}
    """Of each training, by its seed; a run of before has none."""
    label_free: LabelFacts | None = None
    sampler: str = ""
    snapshots: list[SnapshotFacts] = []

    @model_validator(mode="after")
    def _counted(self) -> ArmFacts:
        if self.metrics and "held_out" not in self.real_images:
            raise ValueError("it has scores, and real_images has no held_out")
        return self


class ComparisonFacts(Facts):
    """See core/report/compared.py."""

    arm: str
    than: str
    role: str
    values: list[float]
    difference: float
    interval: list[float] | None
    p: float | None
    spread: float | None
    adjusted: float | None
    decision: Literal["better", "worse", "undecided"]


class PlannedFacts(Facts):
    """See core/recipe/comparisons.py."""

    arm: str
    than: str
    role: str
    stated: bool


class VerdictFacts(Facts):
    key: str
    better: Literal["lower", "higher"]
    rule: str
    sentences: list[str]
    comparisons: list[ComparisonFacts]
    planned: list[PlannedFacts] = []
    """All that were to be made; arms without a score are in none of `comparisons`."""


class SweepFacts(Facts):
    """See core/recipe/sweep.py."""

    kind: Literal["grid", "search", "again"]
    over: dict[str, list[Any]]
    points: list[str]
    metric: str | None = None
    trials: int | None = None
    failed: int = 0
    chosen_on: list[int] = []
    chosen_at: float | None = None


class RunFacts(Facts):
    """All of run.json that anybody reads. One of a run that was stopped early has no arms, and
    nothing about them."""

    recipe: str
    seed: int = 0
    repeats: int = Field(1, ge=1)
    baseline: str = ""
    baselines: list[str] = []
    """The baseline and arms like it but for their sampler; a run of before has none."""
    headline: str = ""
    better: dict[str, Literal["lower", "higher"]] = {}
    probes: dict[str, Literal["lower", "higher"]] = {}
    in_figures: list[str] = []
    begun_in: str = ""
    """The folder where relative paths of the recipe begin; a run of before does not say."""
    recipe_key: str = ""
    """Equal in runs that differ in their seeds alone; a run of before has none."""
    rulers: dict[str, dict[str, Any]] = {}
    """What each score is measured by; a run of before does not say."""
    arms: dict[str, ArmFacts] | None = None
    sweep: SweepFacts | None = None
    """Which arms are the points of a sweep, of a run of such a recipe."""
    verdict: VerdictFacts | None = None
    """A run of before has none."""

    @model_validator(mode="after")
    def _consistent(self) -> RunFacts:
        if self.arms is None:
            return self
        for what, name, known in (
            ("baseline", self.baseline, self.arms),
            ("headline", self.headline, self.better),
        ):
            if name not in known:
                raise ValueError(
                    f"{what} is '{name}', which is none of {', '.join(known) or 'nothing'}"
                )
        for name in self.sweep.points if self.sweep is not None else ():
            if name not in self.arms:
                raise ValueError(f"sweep names '{name}', which is none of {', '.join(self.arms)}")
        return self


def read_record(path: Path) -> dict[str, Any]:
    """The run.json in a run's folder (or the file itself) as it is, if it is of any run at all; or
    FwError."""
    file = path / RUN_FILE if path.is_dir() else path
    try:
        with file.open("rb") as stream:
            run = in_numbers(json.loads(stream.read(BYTES).decode("utf-8")))
        if isinstance(run["recipe"], str):
            return run
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        pass
    raise FwError(
        f"{path}: no readable {RUN_FILE} there; name a run's folder, such as runs/<recipe>/latest"
    )


def handle_in(run: Mapping[str, Any], tracker: str) -> dict[str, Any] | None:
    """What a tracker finds the run by; None if there is nothing of the kind."""
    handle = run.get(tracker)
    return handle if isinstance(handle, dict) else None


def read_run(path: Path) -> dict[str, Any]:
    """The run.json in a run's folder, or the file itself, if it can be relied on; or FwError."""
    try:
        return RunFacts.model_validate(read_record(path)).model_dump(exclude_unset=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "it"
        reason = cut(visible(f"{place}: {first['msg'].removeprefix('Value error, ')}"))
        remedy = "run its recipe again, which writes the file anew"
        raise FwError(f"{path}: its {RUN_FILE} is damaged ({reason}); {remedy}") from None


def read_results(path: Path) -> dict[str, Any]:
    """The same of a run that has results; FwError if it was stopped before."""
    run = read_run(path)
    if run.get("arms") is None:
        raise FwError(
            f"run '{run['recipe']}' was stopped before it had results; run its recipe again"
        )
    return run


def resolved(run: Path) -> Path:
    """The path of the recipe that a run was made with, every default in it; FwError if this is no
    run's folder."""
    path = run / RESOLVED
    if not path.exists() or len(run.resolve().parents) < 2:
        raise FwError(
            f"{run}: not a run folder (it has no {RESOLVED}); such as runs/<recipe>/latest"
        )
    return path


def read_resolved(run: Path) -> Source:
    """That recipe; FwError unless it has arms, each a mapping of sections. The rest is for
    `validate` to see."""
    source = read(resolved(run))
    arms = source.data.get("arms")
    if not isinstance(arms, dict) or not all(isinstance(arm, dict) for arm in arms.values()):
        raise FwError(
            f"{run / RESOLVED}: it is damaged: `arms` is no mapping of arms; run its recipe again"
        )
    return source
