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
        drawn, several = samples(folder)
        made = of_run(store, drawn)
        try:
            recipe, _ = understood(read_resolved(folder), installed())
        except FwError as error:
            yield Uses(folder, made, str(error).splitlines()[0])
            continue
        planned = set(plan(recipe).stages)
        older = several and not drawn <= planned
        yield Uses(folder, made | planned, OLDER if older else "")


OLDER = (
    "it was made before fw changed some of its results, and does not name all that it made then; "
    "run its recipe again, or delete its folder"
)


def samples(folder: Path) -> tuple[set[str], bool]:
    """The arms' samples that a run has noted in its run.json, and whether it has made others: from
    other seeds, or of snapshots."""
    try:
        run = read_record(folder)
        arms = list((run.get("arms") or {}).values())
        drawn = {str(arm["sample_key"]) for arm in arms if arm.get("sample_key")}
        return drawn, run.get("repeats", 1) > 1 or any(arm.get("snapshots") for arm in arms)
    except (FwError, AttributeError, TypeError):
        return set(), False
