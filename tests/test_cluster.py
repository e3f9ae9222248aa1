"""A simulated Ray cluster of three nodes makes the same bits as one machine; what is lost, stopped,
damaged or blind is dealt with in one sentence."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sites
import toys
from rich.console import Console
from test_executor import Heard, annotate, planned, products

from fw.core.errors import FwError
from fw.core.execution.executor import STOPPED, Executor, Outcome
from fw.core.execution.executors import RAY, chosen
from fw.core.execution.local import Local
from fw.core.execution.options import Options
from fw.core.plan.assembly import plan
from fw.core.plan.graph import Plan
from fw.core.recipe.loading import validate
from fw.core.recipe.source import parse
from fw.core.store.store import Store
from fw.registry import LocalPlugin, add_files

os.environ.update(RAY)
ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'fw[cluster]'")
cluster_utils = pytest.importorskip("ray.cluster_utils", reason="Ray can simulate no nodes here")

from fw.core.execution import cluster, cluster_nodes  # noqa: E402  # after Ray's settings

COIN = "arms.coin={annotator: coin}"


class Nodes:
    """Three nodes with a CPU each, started in folders of their own."""

    def __init__(self, root: Path):
        self.ray = cluster_utils.Cluster()
        self.folders = [root / str(number) for number in range(3)]
        settings = {
            "health_check_period_ms": 500,
            "health_check_failure_threshold": 4,
            "idle_worker_killing_time_threshold_ms": 600_000,
        }
        self.started: list[Any] = []
        for number, folder in enumerate(self.folders):
            folder.mkdir()
            with contextlib.chdir(folder):
                node = self.ray.add_node(
                    num_cpus=1,
                    object_store_memory=80 * 2**20,
                    include_dashboard=False,
                    **({} if number else {"_system_config": settings}),
                )
            self.started.append(node)

    def remove(self, name: str) -> bool:
        """Kill the node that a stage said it runs on; False if it is the one with the driver."""
        for node in self.started[1:]:
            if node.node_id[:6] in name:
                self.ray.remove_node(node, allow_graceful=False)
                return True
        return False


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """The cluster, connected to this process; nodes can import the toys."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(toys.__file__).parent))
        simulated = Nodes(tmp_path_factory.mktemp("nodes"))
        try:
            cluster.connect(simulated.ray.address)
            yield simulated
        finally:
            ray.shutdown()
            simulated.ray.shutdown()


@contextlib.contextmanager
def clustered(
    out: Path, work: Plan, plugins: Sequence[LocalPlugin] = ()
) -> Iterator[cluster.Cluster]:
    options = Options(out, device="cpu", checkpoint_seconds=0, cluster="auto")
    Store(options.store).create()
    with cluster.checked(options, work, plugins, Console(file=io.StringIO())) as executor:
        yield executor


class Placed(Heard):
    """Also remembers where stages ran."""

    def __init__(self, stop_at: str | None = None):
        super().__init__(stop_at)
        self.nodes: dict[str, str] = {}

    def started(self, stage: str, node: str = "") -> None:
        super().started(stage, node)
        self.nodes[stage] = node


def do(executor: Executor, work: Plan, heard: Heard, finished: Sequence[str] = ()) -> Outcome:
    return executor.run(work, finished, heard, lambda: heard.stop)


def locally(out: Path, work: Plan) -> Outcome:
    store = out / "store"
    Store(store).create()
    place = cluster.place_of(Options(out, "cpu", checkpoint_seconds=0, cluster="auto"), [], ())
    return do(Local([place]), work, Heard())


def digests(store: Path, work: Plan) -> dict[str, str]:
    return Store(store).digests(work.stages)


class Both(NamedTuple):
    """What one machine and the cluster made of a recipe with a stage that fails."""

    work: Plan
    stores: tuple[Path, Path]
    outcomes: tuple[Outcome, Outcome]
    heard: Placed


@pytest.fixture(scope="module")
def both(nodes: Nodes, tmp_path_factory: pytest.TempPathFactory) -> Both:
    work, heard = planned(COIN, "arms.broken={annotator: broken}"), Placed()
    here, there = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("there")
    alone = locally(here, work)
    with clustered(there, work) as executor:
        together = do(executor, work, heard)
    return Both(work, (here / "store", there / "store"), (alone, together), heard)


def test_a_cluster_makes_the_same_bits_as_one_machine(both: Both) -> None:
    here, there = both.stores
    finished = both.heard.ends
    assert len(finished) >= 12
    assert Store(here).digests(finished) == Store(there).digests(finished)
    assert products(here) == products(there)
    assert sorted(both.heard.starts) == sorted([*finished, *both.outcomes[1].failed])
    trained = [arm.train for arm in both.work.arms.values() if arm.train in finished]
    assert [both.heard.logged[train] for train in trained] == [[0, 3]] * len(trained)


def test_stages_are_spread_over_the_nodes_each_after_its_inputs(both: Both) -> None:
    ends, store = both.heard.ends, Store(both.stores[1])
    assert len(set(both.heard.nodes.values())) == 3
    for stage in ends:
        inputs = both.work.stages[stage].inputs.values()
        assert all(ends.index(source) < ends.index(stage) for source in inputs)
        assert store.manifest(stage)["node"] == both.heard.nodes[stage]


def test_a_failing_stage_is_said_as_on_one_machine_and_takes_the_same_stages_with_it(
    both: Both,
) -> None:
    (here, there), stores = both.outcomes, both.stores
    mine, theirs = here.failure(both.work), there.failure(both.work)
    assert mine is not None
    assert theirs is not None
    assert str(theirs).replace(str(stores[1]), str(stores[0])) == str(mine)
    assert theirs.exit_code == mine.exit_code == 1
    assert set(there.skipped) == set(here.skipped) != set()


def test_a_stage_that_kills_its_process_is_tried_again_and_then_a_failed_one(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "TRIES", 1)
    work = planned("arms={dead: {annotator: deadly}}", "baseline=dead")
    heard = Placed()
    with clustered(tmp_path, work) as executor:
        outcome = do(executor, work, heard)
    dead = annotate(work, "dead")
    assert outcome.failed == {dead: "its process died 2 times: was there too little memory?"}
    assert any("Ray runs it again, on " in text for text in heard.said)


def test_a_damaged_input_is_made_again_and_then_the_stage_that_would_have_read_it(
    nodes: Nodes, tmp_path: Path
) -> None:
    work = planned("arms={self_1.0: {}}", "baseline=self_1.0")
    assert locally(tmp_path, work) == Outcome()
    store = Store(tmp_path / "store")
    before = digests(store.root, work)
    reader = annotate(work, "self_1.0")
    (source,) = work.stages[reader].inputs.values()
    again = {reader, *after(work, reader)}
    for stage in again:
        store.discard(stage)
    flip(store.path(source) / "features.safetensors")
    heard = Placed()
    with clustered(tmp_path, work) as executor:
        outcome = do(executor, work, heard, [stage for stage in work.stages if stage not in again])
    assert outcome == Outcome()
    assert any("corrupted in the store" in text for text in heard.said)
    assert set(heard.ends) == {source, *after(work, source)}
    assert digests(store.root, work) == before


def test_a_plugin_that_is_a_file_travels_to_the_nodes(nodes: Nodes, tmp_path: Path) -> None:
    registry = toys.registry()
    file = sites.write(tmp_path / "my.py", sites.GUIDANCE.format(name="mine"))
    plugin = LocalPlugin.read(file)
    add_files(registry, [plugin])
    source = parse(toys.RECIPE, "r.yaml")
    source.set(["arms={mine: {guidance: {name: mine, scale: 1.5}}}", "baseline=mine"])
    work = plan(validate(source, registry))
    file.unlink()
    with clustered(tmp_path, work, [plugin]) as executor:
        assert do(executor, work, Placed()) == Outcome()


def test_a_stop_cancels_everything_and_is_obeyed_by_what_runs(nodes: Nodes, tmp_path: Path) -> None:
    work = planned("arms={endless: {annotator: endless}}", "baseline=endless")
    endless = annotate(work, "endless")
    heard = Placed(stop_at=endless)
    with clustered(tmp_path, work) as executor:
        outcome = do(executor, work, heard)
    assert outcome == Outcome(stopped=True)
    assert not {endless, *after(work, endless)} & set(heard.ends)
    assert Store(tmp_path / "store").partial(endless).exists()
    assert not list((tmp_path / "store").glob(".cluster-*"))


def test_a_node_that_does_not_see_the_store_is_refused_by_name(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shared").mkdir()
    for folder in nodes.folders[:2]:
        (folder / "shared").symlink_to(tmp_path / "shared")
    (nodes.folders[2] / "shared").mkdir()  # another folder under the same path
    blind = nodes.started[2].node_id[:6]
    monkeypatch.chdir(tmp_path)
    here = Path("/proc/self/cwd/shared")  # which is another in each process
    with pytest.raises(FwError) as refused, clustered(here, planned()):
        raise AssertionError
    assert f"({blind}) does not see the store {here / 'store'}" in str(refused.value)
    assert "--out" in str(refused.value)


def test_a_node_with_another_fw_is_refused_and_one_with_another_torch_is_said(
    nodes: Nodes, tmp_path: Path
) -> None:
    alive = [node for node in ray.nodes() if node["Alive"]]
    console = Console(file=io.StringIO(), width=500)
    with cluster_nodes.prepared(tmp_path, []) as visit:
        older = dataclasses.replace(visit, software={**visit.software, "torch": "1.0"})
        cluster.check(alive, older, console)
        assert isinstance(console.file, io.StringIO)
        assert "for 1.0 here: results may differ" in console.file.getvalue()
        other = dataclasses.replace(visit, software={**visit.software, "fw": "0.1"})
        with pytest.raises(FwError, match=r"node .* has fw: .*, and the run 0.1; install"):
            cluster.check(alive, other, console)


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        ({"jobs": 2}, "--workers"),
        ({"device": "cuda:1"}, "--device cuda"),
        ({"cluster": "ray://head:10001"}, "host:port"),
        ({"cluster": "127.0.0.2:1"}, "no Ray cluster can be reached"),
    ],
)
def test_what_means_nothing_on_a_cluster_is_refused(
    tmp_path: Path, change: dict[str, Any], remedy: str
) -> None:
    options = dataclasses.replace(Options(tmp_path, cluster="auto"), **change)
    with pytest.raises(FwError, match=remedy), chosen(options, planned(), (), (), Console()):
        raise AssertionError


def test_without_ray_it_is_said_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not there
    options = Options(tmp_path, cluster="auto")
    refused = pytest.raises(FwError, match=r"pip install 'fw\[cluster\]'")
    with refused, chosen(options, planned(), (), (), Console()):
        raise AssertionError


@pytest.mark.parametrize(
    ("change", "lacking"),
    [
        ({"device": "cuda"}, "1 CPU and 1 GPU"),
        ({"threads": 33, "ranks": 3}, "99 CPU"),
        ({"max_memory": 2**50}, "1 CPU and .* of memory"),
    ],
)
def test_what_no_node_has_is_refused(
    nodes: Nodes, tmp_path: Path, change: dict[str, Any], lacking: str
) -> None:
    options = dataclasses.replace(Options(tmp_path, cluster="auto"), **change)
    refused = pytest.raises(FwError, match=f"no node has {lacking} for a stage")
    with refused, cluster.checked(options, Plan(), (), Console()):
        raise AssertionError


class Losing(Placed):
    """Removes the node of a stage that is held, and lets all go when it is elsewhere."""

    def __init__(self, nodes: Nodes, until: Path):
        super().__init__()
        self.cluster = nodes
        self.until = until
        self.lost: list[str] = []
        self.elsewhere = ""

    def started(self, stage: str, node: str = "") -> None:
        super().started(stage, node)
        if not self.lost and stage.startswith("annotate") and self.cluster.remove(node):
            self.lost.append(stage)

    def told(self, stage: str, text: str) -> None:
        super().told(stage, text)
        if "Ray runs it again, on " in text:
            self.elsewhere = text.rpartition(" on ")[2]
            self.until.touch()


def test_a_stage_of_a_node_that_is_lost_is_done_on_another(nodes: Nodes, tmp_path: Path) -> None:
    until = tmp_path / "until"
    held = [
        f"held_{n}: {{annotator: {{name: held, sides: {n}, until: '{until}'}}}}" for n in (2, 3)
    ]
    work = planned(f"arms={{{', '.join(held)}}}", "baseline=held_2")  # one of them not at the head
    heard = Losing(nodes, until)
    with clustered(tmp_path / "there", work) as executor:
        assert do(executor, work, heard) == Outcome()
    (lost,) = heard.lost
    assert heard.elsewhere not in ("", heard.nodes[lost])
    assert locally(tmp_path / "here", work) == Outcome()
    here, there = tmp_path / "here" / "store", tmp_path / "there" / "store"
    assert Store(here).digests(work.stages) == Store(there).digests(work.stages)


@pytest.mark.skipif(sys.platform != "linux", reason="processes are counted in /proc")
def test_ctrl_c_checkpoints_ends_with_130_and_leaves_no_process(tmp_path: Path) -> None:
    sites.toy_recipe(tmp_path)
    with sites.site(tmp_path / "site"):
        environment = {
            **os.environ,
            "PYTHONPATH": f"{tmp_path / 'site'}:{Path(toys.__file__).parent}",
        }
    long = ("--set", "train.steps=1000000", "--set", "arms={plain: {annotator: null}}")
    process = subprocess.Popen(
        [sys.executable, "-m", "fw.core", "run", "toy.yaml", "--cluster", "local", *long],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith("start  train"):
            time.sleep(1)
            os.killpg(process.pid, signal.SIGINT)
    assert process.wait() == 130, said
    assert STOPPED in "".join(said[-2:]), said
    assert list((tmp_path / "runs" / "store").glob("train-*.partial/train.checkpoint"))
    for _ in range(300):
        if not (left := in_session(process.pid)):
            break
        time.sleep(0.1)
    assert left == []


def in_session(leader: int) -> list[str]:
    """The command lines of the living processes of a session."""
    left = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(ValueError, OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader and fields[0] != "Z":
                left.append((folder / "cmdline").read_text().replace("\0", " "))
    return left


def after(work: Plan, stage: str) -> set[str]:
    direct = {other.id for other in work.stages.values() if stage in other.inputs.values()}
    return direct.union(*(after(work, other) for other in direct))


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
