"""Which finished training in the store a longer one goes on from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from fw.core.stages.base import Stage
from fw.core.stages.continuing import STATE, steps_done
from fw.core.stages.train import TrainDenoiser
from fw.core.store.store import INPUTS, Store


class Shorter(NamedTuple):
    """A finished training that is the beginning of another."""

    steps: int
    id: str
    kept: bool
    """Whether it kept what a training goes on with."""


def shorter(stage: Stage, store: Store) -> Shorter | None:
    """The furthest that a stage may go on from, one that kept its state before one that did not;
    None if there is none, or the recipe does not say that trainings go on."""
    if not isinstance(stage, TrainDenoiser) or not stage.goes_on:
        return None
    found = candidates(stage, store)
    return max(found, key=lambda each: (each.kept, each.steps), default=None)


def going_on(stages: Iterable[Stage], store: Store) -> dict[str, Shorter]:
    """The trainings of these that go on from a finished one, and from which."""
    found = ((stage.id, shorter(stage, store)) for stage in stages)
    return {stage: each for stage, each in found if each is not None and each.kept}


def stateless(stages: Iterable[Stage], store: Store) -> Iterator[str]:
    """A text for each finished training that is to go on, and was finished before that was said."""
    for stage in stages:
        wanted = isinstance(stage, TrainDenoiser) and stage.goes_on
        if wanted and STATE not in store.manifest(stage.id)["files"]:
            yield (
                f"{stage.title} was finished without train.keep, so its optimizer is gone: more "
                "steps begin again at step 0"
            )


def candidates(stage: TrainDenoiser, store: Store) -> Iterator[Shorter]:
    sources = set(stage.inputs.values())
    if not all(map(store.readable, sources)):
        return
    made_of = store.digests(sources)
    for name in store.stages():
        if not name.startswith(f"{stage.kind}-") or not store.present(name):
            continue
        manifest = store.manifest(name)
        steps = steps_done(stage.train, stage.payload, manifest["payload"])
        if steps and manifest.get(INPUTS, {}) == made_of:
            yield Shorter(steps, name, STATE in manifest["files"])
