"""How MLflow's page opens on a run: a saved view with the arms side by side, and a colour for
each arm."""

from __future__ import annotations

import colorsys
import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fw.core.kinds import ArmDescription, RunDescription
from fw.plugins.trackers.mlflow_server import VIEW_TAG
from fw.plugins.trackers.mlflow_words import run_name

if TYPE_CHECKING:
    from mlflow import MlflowClient

GREY = "#9e9e9e"
VERDICT = ("difference", "low", "high")


def save_view(
    client: MlflowClient,
    experiment: str,
    view: str,
    run: RunDescription,
    pictures: Sequence[str] = (),
) -> None:
    """Save the view of this run's arms. MLflow's tag for it is undocumented, so it may fail."""
    now = int(1000 * time.time())
    value = {"name": f"arms of {run_name(run)}", "createdAt": now, "updatedAt": now}
    try:
        state = json.dumps(view_state(run, pictures))
        client.set_experiment_tag(
            experiment, VIEW_TAG + view, json.dumps({**value, "state": state})
        )
    except Exception:
        return


def saved_pictures(tags: Mapping[str, str], view: str) -> list[str]:
    """The pictures in a view as it was saved, so that opening a run anew does not take them out."""
    try:
        state = json.loads(json.loads(tags[VIEW_TAG + view])["state"])
        return [key for chart in state["compareRunCharts"] for key in chart.get("imageKeys", ())]
    except (LookupError, ValueError, TypeError):
        return []


def view_state(run: RunDescription, pictures: Sequence[str]) -> dict[str, Any]:
    """Only this run's arms, the best in the headline first (which flattens the nesting), with its
    chart and pictures first.

    The page groups charts by the metrics' prefixes. Its own order is alphabetical; this one keeps
    the headline first.
    """
    arms = [arm for arm in run.arms if arm.parent is None]
    headline = f"metrics.`{run.headline}`"
    prefix, _, title = run.headline.rpartition("/")
    section = {
        "uuid": "fw-first",
        "name": prefix or "Model metrics",
        "display": True,
        "isReordered": True,
    }
    card = {
        "metricSectionId": section["uuid"],
        "runsCountToCompare": len(arms),
        "deleted": False,
        "isGenerated": True,
    }
    bars = {
        **card,
        "type": "BAR",
        "uuid": "fw-headline",
        "metricKey": run.headline,
        "displayName": title,
    }
    grids = [
        {
            **card,
            "type": "IMAGE",
            "uuid": f"fw-{key}",
            "imageKeys": [key],
            "step": 0,
            "showRunParams": False,
        }
        for key in pictures
    ]
    return {
        "searchFilter": f"tags.`fw.role` = 'arm' and tags.`fw.key` = '{run.key}'",
        "orderByKey": headline,
        "orderByAsc": run.better == "lower",
        "selectedColumns": [
            headline,
            *(f"metrics.`{key}`" for key in beside(title)),
            *(f"tags.`fw.{key}`" for key in ("decision", "arm_role")),
            *(f"params.`{key}`" for key in dict.fromkeys([*swept(run), *varying(arms)][:8])),
        ],
        "runsHiddenMode": "SHOW_ALL",
        "isAccordionReordered": True,
        "compareRunSections": [section],
        "compareRunCharts": [bars, *along(run, card), *grids],
    }


def swept(run: RunDescription) -> list[str]:
    """The params that the arms of a sweep are points of."""
    return run.tags.get("fw.sweep.over", "").split()


def along(run: RunDescription, card: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The headline against the key of a sweep, or parallel coordinates of several."""
    keys = swept(run)
    drawn: dict[str, Any]
    if len(keys) > 1:
        drawn = {"type": "PARALLEL", "selectedParams": keys, "selectedMetrics": [run.headline]}
    elif keys:
        x, y = {"key": keys[0], "type": "PARAM"}, {"key": run.headline, "type": "METRIC"}
        drawn = {"type": "SCATTER", "xaxis": x, "yaxis": y}
    else:
        return []
    return [{**card, "uuid": "fw-sweep", **drawn}]


def beside(key: str) -> list[str]:
    """The columns beside the headline score of this key: its spread, its floor, and what sets the
    arm apart from the baseline."""
    return [f"std/{key}", f"floor/{key}", *(f"verdict/{each}" for each in VERDICT)]


def varying(arms: Sequence[ArmDescription]) -> list[str]:
    """The params in which the arms differ."""
    keys = dict.fromkeys(key for arm in arms for key in arm.params)
    return [key for key in keys if len({arm.params.get(key) for arm in arms}) > 1]


def colours(run: RunDescription) -> dict[str, str]:
    """Grey for the baseline, evenly spaced hues for the other arms."""
    arms = [arm.name for arm in run.arms if arm.parent is None]
    others = [arm for arm in arms if arm != run.baseline]
    hues = {name: hue(index / len(others)) for index, name in enumerate(others)}
    return {arm: hues.get(arm, GREY) for arm in arms}


def hue(turn: float) -> str:
    return "#" + "".join(
        f"{round(255 * part):02x}" for part in colorsys.hls_to_rgb(turn, 0.45, 0.7)
    )
