"""`fw sync`: a run's tracker is told what it missed, from the journal in the run's folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console

from fw.core.errors import FwError, StageFailed
from fw.core.kinds import Tracker
from fw.core.plan.assembly import plan
from fw.core.plan.graph import Plan
from fw.core.recipe.model import Recipe
from fw.core.run.calls import Call, End, Opened
from fw.core.run.finished import FinishedRun
from fw.core.run.journal import JOURNAL, Journal
from fw.core.run.models import Models
from fw.core.run.opening import teller
from fw.core.run.owner import owner
from fw.core.run.record import Turn, remember
from fw.core.run.telling import in_words
from fw.registry import UnknownComponent, installed


def journals(out: Path) -> Iterator[Path]:
    """The run folders in a runs folder that have a journal; `latest` is one of the others."""
    for file in sorted(out.glob(f"*/*/{JOURNAL}")):
        if not file.parent.is_symlink():
            yield file.parent


def sync(folder: Path, console: Console) -> bool:
    """Tell the run's tracker what it missed; False if that was nothing.

    FwError if the tracker does not answer, or if another process writes the run; StageFailed if it
    refuses a part.
    """
    folder = folder.resolve()
    journal = Journal(folder)
    if not journal.pending():  # nothing to write: the folder may be anybody's, and read-only
        return False
    with Turn(folder) as turn:
        if not turn.take():
            raise FwError(f"{folder}: {owner(folder)} writes this run's record; try again later")
        turn.ended = True
        calls = journal.pending()
        if calls:
            tell(calls, journal, folder, console)
        return bool(calls)


def tell(calls: list[Call], journal: Journal, folder: Path, console: Console) -> None:
    """Make the calls of a journal; a run whose process died before it said so has been killed."""
    opened = calls[0]
    if not isinstance(opened, Opened):
        raise FwError(f"{journal.path}: it does not say what run it is of; run its recipe again")
    journal.begin()
    tracker = tracker_of(opened)
    run = FinishedRun(folder)

    def planned() -> tuple[Recipe, Plan]:
        recipe = run.recipe()
        return recipe, plan(recipe)

    models = Models(run.store, planned, folder, console)
    telling = teller(tracker, folder, models, lambda text: None)  # all is said at the end
    telling.resume(calls)
    if not any(isinstance(call, End) for call in calls):
        telling.put(End("killed"))
    try:
        telling.begin(seconds=None)
    except Exception as error:
        raise FwError(f"{in_words(error)}; nothing is lost: try again later") from error
    arrived = telling.finish(hurried=False)
    if telling.tracked is not None:
        remember(tracker.name, telling.tracked.handle, opened.recipe, folder)
    if not arrived:
        refused = "; ".join(f"{call}: {reason}" for call, reason in telling.refused.items())
        reason = in_words(telling.failure) if telling.failure is not None else refused
        raise StageFailed(f"it did not take all ({reason}); nothing is lost: try again later")


def tracker_of(opened: Opened) -> Tracker:
    """The tracker that the run was meant for, with the secrets of the environment; FwError if it is
    not installed, or not with these fields."""
    fields = {key: value for key, value in opened.tracker.items() if key != "name"}
    try:
        tracker = installed().get("tracker", opened.tracker.get("name", "")).model_validate(fields)
    except UnknownComponent as error:
        remedy = "install the plugin that brings it, or name its file with --plugin"
        raise FwError(f"{error}; {remedy}") from None
    except ValidationError as error:
        reason = error.errors()[0]
        place = ".".join(map(str, reason["loc"]))
        raise FwError(
            f"the tracker '{opened.tracker['name']}' that is installed does not take what the run "
            f"was logged with: {place}: {reason['msg']}"
        ) from None
    assert isinstance(tracker, Tracker)
    return tracker
