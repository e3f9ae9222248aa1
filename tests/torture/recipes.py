"""Validate and plan recipes that are wrong in every way, and see what it costs.

Each is one sentence and exit code 2, or a plan; never an exception, nor more than 2 seconds of
CPU or 200 MB beyond what the imports take. Done in a child process, which is replaced if it dies.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from torture import fuzz, handmade, launch
from torture.tally import Tally, command

KINDS = (
    "exception",
    "exit code",
    "said nothing",
    "over 2 s of CPU",
    "over 200 MB",
    "crash or hang",
)

CPU, MEMORY = 2.0, 200.0
"""Bounds of one recipe: seconds and MB."""

HARD_CPU, HARD_MEMORY = 20, 6 << 30
"""Where the child process is stopped: seconds of CPU, bytes of address space beyond its own."""

KEPT = 60
"""Slowest and accepted ones that are told."""

BASE = Path(__file__).parents[1] / "tiny.yaml"

Recipe = tuple[str, str | bytes]
"""What it is, and its text."""


def drive(count: int, hand: int, seed: int, out: Path) -> Tally:
    """`count` fuzzed recipes and at most `hand` of those that are made by hand."""
    tally = Tally("recipes", seed, KINDS)
    out = out / "recipes"
    out.mkdir(parents=True)
    warm_up()
    bases = [path.read_text(encoding="utf-8") for path in shipped()]
    by_hand = list(handmade.recipes(BASE.read_text(encoding="utf-8")))
    tally.facts["made by hand, in all"] = len(by_hand)
    if hand < len(by_hand):
        by_hand = random.Random(f"{seed} hand").sample(by_hand, hand)

    def nth(number: int) -> Recipe:
        if number < len(by_hand):
            return by_hand[number]
        draw = random.Random(f"{seed} {number - len(by_hand)}")
        return f"fuzzed {number - len(by_hand)}", fuzz.recipe(draw, bases)

    accepted: list[str] = []
    highest = {"cpu": 0.0, "mb": 0.0}
    for number, found in attempts(nth, len(by_hand) + count, out):
        judge(number, found, "made by hand" if number < len(by_hand) else "fuzzed", tally, out, nth)
        if found.get("code") == 0 and number < len(by_hand):
            accepted.append(found["what"])
        for what in highest:
            highest[what] = max(highest[what], found.get(what, 0.0))
    tally.facts["most CPU of one, s"] = round(highest["cpu"], 2)
    tally.facts["most memory of one, MB"] = round(highest["mb"])
    (out / "accepted.txt").write_text("\n".join(accepted) + "\n", encoding="utf-8")
    return tally


def judge(
    number: int,
    found: dict[str, Any],
    sort: str,
    tally: Tally,
    out: Path,
    nth: Callable[[int], Recipe],
) -> None:
    tally.tried += 1
    answers = {0: "planned", 2: "refused"}
    tally.seen[f"{sort}, {answers.get(found.get('code', -1), 'failed')}"] += 1
    faults = []
    if "died" in found:
        faults.append(("crash or hang", found["died"]))
    elif "exception" in found:
        faults.append(("exception", found["exception"]))
    elif found["code"] not in answers:
        faults.append(("exit code", str(found["code"])))
    elif found["code"] and not found["said"]:
        faults.append(("said nothing", ""))
    if found.get("cpu", 0) > CPU:
        faults.append(("over 2 s of CPU", f"{found['cpu']:.1f} s"))
    if found.get("mb", 0) > MEMORY:
        faults.append(("over 200 MB", f"{found['mb']:.0f} MB"))
    for kind, text in faults:
        kept = out / f"fault-{number}.yaml"
        kept.write_bytes(as_bytes(nth(number)[1]))
        tally.fault(kind, f"{found['what']}: {text}".rstrip(": "))


def attempts(
    nth: Callable[[int], Recipe], count: int, out: Path
) -> Iterator[tuple[int, dict[str, Any]]]:
    """What became of each recipe; where the child process died at one, the next goes on after
    it."""
    start = 0
    while start < count:
        reading, writing = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(reading)
                with os.fdopen(writing, "w", encoding="utf-8") as answers:
                    attempt(nth, range(start, count), out, answers)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading, encoding="utf-8") as answers:
            for line in answers:
                yield start, json.loads(line)
                start += 1
        _, status = os.waitpid(pid, 0)
        if start < count:
            died = f"its process ended with {os.waitstatus_to_exitcode(status)}"
            yield start, {"what": nth(start)[0], "died": died}
            start += 1


def attempt(
    nth: Callable[[int], Recipe], numbers: Sequence[int], out: Path, answers: TextIO
) -> None:
    """Validate recipe after recipe in this process, a line of JSON for each."""
    used = (
        int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        * resource.getpagesize()
    )
    resource.setrlimit(resource.RLIMIT_AS, (used + HARD_MEMORY, resource.RLIM_INFINITY))
    place = out / "recipe.yaml"
    for number in numbers:
        what, text = nth(number)
        place.write_bytes(as_bytes(text))
        signal.setitimer(signal.ITIMER_PROF, HARD_CPU)  # SIGPROF ends the process
        found = {"what": what, **measured(place)}
        if (
            found["cpu"] > CPU or found["mb"] > MEMORY
        ):  # the first of its kind may have imported much
            found |= measured(place)
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(json.dumps(found) + "\n")
        answers.flush()


def measured(place: Path) -> dict[str, Any]:
    """How `fw validate` ended, and what it took."""
    forget_peak()
    before, began = memory("VmRSS"), time.process_time()
    streams = io.StringIO(), io.StringIO()
    found: dict[str, Any] = {}
    try:
        with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
            found["code"] = launch.call(["validate", str(place)])
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error}"[:200]
        found["exception"] = f"{reason} ({Path(last.filename).name}:{last.lineno})"
    said = streams[1].getvalue()
    if "Traceback (most recent call last)" in said:
        found["exception"] = said[-300:]
    cpu, peak = time.process_time() - began, memory("VmHWM")
    return {**found, "said": bool(said.strip()), "cpu": cpu, "mb": peak - before}


def forget_peak() -> None:
    """Let the kernel's account of the highest memory begin here."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def memory(what: str) -> float:
    """A line of /proc/self/status, in MB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(what + ":"):
            return int(line.split()[1]) / 1024
    raise LookupError(what)


def warm_up() -> None:
    """Import what validating imports: by the recipes that come with fw."""
    for path in shipped():
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            launch.call(["validate", str(path)])


def shipped() -> list[Path]:
    import fw.recipes

    folder = Path(next(iter(fw.recipes.__path__)))
    return [BASE, *sorted(folder.glob("*.yaml"))]


def as_bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")


if __name__ == "__main__":
    sys.exit(command(drive, {"count": 20_000, "hand": 10_000}))
