"""What a run makes when nobody disturbs it, and how another folder differs from that."""

from __future__ import annotations

import functools
import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torture import launch, trap

SMALL = Path(__file__).parent / "small.yaml"

MEASURED = ("cost/seconds",)
"""Metrics that differ from run to run."""


WARMER = 3
"""How much faster a run is when everything is imported."""


def run_words(out: Path, jobs: int = 1) -> list[str | Path]:
    """The command that the drivers disturb."""
    return [
        *("run", SMALL, "--out", out, "--device", "cpu", "--jobs", str(jobs)),
        *("--checkpoint-seconds", "0"),
    ]


@dataclass(frozen=True)
class Undisturbed:
    """Products by file, scores, files, the tracker's points, and what the run took."""

    products: dict[str, str]
    scores: dict[str, Any]
    files: frozenset[str]
    points: Counter[tuple[Any, ...]]
    artifacts: int
    operations: int
    seconds: float
    bytes: int


@functools.cache
def undisturbed(folder: Path) -> Undisturbed:
    """One run of the small recipe from end to end, in `folder`, and everything warm for others."""
    out, ticks = folder / "out", folder / "ticks"
    ended = launch.warm(run_words(out), folder / "run.log", trapped=trap.told(out, ticks, {}))
    if ended.code != 0:
        raise SystemExit(f"the undisturbed run failed ({ended.code}):\n{ended.output}")
    return Undisturbed(
        products(out),
        scores(out),
        files(out),
        points(out),
        artifacts(out),
        trap.count(ticks),
        ended.seconds / WARMER,
        sum(path.stat().st_blocks * 512 for path in out.rglob("*")),
    )


def differences(expected: Undisturbed, out: Path) -> Iterator[tuple[str, str]]:
    """(kind of fault, what) for all in which a finished run is not as the undisturbed one."""
    found = products(out)
    changed = sorted(name for name, known in expected.products.items() if found.get(name) != known)
    if changed:
        yield "wrong result", f"other bytes in {', '.join(changed)[:300]}"
    if scores(out) != expected.scores:
        yield "wrong result", "run.json has other scores"
    if litter := sorted(files(out) - expected.files):
        yield "litter", ", ".join(litter)[:300]
    if missing := sorted(expected.files - files(out) - set(changed)):
        yield "missing file", ", ".join(missing)[:300]
    yield from tracker_differences(expected, out)


def tracker_differences(expected: Undisturbed, out: Path) -> Iterator[tuple[str, str]]:
    if left := running(out):
        yield "RUNNING", f"{left} MLflow runs"
    there = points(out)
    if surplus := there - expected.points:
        yield "tracker differs", f"{surplus.total()} surplus points: {list(surplus)[:3]}"
    if lost := expected.points - there:
        yield "tracker differs", f"{lost.total()} points are missing: {list(lost)[:3]}"
    if unfinished := query(out, "select count(*) from logged_models where status != 2")[0][0]:
        yield "litter", f"{unfinished} logged models that are not ready"
    if artifacts(out) > expected.artifacts:
        yield "litter", f"{artifacts(out)} artifacts instead of {expected.artifacts}"


def products(out: Path) -> dict[str, str]:
    """The sha256 of every file of every finished stage, but the manifests."""
    from sites import products as read

    return {name: hashlib.sha256(data).hexdigest() for name, data in read(out).items()}


def scores(out: Path) -> dict[str, Any]:
    """What the latest run.json says of each arm; empty if it cannot be read."""
    found = [*out.glob("*/latest/run.json")]
    try:
        arms = json.loads(found[0].read_text(encoding="utf-8"))["arms"]
        return {name: (arm["status"], arm["metrics"]) for name, arm in arms.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def files(out: Path) -> frozenset[str]:
    """All files but the tracker's artifacts, whose names are drawn, and locks."""
    return frozenset(
        path.relative_to(out).as_posix()
        for path in out.rglob("*")
        if not path.is_dir()
        and path.suffix != ".lock"
        and path.relative_to(out).parts[0] != "mlartifacts"
    )


def artifacts(out: Path) -> int:
    return sum(path.is_file() for path in (out / "mlartifacts").rglob("*"))


def points(out: Path) -> Counter[tuple[Any, ...]]:
    """Every value that the tracker holds: (run, metric, step, value)."""
    rows = query(
        out,
        "select runs.name, key, step, value from metrics join runs using (run_uuid) "
        "where model_id is null or model_id = ''"
        if has_column(out, "metrics", "model_id")
        else "select runs.name, key, step, value from metrics join runs using (run_uuid)",
    )
    return Counter(row for row in rows if row[1] not in MEASURED)


def running(out: Path) -> int:
    """How many MLflow runs are said to be at work."""
    return int(query(out, "select count(*) from runs where status = 'RUNNING'")[0][0])


def has_column(out: Path, table: str, column: str) -> bool:
    return any(row[1] == column for row in query(out, f"pragma table_info({table})"))


def query(out: Path, sql: str) -> list[tuple[Any, ...]]:
    """Rows of MLflow's database, read without MLflow; of one that is not there, a zero."""
    database = out / "mlflow.db"
    if not database.exists():
        return [(0,)] if "count(*)" in sql else []
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as connection:
        return connection.execute(sql).fetchall()
