"""What the recipe's tracker hears of a run, which goes on whatever the tracker makes of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fw.core.files.layout import RUN_FILE
from fw.core.job import fewer
from fw.core.plan.graph import ArmPlan, Plan
from fw.core.report.markdown import SECTIONS, note
from fw.core.report.runfile import RESOLVED
from fw.core.report.series import SWEEP
from fw.core.report.snapshots import CURVES, grids_file, snapshot_series
from fw.core.report.statistics import mean
from fw.core.run.calls import (
    Call,
    End,
    EndArm,
    Files,
    Model,
    Note,
    Opened,
    Scores,
    Series,
    Words,
    portable,
)
from fw.core.run.load import Load
from fw.core.run.telling import Teller
from fw.core.stages.base import Stage
from fw.core.store.store import Store


class Tracking:
    """Turns what happens into calls of the tracker. Without a tracker, and before it was begun, it
    does nothing."""

    def __init__(self, plan: Plan, store: Store, teller: Teller | None = None):
        self.plan = plan
        self.store = store
        self.teller = teller
        self.arms = logged_arms(plan)
        self.begun = False
        self.running: set[str] = set()
        self.load = Load(self.put, self.working)

    def begin(self, opened: Opened) -> None:
        """Begin to log; raises what the tracker raises, unless it may pass."""
        if self.teller is not None:
            journal = self.teller.journal
            journal.begin()
            earlier = journal.kept()
            self.teller.resume(earlier)
            self.begun = True
            self.put(opened)
            try:
                self.teller.begin()
            except Exception:
                self.begun = False
                if not earlier:
                    journal.path.unlink(missing_ok=True)  # nothing was done that could be logged
                raise
            if self.teller.watching:
                self.load.start()

    def started(self, stage: str) -> None:
        self.running.add(stage)

    def stopped(self, stage: str) -> None:
        self.running.discard(stage)

    def working(self) -> list[str]:
        """The arms that the running stages work for."""
        running = list(self.running)
        return list(dict.fromkeys(arm for stage in running for arm in self.users(stage)))

    def put(self, call: Call) -> None:
        if self.teller is not None and self.begun:
            self.teller.put(call)

    def metrics(self, stage: str, records: Sequence[Mapping[str, float]]) -> None:
        """Loss curves go to every arm whose model it is; an encoder's and a sibling's to the run as
        a whole."""
        arms = [name for name, arm in self.arms.items() if arm.train == stage]
        for arm in arms:
            self.put(Series(arm, list(records)))
        if not arms:
            self.put(Series(None, [named(self.plan.stages[stage], record) for record in records]))

    def done(self, stage: str) -> None:
        """All that a finished stage has to show; the tracker may know some of it already."""
        if not self.begun or self.store.reportable(stage).state != "done":
            return  # another run may be making it again
        folder = self.store.path(stage)
        if (folder / "log.jsonl").exists():
            lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
            self.metrics(stage, curves([json.loads(line) for line in lines]))
        if (folder / "grid.png").exists():
            for arm in dict.fromkeys([*self.first_of(stage), *self.users(stage)]):
                self.files(arm, [folder / "grid.png"])

    def first_of(self, stage: str) -> list[str]:
        """The arms whose first training has this stage: its images are those of the arm."""
        return [name for name, arm in self.plan.arms.items() if stage in arm.stages()]

    def users(self, stage: str) -> list[str]:
        """The arms, or trainings of arms, that have this stage themselves."""
        return [name for name, arm in self.arms.items() if stage in arm.stages()]

    def files(self, arm: str | None, paths: Sequence[Path]) -> None:
        self.put(Files(arm, [portable(path, self.store.root.parent) for path in paths]))

    def results(self, result: Mapping[str, Any], folder: Path, stopped: bool) -> None:
        """What was concluded, arm by arm and for the run as a whole, which has its record in
        `folder`."""
        self.running.clear()
        quality: dict[str, float] = {}
        words = verdict_words(result)
        for name, plan in self.plan.arms.items():
            entry = result["arms"][name]
            self.snapshots(name, plan, entry, folder)
            if name in words:  # before the arm is ended
                self.put(Words(name, words[name]))
            finished, unfinished = entry["status"] == "finished", "killed" if stopped else "failed"
            for training in names_of_trainings(name, plan):
                done = finished or self.has_finished(plan.trainings[training])
                status = "finished" if done else unfinished
                self.arm_results(
                    logged_name(name, training), training_scores(entry, training), status
                )
            scores = {**arm_scores(entry), **own_verdict(result, name)}
            self.arm_results(name, scores, "finished" if finished else unfinished)
            for section in SECTIONS:
                found = entry.get(section.name, {}).items()
                quality |= {f"{section.name}/{name}/{key}": value for key, value in found}
        self.put(Scores(None, {**quality, **verdict_scores(result)}))
        if None in words:
            self.put(Words(None, words[None]))
        names = ("report.md", RUN_FILE, RESOLVED, "arms.png", SWEEP, CURVES)
        documents = [folder / name for name in names]
        more = [*folder.glob("report.html"), *sorted(folder.glob("samples-*.png"))]
        others = [*more, *sorted(folder.glob("plugins/*.py"))]
        self.files(None, [path for path in (*documents, *others) if path.exists()])
        self.put(Note(note(result)))

    def snapshots(self, name: str, plan: ArmPlan, entry: Mapping[str, Any], folder: Path) -> None:
        """Scores and grids on the way of an arm's training."""
        if curves := snapshot_series(entry, len(plan.snapshots)):
            self.put(Series(name, curves))
        if (grids := folder / grids_file(name)).exists():
            self.files(name, [grids])

    def has_finished(self, training: ArmPlan) -> bool:
        """Whether one training of an arm has all its products, where another has not."""
        stages = training.stages()
        return len(self.store.finished(stages)) == len(stages)

    def arm_results(self, name: str, scores: Mapping[str, float], status: str) -> None:
        """Scores, model and end of an arm, or of one of its trainings."""
        if status == "finished":
            self.put(Scores(name, scores))
            if name in self.arms:
                self.put(Model(name, scores))
        self.put(EndArm(name, status))

    def end(self, status: str) -> bool:
        """End the tracked run, also where a failure kept the run from its end. True unless the
        tracker lacks something."""
        if self.teller is None or not self.begun:
            return True
        self.load.end()
        self.put(End(status))
        return self.teller.finish()

    @property
    def handle(self) -> dict[str, Any] | None:
        """What the tracker finds the run by; None if it could not be opened."""
        tracked = self.teller.tracked if self.teller is not None else None
        return None if tracked is None else dict(tracked.handle)

    @property
    def hint(self) -> str | None:
        """Where to look."""
        tracked = self.teller.tracked if self.teller is not None else None
        return None if tracked is None else tracked.hint


def logged_arms(plan: Plan) -> dict[str, ArmPlan]:
    """The arms of a plan and, where an arm is trained with several seeds, each of its trainings.
    The curves and the model of such an arm are those of its trainings."""
    arms: dict[str, ArmPlan] = {}
    for name, arm in plan.arms.items():
        trainings = names_of_trainings(name, arm)
        if not trainings:
            arms[name] = arm
        for seed, training in trainings.items():
            arms[training] = arm.trainings[seed]
    return arms


def names_of_trainings(name: str, arm: ArmPlan) -> dict[int, str]:
    """What an arm's trainings are called, by seed; nothing of an arm that is trained once."""
    seeds = list(arm.trainings)
    return {seed: logged_name(name, seed) for seed in seeds} if len(seeds) > 1 else {}


def logged_name(arm: str, seed: int | None) -> str:
    """What an arm, or its training with this seed, is called."""
    return arm if seed is None else f"{arm} seed {seed}"


def curves(records: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """The records of a log with at most `POINTS` points of every curve, its first and its last."""
    ends = {key: int(record["step"]) + 1 for record in records for key in record}
    return fewer(records, ends.__getitem__, {})


def named(stage: Stage, record: Mapping[str, float]) -> dict[str, float]:
    """Prefix a record's keys with the words of the title, so that no two encoders share a curve."""
    words = re.sub(r"[^\w.-]+", "/", stage.title)  # trackers refuse its commas
    prefix = f"{words}-{stage.key[:6]}"
    return {key if key == "step" else f"{prefix}/{key}": value for key, value in record.items()}


def arm_scores(entry: Mapping[str, Any]) -> dict[str, float]:
    """An arm's final metrics as the tracker shows them; the same keys for every arm, but for what
    probes read."""
    metrics = entry["metrics"].items()
    scores = {f"eval/{key}": score["mean"] for key, score in metrics}
    scores |= {f"std/{key}": score["std"] for key, score in metrics}
    floors = {key: score["floor"] for key, score in metrics}
    scores |= {f"floor/{key}": floor for key, floor in floors.items() if floor is not None}
    scores |= {f"probe/{key}": value for key, value in entry.get("probes", {}).items()}
    if "spread" in entry:
        exact = entry["spread"]
        scores |= {f"sampler/{key}": exact[key] for key in ("whole", "detail", "gain")}
    return scores | {"cost/nfe": entry["nfe"], "cost/seconds": entry["seconds"]}


def training_scores(entry: Mapping[str, Any], seed: int) -> dict[str, float]:
    """The means over sampling seeds of one training of an arm."""
    each = {
        key: score.get("trainings", {}).get(str(seed)) for key, score in entry["metrics"].items()
    }
    scores = {f"eval/{key}": mean(values) for key, values in each.items() if values}
    return scores | {"cost/nfe": entry["nfe"]}


def own_verdict(result: Mapping[str, Any], arm: str) -> dict[str, float]:
    """The numbers of an arm's own comparison with the baseline, to sort arms by."""
    prefix = f"verdict/{arm}/"
    return {
        f"verdict/{key.removeprefix(prefix)}": value
        for key, value in verdict_scores(result).items()
        if key.startswith(prefix) and "/" not in key.removeprefix(prefix)
    }


def verdict_scores(result: Mapping[str, Any]) -> dict[str, float]:
    """The verdict's numbers, by arm and, where it is not the baseline, by what it is compared
    with."""
    scores: dict[str, float] = {}
    for compared, prefix in comparisons(result):
        low, high = compared.get("interval") or (None, None)
        numbers = {
            "difference": compared.get("difference"),
            "low": low,
            "high": high,
            "p": compared.get("p"),
            "adjusted_p": compared.get("adjusted"),
            "spread": compared.get("spread"),
        }
        scores |= {f"{prefix}/{key}": value for key, value in numbers.items() if value is not None}
    return scores


def verdict_words(result: Mapping[str, Any]) -> dict[str | None, dict[str, str]]:
    """Decisions of the run as a whole (None) and of each arm: that against the baseline, or the
    first; and the arms' roles."""
    verdict = result.get("verdict") or {}
    words: dict[str | None, dict[str, str]] = {
        name: {"arm_role": arm["role"]} for name, arm in result["arms"].items() if "role" in arm
    }
    whole: dict[str, str] = {}
    for compared, prefix in comparisons(result):
        whole[prefix] = compared["decision"]
        own = words.setdefault(compared["arm"], {})
        if is_baseline(compared, result) or "decision" not in own:
            own["decision"] = compared["decision"]
            own["decision_against"] = compared["than"]
    if verdict.get("sentences"):
        whole["verdict"] = verdict["sentences"][0]
    return {**words, **({None: whole} if whole else {})}


def comparisons(result: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], str]]:
    """The verdict's comparisons, each with its place among a tracker's names."""
    for compared in (result.get("verdict") or {}).get("comparisons", ()):
        than = "" if is_baseline(compared, result) else f"/than {compared['than']}"
        yield compared, f"verdict/{compared['arm']}{than}"


def is_baseline(compared: Mapping[str, Any], result: Mapping[str, Any]) -> bool:
    """Whether an arm is compared with the baseline, or with that by the sampler that suits it."""
    return compared.get("role") == "baseline" or compared["than"] == result["baseline"]
