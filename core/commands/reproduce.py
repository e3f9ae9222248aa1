"""`fw reproduce`: are a run's scores what its stored samples and features give, bit for bit?

The stages that make scores are done once more, by the very components, in a folder beside the store
that is deleted afterwards. They read what the store has, after its checksums were compared, and are
reported as any run's are; that report is compared with run.json.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from fw.core.commands.logged import logged_plugins, logged_recipe
from fw.core.errors import FwError
from fw.core.execution.options import Options, places
from fw.core.execution.place import Place
from fw.core.execution.stage import perform
from fw.core.messages.console import say
from fw.core.messages.plain import plain
from fw.core.messages.secrets import redact
from fw.core.plan.assembly import plan as plan_all
from fw.core.plan.graph import Plan
from fw.core.report import provenance
from fw.core.report.agreement import Line, bits, fault, scores
from fw.core.report.collect import collect
from fw.core.run.board import Board
from fw.core.run.finished import FinishedRun, stored
from fw.core.stages.base import Stage
from fw.core.stages.evaluate import Evaluate
from fw.core.stages.features import SampleFeatures
from fw.core.stages.reference import MeasureReference
from fw.core.store.anew import Anew
from fw.registry.errors import in_one_line

ANEW = "--again runs the recipe anew"


@dataclass(frozen=True)
class Request:
    """How scores are made once more."""

    from_samples: bool = False
    """Whether also the features of samples, and what was measured of real images."""
    device: str = "auto"
    threads: int | None = None


def recompute(run: FinishedRun, request: Request, console: Console) -> list[Line]:
    """What was logged beside what comes of it today. FwError if no score can be made once more."""
    logged = run.results()
    recipe = logged_recipe(run, logged)
    if not run.store.root.is_dir():
        raise FwError(
            f"{run.path}: there is no {run.store.root}, so the run's samples and their features "
            f"are not at hand, and a tracker keeps pictures of a few alone; {ANEW}"
        )
    plan = plan_all(recipe)
    evaluations = list(logged_evaluations(logged, plan))
    if not evaluations:
        raise FwError(f"{run.path}: it has no scores yet; run its recipe again")
    anew = [*beneath(evaluations, plan), *evaluations] if request.from_samples else evaluations
    with tempfile.TemporaryDirectory(prefix="fw-reproduce-", ignore_cleanup_errors=True) as folder:
        options = Options(Path(folder), request.device, 1, request.threads)
        [place] = places(options, 1, logged_plugins(run))
        names = names_before(run, logged, plan)
        store = Anew(options.store, run.store, {stage.id for stage in anew}, names)
        for text in notes(evaluations, store, place):
            say(console, f"note: {text}", style="yellow")
        with Board(plan, store, console) as board:
            again = Again(plan, store, place, board)
            for stage in anew:
                again.make(stage)
        if all(stage.id in again.failed for stage in evaluations):
            reasons = dict.fromkeys(again.failed.values())
            raise FwError("\n".join(f"{run.path}: {reason}" for reason in reasons))
        made, kept = (
            collect(recipe, plan, provenance.record(plan), each, {})
            for each in (store, Anew(options.store, run.store, (), names))
        )
        judged = [*(stage.sample for stage in evaluations), *beneath(evaluations, plan)]
        return [
            *unsound([*judged, *evaluations], plan, store),
            *remade([stage for stage in anew if stage not in evaluations], plan, store),
            *scores(logged, made, again.reasons(evaluations), kept),
        ]


def logged_evaluations(logged: Mapping[str, Any], plan: Plan) -> Iterator[Evaluate]:
    """The plan's stages that made scores which run.json has."""
    for stage in plan.stages.values():
        if isinstance(stage, Evaluate):
            entries = (logged["arms"].get(arm, {}) for arm in plan.users(stage.id))
            keys = {key for entry in entries for key in entry.get("metrics", {})}
            if not keys.isdisjoint(stage.metric.keys):
                yield stage


def beneath(evaluations: Sequence[Evaluate], plan: Plan) -> list[Stage]:
    """What they read that is made of stored images, without a training."""
    ids = {stage.id for one in evaluations for stage in (one.features, one.reference) if stage}
    return [stage for stage in plan.stages.values() if stage.id in ids]


def names_before(run: FinishedRun, logged: Mapping[str, Any], plan: Plan) -> dict[str, str]:
    """What the stages up to the samples are called in the store, where a version was raised since
    the run."""
    return {
        today: before
        for name, arm in plan.arms.items()
        if (key := logged["arms"].get(name, {}).get("sample_key"))
        for today, before in stored(arm.drawn, str(key), run.store)
        if today != before and not run.store.path(today).exists()
    }


def notes(evaluations: Sequence[Evaluate], store: Anew, place: Place) -> Iterator[str]:
    """Why scores may differ although nobody changed them."""
    if store.names:
        yield (
            "the run was made before fw changed some of its results (see the changelog), and "
            "scores are made as today"
        )
    there = [stage.id for stage in evaluations if store.base.readable(stage.id)]
    kind = place.device.partition(":")[0]
    for device in sorted({str(store.base.manifest(stage).get("device", kind)) for stage in there}):
        if device.partition(":")[0] != kind:
            yield f"scores were made on {device}, and on {place.device} bits may differ"


@dataclass
class Again:
    """Makes stages once more, each after those that it reads."""

    plan: Plan
    store: Anew
    place: Place
    board: Board
    failed: dict[str, str] = field(default_factory=dict)
    """Why stages could not be made, by their ids."""

    def make(self, stage: Stage) -> None:
        lacking = next(filter(None, map(self.lacking, read_by(stage))), None)
        if lacking is not None:
            self.failed[stage.id] = lacking
            return
        self.board.started(stage.id)
        try:
            with self.store.lease(stage.id) as lease:
                perform(stage, self.store, {}, self.place, self.board, lambda: False, lease)
        except Exception as error:  # one metric, which may be anybody's, hides no other's scores
            words = str(error) if isinstance(error, FwError) else plain(error)
            reason = redact(words or in_one_line(error))
            self.failed[stage.id] = f"{stage.title}: {reason}"
            self.board.failed(stage.id, reason)
        else:
            self.board.done(stage.id)

    def lacking(self, source: Stage) -> str | None:
        """Why a product cannot be read; None if it can."""
        if source.id in self.store.anew:
            return self.failed.get(source.id)
        state, reason = self.store.verify(source.id)
        if state == "done":
            return None
        what = "not in the store" if state == "absent" else f"damaged in the store, {reason}"
        of_images = isinstance(source, SampleFeatures | MeasureReference)
        remedy = "--from-samples makes it of stored images, " if of_images else ""
        return f"'{source.title}' is {what}; {remedy}{ANEW}"

    def reasons(self, evaluations: Sequence[Evaluate]) -> dict[tuple[str, str], str]:
        """Why there are no scores, by arm and key."""
        return {
            (arm, key): self.failed[stage.id]
            for stage in evaluations
            if stage.id in self.failed
            for arm in self.plan.users(stage.id)
            for key in stage.metric.keys
        }


def read_by(stage: Stage) -> list[Stage]:
    """What it reads; an evaluation reads features of samples, and not these themselves."""
    unread = stage.sample if isinstance(stage, Evaluate) else None
    return [source for _, source in stage.reads if source is not unread]


def unsound(stages: Sequence[Stage], plan: Plan, store: Anew) -> Iterator[Line]:
    """Products in the store that are not as they were stored, or not of what lies beside them."""
    titles = {store.before(stage.id): stage.title for stage in plan.stages.values()}
    for stage in dict.fromkeys(stages):
        reason = store.damage(stage.id)
        reasons = [f"damaged in the store, {reason}"] if reason else []
        for source in store.replaced(stage.id):
            reasons.append(f"made of another '{titles.get(source, source)}' than the store has")
        yield from (fault(plan.users(stage.id), stage.title, each) for each in reasons)


def remade(stages: Sequence[Stage], plan: Plan, store: Anew) -> Iterator[Line]:
    """Whether these products came out as the store has them."""
    for stage in stages:
        if (digests := store.digests_of(stage.id)) is not None:
            yield bits(plan.users(stage.id), stage.title, *digests)
