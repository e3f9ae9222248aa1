"""Which finished stages of a plan can be built on: those that are intact and were made from the
store's own inputs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from rich.console import Console

from fw.core.errors import FwError
from fw.core.messages.console import say
from fw.core.plan.graph import Plan
from fw.core.stages.base import Stage
from fw.core.store.store import Store


def usable_stages(
    plan: Plan, store: Store, console: Console, keep_dependents: bool = False
) -> list[str]:
    """The plan's stages that need no work. Corrupted ones are discarded, with a message.

    A stage whose input has to be made again is not among them. Once the input is there, it turns
    out whether the stage was made from the same.
    """
    for stage in plan.stages.values():
        store.adopt(stage.id, stage.inputs.values())
    usable: list[str] = []
    for stage in plan.stages.values():
        if not whole(stage, store, console):
            continue
        store.sweep(stage.id)
        if keep_dependents or (
            set(stage.inputs.values()) <= set(usable) and not store.stale(stage.id)
        ):
            usable.append(stage.id)
    return usable


def whole(stage: Stage, store: Store, console: Console) -> bool:
    """Whether the stage's product is there. A corrupted one is discarded, with a message."""
    status = store.status(stage.id)
    if status.state != "corrupted":
        return status.state == "done"
    with store.lock(stage.id, waiting=lambda: None, stopping=lambda: False):
        if store.status(stage.id).state == "corrupted":  # no other run has mended it meanwhile
            store.discard(stage.id)
    say(
        console,
        f"{stage.title}: corrupted in the store, {status.reason}; doing it again",
        style="yellow",
    )
    return False


def check_inputs(
    run: Path, plan: Plan, titles: Mapping[str, str], store: Store, console: Console
) -> None:
    """FwError unless these stages of a run, titles by id, are finished; a warning where they do
    not belong together."""
    for stage, title in titles.items():
        if store.status(stage).state != "done":
            raise FwError(f"{run}: {title} is not finished; run the recipe first")
    for text in mixtures(plan, store, titles):
        say(console, f"warning: {text}; the same recipe run again makes them fit", style="yellow")


def mixtures(plan: Plan, store: Store, titles: Mapping[str, str] | None = None) -> Iterator[str]:
    """A text for each of the stages, titles by id and by default all of the plan, that was made
    from other products than the store now has."""
    known = {stage.id: stage.title for stage in plan.stages.values()}
    for stage, title in (known if titles is None else titles).items():
        if store.present(stage):
            for source in store.stale(stage):
                yield (
                    f"{title}: it was made of another product of '{known.get(source, source)}' "
                    "than the one in the store"
                )


def disappeared(plan: Plan, store: Store, unfinished: Collection[str]) -> dict[str, str]:
    """The stages that were finished and whose product is no longer there, with the reason."""
    gone = (
        "its product is gone from the store; was it deleted meanwhile? The same command makes it "
        "again"
    )
    return {
        stage: gone for stage in plan.stages if stage not in unfinished and not store.present(stage)
    }
