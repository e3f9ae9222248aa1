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

from bench.speed.interleaved import Ratio, children
from bench.speed.planning import TINY
from bench.speed.row import Goal, Row

SMOKE = Path(__file__).parents[3] / "recipes/smoke.yaml"

GOALS = {60: 5.0}
"""CPU seconds at so many arms."""


@dataclass(frozen=True)
class Size:
    recipes: tuple[Path, ...] = (SMOKE,)
    """What is validated."""
    arms: tuple[int, ...] = (6, 60)
    turns: int = 5


SMALL = Size(recipes=(), arms=(2,), turns=1)


def rows(size: Size = Size()) -> Iterator[Row]:
    yield started("import torch", [sys.executable, "-c", "import torch"], size.turns)
    yield started("fw --help", command("--help"), size.turns, 0.5)
    for recipe in size.recipes:
        yield started("fw validate", command("validate", str(recipe)), size.turns)
    for arms in size.arms:
        yield again(arms, size.turns, GOALS.get(arms))


def again(arms: int, turns: int, goal: float | None) -> Row:
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
        return started(f"fw run, {arms} arms and nothing to do", command(*words), turns, goal)


def started(what: str, words: Sequence[str], turns: int, goal: float | None = None) -> Row:
    """The CPU seconds of a process, and their quartiles."""
    costs = [spent(words) for _ in range(turns)]
    median, low, high = Ratio.of(costs)
    bound = None if goal is None else Goal(goal)
    return Row(what, "", median, "CPU s", bound, (low, high), counts={"turns": turns})


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "fw.core", *words]


def spent(words: Sequence[str]) -> float:
    """The CPU seconds of a process and its children."""
    began = children()
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return children() - began
