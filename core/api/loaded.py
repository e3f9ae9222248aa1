"""A finished run, as Python code and notebooks use it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fw.core.api.arm import LoadedArm
from fw.core.api.notebook import as_html
from fw.core.api.verdict import Verdict, verdict_of
from fw.core.errors import FwError
from fw.core.recipe.local_plugins import add_plugins
from fw.core.recipe.model import Recipe
from fw.core.report.page.write import PAGE
from fw.core.report.scores import Scored, by_metrics, by_probes
from fw.core.report.tables import title_of
from fw.core.run.finished import FinishedRun
from fw.registry.once import one_look

if TYPE_CHECKING:
    import pandas as pd


def load(path: str | Path, *, plugins: Iterable[str | Path] = ()) -> LoadedRun:
    """The run in a folder, such as `runs/self_guidance/latest`; FwError if there is none.

    `plugins` are those in single files that it was run with (`--plugin`). A link such as `latest`
    is followed now: another run later does not change what was loaded.
    """
    if not isinstance(path, str | Path):
        raise FwError(f"load({path!r}): it takes the path of a run's folder")
    folder = FinishedRun(Path(path).expanduser()).folder
    FinishedRun(folder).check()
    add_plugins(plugins)
    return LoadedRun(FinishedRun(folder.resolve()))


@dataclass(frozen=True, eq=False, repr=False)
class LoadedRun:
    """What a run has found, its recipe, and its arms."""

    finished: FinishedRun

    @property
    def folder(self) -> Path:
        return self.finished.folder

    @property
    def report(self) -> Path:
        """The page to open in a browser."""
        return self.folder / PAGE

    @cached_property
    def results(self) -> dict[str, Any]:
        """All of run.json; FwError if the run was stopped before it had results."""
        return self.finished.results()

    @cached_property
    def scores(self) -> pd.DataFrame:
        """A row for each number: `arm`, `role`, `score`, `better`, training `seed`,
        `sampling_seed` and `value`.

        A probe's score, which is of a training, has no sampling seed (NA).
        """
        import pandas as pd

        rows = [*by_metrics(self.results), *by_probes(self.results)]
        frame = pd.DataFrame(rows, columns=list(Scored._fields))
        return frame.astype({"sampling_seed": "Int64", "value": "float64"})

    @cached_property
    def verdict(self) -> Verdict:
        """What the report concludes."""
        return verdict_of(self.results)

    @cached_property
    def recipe(self) -> Recipe:
        """With every default in it; `.to_yaml()` writes it."""
        with one_look():
            return self.finished.recipe()

    @cached_property
    def arms(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self.finished.source().data["arms"])

    def arm(self, name: str, training: int | None = None) -> LoadedArm:
        """One arm, as it was trained from the seed `training` where there are several (`repeats`),
        by default the first. FwError if there is none of the name, or no such training."""
        if name not in self.arms:
            raise FwError(
                f"arm '{name}': no such arm in {self.folder} (known: {', '.join(self.arms)})"
            )
        arm = LoadedArm(self.finished, name, training)
        if training is not None:
            seeds = self.seeds
            if training not in seeds:
                known = ", ".join(map(str, seeds))
                raise FwError(
                    f"training {training}: no arm was trained from this seed (known: {known})"
                )
        return arm

    @property
    def seeds(self) -> range:
        """The seeds that every arm was trained from."""
        data = self.finished.source().data
        return range(data.get("seed", 0), data.get("seed", 0) + data.get("repeats", 1))

    def __repr__(self) -> str:
        try:
            title = title_of(self.results)
        except FwError:
            title = f"{self.finished.record()['recipe']}, which was stopped before it had results"
        return f"<run {title}: {', '.join(self.arms)} ({shown(self.folder)})>"

    def _repr_html_(self) -> str | None:
        try:
            return as_html(self.results, self.folder)
        except FwError:
            return None


def shown(folder: Path) -> Path:
    """The path from where one is, if the folder lies there."""
    here = Path.cwd().resolve()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder
