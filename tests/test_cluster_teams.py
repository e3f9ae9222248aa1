"""A team over several nodes of a simulated Ray cluster makes the bits of a team of one machine, also
when a node is lost; a run can wait for a node that has room."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sites
import team_faults
import toys
from rich.console import Console
from test_executor import planned
from test_team_faults import Heard, descendants, digests, doomed, executed

from fw.core.errors import FwError
from fw.core.execution.executor import Outcome
from fw.core.execution.executors import RAY
from fw.core.execution.local import Local
from fw.core.execution.options import Options, places
from fw.core.plan.graph import Plan
from fw.core.store.store import Store

os.environ.update(RAY)
ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'fw[cluster]'")
cluster_utils = pytest.importorskip("ray.cluster_utils", reason="Ray can simulate no nodes here")

from ray.util import placement_group_table  # noqa: E402

from fw.core.execution import cluster  # noqa: E402  # after Ray's settings

SETTINGS = {"health_check_period_ms": 500, "health_check_failure_threshold": 4}


class Nodes:
    """Three nodes, two of which have room for two ranks; the driver's has none."""

    def __init__(self, fates: Path):
        self.fates = fates
        self.ray = cluster_utils.Cluster()
        self.add(1, _system_config=SETTINGS)
        self.others = [self.add(2) for _ in range(2)]

    def add(self, cpus: int, **more: Any) -> Any:
        return self.ray.add_node(
            num_cpus=cpus, object_store_memory=80 * 2**20, include_dashboard=False, **more
        )


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """The cluster, connected to this process; nodes can import the toys."""
    fates = tmp_path_factory.mktemp("fates")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(toys.__file__).parent))
        patch.setenv(team_faults.PLAN, str(fates))
        simulated = Nodes(fates)
        try:
            cluster.connect(simulated.ray.address)
            yield simulated
        finally:
            ray.shutdown()
            simulated.ray.shutdown()


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The products of a team of four on one machine."""
    root = tmp_path_factory.mktemp("straight")
    assert executed(doomed(), root, Heard(), ranks=4).failed == {}
    return digests(doomed(), root)


class Placed(Heard):
    """Remembers on which nodes Ray holds room when a stage is under way, and can do something once
    a training has come so far."""

    def __init__(self, at: int = 0, act: Any = None):
        super().__init__(self.moved)
        self.spread: dict[str, set[str]] = {}
        self.at_step, self.act = at, act
        self.lost = ""

    def moved(self, label: str, done: int) -> None:
        held = [
            set(room["bundles_to_node_id"].values())
            for room in placement_group_table().values()
            if room["state"] == "CREATED"
        ]
        for each in held:
            self.spread[label] = each
        if label == "train" and done >= self.at_step and self.act is not None:
            act, self.act = self.act, None
            act(held[0])

    def failed(self, stage: str, reason: str) -> None:
        self.said.append(reason)


@contextlib.contextmanager
def clustered(out: Path, work: Plan, **more: Any) -> Iterator[cluster.Cluster]:
    options = Options(out, device="cpu", checkpoint_seconds=0, cluster="auto", **more)
    Store(options.store).create()
    with cluster.checked(options, work, (), Console(file=io.StringIO())) as executor:
        yield executor


def spread(out: Path, work: Plan, heard: Heard, stopping: Any = lambda: False) -> Outcome:
    with clustered(out, work, ranks=4, nodes=2) as executor:
        return executor.run(work, (), heard, stopping)


def test_a_team_over_two_nodes_makes_the_bits_of_a_team_of_one_machine(
    nodes: Nodes, straight: dict[str, str], tmp_path: Path
) -> None:
    work, heard = doomed(), Placed()
    assert spread(tmp_path, work, heard) == Outcome(), heard.said
    assert heard.said == []
    assert digests(work, tmp_path / "store") == straight
    store = Store(tmp_path / "store")
    shared = [stage for stage in work.stages.values() if stage.teams]
    assert {(store.manifest(s.id)["ranks"], store.manifest(s.id)["nodes"]) for s in shared} == {
        (4, 2)
    }
    assert heard.spread["train"] == {each.node_id for each in nodes.others}
    assert all(room["state"] == "REMOVED" for room in placement_group_table().values())
