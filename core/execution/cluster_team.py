"""A team over several nodes of a Ray cluster: the task of the first node has an actor on each other
one begin the members there, and hears them.

Ray holds room on as many nodes for it, all at once, and looks for another node when one is lost.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util import get_current_placement_group, get_node_ip_address
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from torch.distributed import TCPStore

from fw.core.errors import Interrupted, StageFailed
from fw.core.execution.cluster_nodes import Visit, arrived, unfit
from fw.core.execution.crew import LocalCrew, Lost, Meeting
from fw.core.execution.executor import STOPPED
from fw.core.execution.member import Done, Failed, Stopped
from fw.core.execution.place import Place
from fw.core.execution.together import Call, Companions
from fw.core.machine.leases import Right
from fw.core.machine.stopping import shelter_resource_tracker
from fw.core.machine.streams import sturdy
from fw.core.stages.base import Stage
from fw.registry.global_state import undisturbed

POLL = 0.2
"""Seconds between two looks whether a node has begun."""

PATIENT = 20.0
"""Seconds until it is said that room is awaited."""

ANSWER = 2.0
"""Seconds after which a node that was asked counts as one that does not answer."""

CLOSING = 30.0
"""Seconds that a node may take to end what it has begun."""


class Follower:
    """An actor on another node than the first: it lends its crew."""

    def __init__(self) -> None:
        self.crew: LocalCrew | None = None

    def begin(
        self,
        pickled: bytes,
        folder: Path,
        place: Place,
        right: Right,
        meeting: Meeting,
        visit: Visit,
    ) -> tuple[str, str]:
        """Start the members of this node: its name, and a reason if it cannot be."""
        sturdy()
        shelter_resource_tracker()
        if reason := unfit(visit):
            return here(), reason
        with undisturbed():
            for plugin in place.plugins:
                plugin.load()
        stage: Stage = ForkingPickler.loads(pickled)
        for source in stage.inputs.values():
            arrived(place.store, source)
        self.crew = LocalCrew(stage, folder, place, right, meeting)
        return here(), ""

    def hear(self) -> tuple[list[tuple[int, Any]], bool]:
        assert self.crew is not None
        return self.crew.hear(), self.crew.over

    def stop(self) -> None:
        if self.crew is not None:
            self.crew.stop()

    def end(self) -> None:
        if self.crew is not None:
            self.crew.end()

    def close(self) -> None:
        if self.crew is not None:
            self.crew.close()


@dataclass
class FarCrew:
    """The crew of another node, as the first one hears it; see `Crew`."""

    actor: Any
    ranks: range
    node: str = ""
    """Its name, once it has begun."""
    over: bool = False
    _question: Any = None
    _since: float = 0.0
    _silent: set[int] = field(default_factory=set)
    """Members that have not said how they end."""

    def __post_init__(self) -> None:
        self._silent = set(self.ranks)

    @property
    def answers(self) -> bool:
        return self._question is None or time.monotonic() - self._since < ANSWER

    def hear(self) -> list[tuple[int, Any]]:
        if self.over:
            return []
        try:
            if self._question is None:
                self._since = time.monotonic()
                self._question = self.actor.hear.remote()
            if not ray.wait([self._question], timeout=0)[0]:
                return []
            words, self.over = ray.get(self._question)
        except RayError:
            self.over = True
            return [(min(self._silent), Lost(None, self.node))] if self._silent else []
        self._question = None
        self._silent -= {rank for rank, word in words if isinstance(word, Done | Stopped | Failed)}
        return words

    def stop(self) -> None:
        self.actor.stop.remote()

    def end(self) -> None:
        self.actor.end.remote()

    def close(self) -> None:
        with contextlib.suppress(RayError):
            if self.node:
                ray.get(self.actor.close.remote(), timeout=CLOSING)
        ray.kill(self.actor)


@dataclass(frozen=True)
class Spread:
    """Has the crews of other nodes begin; a `Gather` of core/execution/together.py."""

    pickled: bytes
    """The stage."""
    visit: Visit

    @contextlib.contextmanager
    def __call__(self, call: Call) -> Iterator[Companions]:
        address = get_node_ip_address()
        store = TCPStore(address, 0, is_master=True, wait_for_workers=False, multi_tenant=True)
        endpoint = f"{address}:{store.port}"
        each = call.place.ranks // call.place.nodes
        crews = [
            FarCrew(actor(call.place, node), range(node * each, (node + 1) * each))
            for node in range(1, call.place.nodes)
        ]
        with contextlib.ExitStack() as last:
            for crew in crews:
                last.callback(crew.close)
            self._begin(call, crews, endpoint)
            yield Companions(crews, Meeting(endpoint, 0))

    def _begin(self, call: Call, crews: list[FarCrew], endpoint: str) -> None:
        begun = {
            crew.actor.begin.remote(
                self.pickled,
                call.folder,
                replace(call.place, node=""),
                call.right,
                Meeting(endpoint, number),
                self.visit,
            ): crew
            for number, crew in enumerate(crews, 1)
        }
        since, said = time.monotonic(), False
        while awaited := ray.wait([*begun], num_returns=len(begun), timeout=POLL)[1]:
            if call.stopping():
                raise Interrupted(STOPPED)
            if not said and time.monotonic() - since > PATIENT:
                said = True
                text = f"waiting for room on {len(awaited)} of {call.place.nodes} nodes"
                call.listener.told(call.stage.id, text)
        for ref, crew in begun.items():
            with contextlib.suppress(RayError):  # it is lost already, which is heard
                crew.node, reason = ray.get(ref)
                if reason:
                    raise StageFailed(f"node {crew.node} {reason}")


def resources(place: Place, ranks: int) -> dict[str, float]:
    """What Ray sets aside for so many processes on one node; memory in bytes."""
    needs = {"CPU": place.threads, "GPU": int(place.device != "cpu"), "memory": place.max_memory}
    return {kind: float(ranks * each) for kind, each in needs.items() if each}


def actor(place: Place, node: int) -> Any:
    """A follower on one of the nodes that Ray holds for this task."""
    needs = resources(place, place.ranks // place.nodes)
    held = get_current_placement_group()
    assert held is not None
    strategy = PlacementGroupSchedulingStrategy(held, placement_group_bundle_index=node)
    options = {
        "num_cpus": needs["CPU"],
        "num_gpus": needs.get("GPU", 0),
        "memory": needs.get("memory"),
        "scheduling_strategy": strategy,
    }
    return ray.remote(Follower).options(**options).remote()


def here() -> str:
    """The node that this process runs on, in words."""
    return f"{get_node_ip_address()} ({ray.get_runtime_context().get_node_id()[:6]})"
