"""Which products the runs of a runs folder use: those of their recipes' plans, and those that they
were made with, where a version was raised since."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path

from fw.core.commands.verify import of_run
from fw.core.errors import FwError
from fw.core.plan.assembly import plan
from fw.core.recipe.loading import understood
from fw.core.report.runfile import RESOLVED, read_record, read_resolved
from fw.core.store.store import Store
from fw.registry import installed


@dataclass(frozen=True)
class Uses:
    """A run's folder, and the stages that it needs."""

    folder: Path
    stages: Set[str]
    unknown: str
    """Why it is not known what else it may need; empty if it is."""

    @property
    def name(self) -> str:
        return f"{self.folder.parent.name}/{self.folder.name}"


def run_folders(root: Path) -> list[Path]:
    """All runs of a runs folder."""
    folders = (path.parent for path in root.glob(f"*/*/{RESOLVED}"))
    return sorted(folder for folder in folders if not folder.is_symlink())


def written(root: Path) -> dict[Path, int]:
    """When the recipe of each run was last written: another answer says that a run has begun."""
    return {folder: (folder / RESOLVED).stat().st_mtime_ns for folder in run_folders(root)}


def uses(root: Path, store: Store) -> Iterator[Uses]:
    for folder in run_folders(root):
        stages, whole = recorded(folder, store)
        unknown = ""
        try:
            recipe, _ = understood(read_resolved(folder), installed())
            stages |= plan(recipe).stages.keys()
        except FwError as error:
            unknown = "" if whole else str(error).splitlines()[0]
        yield Uses(folder, stages, unknown)


def recorded(folder: Path, store: Store) -> tuple[set[str], bool]:
    """The products that a run was made with, as its run.json has them; and whether these are those
    of all arms."""
    try:
        arms = list((read_record(folder).get("arms") or {}).values())
        samples = {str(arm["sample_key"]) for arm in arms if arm.get("sample_key")}
        whole = bool(arms) and all(arm.get("status") == "finished" for arm in arms)
    except (FwError, AttributeError, TypeError):
        return set(), False
    return of_run(store, samples), whole and len(samples & store.stages()) > 0
