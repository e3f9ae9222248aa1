"""Every shipped recipe runs on a GPU, without a fault and without a wait where it should run on
by itself; the GPU is simulated (tests/simcuda)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from simcuda import built
from simcuda.shrunk import RECIPES
from test_simulated_gpu import ran

pytestmark = [
    pytest.mark.skipif(built.lacking() is not None, reason=str(built.lacking())),
    pytest.mark.timeout(1800),
]


@dataclass(frozen=True)
class Shipped:
    """What came of all recipes."""

    printed: str
    records: list[dict[str, Any]]
    """For each stage: what it is, its waits, those within steps and samplers, faults, devices."""


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    folder = tmp_path_factory.mktemp("shipped")
    done = ran("shipped", folder)
    lines = (folder / "waits.jsonl").read_text(encoding="utf-8").splitlines()
    return Shipped(f"{done.stdout}\n{done.stderr}", [json.loads(line) for line in lines])


@pytest.mark.parametrize("what", [*RECIPES, "sample", "heatmap"])
def test_a_recipe_or_command_succeeds(what: str, shipped: Shipped) -> None:
    assert f"{what}: exit code 0\n" in shipped.printed, shipped.printed


def test_no_device_is_mistaken(shipped: Shipped) -> None:
    assert [record["faults"] for record in shipped.records if record["faults"]] == []


def test_a_job_on_the_second_gpu_leaves_the_first_alone(shipped: Shipped) -> None:
    used = {record["what"]: record["devices"] for record in shipped.records}
    assert {what: devices for what, devices in used.items() if 0 in devices} == {}
    assert any(devices == [1] for devices in used.values())


def test_no_step_of_a_training_and_no_sampler_makes_the_host_wait(shipped: Shipped) -> None:
    held_up = {record["what"]: record["within"] for record in shipped.records if record["within"]}
    assert held_up == {}


MOST_WAITS = {
    "encode": 43,  # diffusion_selected, which reads many blocks; others 5
    "annotate": 30,  # an iteration of k-means each; others 1
    "train": 5,  # an online annotator's; others 2
    "latents": 8,
    "prior": 2,
    "sample": 3,
    "probe": 3,
    "evaluate": 175,  # the five distances of a Frechet metric; prdc and memorisation 90
    "heatmap": 20,  # a block each
}
"""How often a stage makes the host wait for what a GPU has computed, at most, by its kind."""

NOT_RESULTS = ("copy from the cpu", "index on the cpu", "save", "beside")
"""Waits to move weights, once for each network, and to keep checkpoints."""


def test_stages_wait_a_few_times_for_what_a_gpu_has_computed(shipped: Shipped) -> None:
    most: dict[str, int] = dict.fromkeys(MOST_WAITS, 0)
    for record in shipped.records:
        kind = record["what"].split()[0]
        waits = [n for what, n in record["waits"].items() if not what.startswith(NOT_RESULTS)]
        if kind in most:
            most[kind] = max(most[kind], sum(waits))
    print("waits of a stage for results, at most:", most)
    assert all(most[kind] <= limit for kind, limit in MOST_WAITS.items()), most
