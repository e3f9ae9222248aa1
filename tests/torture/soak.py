"""Run again and again in one process and one store, and see that nothing grows but what should.

Each round runs the small recipe with a new seed and then with one that was run before; every few
rounds another process is killed in the middle of the new one first. Files and tracker rows must
grow by the same number with each new seed; memory, open files and threads not at all.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import random
import resource
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from torture import launch, trap
from torture.tally import Tally, command, traceback_in
from torture.undisturbed import files, query, run_words, running, undisturbed

KINDS = (
    "memory",
    "open files",
    "threads",
    "files",
    "tracker rows",
    "exit code",
    "traceback",
    "RUNNING",
)

WARM = 4
"""Rounds before the first measurement that counts: libraries fill their caches."""

MEMORY = 48.0
"""MB that may be had more at the end: an allocator's fragments. A leak of one run's work is
more."""

KILLED = 3
"""Every so many rounds another process is killed first."""

TABLES = ("runs", "metrics", "params", "tags", "logged_models where lifecycle_stage = 'active'")
"""Of a model whose upload was cut off, MLflow keeps a row, as deleted; nobody is shown it."""


class Size(NamedTuple):
    """What could grow."""

    memory: float
    descriptors: int
    threads: int
    files: int
    rows: int


def drive(minutes: float, rounds: int, seed: int, out: Path) -> Tally:
    """Soak for `minutes`, or for `rounds` if those are over later."""
    tally = Tally("soak", seed, KINDS)
    expected = undisturbed(out / "undisturbed")
    deadline = time.monotonic() + 60 * minutes
    folder = out / "soak"
    folder.mkdir(parents=True)
    draw = random.Random(f"{seed} soak")
    sizes: list[Size] = []
    with soaked(folder / "out") as ask:
        while len(sizes) < rounds or time.monotonic() < deadline:
            number = len(sizes)
            if number % KILLED == KILLED - 1:
                kill(number, draw.randint(1, expected.operations), folder)
                tally.seen["killed first"] += 1
            answer = ask([number, draw.randint(0, number)])
            if answer is None:
                tally.fault("exit code", f"round {number}: the process that soaks has died")
                break
            for kind, text in answer["faults"]:
                tally.fault(kind, f"round {number}: {text}")
            sizes.append(Size(*answer["size"]))
            tally.tried += 1
            tally.seen["runs"] += 2
    if left := running(folder / "out"):
        tally.fault("RUNNING", f"{left} MLflow runs")
    if sizes:
        judge(sizes, tally)
    return tally


@contextlib.contextmanager
def soaked(store: Path) -> Iterator[Callable[[list[int]], dict[str, Any] | None]]:
    """A process that does all the runs; the function has it run some seeds, and gives its
    answer."""
    (asked, asking), (answered, answering) = os.pipe(), os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        try:
            for end in (asking, answered):
                os.close(end)
            with os.fdopen(asked) as questions, os.fdopen(answering, "w") as answers:
                for line in questions:
                    faults = [fault for number in json.loads(line) for fault in once(number, store)]
                    answers.write(json.dumps({"faults": faults, "size": measured(store)}) + "\n")
                    answers.flush()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    for end in (asked, answering):
        os.close(end)
    with os.fdopen(answered) as answers, os.fdopen(asking, "w") as questions:

        def ask(numbers: list[int]) -> dict[str, Any] | None:
            questions.write(json.dumps(numbers) + "\n")
            questions.flush()
            line = answers.readline()
            return json.loads(line) if line else None

        yield ask
    os.waitpid(pid, 0)


def once(number: int, store: Path) -> Iterator[tuple[str, str]]:
    """One run in this process, and what was wrong with it."""
    streams = io.StringIO()
    with contextlib.redirect_stdout(streams), contextlib.redirect_stderr(streams):
        code = launch.call([str(word) for word in seeded(store, number)])
    if code != 0:
        yield "exit code", f"{code}, {streams.getvalue()[-200:]!r}"
    if told := traceback_in(streams.getvalue()):
        yield "traceback", told


def kill(number: int, at: int, folder: Path) -> None:
    """Begin a seed's run in a process of its own, which does not end it."""
    store = folder / "out"
    told = trap.told(store, folder / f"ticks-{number}", {at: "kill group"})
    launch.start(seeded(store, number), folder / "killed.log", trapped=told).wait()


def seeded(store: Path, number: int) -> list[str | Path]:
    return [*run_words(store), "--set", f"seed={number}"]


def measured(store: Path) -> Size:
    status = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return Size(
        int(status[1]) * resource.getpagesize() / 2**20,
        len(list(Path("/proc/self/fd").iterdir())),
        threading.active_count(),
        len(files(store)),
        sum(int(query(store, f"select count(*) from {table}")[0][0]) for table in TABLES),
    )


def judge(sizes: list[Size], tally: Tally) -> None:
    """Compare the end with the moment when everything was warm."""
    warm, last = sizes[min(WARM, len(sizes) - 1)], sizes[-1]
    if last.memory - warm.memory > MEMORY:
        tally.fault("memory", f"{warm.memory:.0f} MB, {last.memory:.0f} MB at the end")
    if last.descriptors > warm.descriptors:
        tally.fault("open files", f"{warm.descriptors}, {last.descriptors} at the end")
    if last.threads > warm.threads:
        tally.fault("threads", f"{warm.threads}, {last.threads} at the end")
    for what in ("files", "rows"):
        grown = [getattr(b, what) - getattr(a, what) for a, b in itertools.pairwise(sizes)]
        if len(set(grown)) > 1:
            kind = "files" if what == "files" else "tracker rows"
            tally.fault(kind, f"{sorted(set(grown))} more {what} with a new seed")
    for field in Size._fields:
        first, end = getattr(warm, field), getattr(last, field)
        tally.facts[field] = f"{first:.0f} to {end:.0f}"


if __name__ == "__main__":
    sys.exit(command(drive, {"minutes": 20.0, "rounds": 6}))
