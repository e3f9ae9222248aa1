"""A team over several nodes of a simulated Ray cluster makes the bits of a team of one machine,
also when a node is lost; a run can wait for a node that has room."""

from __future__ import annotations

import contextlib
import io
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import team_faults
import toys
from rich.console import Console
from test_executor import planned
from test_team_faults import Heard, digests, doomed, executed

from fw.core.errors import FwError
from fw.core.execution.devices import known_nodes, known_ranks
from fw.core.execution.executor import Executor, Outcome
from fw.core.execution.executors import RAY
from fw.core.execution.options import Options, places
from fw.core.plan.graph import Plan
from fw.core.store.store import Store

os.environ.update(RAY)
ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'fw[cluster]'")
cluster_utils = pytest.importorskip("ray.cluster_utils", reason="Ray can simulate no nodes here")

from ray.util import placement_group_table  # noqa: E402

from fw.core.execution import cluster  # noqa: E402  # after Ray's settings

pytestmark = pytest.mark.timeout(900)  # a minute on a machine of one's own

QUIET = Console(file=io.StringIO())
OURS = f"{team_faults.PLAN}_NODES={os.getpid()}".encode()
"""In the environment of what the nodes start."""

SETTINGS = {"health_check_period_ms": 500, "health_check_failure_threshold": 4}


class Nodes:
    """Three nodes, each with room for one rank, and that of the driver, which has none."""

    def __init__(self, fates: Path):
        self.fates = fates
        self.ray = cluster_utils.Cluster()
        self.add(0, _system_config=SETTINGS)
        self.others = [self.add(1) for _ in range(3)]

    def add(self, cpus: int, **more: Any) -> Any:
        return self.ray.add_node(
            num_cpus=cpus, object_store_memory=80 * 2**20, include_dashboard=False, **more
        )

    def remove(self, identity: str) -> None:
        (node,) = (each for each in self.others if each.node_id == identity)
        self.others.remove(node)
        self.ray.remove_node(node, allow_graceful=False)

    def plan(self, *fates: str) -> None:
        """What is to happen to members; see team_faults."""
        for fate in fates:
            (self.fates / fate).touch()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """The cluster, connected to this process; nodes can import the toys."""
    fates = tmp_path_factory.mktemp("fates")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(toys.__file__).parent))
        patch.setenv(team_faults.PLAN, str(fates))
        patch.setenv(*OURS.decode().split("="))
        simulated = Nodes(fates)
        try:
            cluster.connect(simulated.ray.address)
            yield simulated
        finally:
            ray.shutdown()
            simulated.ray.shutdown()


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The products of a team of two on one machine."""
    root = tmp_path_factory.mktemp("straight")
    assert executed(doomed(), root, Heard()).failed == {}
    return digests(doomed(), root)


class Placed(Heard):
    """Remembers on which nodes the training's team is, and is called back at its first progress on
    each set of nodes."""

    def __init__(self, act: Callable[[set[str]], None] = lambda nodes: None):
        super().__init__(self.moved)
        self.teams: list[set[str]] = []
        self.leader = ""
        self.act = act

    def moved(self, label: str, done: int) -> None:
        held = [
            set(room["bundles_to_node_id"].values())
            for room in placement_group_table().values()
            if room["state"] == "CREATED"
        ]
        team = next((each for each in held if any(map(self.leads, each))), None)
        if label == "train" and team is not None and team not in self.teams:
            self.teams.append(team)
            self.act(team)

    def started(self, stage: str, node: str = "") -> None:
        if stage.startswith("train"):
            self.leader = node

    def told(self, stage: str, text: str) -> None:
        super().told(stage, text)
        if stage.startswith("train") and "Ray runs it again, on " in text:
            self.leader = text

    def failed(self, stage: str, reason: str) -> None:
        self.said.append(reason)

    def leads(self, identity: str) -> bool:
        return f"({identity[:6]})" in self.leader


@contextlib.contextmanager
def clustered(out: Path, work: Plan, console: Console = QUIET, **more: Any) -> Iterator[Executor]:
    options = Options(out, device="cpu", checkpoint_seconds=0, cluster="auto", **more)
    Store(options.store).create()
    with cluster.checked(options, work, (), console) as executor:
        yield executor


def test_a_team_over_two_nodes_that_loses_one_and_then_the_first_makes_the_bits_of_one_machine(
    nodes: Nodes, straight: dict[str, str], tmp_path: Path
) -> None:
    nodes.plan("1 training 2 hang", "0 training 2 hang")
    work, store = doomed(), Store(tmp_path / "store")

    def lose(team: set[str]) -> None:
        """First the node that does not lead, then the one that does, then no more."""
        first = len(heard.teams) == 1
        if len(heard.teams) <= 2:
            nodes.remove(next(each for each in team if heard.leads(each) is not first))
            nodes.others.append(nodes.add(1))

    heard = Placed(lose)
    with clustered(tmp_path, work, ranks=2, nodes=2) as executor:
        assert executor.run(work, (), heard, lambda: False) == Outcome(), heard.said
    assert digests(work, store.root) == straight
    assert [len(team) for team in heard.teams] == [2, 2, 2]
    (lost, again) = heard.said
    assert re.fullmatch(r"node .* with rank 1 of 2 was lost; its 2 ranks begin again", lost)
    assert "its node or process was lost; Ray runs it again, on " in again
    shared = [store.manifest(stage.id) for stage in work.stages.values() if stage.teams]
    assert {(each["ranks"], each["nodes"]) for each in shared} == {(2, 2)}
    assert all(room["state"] == "REMOVED" for room in placement_group_table().values())


def test_a_team_over_two_nodes_that_is_stopped_keeps_its_steps_and_leaves_no_process(
    nodes: Nodes, tmp_path: Path
) -> None:
    stop = threading.Event()
    work = doomed("train.steps=1000000")
    heard = Placed(lambda team: stop.set())
    with clustered(tmp_path, work, ranks=2, nodes=2) as executor:
        outcome = executor.run(work, (), heard, stop.is_set)
    assert outcome == Outcome(stopped=True)
    assert list((tmp_path / "store").glob("train-*.partial/train.checkpoint"))
    until(lambda: members() == [])
    assert all(room["state"] == "REMOVED" for room in placement_group_table().values())


def test_what_has_no_room_is_refused_or_waited_for(nodes: Nodes, tmp_path: Path) -> None:
    work = planned("arms={plain: {annotator: null}}")
    with (
        pytest.raises(FwError, match="no node has 2 CPU for a stage; --wait waits for one"),
        clustered(tmp_path, work, threads=2),
    ):
        raise AssertionError
    with (
        pytest.raises(FwError, match="3 nodes have 1 CPU, and a stage takes 4 of these"),
        clustered(tmp_path, work, ranks=4, nodes=4),
    ):
        raise AssertionError
    said = Console(file=io.StringIO(), width=200)
    with clustered(tmp_path, work, said, threads=2, wait=True) as executor:
        late = threading.Timer(1, lambda: nodes.others.append(nodes.add(2)))
        late.start()
        assert executor.run(work, (), Placed(), lambda: False) == Outcome()
        late.join()
    assert isinstance(said.file, io.StringIO)
    assert "no node has 2 CPU for a stage yet: waiting for one" in said.file.getvalue()


def test_nodes_mean_nothing_without_a_cluster(tmp_path: Path) -> None:
    with pytest.raises(FwError, match="--ranks 2x4: the nodes are those of a Ray cluster"):
        places(Options(tmp_path, ranks=known_ranks("2x4"), nodes=known_nodes("2x4")), 1, ())


def members() -> list[str]:
    """The command lines of members that the nodes of this test have started."""
    lines = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if OURS in (folder / "environ").read_bytes():
                lines.append((folder / "cmdline").read_bytes().decode())
    return [line for line in lines if "spawn_main" in line]


def until(so: Callable[[], bool]) -> None:
    for _ in range(300):
        if so():
            return
        time.sleep(0.1)
    raise AssertionError
