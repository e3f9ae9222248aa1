"""Where experiments are logged."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

from fw.core.errors import FwError
from fw.registry import Component

LOADER = "fw.core.run.pyfunc"
"""The module whose `_load_pyfunc(folder)` reads a packed arm, for `TrackedRun.package`."""


class ArmDescription(NamedTuple):
    """An arm as a tracker shows it: its name and its flattened sections.

    `parent` is set of one training of an arm that is trained several times: the arm's name.
    """

    name: str
    params: Mapping[str, str]
    parent: str | None = None


class RunDescription(NamedTuple):
    """A run as a tracker opens it. `previous` is the handle that the tracker returned when the
    run last stopped."""

    recipe: str
    key: str
    folder: Path
    root: Path
    baseline: str
    headline: str
    arms: Sequence[ArmDescription]
    tags: Mapping[str, str]
    previous: Mapping[str, Any] | None
    better: str = "lower"
    """Which scores of the headline are better, `lower` or `higher`."""


class TrackedRun(Protocol):
    """An open run. `arm` None means the run as a whole. Any call may be repeated; nothing may be
    logged twice.

    All calls come from one thread, which is not the main one: the work does not wait for a tracker.
    A call that raises is made again after the run was opened again, and again by `fw sync`.

    A tracker that shows words beside numbers has a method `words(arm, values)`, with short texts by
    name, such as the decision about an arm.
    """

    def series(self, arm: str | None, records: Sequence[Mapping[str, float]]) -> None:
        """Values over steps; each record has `step`."""

    def scores(self, arm: str | None, values: Mapping[str, float]) -> None:
        """Final values."""

    def files(self, arm: str | None, paths: Sequence[Path]) -> None:
        """Files to look at."""

    def model(self, arm: str, weights: Path, scores: Mapping[str, float]) -> None:
        """The trained weights (safetensors) of an arm.

        A tracker that has them already may say so in a method `wants_model(arm) -> bool`: before fw
        hands weights over, it compares their checksum, which takes long for large ones.

        One that has a method `package(arm, folder, scores)` gets, in place of the weights, a folder
        that images can be drawn from anywhere (core/run/package.py), which is gone afterwards.
        """

    def note(self, markdown: str) -> None:
        """The result in words, shown on the run's page."""

    def end_arm(self, arm: str, status: str) -> None:
        """`finished`, `failed` or `killed`."""

    def end(self, status: str) -> None:
        """Likewise for the whole run."""

    @property
    def handle(self) -> Mapping[str, Any]:
        """JSON by which the tracker finds this run again."""

    @property
    def hint(self) -> str:
        """One line for the user that says where to look."""


class Tracker(Component):
    """Where experiments are logged."""

    kind: ClassVar[str] = "tracker"

    @property
    def watching(self) -> bool:
        """Whether it shows what the machine does meanwhile: series of the run and of its arms that
        begin with `system/`, whose steps are seconds since 1970."""
        return False

    @abstractmethod
    def open(self, run: RunDescription) -> TrackedRun:
        """Open the run, or open it again. `Unreachable`, or an error of the network, if a server
        does not answer: the run goes on, and is logged later."""

    def settled(self, root: Path) -> Tracker:
        """The same with what the environment decides written out, and without secrets: what is
        logged later, from another shell, is to arrive at the same place. FwError if that is none.

        Called before a run begins. It must not need a server.
        """
        return self

    def check_keys(self, keys: Collection[str]) -> None:
        """Raise ValueError if it cannot take these names of scores; called when a recipe is
        validated."""

    def close(self, handle: Mapping[str, Any], root: Path, status: str) -> None:
        """End a run whose process died, as `failed` or `killed`. It may be repeated: what has ended
        stays as it is.

        `handle` is the run's, with its `recipe` and `key`; these two are all if it died while it
        was opened. `root` is the runs folder that it is in now.
        """

    def register(self, handle: Mapping[str, Any], root: Path, arm: str, name: str) -> str:
        """Register an arm's model under a name; returns a URI that it is loaded by. The same model
        is registered once."""
        raise FwError(f"the tracker '{self.name}' registers no models")

    def fetch(self, name: str, root: Path) -> Path | None:
        """The `run.json` of a logged run, by a name of the tracker's own, in a folder that is new
        and may be deleted; None if it is no such name. `root` is the runs folder. FwError if there
        is no such run."""
        return None

    def serve(self, root: Path, port: int) -> int:
        """Show in a browser what was logged to the runs folder `root`, until Ctrl-C; returns the
        exit code. One that can open the browser itself also takes `browse`, a bool."""
        raise FwError(f"the tracker '{self.name}' has no page of its own")
