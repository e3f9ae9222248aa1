"""What a stage lends to a component: a device, its randomness, a scratch folder, and loops that
resume exactly.

`Job.steps` is the one training loop of fw. It yields step numbers, writes checkpoints of its state
beside the steps (core/files/checkpoints.py), and continues from the last after a crash. Resuming is
bit-exact on CPU because there is no other state: batches, noise and augmentations are functions of
(seed, step), torch's global generator included.

Several processes may do a job together (core/machine/team.py). Each has a `Job` of its own, of the
same folder: the first of them writes.

Whatever is read back after a crash was kept with its checksum (core/files/unfinished.py). What is
damaged is made again, with a message.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from shutil import copyfile
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from fw.core.errors import Interrupted, StageFailed
from fw.core.files import unfinished
from fw.core.files.checkpoints import Beside, Pace, copied
from fw.core.files.durable import write_text
from fw.core.machine.team import Team
from fw.core.randomness import Draws, forked, generator, seed_torch

Item = TypeVar("Item")

POINTS = 2000
"""The most points of a curve that a reporter gets; log.jsonl has them all."""

STOP, SAVE, LOG = 3.0, 2.0, 1.0
"""What is due between two steps; the largest that a member of the team says is done."""

STOPPED = "stopped; run the same command again to continue"


def fewer(
    records: Iterable[Mapping[str, float]], total: Callable[[str], int], last: dict[str, int]
) -> list[dict[str, float]]:
    """Records with at most `POINTS` points of each curve, of loops of `total` steps: the first in
    each of equal stretches, and the last.

    `last` has the last step at which each curve had a value before, and has it afterwards.
    """
    kept = []
    for record in records:
        step = int(record["step"])
        shown: dict[str, float] = {}
        for key, value in record.items():
            stretch = max(1, -(-total(key) // (POINTS - 1)))  # one point is left for the last step
            new = key not in last or step // stretch > last[key] // stretch
            if key != "step" and (new or step == total(key) - 1):
                shown[key] = value
            last[key] = step
        if shown:
            kept.append({"step": record["step"], **shown})
    return kept


class Stateful(Protocol):
    """A module, an optimizer, a scheduler."""

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state_dict: Any) -> Any: ...


class Reporter(Protocol):
    """Receives progress, logged values and messages."""

    def progress(self, label: str, done: int, total: int) -> None: ...

    def metrics(self, records: Sequence[Mapping[str, float]]) -> None: ...

    def say(self, text: str) -> None: ...


class Silent:
    """A reporter that does nothing; a job's, unless it gets another."""

    def progress(self, label: str, done: int, total: int) -> None:
        pass

    def metrics(self, records: Sequence[Mapping[str, float]]) -> None:
        pass

    def say(self, text: str) -> None:
        pass


@dataclass
class Job:
    """See the module's docstring. `folder` and the files in it outlive a crash, for the next
    try."""

    folder: Path
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    reporter: Reporter = field(default_factory=Silent)
    checkpoint_seconds: float = 20.0
    """The least time between checkpoints. 0 writes one after every step, and waits for it."""
    batch: int | None = None
    """Images that are sampled at once; None is as many as suit the device."""
    stopping: Callable[[], bool] = lambda: False
    holding: Callable[[], None] = lambda: None
    """Raises where another process has taken this work over, whose files these are now."""
    team: Team = field(default_factory=Team)
    """The processes that do this job together, and which of them this is."""
    warnings: list[str] = field(default_factory=list)
    """The texts of `warn`; they are kept with the product."""
    _records: list[dict[str, Any]] = field(default_factory=list, repr=False)
    _started: float = field(default_factory=time.monotonic, repr=False)
    _spent_before: float = field(default=0.0, repr=False)
    _reporting: float = field(default=0.0, repr=False)
    _total: int = field(default=0, repr=False)
    """The steps of the loop that is going on."""
    _split: bool = field(default=False, repr=False)
    """Whether what that loop logs is to be added up over the team."""
    _beside: Beside = field(default_factory=Beside, repr=False)
    """Writes files while the steps go on, one after the other."""
    _last: dict[str, int] = field(default_factory=dict, repr=False)
    """The last step of this loop at which each curve had a value."""
    _log: list[str] = field(default_factory=list, repr=False)
    """The lines of log.jsonl. Checkpoints hold them; further lines of the file are of steps that
    are done again."""

    @property
    def seconds(self) -> float:
        """Time spent on this job. It includes earlier tries up to their last checkpoint, and
        excludes reporting."""
        return self._spent_before + time.monotonic() - self._started - self._reporting

    def generator(self, *words: int | str, device: torch.device | str = "cpu") -> torch.Generator:
        """A generator that depends only on this job's seed and the words."""
        return generator(self.seed, *words, device=device)

    def draws(self, *words: int | str, rows: Sequence[int]) -> Draws:
        """Random numbers of a batch of images, which depend only on this job's seed, the words and
        the images' numbers."""
        return Draws(self.seed, *words, rows=rows)

    def track(self, items: Sequence[Item], label: str, together: bool = False) -> Iterator[Item]:
        """Iterate with a progress bar. Stops between items when the run has to stop; members of a
        team that do each item `together` stop at the same."""
        for done, item in enumerate(items):
            if self.team.any(self.stopping()) if together else self.stopping():
                raise Interrupted(STOPPED)
            yield item
            with self._off_the_clock():
                self.reporter.progress(label, done + 1, len(items))

    def steps(
        self, total: int, state: Mapping[str, Stateful], label: str = "train", split: bool = False
    ) -> Iterator[int]:
        """Yield the steps still to do of `total`, keeping `state` in
        `<folder>/<label>.checkpoint`.

        All members of a team do all steps. With `split` each does its rows of a batch, and what
        they log is added up; else each does the whole, and what the first logs counts.
        """
        start = self._restore(label, state)
        self._total, self._split = total, split
        self._last = {}
        if start:
            fewer(map(json.loads, self._log), lambda key: total, self._last)
        if start < total:
            self._rewrite_log()
        pace, beside = Pace(self.checkpoint_seconds), self._beside
        try:
            with forked():
                for step in range(start, total):
                    self._between(label, step, state, pace, fresh=step == start)
                    seed_torch(self.seed, label, step)
                    yield step
                    with self._off_the_clock():
                        self.reporter.progress(label, step + 1, total)
                    pace.costs(beside.spent())
            beside.wait()
        finally:
            beside.leave()
        self._save(label, total, state)
        self._split = False
        self.team.wait()

    def _between(
        self, label: str, step: int, state: Mapping[str, Stateful], pace: Pace, fresh: bool
    ) -> None:
        """Before a step, do what is due: stop, or write a checkpoint or the log. Nothing but a stop
        is, before the first."""
        due = 0.0
        if self.stopping():
            due = STOP
        elif self.team.leads and not fresh:
            save = pace.every_step or (pace.due and not self._beside.busy)
            due = SAVE if save else LOG if pace.log_due else 0.0
        (due,) = self.team.most([due])
        if due == STOP:
            self._beside.wait()
            self._save(label, step, state)
            raise Interrupted(STOPPED)
        if due == SAVE and pace.every_step:
            self._beside.wait()
            self._save(label, step, state)
        elif due == SAVE:
            self._save_beside(label, step, state, pace)
        elif due == LOG:
            self.flush()
            pace.wrote_log()

    def reached(self, label: str = "train") -> int:
        """The steps that an earlier try of a loop has behind it; 0 if it left no checkpoint. All
        members of a team ask."""
        path = self._checkpoint(label)
        if path is None:
            return 0
        with self._readable(path):
            return int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["step"])

    def restart(self, label: str = "train") -> None:
        """Forget what an earlier try of a loop has done."""
        if self.team.leads:
            unfinished.discard(self.folder / checkpoint_name(label))
        self.team.wait()

    def log(self, step: int, values: Mapping[str, Tensor | float]) -> None:
        """Record values of one step. Tensors stay on their device until the next checkpoint, so
        this never waits."""
        self._records.append(
            {
                "step": step,
                **{k: v.detach() if isinstance(v, Tensor) else v for k, v in values.items()},
            }
        )

    def say(self, text: str) -> None:
        """Tell the user at once, in one line. Of a team, the first does."""
        with self._off_the_clock():
            self.reporter.say(text)

    def warn(self, text: str) -> None:
        """Warn the user, at once and in every report, about this stage's product; one sentence."""
        if text not in self.warnings:
            self.warnings.append(text)
            self.say(text)

    def keep(self, name: str, write: Callable[[Path], object]) -> Path:
        """Make a file that a later try can rely on. `write` gets the path to write to; the file
        gets its name when it is whole."""
        self.holding()
        path = self.folder / name
        unfinished.keep(path, write, self.team.rank)
        return path

    def keep_state(self, name: str, label: str = "train") -> None:
        """Make the last checkpoint of a loop a file of the product. Of a team, the first does."""
        if self.team.leads:
            self.keep(name, partial(copyfile, self.folder / checkpoint_name(label)))

    def keep_beside(
        self,
        files: Mapping[str, Mapping[str, Tensor]],
        write: Callable[[Mapping[str, Tensor], Path], object],
    ) -> None:
        """Make such files, each of its tensors as they are now, beside the steps that follow: all
        are whole before a later checkpoint is begun. `write` gets tensors, on the CPU, and a
        path. Of a team, the first makes them."""
        if not self.team.leads:
            return
        twins, arrived = copied({name: dict(tensors) for name, tensors in files.items()})

        def work() -> None:
            arrived()
            for name, tensors in twins.items():
                self.keep(name, partial(write, tensors))

        self._beside.start(work, counted=False)

    def kept(self, name: str) -> Path | None:
        """A file that an earlier try kept; None if there is none. One that was damaged is
        discarded, with a message."""
        path = self.folder / name
        if unfinished.intact(path):
            return path
        if path.exists():
            self.say(f"{name} was damaged since it was written, and is made again")
            unfinished.discard(path)
        return None

    def finish(self) -> None:
        """Complete log.jsonl; nothing more is logged after this."""
        self.flush()
        self._rewrite_log()

    def flush(self) -> None:
        """Append what was logged to log.jsonl and report it. A value that is not finite ends the
        stage."""
        records, self._records = numbers(self._records), []
        if self._split:
            records = added(records, self.team)
        for record in records:
            for key, value in record.items():
                if not math.isfinite(value):
                    raise StageFailed(
                        f"{key} became {value} at step {record['step']}: lower the learning rate?"
                    )
        if records and self.team.leads:
            self.holding()
            lines = [json.dumps(record) + "\n" for record in records]
            with self._log_path.open("a", encoding="utf-8") as file:
                file.writelines(lines)
            self._log += lines
            shown = fewer(records, lambda key: self._total, self._last)
            with self._off_the_clock():
                self.reporter.metrics(shown)

    @contextlib.contextmanager
    def _off_the_clock(self) -> Iterator[None]:
        """Time of reporting does not count as time of the work: a reporter may be slow."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._reporting += time.monotonic() - began

    def _save(self, label: str, step: int, state: Mapping[str, Stateful]) -> None:
        """Write the log up to here, then the checkpoint: a crash in between only repeats steps,
        bit for bit."""
        self.flush()
        if self.team.leads:
            payload = self._payload(step, state)
            self.keep(checkpoint_name(label), partial(torch.save, payload))

    def _save_beside(
        self,
        label: str,
        step: int,
        state: Mapping[str, Stateful],
        pace: Pace,
    ) -> None:
        """The same, of a copy, beside the steps that follow."""
        began = time.monotonic()
        self.flush()
        if not self.team.leads:
            return
        payload, arrived = copied(self._payload(step, state))

        def write(path: Path) -> None:
            arrived()
            torch.save(payload, path)

        self._beside.start(partial(self.keep, checkpoint_name(label), write))
        pace.saved()
        pace.costs(time.monotonic() - began)

    def _payload(self, step: int, state: Mapping[str, Stateful]) -> dict[str, Any]:
        return {
            "step": step,
            "seconds": self.seconds,
            "log": "".join(self._log),
            "state": {name: part.state_dict() for name, part in state.items()},
        }

    def _checkpoint(self, label: str) -> Path | None:
        """The checkpoint that an earlier try kept. The first of a team looks, and discards what is
        damaged."""
        name = checkpoint_name(label)
        there = self.team.any(self.team.leads and self.kept(name) is not None)
        return self.folder / name if there else None

    def _restore(self, label: str, state: Mapping[str, Stateful]) -> int:
        path = self._checkpoint(label)
        if path is None:
            return 0
        with self._readable(path):
            payload = torch.load(path, map_location=self.device, weights_only=True)
            for name, part in state.items():
                part.load_state_dict(payload["state"][name])
            self._spent_before = max(self._spent_before, payload["seconds"])
            self._log = payload["log"].splitlines(keepends=True)
            return int(payload["step"])

    @staticmethod
    @contextlib.contextmanager
    def _readable(path: Path) -> Iterator[None]:
        """StageFailed if the checkpoint turns out to be none that can be continued from."""
        try:
            yield
        except Exception as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise StageFailed(
                f"{path} cannot be continued from ({reason}); delete it to start this stage again"
            ) from error

    @property
    def _log_path(self) -> Path:
        return self.folder / "log.jsonl"

    def _rewrite_log(self) -> None:
        """Drop the log of steps that are done again, and whatever else was done to the file."""
        if not self.team.leads:
            return
        text = "".join(self._log)
        current = self._log_path.read_bytes() if self._log_path.exists() else b""
        if current != text.encode():
            write_text(self._log_path, text)


def checkpoint_name(label: str) -> str:
    """The file of a loop's last checkpoint, in the job's folder."""
    return f"{label}.checkpoint"


def numbers(records: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """The records with numbers in place of tensors; a GPU is waited for once."""
    logged = [value for record in records for value in record.values()]
    afar = [value for value in logged if isinstance(value, Tensor) and value.is_cuda]
    fetched = iter(
        torch.stack([each.double().reshape(()) for each in afar]).tolist() if afar else []
    )

    def number(value: Tensor | float) -> float:
        return next(fetched) if isinstance(value, Tensor) and value.is_cuda else float(value)

    return [
        {key: value if key == "step" else number(value) for key, value in record.items()}
        for record in records
    ]


def added(records: Sequence[Mapping[str, float]], team: Team) -> list[dict[str, float]]:
    """The records, which name the same values for all members, with the sums of these."""
    values = [value for record in records for key, value in record.items() if key != "step"]
    sums = iter(team.added(values) if values else [])
    return [
        {key: value if key == "step" else next(sums) for key, value in record.items()}
        for record in records
    ]
