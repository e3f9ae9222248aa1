"""How long a plan's missing stages will take, and what room, by what earlier stages of their kind
in the same store took: their manifests say the seconds, the files and what each was made with."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from fw.core.plan.graph import Plan
from fw.core.stages.base import Stage
from fw.core.stages.train import TrainDenoiser
from fw.core.store.shorter import Shorter
from fw.core.store.store import Store

LENGTHS = {
    "encode": ("encoder.steps",),
    "prior": ("prior.steps",),
    "train": ("train.steps",),
    "sample": ("samples.count", "samples.seeds", "sampler.steps"),
}
"""What the time of a kind of stage is in proportion to, as its key has it; the product of
several."""

ROOMS = {"sample": ("samples.count", "samples.seeds")}
"""What the room of a product is in proportion to."""

ASIDE = ("inputs", "seed", "version", "stage")
"""What of a key tells nothing about time and room."""

ANOTHER = 100
"""How many differing settings a component of another name counts as."""


@dataclass(frozen=True)
class Estimate:
    """What a stage will take, about."""

    seconds: float
    size: float
    """Bytes."""
    kind: str
    basis: int
    """How many earlier stages of that kind it is from."""
    differing: tuple[str, ...]
    """In which parts of the key these differ from this one, lengths aside."""

    @property
    def why(self) -> str:
        apart = f", other {' and '.join(self.differing)}" if self.differing else ""
        return f"from {self.basis} earlier {self.kind} stage{'s' * (self.basis > 1)}{apart}"


@dataclass(frozen=True)
class Earlier:
    """A finished stage."""

    facts: Mapping[str, Any]
    """What its key is made of, by dotted names."""
    seconds: float
    size: int


def estimates(
    plan: Plan,
    missing: Collection[str],
    store: Store,
    device: str,
    begun: Mapping[str, Shorter],
) -> dict[str, Estimate | None]:
    """Those of the missing stages, some of which are trainings that go on; None where the store has
    no basis for one. `device` is `cpu` or `cuda`: a stage of the other is none."""
    kinds = {plan.stages[stage].kind for stage in missing}
    known: dict[str, list[Earlier]] = {kind: [] for kind in kinds}
    for stage in sorted(store.stages()):
        kind = stage.rpartition("-")[0]
        if kind in kinds and (each := earlier(store, stage, device)) is not None:
            known[kind].append(each)
    return {
        stage: estimate(plan.stages[stage], known[plan.stages[stage].kind], begun.get(stage))
        for stage in missing
    }


def earlier(store: Store, stage: str, device: str) -> Earlier | None:
    """A finished stage of the store, if its manifest can be read and it ran on such a device."""
    if not store.readable(stage):
        return None
    manifest = store.manifest(stage)
    try:
        if str(manifest["device"]).partition(":")[0] != device:
            return None
        size = sum(int(file["bytes"]) for file in manifest["files"].values())
        return Earlier(dict(flat(manifest["payload"])), float(manifest["seconds"]), size)
    except (LookupError, TypeError, ValueError, AttributeError):  # of before these were kept
        return None


def estimate(stage: Stage, known: list[Earlier], begun: Shorter | None) -> Estimate | None:
    """From the nearest of its kind: those that differ from it in the fewest settings."""
    facts = dict(flat(stage.payload))
    lengths, rooms = LENGTHS.get(stage.kind, ()), ROOMS.get(stage.kind, ())
    apart = [(differences(facts, each.facts, lengths), each) for each in known]
    least = min((distance(names) for names, _ in apart), default=None)
    if least is None:
        return None
    nearest = [(names, each) for names, each in apart if distance(names) == least]
    seconds = [each.seconds * ratio(facts, each.facts, lengths) for _, each in nearest]
    sizes = [each.size * ratio(facts, each.facts, rooms) for _, each in nearest]
    parts = dict.fromkeys(name.partition(".")[0] for names, _ in nearest for name in names)
    return Estimate(
        left(stage, begun) * median(seconds),
        median(sizes),
        stage.kind,
        len(nearest),
        tuple(parts),
    )


def left(stage: Stage, begun: Shorter | None) -> float:
    """The share of a stage that is to be done: less than 1 of a training that goes on from a
    shorter one."""
    if begun is None:
        return 1.0
    assert isinstance(stage, TrainDenoiser)
    return 1 - begun.steps / stage.train.steps


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The settings of a key by dotted names; lists are settings."""
    for name, entry in value.items():
        if isinstance(entry, Mapping):
            if path or name not in ASIDE:
                yield from flat(entry, f"{path}{name}.")
        elif name not in ASIDE:
            yield f"{path}{name}", entry


def differences(
    one: Mapping[str, Any], other: Mapping[str, Any], lengths: Collection[str]
) -> list[str]:
    """The settings in which they differ, but for lengths."""
    names = dict.fromkeys([*one, *other])
    return [name for name in names if name not in lengths and one.get(name) != other.get(name)]


def distance(names: Collection[str]) -> int:
    return sum(ANOTHER if name.endswith(".name") else 1 for name in names)


def ratio(one: Mapping[str, Any], other: Mapping[str, Any], lengths: Collection[str]) -> float:
    """How many times as long one is as the other."""
    product = 1.0
    for name in lengths:
        mine, theirs = one.get(name), other.get(name)
        if isinstance(mine, int) and isinstance(theirs, int) and theirs:
            product *= mine / theirs
    return product


def together(plan: Plan, seconds: Mapping[str, float], jobs: int) -> float:
    """How long these stages take with so many jobs side by side, the most urgent first, each after
    its inputs."""
    waiting = {stage: set(plan.stages[stage].inputs.values()) & seconds.keys() for stage in seconds}
    running: list[tuple[float, str]] = []
    now = 0.0
    while waiting or running:
        ready = [stage for stage, inputs in waiting.items() if not inputs]
        for stage in sorted(ready, key=lambda each: -plan.priority(each))[: jobs - len(running)]:
            del waiting[stage]
            heapq.heappush(running, (now + seconds[stage], stage))
        now, ended = heapq.heappop(running)
        for inputs in waiting.values():
            inputs.discard(ended)
    return now
