"""A standing team of two processes does the stages of all shipped recipes, at a very small scale:
the first runs fw, and calls the second for every stage that a team can do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from simcuda.shipped import fewer_images, fw
from simcuda.shrunk import RECIPES, shrunk

from fw.core.execution import stage as execute_stage
from fw.core.execution.place import Place
from fw.core.execution.together import Call, Gather, nobody
from fw.core.execution.work import Worked, work
from fw.core.job import Silent
from fw.core.machine.leases import Right
from fw.core.machine.team import Team
from fw.core.stages.base import Stage
from fw.core.store.store import Store
from fw.registry.global_state import undisturbed


def shipped(team: Team, folder: Path) -> dict[str, Any]:
    """The exit code of each recipe, and the kinds of the stages that both have done."""
    fewer_images()
    kinds: list[str] = []

    def both(call: Call, gather: Gather = nobody) -> Worked:
        called = (call.stage, call.folder, call.place, call.right)
        dist.broadcast_object_list([called])
        kinds.append(call.stage.kind)
        return part(team, *called)

    if not team.leads:
        while True:
            called: list[Any] = [None]
            dist.broadcast_object_list(called)
            if called[0] is None:
                return {}
            part(team, *called[0])
    execute_stage.together = both  # type: ignore[attr-defined]
    codes = {}
    for name in RECIPES:
        recipe = folder / f"{name}.yaml"
        recipe.write_text(json.dumps(shrunk(name, folder)), encoding="utf-8")
        codes[name] = fw(
            "run",
            recipe,
            "--out",
            folder / "runs",
            "--ranks",
            "2",
            "--jobs",
            "1",
            "--device",
            "cpu",
        )
    dist.broadcast_object_list([None])
    return {"codes": codes, "kinds": kinds}


def part(team: Team, stage: Stage, folder: Path, place: Place, right: Right) -> Worked:
    with undisturbed():
        product = Store(place.store).path
        made = work(stage, folder, place, product, Silent(), lambda: False, right, team)
    team.wait()
    torch.set_num_threads(1)
    return made
