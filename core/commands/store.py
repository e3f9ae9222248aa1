"""`fw store`: what takes the room in a runs folder, and the removal of what no run uses."""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from fw.core.commands.uses import Uses, uses, written
from fw.core.errors import FwError, Held
from fw.core.execution.progress import noted
from fw.core.files.layout import STORE
from fw.core.machine.memory import in_words
from fw.core.messages.escaping import visible
from fw.core.store.at_work import notes
from fw.core.store.store import PARTIAL, STAGE, Store

REMOVED = ".removed"
"""Ends the name of a product that is being removed."""


@dataclass(frozen=True)
class Survey:
    """What lies in a runs folder. Sizes are bytes."""

    root: Path
    products: Mapping[str, int]
    """The size of each finished stage."""
    partials: Mapping[str, int]
    """That of each unfinished one, by stage."""
    rest: Mapping[str, int]
    """That of all else in the runs folder, by name, without the folders of runs."""
    runs: Sequence[Uses]
    folders: Mapping[Path, int]
    """The size of each run's own folder."""
    busy: frozenset[str]
    """Stages that runs which are going on use."""
    damaged: Mapping[str, str]
    """What is wrong with products, as far as their manifests and sizes show."""

    @property
    def store(self) -> Store:
        return Store(self.root / STORE)

    @cached_property
    def users(self) -> Counter[str]:
        """How many runs use each stage."""
        return Counter(stage for run in self.runs for stage in run.stages)

    @property
    def orphans(self) -> dict[str, int]:
        """Products that no run uses."""
        return self._unused(self.products)

    @property
    def abandoned(self) -> dict[str, int]:
        """Unfinished work that no run would continue."""
        return self._unused(self.partials)

    def _unused(self, sizes: Mapping[str, int]) -> dict[str, int]:
        return {
            stage: size
            for stage, size in sizes.items()
            if not self.users[stage] and stage not in self.busy
        }

    def of_run(self, run: Uses) -> tuple[int, int]:
        """What its products take that no other run uses, and those that others use, too."""
        sizes = [0, 0]
        for stage in run.stages & self.products.keys():
            sizes[self.users[stage] > 1] += self.products[stage]
        return sizes[0], sizes[1]

    @property
    def kinds(self) -> dict[str, tuple[int, int]]:
        """How many products there are of each kind of stage, and what they take."""
        found: dict[str, tuple[int, int]] = {}
        for stage, size in self.products.items():
            kind = stage.rpartition("-")[0]
            count, sum_ = found.get(kind, (0, 0))
            found[kind] = count + 1, sum_ + size
        return dict(sorted(found.items(), key=lambda each: -each[1][1]))

    @property
    def total(self) -> int:
        parts = (self.products, self.partials, self.rest, self.folders)
        return sum(sum(part.values()) for part in parts)


def survey(path: Path) -> Survey:
    """Look at a runs folder, or at its store; FwError if it is neither."""
    root = runs_folder(path)
    store = Store(root / STORE)
    busy = frozenset(stage for each in notes(store) if not each.ended for stage in each.uses)
    runs = list(uses(root, store))
    folders = {run.folder: size_of(run.folder) for run in runs}
    partials = [
        each for each in store.root.iterdir() if STAGE.fullmatch(each.name.removesuffix(PARTIAL))
    ]
    products = store.stages()
    rest = {
        each.name: size_of(each)
        for each in (*root.iterdir(), *store.root.iterdir())
        if each not in (store.root, *partials) and not each.is_symlink()
        if not any(each == folder.parent for folder in folders)
    }
    states = {stage: store.status(stage) for stage in sorted(products)}
    return Survey(
        root,
        {stage: size_of(store.path(stage)) for stage in sorted(products)},
        {
            each.name.removesuffix(PARTIAL): size_of(each)
            for each in sorted(partials)
            if each.name.endswith(PARTIAL)
        },
        {name: size for name, size in rest.items() if size},
        runs,
        folders,
        busy,
        {stage: state.reason for stage, state in states.items() if state.state == "corrupted"},
    )


def runs_folder(path: Path) -> Path:
    path = path.absolute()
    for root in (path, path.parent):
        if (root / STORE).is_dir() and path in (root, root / STORE):
            return root
    raise FwError(f"{path}: no runs folder: there is no store in it")


def size_of(path: Path) -> int:
    """The bytes of a file, or of all files below a folder; links count nothing."""
    with contextlib.suppress(OSError):  # it may go meanwhile
        if path.is_symlink():
            return 0
        if path.is_file():
            return path.stat().st_size
        return sum(size_of(each) for each in path.iterdir())
    return 0


def document(found: Survey) -> dict[str, Any]:
    """The same as JSON."""
    return {
        "folder": str(found.root),
        "bytes": found.total,
        "runs": [
            {
                "run": run.name,
                "own": found.of_run(run)[0],
                "shared": found.of_run(run)[1],
                "folder": found.folders[run.folder],
                "unknown": run.unknown,
            }
            for run in found.runs
        ],
        "shared": sum(found.products[stage] for stage in shared(found)),
        "kinds": {
            kind: {"products": count, "bytes": size} for kind, (count, size) in found.kinds.items()
        },
        "orphans": found.orphans,
        "unfinished": {
            stage: {"bytes": size, "abandoned": stage in found.abandoned}
            for stage, size in found.partials.items()
        },
        "damaged": dict(found.damaged),
        "other": dict(found.rest),
    }


def shared(found: Survey) -> list[str]:
    """The products that several runs use."""
    return [stage for stage in found.products if found.users[stage] > 1]


def show(found: Survey, console: Console) -> None:
    """Print what takes the room."""
    console.print(Text(visible(f"{found.root}: {in_words(found.total)}")))
    runs = Table("run", *(Column(title, justify="right") for title in ("own", "shared", "report")))
    for run in found.runs:
        sizes = (*found.of_run(run), found.folders[run.folder])
        runs.add_row(Text(visible(run.name)), *map(in_words, sizes))
    once = sum(found.products[stage] for stage in shared(found))
    if found.runs:
        console.print(runs)
    if once:
        console.print(f"what several runs share takes {in_words(once)} in all, counted once")
    kinds = Table("kind of stage", *(Column(t, justify="right") for t in ("products", "size")))
    for kind, (count, size) in found.kinds.items():
        kinds.add_row(kind, str(count), in_words(size))
    if found.products:
        console.print(kinds)
    for name, size in sorted(found.rest.items(), key=lambda each: -each[1]):
        console.print(Text(visible(f"{name}: {in_words(size)}")))
    for line in notices(found):
        console.print(Text(visible(line)), soft_wrap=True)


def notices(found: Survey) -> Iterator[str]:
    """What a user may want to do something about, a line each."""
    unknown = any(run.unknown for run in found.runs)
    for stage, size in found.partials.items():
        reached = noted(found.store.partial(stage))
        what = f" ({reached.title}: {reached})" if reached is not None else ""
        now = found.store.holder(stage)
        if now:
            state = f"{now} is at it"
        elif reached is not None and reached.failed:
            state = f"it failed: {reached.failed}"
        elif stage in found.abandoned:
            state = "no run would continue it" + (", as far as is known" if unknown else "")
        else:
            state = "the same command continues it"
        yield f"unfinished: {stage}{what}, {in_words(size)}; {state}"
    for stage, reason in found.damaged.items():
        yield f"damaged: {stage}: {reason}; fw verify {found.root} --discard"
    if orphans := found.orphans:
        room = in_words(sum(orphans.values()))
        remedy = "as far as is known" if unknown else f"fw store {found.root} --prune removes them"
        yield f"orphans: {len(orphans)} products that no run uses, {room}; {remedy}"
    for run in found.runs:
        if run.unknown:
            yield f"{run.name}: it is not known what it uses: {run.unknown}"


@dataclass(frozen=True)
class Removal:
    """Products and unfinished work that nobody uses, which are to be removed."""

    found: Survey
    runs: Mapping[Path, int]
    """The runs that there were when this was found out."""
    left: Mapping[str, int]
    """What a removal that was killed has left of products, by the names of their folders."""

    @property
    def sizes(self) -> dict[str, int]:
        """By the names of their folders."""
        names = {f"{stage}{PARTIAL}": size for stage, size in self.found.abandoned.items()}
        return {**self.found.orphans, **names, **self.left}

    def __str__(self) -> str:
        begun = len(self.found.abandoned)
        finished = len(self.sizes) - begun
        size = in_words(sum(self.sizes.values()))
        return f"{finished} products and {begun} unfinished ones that no run uses, {size}"


def removable(path: Path) -> Removal:
    """What can be removed of a runs folder; FwError where it is not known what a run uses."""
    root = runs_folder(path)
    if (root / STORE).is_symlink():
        raise FwError(
            f"{root / STORE} is a link to {(root / STORE).resolve()}, which other runs folders may "
            "use, too, so nothing is removed; where they do not, let the runs folder itself be the "
            "link"
        )
    if not (runs := written(root)):
        raise FwError(
            f"{root}: no run is in it, so nothing is removed: are the runs elsewhere that use its "
            "store? Where there are none, delete the store"
        )
    found = survey(path)
    if unknown := [run for run in found.runs if run.unknown]:
        raise FwError(
            "\n".join(
                f"{run.folder}: it is not known what this run uses, so nothing is removed: "
                f"{run.unknown}"
                for run in unknown
            )
        )
    left = found.store.root.glob(f"*{REMOVED}")
    return Removal(found, runs, {each.name: size_of(each) for each in left})


def remove(removal: Removal) -> Iterator[tuple[str, str]]:
    """Remove it, each product at once or not at all; yields names of folders, and why one was kept.

    A run that begins meanwhile leaves a note before it looks at the store. So a product first gets
    another name; if there is a note by then of a run that uses it, it gets its own name back.
    """
    store = removal.found.store
    for name in removal.sizes:
        stage = name.partition(".")[0]
        try:
            with store.lease(stage):
                yield name, remove_one(store.root / name, stage, removal)
        except Held as error:
            yield name, str(error)


def remove_one(folder: Path, stage: str, removal: Removal) -> str:
    """Remove a product whose lease is held; why it is kept, if it is."""
    if folder.suffix == REMOVED:
        shutil.rmtree(folder, ignore_errors=True)  # another removal may have been faster
        return ""
    if reason := wanted(stage, removal):
        return reason
    aside = folder.with_name(f"{folder.name}{REMOVED}")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        folder.rename(aside)
    except FileNotFoundError:
        return ""
    if reason := wanted(stage, removal):
        aside.rename(folder)
        return reason
    shutil.rmtree(aside)
    return ""


def wanted(stage: str, removal: Removal) -> str:
    """Why a stage may be in use now, though it was not; empty if nothing says so."""
    for each in notes(removal.found.store):
        if stage in each.uses and not each.ended:
            return f"{each.claim.holder} has begun to use it"
    if written(removal.found.root) != removal.runs:
        return "a run has begun meanwhile; the same command again sees what it uses"
    return ""
