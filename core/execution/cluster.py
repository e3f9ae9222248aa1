"""The executor of a Ray cluster: every stage is a task that waits for those of its inputs.

Ray decides where and when a task runs, and runs those of a lost node on another. What is decided
here is what a failure means: what needs a failed stage is taken back, and what was made of a
damaged product is handed in again behind it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.reduction import ForkingPickler
from typing import Any

import ray
from ray._private.services import canonicalize_bootstrap_address
from ray.exceptions import (
    OutOfMemoryError,
    RayError,
    RayTaskError,
    TaskCancelledError,
    WorkerCrashedError,
)
from ray.util import placement_group, remove_placement_group
from ray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)
from rich.console import Console

from fw.core.errors import FwError, StageFailed
from fw.core.execution import cluster_nodes
from fw.core.execution.cluster_nodes import Visit
from fw.core.execution.cluster_task import Undone, do
from fw.core.execution.cluster_team import resources
from fw.core.execution.executor import TRIES, Outcome, StageListener, beyond_mending
from fw.core.execution.mailbox import Mailbox
from fw.core.execution.options import LOCAL, Options
from fw.core.execution.place import Place
from fw.core.machine import memory
from fw.core.machine.cores import cores
from fw.core.machine.offline import SWITCHES
from fw.core.machine.stopping import POLITE, deaf
from fw.core.messages.console import say
from fw.core.plan.graph import Plan
from fw.core.report import provenance
from fw.core.stages.base import Stage
from fw.core.store.soundness import again
from fw.registry import LocalPlugin
from fw.registry.errors import in_one_line

POLL = 0.2
"""Seconds between two looks at the mailbox."""

VISIT = 120.0
"""Seconds that a node may take to answer: it starts a process that imports torch."""

KNOCK = 10.0
"""Seconds in which a cluster's head has to take a connection."""

OBJECTS = 100 * 2**20
"""Bytes of Ray's object store on one machine. Stages hand over nothing: products are files."""

HANGUP = [each for each in POLITE if each.name == "SIGHUP"]

INHERITED = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "FW_PLUGINS", *SWITCHES)
"""What of the environment every process of a run has to have."""


@contextlib.contextmanager
def connected(
    options: Options, plan: Plan, plugins: Sequence[LocalPlugin], console: Console
) -> Iterator[Cluster]:
    """The cluster of `options.cluster`, while there is a connection to it; FwError says why it
    cannot do the plan's stages."""
    assert options.cluster is not None
    connect(options.cluster)
    try:
        with checked(options, plan, plugins, console) as cluster:
            yield cluster
    finally:
        ray.shutdown()


@contextlib.contextmanager
def checked(
    options: Options, plan: Plan, plugins: Sequence[LocalPlugin], console: Console
) -> Iterator[Cluster]:
    """The cluster that is connected to, if each node with room for a stage is fit for this run."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    place = place_of(options, nodes, plugins)
    usable = [node for node in nodes if has_room(node, place, 1)]
    if reason := lacking(usable, place):
        if not options.wait:
            hint = "; --wait waits for one, if more nodes are to come"
            raise FwError(f"--cluster {options.cluster}: {reason}{hint}")
        say(console, f"{reason} yet: waiting for one, as long as it takes", style="yellow")
    packages = [
        cluster_nodes.plugin(provider)
        for provider in provenance.providers(plan)
        if provider.text is None  # files travel
    ]
    with cluster_nodes.prepared(options.store, packages) as visit:
        check(usable, visit, console)
        yield Cluster(place, visit)


def connect(address: str) -> None:
    """Connect to the cluster at an address, or start one here."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    before = signal.getsignal(signal.SIGTERM)
    options: dict[str, Any] = {"address": LOCAL}
    try:
        if address == LOCAL:
            options |= {"num_cpus": cores(), "object_store_memory": OBJECTS}
            options |= {"include_dashboard": False}
        else:
            options |= {"address": answering(address)}
        with deaf(HANGUP):  # a terminal that closes stops the run, which then ends Ray
            ray.init(
                **options,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": inherited},
            )
    except (RayError, RuntimeError, ConnectionError, ValueError, OSError) as error:
        raise FwError(
            f"--cluster {address}: no Ray cluster can be reached from here: {in_one_line(error)}"
        ) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def answering(address: str) -> str:
    """The address as host:port, if somebody answers there: Ray itself would try for minutes."""
    found = str(canonicalize_bootstrap_address(address))
    host, _, port = found.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=KNOCK):
        return found


def place_of(
    options: Options, nodes: Sequence[Mapping[str, Any]], plugins: Sequence[LocalPlugin]
) -> Place:
    """How each stage is run: on one GPU where the cluster has some, else on one CPU core."""
    rooms = [node["Resources"] for node in nodes]
    shares = [room.get("CPU", 0) // room["GPU"] for room in rooms if room.get("GPU", 0) >= 1]
    cuda = options.device == "cuda" or (options.device == "auto" and bool(shares))
    return Place(
        store=options.store,
        device="cuda:0" if cuda else "cpu",  # Ray shows a task its own GPU alone
        threads=options.threads or max(1, int(min(shares, default=1)) if cuda else 1),
        checkpoint_seconds=options.checkpoint_seconds,
        batch=options.batch,
        max_memory=options.max_memory,
        keep_dependents=options.keep_dependents,
        plugins=tuple(plugins),
        ranks=options.ranks or 1,
        nodes=options.nodes,
    )


def has_room(node: Mapping[str, Any], place: Place, ranks: int) -> bool:
    needs = resources(place, ranks)
    return all(node["Resources"].get(kind, 0) >= count for kind, count in needs.items())


def lacking(nodes: Sequence[Mapping[str, Any]], place: Place) -> str:
    """What the nodes have no room for; empty if a team has room."""
    each = place.ranks // place.nodes
    roomy = sum(has_room(node, place, each) for node in nodes)
    if roomy >= place.nodes:
        return ""
    if roomy == 0:
        return f"no node has {in_words(place, each)} for a stage"
    return f"{roomy} nodes have {in_words(place, each)}, and a stage takes {place.nodes} of these"


def in_words(place: Place, ranks: int) -> str:
    needs = resources(place, ranks)
    words = [f"{needs[kind]:g} {kind}" for kind in ("CPU", "GPU") if kind in needs]
    if "memory" in needs:
        words.append(f"{memory.in_words(int(needs['memory']))} of memory")
    return " and ".join(words)


def check(nodes: Iterable[Mapping[str, Any]], visit: Visit, console: Console) -> None:
    """Visit the nodes, all at once: FwError names one that cannot do the run's stages."""
    ask = ray.remote(num_cpus=0, max_retries=0)(cluster_nodes.answer)
    answers = {
        f"{node['NodeManagerAddress']} ({node['NodeID'][:6]})": (
            node["NodeID"],
            ask.options(scheduling_strategy=on(node["NodeID"])).remote(visit, node["NodeID"]),
        )
        for node in nodes
    }
    for name, (identity, ref) in answers.items():
        try:
            answer = ray.get(ref, timeout=VISIT)
        except RayError as error:
            raise FwError(f"--cluster: node {name} does not answer: {in_one_line(error)}") from None
        reason = answer.reason
        if not reason and not cluster_nodes.returned(visit, identity):
            reason = f"writes to another folder than {visit.folder.parent} here"
        if reason:
            raise FwError(f"--cluster: node {name} {reason}")
        if other := cluster_nodes.differences(visit, answer.software):
            text = f"node {name} has {other} here: results may differ in their last bits"
            say(console, f"warning: {text}", style="yellow")


def on(node: str) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node, soft=False)


@dataclass(frozen=True)
class Cluster:
    """The executor; see the module's docstring."""

    place: Place
    visit: Visit

    def run(
        self,
        plan: Plan,
        finished: Iterable[str],
        listener: StageListener,
        stopping: Callable[[], bool],
    ) -> Outcome:
        mailbox = ray.remote(num_cpus=0)(Mailbox)
        here = on(ray.get_runtime_context().get_node_id())  # where it ends with the run alone
        work = Work(
            plan,
            set(finished),
            listener,
            self.place,
            self.visit,
            mailbox.options(scheduling_strategy=here).remote(),
        )
        try:
            work.submit(stage for stage in plan.stages if stage not in work.finished)
            while work.pending or work.held:
                if stopping():
                    work.stop()
                ready, _ = ray.wait(
                    list(work.pending.values()), num_returns=len(work.pending), timeout=POLL
                )
                work.listen()
                work.settle(ready)
        except RayError as error:
            raise StageFailed(f"the Ray cluster was lost: {in_one_line(error)}") from error
        return work.outcome


@dataclass
class Work:
    """The tasks of a run, and what has become of them so far."""

    plan: Plan
    finished: set[str]
    listener: StageListener
    place: Place
    visit: Visit
    mailbox: Any
    outcome: Outcome = field(default_factory=Outcome)
    tasks: dict[str, Any] = field(default_factory=dict)
    """The last task of each stage that was handed in, as Ray knows it."""
    pending: dict[str, Any] = field(default_factory=dict)
    """Those whose end is not known yet."""
    begun: set[str] = field(default_factory=set)
    """Those that said so."""
    mended: set[str] = field(default_factory=set)
    """Stages that were done again because their products were damaged."""
    held: set[str] = field(default_factory=set)
    """Those that are not handed in yet: teams over several nodes, until their inputs are there,
    because Ray sets nodes aside for them at once; and what needs these."""
    rooms: dict[str, Any] = field(default_factory=dict)
    """The nodes that Ray holds for such teams."""
    stopped: bool = False

    def submit(self, stages: Iterable[str]) -> None:
        """Hand in stages, the most urgent first, which is never before its inputs."""
        for stage in sorted(stages, key=lambda stage: -self.plan.priority(stage)):
            if stage in self.outcome.skipped:
                continue
            if self.to_hold(stage):
                self.held.add(stage)
                continue
            self.held.discard(stage)
            try:
                pickled = bytes(ForkingPickler.dumps(self.plan.stages[stage]))
            except Exception as error:
                self.fail(stage, f"it cannot be sent to a worker process: {error}")
                continue
            self.begun.discard(stage)
            self.tasks[stage] = self.pending[stage] = self.task(self.plan.stages[stage], pickled)

    def to_hold(self, stage: str) -> bool:
        """Whether a stage is not to be handed in yet."""
        inputs = self.plan.stages[stage].inputs.values()
        if not self.held.isdisjoint(inputs):
            return True
        return self.spreads(stage) and not self.finished.issuperset(inputs)

    def spreads(self, stage: str) -> bool:
        """Whether several nodes do a stage together."""
        return self.place.nodes > 1 and self.plan.stages[stage].shared(self.place.device)

    def task(self, stage: Stage, pickled: bytes) -> Any:
        each = self.place.ranks // self.place.nodes if stage.shared(self.place.device) else 1
        needs = resources(self.place, each)
        options = {
            "name": stage.title,
            "num_cpus": needs["CPU"],
            "num_gpus": needs.get("GPU", 0),
            "memory": needs.get("memory"),
            "max_retries": TRIES,
            "retry_exceptions": False,
            "scheduling_strategy": "SPREAD",
        }
        if self.spreads(stage.id):
            room = placement_group([needs] * self.place.nodes, strategy="STRICT_SPREAD")
            self.rooms[stage.id] = room
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(room, 0)
        inputs = [self.tasks[each] for each in stage.inputs.values() if each in self.tasks]
        remote = ray.remote(do).options(**options)
        return remote.remote(stage.id, pickled, self.place, self.visit, self.mailbox, *inputs)

    def listen(self) -> None:
        """Pass on what the stages have reported."""
        for kind, stage, *rest in ray.get(self.mailbox.fetch.remote()):
            if stage not in self.pending:
                continue
            if kind == "started":
                self.settle_inputs(stage)
            if kind == "started" and stage in self.begun:
                text = f"its node or process was lost; Ray runs it again, on {rest[0]}"
                self.listener.told(stage, text)
            else:
                self.begun.add(stage)
                getattr(self.listener, kind)(stage, *rest)

    def settle_inputs(self, stage: str) -> None:
        """A stage has started, so its inputs are done, and that is said first."""
        inputs = self.plan.stages[stage].inputs.values()
        tasks = [self.pending[source] for source in inputs if source in self.pending]
        if tasks:
            self.settle(ray.wait(tasks, num_returns=len(tasks), timeout=0)[0])

    def settle(self, ready: Iterable[Any]) -> None:
        """Take in how tasks ended: each after its inputs, which may take it back."""
        ended = set(ready)
        for stage in self.plan.stages:
            if self.pending.get(stage) in ended:
                self.end(stage, self.pending.pop(stage))

    def end(self, stage: str, task: Any) -> None:
        self.vacate(stage)
        try:
            ray.get(task)
        except TaskCancelledError:
            self.halt(stage)
        except RayTaskError as error:
            self.undone(stage, error.cause)
        except OutOfMemoryError:
            remedy = "say with --max-memory how much a stage may take"
            self.fail(stage, f"its node ran out of memory {TRIES + 1} times: {remedy}")
        except WorkerCrashedError:
            self.fail(stage, f"its process died {TRIES + 1} times: was there too little memory?")
        except RayError as error:
            self.fail(stage, in_one_line(error))
        else:
            cluster_nodes.arrived(self.place.store, stage)
            self.finished.add(stage)
            self.listener.done(stage)
            if self.held:
                self.submit(list(self.held))

    def undone(self, stage: str, cause: Exception) -> None:
        if not isinstance(cause, Undone):
            self.fail(stage, in_one_line(cause))
            return
        kind, _, *rest = cause.args
        if kind == "stopped":
            self.halt(stage)
        elif kind == "damaged":
            self.mend(stage, *rest)
        else:
            self.fail(stage, *rest)

    def stop(self) -> None:
        """Cancel what is pending: what runs writes a checkpoint and ends."""
        if not self.stopped:
            self.stopped = True
            self.outcome.stopped |= bool(self.held)
            self.take_back(list(self.held))
            for task in self.pending.values():
                ray.cancel(task, recursive=False)  # a team ends its members on other nodes itself

    def vacate(self, stage: str) -> None:
        """Give back the nodes that were held for a stage."""
        if (room := self.rooms.pop(stage, None)) is not None:
            remove_placement_group(room)

    def halt(self, stage: str) -> None:
        self.outcome.stopped = True
        self.take_back(self.after({stage}))

    def fail(self, stage: str, reason: str) -> None:
        self.outcome.failed[stage] = reason
        lost = self.after({stage})
        self.take_back(lost)
        self.outcome.skipped += [each for each in lost if each not in self.outcome.skipped]
        self.listener.failed(stage, reason)

    def mend(self, stage: str, damaged: str, reason: str) -> None:
        """Have a damaged product made again, then what was made of it, the stage that would have
        read it, and what waits for these."""
        if damaged not in self.plan.stages or damaged in self.finished & self.mended:
            self.fail(stage, beyond_mending(damaged, reason))
            return
        if self.stopped:
            self.halt(stage)
            return
        back = {stage}
        if damaged in self.finished:  # else another stage has said so already
            self.listener.told(damaged, again(reason))
            self.mended.add(damaged)
            made = {damaged, *self.after({damaged})} & self.finished
            self.finished -= made
            back |= made
        behind = [each for each in self.after(back) if each in self.pending]
        behind = [each for each in behind if each not in self.begun]
        behind += [each for each in self.after(back) if each in self.held]
        self.take_back(behind)
        self.submit({*back, *behind})

    def after(self, stages: set[str]) -> list[str]:
        """The stages that need one of these, directly or not."""
        found: dict[str, Stage] = {}
        for stage in self.plan.stages.values():
            if not stages.union(found).isdisjoint(stage.inputs.values()):
                found[stage.id] = stage
        return list(found)

    def take_back(self, stages: Iterable[str]) -> None:
        """Cancel those of the stages that are pending or held, and forget their tasks."""
        for stage in stages:
            self.held.discard(stage)
            if (task := self.pending.pop(stage, None)) is not None:
                ray.cancel(task, recursive=False)
                self.vacate(stage)
