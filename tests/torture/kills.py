"""Kill runs at random moments, run them again, and compare every byte with an undisturbed run.

Most are struck at a random one of their file operations, in whichever process that falls; some at
a random time. Half work in this number of processes, half in worker processes of their own.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torture import launch, trap
from torture.tally import Tally, command, traceback_in
from torture.undisturbed import Undisturbed, differences, run_words, running, undisturbed

KINDS = (
    *("wrong result", "traceback", "RUNNING", "litter", "exit code", "stuck", "orphans"),
    *("tracker differs", "missing file"),
)


@dataclass(frozen=True)
class Way:
    """How a run is killed. `polite` ones are promised to be tidied up after at once."""

    strikes: Sequence[str]
    jobs: int
    codes: tuple[int, ...]
    polite: bool = False
    workers: bool = False
    """Struck in a worker process."""


ASKED = (130, 0)
"""Exit codes of a run that was asked to stop; it may have been finished by then."""

KILLED = (-signal.SIGKILL,)

WAYS = {
    "group, jobs 1": Way(["kill group"], 1, KILLED),
    "SIGTERM, jobs 1": Way(["signal SIGTERM"], 1, ASKED, polite=True),
    "Ctrl-C twice, jobs 1": Way(["signal SIGINT", "signal SIGINT"], 1, ASKED),
    "SIGHUP, jobs 1": Way(["signal SIGHUP"], 1, ASKED, polite=True),
    "worker, jobs 2": Way(["kill self"], 2, (1,), workers=True),
    "parent, jobs 2": Way(["kill parent"], 2, KILLED),
    "group, jobs 2": Way(["kill group"], 2, KILLED),
    "SIGTERM, jobs 2": Way(["signal SIGTERM"], 2, ASKED, polite=True),
    "Ctrl-C twice, jobs 2": Way(["signal SIGINT", "signal SIGINT"], 2, ASKED),
    "SIGHUP, jobs 2": Way(["signal SIGHUP"], 2, ASKED, polite=True),
    "Ctrl-C, jobs 1": Way(["signal SIGINT"], 1, ASKED, polite=True),
    "Ctrl-C, jobs 2": Way(["signal SIGINT"], 2, ASKED, polite=True),
}

AGAIN = 40
"""Operations within which a second signal follows."""

TIMED = 5
"""Every so many trials are struck at a time instead of at an operation."""

FRESH = 7
"""Every so many trials are processes that were started afresh."""


def drive(count: int, seed: int, out: Path) -> Tally:
    """Kill and continue `count` runs."""
    tally = Tally("kills", seed, KINDS)
    expected = undisturbed(out / "undisturbed")
    tally.facts["file operations in a run"] = expected.operations
    for number in range(count):
        way = list(WAYS)[number % len(WAYS)]
        folder = out / f"kill-{number}"
        before = tally.counts.total()
        trial(WAYS[way], way, number, seed, folder, expected, tally)
        tally.tried += 1
        if tally.counts.total() == before:
            shutil.rmtree(folder, ignore_errors=True)
    return tally


def trial(
    way: Way, name: str, number: int, seed: int, folder: Path, expected: Undisturbed, tally: Tally
) -> None:
    """One run that is killed, and one that finishes it."""
    draw = random.Random(f"{seed} {number}")
    out, ticks = folder / "out", folder / "ticks"
    folder.mkdir(parents=True)
    fresh = number % FRESH == FRESH - 1
    if number % TIMED == TIMED - 1 and not way.workers:
        moment = f"after {(after := draw.uniform(0, expected.seconds)):.2f} s"
        run = launch.start(run_words(out, way.jobs), folder / "killed.log", fresh=fresh)
        strike_at(run, way, after, draw)
    else:
        # Workers' operations are about two thirds of all.
        last = expected.operations * (6 if way.workers else 10) // 10
        first = draw.randint(1, last)
        moment = f"at operation {first}"
        where = "workers" if way.workers else "anywhere"
        strikes = strikes_from(first, way, draw)
        told = trap.told(out, ticks, strikes, where)
        run = launch.start(
            run_words(out, way.jobs), folder / "killed.log", trapped=told, fresh=fresh
        )
    ended = run.wait()
    what = f"kill {number} ({name}, {moment}{', afresh' if fresh else ''})"
    tally.seen[f"{name}: {'ended before' if ended.code == 0 else 'struck'}"] += 1
    check_ended(way, ended, out, what, tally)
    again = launch.start(run_words(out, draw.choice((1, way.jobs))), folder / "again.log")
    finished = again.wait()
    if run.orphans() or again.orphans():
        tally.fault("orphans", what)
    check_finished(finished, out, expected, what, tally)


def strikes_from(first: int, way: Way, draw: random.Random) -> dict[int, str]:
    """The first strike, and those after it within a few operations."""
    strikes, number = {}, first
    for each in way.strikes:
        strikes[number] = each
        number += draw.randint(1, AGAIN)
    return strikes


def strike_at(run: launch.Running, way: Way, after: float, draw: random.Random) -> None:
    """The same from outside, at a time; a process that has ended meanwhile is left alone."""
    for each in way.strikes:
        time.sleep(after)
        after = draw.uniform(0, 0.5)
        verb, _, name = each.partition(" ")
        number = signal.Signals[name] if verb == "signal" else signal.SIGKILL
        try:
            (os.kill if name == "parent" else os.killpg)(run.pid, number)
        except ProcessLookupError:
            return


def check_ended(way: Way, ended: launch.Ended, out: Path, what: str, tally: Tally) -> None:
    """How the run that was struck ended, and what it left behind."""
    if ended.code is None:
        tally.fault("stuck", f"{what}: {ended.output[-200:]}")
        return
    # Before fw listens to signals, which it does once the run has a record, they do what they do.
    listening = any(out.glob("*/*/run.json"))
    early = () if listening else tuple(-number for number in STOPPING)
    if ended.code not in (*way.codes, 0, *early):
        tally.fault("exit code", f"{what}: {ended.code}, {ended.output[-200:]!r}")
    if told := traceback_in(ended.output):
        tally.fault("traceback", f"{what}: {told}")
    if way.polite and listening and (left := running(out)):
        tally.fault("RUNNING", f"{what}: {left} MLflow runs, at once")


STOPPING = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)


def check_finished(
    finished: launch.Ended, out: Path, expected: Undisturbed, what: str, tally: Tally
) -> None:
    """Whether the run after it made what an undisturbed one makes, and left nothing else."""
    if finished.code is None:
        tally.fault("stuck", f"{what}, again: {finished.output[-200:]}")
        return
    if finished.code != 0:
        tally.fault("exit code", f"{what}, again: {finished.code}, {finished.output[-300:]!r}")
    if told := traceback_in(finished.output):
        tally.fault("traceback", f"{what}, again: {told}")
    for kind, text in differences(expected, out):
        tally.fault(kind, f"{what}: {text}")


if __name__ == "__main__":
    sys.exit(command(drive, {"count": 50}))
