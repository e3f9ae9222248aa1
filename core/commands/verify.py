"""`fw verify`: which stored products are not as they were stored, byte by byte."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import track

from fw.core.errors import FwError
from fw.core.files.layout import RUN_FILE, STORE
from fw.core.run.finished import FinishedRun
from fw.core.store.soundness import discard_damaged
from fw.core.store.store import INPUTS, Store


def verify(path: Path, discard: bool) -> Iterator[tuple[str, str]]:
    """The damaged products of a store, or of a run, with what is wrong with them; they are
    discarded on request."""
    store, stages = products(path)
    console = Console(stderr=True)
    for stage in track(
        sorted(stages), "reading", console=console, transient=True, disable=not console.is_terminal
    ):
        status = store.verify(stage)
        if status.state == "corrupted":
            if discard:
                discard_damaged(stage, store)
            yield stage, status.reason


def products(path: Path) -> tuple[Store, set[str]]:
    """The store that a path leads to, and the products there, all of them or those of one run."""
    for folder in (path, path / STORE):
        if stages := Store(folder).stages():
            return Store(folder), stages
    if path.name == RUN_FILE or (path / RUN_FILE).exists():
        run = FinishedRun(path)
        arms = (run.record().get("arms") or {}).values()
        samples = {str(arm["sample_key"]) for arm in arms if "sample_key" in arm}
        return run.store, of_run(run.store, samples)
    raise FwError(
        f"{path} is neither a runs folder with a store in it, nor a store, nor a run's folder"
    )


def of_run(store: Store, samples: Iterable[str]) -> set[str]:
    """The samples and the products that they were made of; what was found out about these, and what
    that was made of."""
    inputs = {stage: made_of(store, stage) for stage in store.stages()}
    drawn = set(samples) & inputs.keys()
    own = with_inputs(drawn, inputs)
    read = set().union(*inputs.values())
    scored = {stage for stage in inputs if inputs[stage] & drawn}
    probed = {stage for stage in inputs.keys() - read if inputs[stage] and inputs[stage] <= own}
    return with_inputs(own | scored | probed, inputs)


def with_inputs(stages: set[str], inputs: dict[str, set[str]]) -> set[str]:
    whole: set[str] = set()
    while stages:
        whole |= stages
        stages = {each for stage in stages for each in inputs[stage] & inputs.keys()} - whole
    return whole


def made_of(store: Store, stage: str) -> set[str]:
    """What a product was made of; nothing if its manifest cannot be read."""
    return set(store.manifest(stage).get(INPUTS, {})) if store.readable(stage) else set()
