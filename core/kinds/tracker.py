"""Where experiments are logged."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

from fw.core.errors import FwError
from fw.registry import Component


class ArmDescription(NamedTuple):
    """An arm as a tracker shows it: its name and its flattened sections."""

    name: str
    params: Mapping[str, str]


class RunDescription(NamedTuple):
    """A run as a tracker opens it. `previous` is the handle that the tracker returned when the run last stopped."""

    recipe: str
    key: str
    folder: Path
    root: Path
    baseline: str
    headline: str
    arms: Sequence[ArmDescription]
    tags: Mapping[str, str]
    previous: Mapping[str, Any] | None


class TrackedRun(Protocol):
    """An open run. `arm` None addresses the run as a whole. Every call may be repeated: nothing is logged twice."""

    def series(self, arm: str | None, records: Sequence[Mapping[str, float]]) -> None:
        """Values over steps; each record has `step`."""

    def scores(self, arm: str | None, values: Mapping[str, float]) -> None:
        """Final values."""

    def files(self, arm: str | None, paths: Sequence[Path]) -> None:
        """Files to look at."""

    def model(self, arm: str, weights: Path, scores: Mapping[str, float]) -> None:
        """The trained weights (safetensors) of an arm."""

    def note(self, markdown: str) -> None:
        """The result in words, shown on the run's page."""

    def end_arm(self, arm: str, status: str) -> None:
        """`finished`, `failed` or `killed`."""

    def end(self, status: str) -> None:
        """Likewise for the whole run."""

    @property
    def handle(self) -> Mapping[str, Any]:
        """What finds this run again; JSON."""

    @property
    def hint(self) -> str:
        """One line for the user: where to look."""


class Tracker(Component):
    """Where experiments are logged."""

    kind: ClassVar[str] = "tracker"

    @abstractmethod
    def open(self, run: RunDescription) -> TrackedRun:
        """Open the run, or open it again."""

    def check_keys(self, keys: Collection[str]) -> None:
        """ValueError where scores have names that it cannot take; asked when a recipe is validated."""

    def close(self, handle: Mapping[str, Any], root: Path, status: str) -> None:
        """End a run whose process died, as `failed` or `killed`; what has ended stays as it is, so it may be repeated.

        `handle` is what the run was found by, with its `recipe` and `key`, which are all that there is of a run that
        died while it was opened. `root` is the runs folder that it is in now.
        """

    def serve(self, root: Path, port: int) -> int:
        """Show what was logged to the runs folder `root` in a browser, until Ctrl-C; returns the exit code."""
        raise FwError(f"the tracker '{self.name}' has no page of its own")
