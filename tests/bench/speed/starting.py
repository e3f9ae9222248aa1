"""Starting: how long a command takes before it does anything, and a run that has nothing to do.

CPU seconds of a process of its own, imports included.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.speed.interleaved import Paired, Ratio, children, paired
from bench.speed.planning import TINY
from bench.speed.row import Goal, Row

SMOKE = Path(__file__).parents[3] / "recipes/smoke.yaml"

GOALS = {60: 5.0}
"""CPU seconds at so many arms."""

TORCH = [sys.executable, "-c", "import torch"]


@dataclass(frozen=True)
class Size:
    arms: tuple[int, ...] = (6, 60)
    pairs: int = 5


SMALL = Size(arms=(2,), pairs=1)


def rows(size: Size = Size()) -> Iterator[Row]:
    yield started(["--help"], size.pairs, 0.5)
    yield started(["validate", str(SMOKE)], size.pairs)
    for arms in size.arms:
        yield again(arms, size.pairs, GOALS.get(arms))


def started(words: Sequence[str], pairs: int, goal: float | None = None) -> Row:
    ours = paired(lambda: spent(command(*words)), lambda: spent(TORCH), pairs, warm=True)
    return seconds(f"fw {words[0]}", ours, goal)


def again(arms: int, pairs: int, goal: float | None) -> Row:
    """A run whose stages are all there, logged in MLflow."""
    guided = [
        f"a{number}: {{guidance: {{name: cfg, scale: {1.5 + number / 100}}}}}"
        for number in range(arms - 1)
    ]
    sets = [
        f"arms={{unconditional: {{annotator: null}}, {', '.join(guided)}}}",
        "train.steps=2",
        "sampler.steps=2",
        "samples={count: 10, seeds: 1}",
    ]
    with tempfile.TemporaryDirectory(prefix="speed-") as folder:
        words = ["run", str(TINY), "--out", folder, "--jobs", "1", "--device", "cpu"]
        words += [word for each in sets for word in ("--set", each)]
        spent(command(*words))
        ours = paired(lambda: spent(command(*words)), lambda: spent(TORCH), pairs, warm=True)
    return seconds(f"fw run, {arms} arms and nothing to do", ours, goal)


def seconds(what: str, pairs: Paired, goal: float | None) -> Row:
    """The seconds of ours and their quartiles, with those of theirs beside them."""
    ours, theirs = (Ratio.of(turns) for turns in (pairs.ours, pairs.theirs))
    bound = None if goal is None else Goal(goal)
    counts = {"theirs, CPU s": theirs.median, "pairs": len(pairs.ours)}
    quartiles = (ours.low, ours.high)
    return Row(what, "import torch", ours.median, "CPU s", bound, quartiles, pairs.noise, counts)


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "fw.core", *words]


def spent(words: Sequence[str]) -> float:
    """The CPU seconds of a process and its children."""
    began = children()
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return children() - began
