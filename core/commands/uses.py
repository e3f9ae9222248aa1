"""Which products the runs of a runs folder use: those of their recipes' plans, and those that they
were made with, where a version was raised since."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path

from fw.core.commands.fetch import components, lacking
from fw.core.commands.verify import of_run
from fw.core.errors import FwError
from fw.core.plan.assembly import plan
from fw.core.plan.graph import Plan
from fw.core.recipe.loading import understood
from fw.core.report.runfile import RESOLVED, read_record
from fw.core.run.finished import FinishedRun
from fw.core.store.store import Store
from fw.registry import Registry, UnfitPlugin, add_files, installed
from fw.registry.discovery import discover


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
    """All runs of a runs folder, each once, also those that were moved away and left a link."""
    folders = sorted(path.parent for path in root.glob(f"*/*/{RESOLVED}"))
    links = [folder for folder in folders if folder.is_symlink()]
    here = {folder.resolve(): folder for folder in folders if folder not in links}
    return sorted(({folder.resolve(): folder for folder in links} | here).values())


def written(root: Path) -> dict[Path, int]:
    """When the recipe of each run was last written: another answer says that a run has begun."""
    found = {}
    for folder in run_folders(root):
        with contextlib.suppress(FileNotFoundError):  # it may be deleted meanwhile
            found[folder] = (folder / RESOLVED).stat().st_mtime_ns
    return found


def uses(root: Path, store: Store) -> Iterator[Uses]:
    for folder in run_folders(root):
        drawn, several = samples(folder)
        made = of_run(store, drawn)
        run = FinishedRun(folder)
        try:
            recipe, _ = understood(run.anchored(), registry_of(run))
            planned = plan(recipe)
        except FwError as error:
            yield Uses(folder, made, str(error).splitlines()[0])
            continue
        yield Uses(folder, made | set(planned.stages), doubt(planned, drawn, several))


def registry_of(run: FinishedRun) -> Registry:
    """What is installed, and the run's own copies of local plugins; FwError if one cannot be
    loaded any more."""
    if not (copies := run.plugins()):
        return installed()
    registry = discover()
    try:
        add_files(registry, copies)
    except UnfitPlugin as error:
        raise FwError(str(error)) from None
    return registry


def doubt(planned: Plan, drawn: Set[str], several: bool) -> str:
    """Why a plan may not name all that its run uses, though the run drew these samples; empty if
    it does. Keys are made of the content of data, so that where these are not at hand, as in
    another working directory than that of a relative path, all of them are others."""
    if drawn and drawn <= planned.stages.keys():
        return ""
    if len(drawn) >= len(planned.arms) and not several:
        return ""  # all that it has made is known by its samples
    reasons = filter(None, map(lacking, components(planned)))
    return next((reason.splitlines()[0] for reason in reasons), OLDER if drawn and several else "")


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
