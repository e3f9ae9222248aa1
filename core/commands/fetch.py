"""What a recipe needs from outside this machine: listed, and brought here."""

from __future__ import annotations

import contextlib
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from fw.core.commands.pace import Pace
from fw.core.errors import FwError, OutOfOrder, PutOff
from fw.core.machine import leases
from fw.core.messages.console import say
from fw.core.messages.escaping import visible
from fw.core.messages.plain import writing
from fw.core.plan.graph import Plan
from fw.registry import Component, Download
from fw.registry.once import look_again


@dataclass(frozen=True)
class Need:
    """Something to be fetched, and the component that it is for."""

    component: str
    download: Download
    size: int | None = None
    problem: FwError | None = None
    """Why the server does not give it."""

    @property
    def name(self) -> str:
        return f"{self.component}: {self.download.what}"

    def line(self) -> str:
        each = self.download
        size = "size unknown" if self.size is None else decimal(self.size)
        return f"{self.name}, {size}, from {each.source} to {each.place}"


@dataclass
class Needs:
    """What a plan needs: what is here, what can be fetched, and sentences about the rest."""

    here: list[Need] = field(default_factory=list)
    missing: list[Need] = field(default_factory=list)
    by_hand: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[FwError]:
        return [need.problem for need in self.missing if need.problem is not None]

    @property
    def fetchable(self) -> list[Need]:
        return [need for need in self.missing if need.problem is None]

    def lines(self) -> Iterator[str]:
        for need in self.here:
            yield f"{'here':8} {need.name}: {need.download.place}"
        for need in self.missing:
            yield f"{'missing':8} {need.line()}"
        for reason in self.by_hand:
            yield f"{'by hand':8} {reason}"


def needs(plan: Plan) -> Needs:
    """What the components of a plan need. The servers are asked for sizes of what is missing."""
    result = Needs()
    every: dict[tuple[str, Path], Need] = {}
    fetchable, others = set(), []
    for component in components(plan):
        needed = [
            Need(f"{component.kind} {component.name}", each) for each in component.downloads()
        ]
        for need in needed:
            every.setdefault((need.download.source, need.download.place), need)
        if reason := lacking(component):
            if all(need.download.there() for need in needed):
                others.append(reason)
            else:
                fetchable.add(reason)
    for need in every.values():
        if need.download.there():
            result.here.append(need)
        else:
            result.missing.append(sized(need))
    # A metric lacks what its space does, and says it in the same words.
    result.by_hand = [reason for reason in dict.fromkeys(others) if reason not in fetchable]
    return result


def bring(missing: Iterable[Need], console: Console) -> list[FwError]:
    """Fetch one after the other, with a bar on `console` or now and then a line; what went wrong.
    OutOfOrder, before anything is fetched, where the disk has no room for it."""
    wanted = list(missing)
    check_room(wanted)
    problems: list[FwError] = []
    for need in wanted:
        try:
            with alone(need.download.place), writing(need.download.place):
                fetched(need, console)
        except PutOff as error:
            problems.append(OutOfOrder(f"{need.name}: {error.holder} is fetching it: wait for it"))
        except FwError as error:
            problems.append(error)
        else:
            say(console, f"fetched  {need.name}: {need.download.place}")
    look_again()
    return problems


def still_lacking(plan: Plan) -> list[str]:
    """What a run of the plan would refuse."""
    reasons = (lacking(component) for component in components(plan))
    return list(dict.fromkeys(reason for reason in reasons if reason))


def components(plan: Plan) -> list[Component]:
    every = (component for stage in plan.stages.values() for component in stage.components)
    return list({repr(component): component for component in every}.values())


def lacking(component: Component) -> str | None:
    try:
        component.preflight()
    except FwError as error:
        return str(error)
    return None


def sized(need: Need) -> Need:
    try:
        return Need(need.component, need.download, need.download.size())
    except FwError as error:
        return Need(need.component, need.download, None, error)


def check_room(wanted: Iterable[Need]) -> None:
    sizes: dict[int, int] = defaultdict(int)
    places: dict[int, Path] = {}
    for need in wanted:
        folder = next(each for each in need.download.place.parents if each.is_dir())
        disk = folder.stat().st_dev
        sizes[disk] += need.size or 0
        places[disk] = folder
    for disk, size in sizes.items():
        if (free := shutil.disk_usage(places[disk]).free) < size:
            raise OutOfOrder(
                f"{decimal(size)} are to be fetched to {places[disk]}, where {decimal(free)} are "
                "free: free some space"
            )


@contextlib.contextmanager
def alone(place: Path) -> Iterator[None]:
    """While no other process fetches the same; PutOff if one does."""
    with writing(place):
        lease = leases.take(place.with_name(f".{place.name}.fetching"))
    try:
        yield
    finally:
        lease.release()


def fetched(need: Need, console: Console) -> None:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    pace = Pace(need.size)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(visible(need.name), total=need.size)

        def advance(count: int) -> None:
            bar.advance(task, count)
            if (line := pace.line(count)) and not console.is_terminal:
                say(console, f"fetching {need.name}: {line}")

        need.download.bring(advance)
