"""What a driver tried and what went wrong, by kind; printed, and kept as JSON."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KEPT = 40
"""Faults that are told in full; all are counted."""


@dataclass
class Tally:
    """Counts of one driver. `kinds` are the faults that it looks for, so that zeros are printed."""

    name: str
    seed: int
    kinds: Sequence[str]
    tried: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    """Of faults, by kind."""
    seen: Counter[str] = field(default_factory=Counter)
    """Of what was tried, by what it was; not faults."""
    examples: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    """What could not be tried here, and why."""
    minutes: float = 0.0
    cpu_minutes: float = 0.0
    _began: float = field(default_factory=time.monotonic, repr=False)
    _spent: float = field(default_factory=lambda: cpu(), repr=False)

    def fault(self, kind: str, text: str) -> None:
        self.counts[kind] += 1
        if len(self.examples) < KEPT:
            self.examples.append(f"{kind}: {text}")
            print(f"  {self.name}: {kind}: {text}", flush=True)

    @property
    def sound(self) -> bool:
        return not self.counts

    def summary(self) -> dict[str, Any]:
        return {
            "tried": self.tried,
            "seed": self.seed,
            "faults": {kind: self.counts[kind] for kind in [*self.kinds, *self.counts]},
            "seen": dict(self.seen),
            "facts": self.facts,
            "skipped": self.skipped,
            "examples": self.examples,
            "minutes": self.minutes,
            "CPU minutes": self.cpu_minutes,
        }

    def finish(self) -> Tally:
        """No more is tried: what it took is what it took."""
        self.minutes = round((time.monotonic() - self._began) / 60, 1)
        self.cpu_minutes = round((cpu() - self._spent) / 60, 1)
        return self

    def show(self) -> None:
        told = self.summary()
        faults = ", ".join(f"{count} {kind}" for kind, count in told["faults"].items())
        print(f"{self.name}: seed {self.seed}, {self.tried} tried: {faults}")
        for what, values in (("seen", told["seen"]), ("facts", self.facts)):
            if values:
                print(f"  {what}: " + ", ".join(f"{key} {value}" for key, value in values.items()))
        for reason in self.skipped:
            print(f"  skipped: {reason}")
        sys.stdout.flush()


def cpu() -> float:
    """Seconds of CPU of this process and of its children that have ended."""
    return sum(os.times()[:4])


def traceback_in(output: str) -> str | None:
    """What a traceback in the output ends with, if there is one."""
    if "Traceback (most recent call last)" not in output:
        return None
    after = output.rpartition("Traceback (most recent call last)")[2]
    ends = [
        line for line in after.splitlines() if re.match(r"[\w.]+(Error|Exception|Interrupt)", line)
    ]
    return (ends or after.splitlines() or ["?"])[-1][:300]


def command(
    drive: Callable[..., Tally],
    options: Mapping[str, int | float],
    words: Sequence[str] | None = None,
) -> int:
    """The command line of one driver: its options, --seed, --out and --json; 1 if anything was
    wrong."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {drive.__module__}", description=drive.__doc__
    )
    for name, default in options.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, help="a folder to work in [default: one that is removed]"
    )
    parser.add_argument("--json", type=Path, help="where to write the counts")
    given = vars(parser.parse_args(words))
    out, target = given.pop("out"), given.pop("json")
    with tempfile.TemporaryDirectory(prefix="torture-") as temporary:
        tally = drive(out=(out or Path(temporary)).absolute(), **given).finish()
    tally.show()
    if target is not None:
        target.write_text(json.dumps({tally.name: tally.summary()}, indent=1), encoding="utf-8")
    return 0 if tally.sound else 1
