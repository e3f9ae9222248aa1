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

from bench.speed.interleaved import Paired, children, paired
from bench.speed.planning import TINY
from bench.speed.row import Goal, Row

SMOKE = Path(__file__).parents[3] / "recipes/smoke.yaml"

TORCH = [sys.executable, "-c", "import torch"]


@dataclass(frozen=True)
class Size:
    arms: tuple[int, ...] = (6, 60)
    pairs: int = 5


SMALL = Size(arms=(2,), pairs=1)


def rows(size: Size = Size()) -> Iterator[Row]:
    for words, goal in ((["--help"], 0.5), (["validate", str(SMOKE)], None)):
        pairs = paired(lambda words=words: spent(command(*words)), lambda: spent(TORCH), size.pairs)
        yield seconds(f"fw {words[0]}", "`import torch`", pairs, goal)
    for arms in size.arms:
        yield again(arms, 60, size.pairs)


def again(arms: int, many: int, pairs: int) -> Row:
    """A run whose stages are all there, logged in MLflow."""
    with tempfile.TemporaryDirectory(prefix="speed-") as folder:
        scales = [
            f"a{number}: {{guidance: {{name: cfg, scale: {1.5 + number / 100}}}}}"
            for number in range(arms - 1)
        ]
        sets = [
            f"arms={{unconditional: {{annotator: null}}, {', '.join(scales)}}}",
            "train.steps=2",
            "sampler.steps=2",
            "samples={count: 10, seeds: 1}",
        ]
        words = ["run", str(TINY), "--out", folder, "--jobs", "1", "--device", "cpu"]
        words += [word for each in sets for word in ("--set", each)]
        spent(command(*words))
        ours = paired(lambda: spent(command(*words)), lambda: spent(TORCH), pairs)
    goal = 5.0 if arms == many else None
    return seconds(f"`fw run` of {arms} arms with nothing to do", "`import torch`", ours, goal)


def seconds(what: str, against: str, pairs: Paired, goal: float | None) -> Row:
    """The seconds of ours, with those of theirs beside them."""
    ours, theirs = (sorted(turns)[len(turns) // 2] for turns in (pairs.ours, pairs.theirs))
    bound = None if goal is None else Goal(goal)
    low, high = min(pairs.ours), max(pairs.ours)
    counts = {"theirs, CPU s": theirs, "pairs": len(pairs.ours)}
    return Row(what, against, ours, "CPU s", bound, (low, high), pairs.noise, counts)


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "fw.core", *words]


def spent(words: Sequence[str]) -> float:
    """The CPU seconds of a process and its children."""
    began = children()
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return children() - began
