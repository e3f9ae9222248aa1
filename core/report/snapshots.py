"""What a run has found of its trainings on the way, at their snapshots: in run.json, in the report
and as curves for a tracker. Nothing here chooses: see docs/comparing.md."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

from fw.core.messages.escaping import markdown as escaped
from fw.core.plan.graph import ArmPlan
from fw.core.report.tables import quality_table
from fw.core.store.store import Store

CURVES = "curves.png"

ROWS = 12
"""Snapshots in the picture of an arm."""

Item = TypeVar("Item")


def grids_file(arm: str) -> str:
    """The picture of an arm's samples over the steps of its training."""
    return f"steps-{arm}.png"  # no longer than other names with the arm's


def snapshot_entries(arm: ArmPlan, store: Store, finished: Container[str]) -> list[dict[str, Any]]:
    """An arm's entry `snapshots` in run.json: those that were scored, in the order of steps."""
    entries: list[dict[str, Any]] = []
    for snapshot in arm.snapshots:
        metrics: dict[str, Any] = {}
        for stage in snapshot.evaluate:
            if stage in finished:
                evaluated = store.read(stage, "scores.json")
                for key, [value] in evaluated["scores"].items():
                    floor = evaluated["floor"].get(key)
                    metrics[key] = {"mean": value, "values": [value], "floor": floor}
        if metrics:
            count = snapshot.drawn.samples.count
            entries.append({"step": snapshot.step, "count": count, "metrics": metrics})
    return entries


def snapshot_series(entry: Mapping[str, Any], planned: int) -> list[dict[str, float]]:
    """An arm's curves as a tracker's records, when all of the planned snapshots were scored: a
    curve is logged from its beginning to its end."""
    entries = entry.get("snapshots", [])
    if len(entries) < planned:
        return []
    return [
        {
            "step": each["step"],
            **{f"snapshot/{key}": score["mean"] for key, score in each["metrics"].items()},
        }
        for each in entries
    ]


def scored_arms(result: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The snapshots of each arm that has any."""
    return {name: arm["snapshots"] for name, arm in result["arms"].items() if arm.get("snapshots")}


def snapshots_section(result: Mapping[str, Any]) -> list[str]:
    """The report's part on them; nothing without any."""
    arms = scored_arms(result)
    if not arms:
        return []
    counts = sorted({each["count"] for entries in arms.values() for each in entries})
    count = " or ".join(map(str, counts))
    about = (
        f"`{escaped(result['headline'])}` of {count} samples of one sampling seed after each of "
        "these training steps, drawn as the arm draws its own. A Frechet distance of other "
        "numbers of images is another number, so these stand beside each other and not beside the "
        "table above. No step is chosen by them: whoever stops where a score is best has selected "
        "on it."
    )
    key = result["headline"]
    table = {
        name: {str(e["step"]): e["metrics"][key]["mean"] for e in entries if key in e["metrics"]}
        for name, entries in arms.items()
    }
    return [
        f"## While training\n\n{about}",
        quality_table(table),
        f"![curves]({CURVES})",
        *(picture(name, [each["step"] for each in entries]) for name, entries in arms.items()),
    ]


def picture(arm: str, steps: Sequence[int]) -> str:
    """An arm's samples over the steps of its training."""
    rows = ", ".join(map(str, spread(steps, ROWS)))
    file = quote(grids_file(arm), errors="replace")
    return f"{escaped(arm)}, the same noise after {rows} steps\n\n![{escaped(arm)}]({file})"


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many of them, evenly spaced, the last one included."""
    count = min(most, len(items))
    return [items[(part + 1) * len(items) // count - 1] for part in range(count)]
