"""The models of a run's arms, for its tracker: handed over only where they are as they were
stored."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path

from rich.console import Console

from fw.core.files.layout import MODEL
from fw.core.kinds import TrackedRun
from fw.core.messages.console import say
from fw.core.plan.graph import ArmPlan, Plan
from fw.core.recipe.model import Recipe
from fw.core.run.package import pack
from fw.core.run.record import SCRATCH
from fw.core.run.tracking import logged_arms
from fw.core.store.store import Store


class Models:
    """A `fw.core.run.calls.Sources`."""

    def __init__(
        self,
        store: Store,
        planned: Callable[[], tuple[Recipe, Plan]],
        folder: Path,
        console: Console,
    ):
        self.store = store
        self.planned = planned
        self.folder = folder
        self.console = console

    @property
    def root(self) -> Path:
        return self.folder.parents[1]

    @cached_property
    def arms(self) -> tuple[Recipe, Mapping[str, ArmPlan]]:
        recipe, plan = self.planned()
        return recipe, logged_arms(plan)

    def weights(self, arm: str) -> Path:
        return self.store.path(self.arms[1][arm].weights) / MODEL

    def size(self, arm: str) -> int:
        with contextlib.suppress(OSError):
            return self.weights(arm).stat().st_size
        return 0

    def give(self, arm: str, tracked: TrackedRun, scores: Mapping[str, float]) -> None:
        """Hand an arm's model to a tracker that lacks it, packed if it takes that; a warning if it
        is damaged."""
        if not wants_model(tracked, arm) or not self.intact(arm):
            return
        package: Callable[[str, Path, Mapping[str, float]], None] | None
        if (package := getattr(tracked, "package", None)) is None:
            tracked.model(arm, self.weights(arm), scores)
            return
        place = self.folder / SCRATCH
        try:
            recipe, arms = self.arms
            pack(recipe, arm, arms[arm], self.store, self.folder, place / "arm", scores)
            package(arm, place / "arm", scores)
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def intact(self, arm: str) -> bool:
        status = self.store.verify(self.arms[1][arm].weights, [MODEL])
        if status.state != "done":
            say(
                self.console,
                f"warning: the model of arm {arm} is not logged, because it is damaged in the "
                f"store, {status.reason}: discard it with `fw verify {self.store.root} --discard`",
                style="yellow",
            )
        return status.state == "done"


def wants_model(tracked: TrackedRun, arm: str) -> bool:
    """Whether the tracker lacks an arm's weights. One that does not say so gets them: to read them
    is what takes long."""
    wants: Callable[[str], bool] = getattr(tracked, "wants_model", lambda arm: True)
    return wants(arm)
