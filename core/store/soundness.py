"""Which finished stages of a plan can be built on: those that are intact and were made from the
store's own inputs.

What a run starts with is judged by manifests, sizes and the checksums of small files. Whether large
ones are intact turns out when a stage reads them, which may be never.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from rich.console import Console

from fw.core.errors import FwError, Held
from fw.core.messages.console import say
from fw.core.plan.graph import Plan
from fw.core.stages.base import Stage
from fw.core.store.store import Status, Store


def usable_stages(
    plan: Plan,
    store: Store,
    console: Console,
    keep_dependents: bool = False,
    every_byte: bool = False,
) -> list[str]:
    """The plan's stages that need no work. Corrupted ones are discarded, with a message; whoever
    reads all products afterwards has `every_byte` compared.

    A stage whose input has to be made again is not among them. Once the input is there, it turns
    out whether the stage was made from the same.
    """
    for stage in plan.stages.values():
        store.adopt(stage.id, stage.inputs.values())
    usable: list[str] = []
    for stage in plan.stages.values():
        if not whole(stage, store, console, store.verify if every_byte else store.reportable):
            continue
        store.sweep(stage.id)
        store.clear(stage.id)
        if keep_dependents or (
            set(stage.inputs.values()) <= set(usable) and not store.stale(stage.id)
        ):
            usable.append(stage.id)
    return usable


def whole(stage: Stage, store: Store, console: Console, judge: Callable[[str], Status]) -> bool:
    """Whether the stage's product is there. A corrupted one is discarded, with a message."""
    status = judge(stage.id)
    if status.state == "corrupted":
        discard_damaged(stage.id, store)
        say(console, f"{stage.title}: {again(status.reason)}", style="yellow")
    return status.state == "done"


def discard_damaged(stage: str, store: Store) -> None:
    """Discard a damaged product, if no other run has mended it meanwhile."""
    while store.verify(stage).state == "corrupted":
        try:
            with store.lease(stage):
                if store.verify(stage).state == "corrupted":
                    store.discard(stage)
        except Held:  # whoever works on it looks first at what is there
            time.sleep(0.1)


def again(reason: str) -> str:
    return f"corrupted in the store, {reason}; doing it again"


def check_inputs(
    run: Path, plan: Plan, titles: Mapping[str, str], store: Store, console: Console
) -> None:
    """FwError unless these stages of a run, titles by id, are finished; a warning where they do
    not belong together."""
    for stage, title in titles.items():
        status = store.verify(stage)
        if status.state == "absent":
            raise FwError(f"{run}: {title} is not finished; run the recipe first")
        if status.state == "corrupted":
            raise FwError(
                f"{run}: {title} is damaged in the store, {status.reason}: discard it with `fw "
                f"verify {store.root} --discard`, and run the recipe again"
            )
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
    """The stages that were finished and whose product is no longer there, or cannot be reported,
    with the reason."""
    gone = "its product is gone from the store; was it deleted meanwhile?"
    states = {stage: store.reportable(stage) for stage in plan.stages if stage not in unfinished}
    return {
        stage: f"{gone if state == 'absent' else reason}; the same command makes it again"
        for stage, (state, reason) in states.items()
        if state != "done"
    }
