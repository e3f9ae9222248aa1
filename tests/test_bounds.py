"""Numbers that no machine and no library takes are refused with their place, and what is taken
can be planned."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from fw.core.errors import FwError, RecipeError
from fw.core.execution.devices import checked_device
from fw.core.plan.assembly import plan
from fw.core.randomness import generator
from fw.core.recipe.checks import warnings
from fw.core.recipe.loading import validate
from fw.core.recipe.model import Recipe
from fw.core.recipe.source import read
from fw.core.testing.common import changes
from fw.plugins.joint.jdm import JDM
from fw.registry import Component, installed
from tests.sites import fw
from tests.toys import Coin

TINY = Path(__file__).parent / "tiny.yaml"


def made(*sets: str) -> Recipe:
    source = read(TINY)
    source.set(sets)
    return validate(source, installed())


def refused(*sets: str) -> str:
    with pytest.raises(RecipeError) as caught:
        made(*sets)
    return "\n".join(caught.value.problems)


# Numbers


@pytest.mark.parametrize(
    ("set_to", "at"),
    [
        ("seed=18446744073709551616", "seed"),
        ("train.steps=1" + 30 * "0", "train.steps"),
        ("train.batch=1" + 12 * "0", "train.batch"),
        ("train.lr=1.0e308", "train.lr"),
        ("train.weight_decay=1.0e308", "train.weight_decay"),
        ("samples.count=1" + 12 * "0", "samples.count"),
        ("samples={count: 10000000, seeds: 1000}", "samples"),
        ("model.channels=[1000000]", "model.channels.0"),
        ("model.channels=[1" + 30 * "0" + "]", "model.channels.0"),
        ("model.groups=1" + 30 * "0", "model.groups"),
        ("model={name: unet, channels: [16384], layers: 1000}", "model"),
        ("model={name: dit, width: 16384, depth: 1000}", "model"),
        ("model={name: dit, depth: 1000000000}", "model.depth"),
        ("model={name: hybvit, width: 16384, depth: 1000}", "model"),
        ("model={name: jdm, weight: 1.0e308}", "model.weight"),
        ("process={name: edm, sigma_data: 1.0e200}", "process.sigma_data"),
        ("sampler.steps=1000000000", "sampler.steps"),
        ("sampler.clip=1.0e308", "sampler.clip"),
        ("annotator.nredo=3000000000", "annotator.nredo"),
        ("dataset={name: shapes, size: 4096, count: 10000000}", "dataset"),
        ("dataset={name: shapes, size: 100000}", "dataset.size"),
        ("encoder={name: mae, width: 16384, depth: 1000}", "encoder"),
        ("encoder={name: dino, hidden: 1000000000}", "encoder.hidden"),
        ("prior={name: rdm, width: 16384, depth: 1000}", "prior"),
        ("arms.self_1.5.guidance.scale=1.0e308", "arms.self_1.5.guidance.scale"),
        ("arms.x={objectives: {name: dispersive, weight: 1.0e308}}", "arms.x.objectives"),
        (
            "arms.x={guidance: [{name: cfg, scale: 2}, {name: apg, eta: 1.0e308}]}",
            "arms.x.guidance.1.eta",
        ),
    ],
)
def test_a_number_that_cannot_work_is_refused_when_validated_with_its_place(
    set_to: str, at: str
) -> None:
    assert f": {at}" in refused(set_to)


def test_seeds_of_64_bits_are_taken_and_work() -> None:
    for seed in (2**63 - 1, 2**63, 2**64 - 1):
        assert made(f"seed={seed}").seed == seed
        torch.rand(1, generator=generator(seed, "any"))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # as an encoder's network is made


def test_the_cross_entropy_may_be_the_whole_loss() -> None:
    assert JDM(weight=float("inf")).weight == float("inf")


def test_a_whole_number_of_a_plugin_that_no_library_takes_is_refused_in_its_field() -> None:
    class Sided(Coin):
        """Has more fields."""

        name: ClassVar[str] = "sided"
        several: tuple[Annotated[int, Field(ge=1)], ...] = (1,)

    for field, value in {"sides": 10**30, "several": (1, 10**30)}.items():
        with pytest.raises(ValidationError, match=rf"{field}\n.*at most 64 bits"):
            Sided.model_validate({field: value})
    assert Sided(sides=2**63 - 1).sides == 2**63 - 1


# Layers


@pytest.mark.parametrize("mode", ["pag", "sag", "seg"])
def test_attention_layers_that_the_network_does_not_have_are_told_before_anything_runs(
    mode: str,
) -> None:
    attentive = "model={name: unet, channels: [8, 16], groups: 4, attention: [1]}"
    told = refused(attentive, f"arms.x={{guidance: {{name: {mode}, scale: 2, layers: [nothing]}}}}")
    assert (
        f"--set #2: arms.x.guidance: guidance {mode}: no attention layer has 'nothing' in its name"
        in told
    )
    assert "the network has down_blocks.1.attentions.0, mid_block" in told
    for layers in ("[mid]", "[down_blocks]", "[0, 1]", "null"):
        assert made(attentive, f"arms.x={{guidance: {{name: {mode}, scale: 2, layers: {layers}}}}}")


def test_layers_of_a_mode_that_is_off_are_nobodys() -> None:
    assert made("model=dit", "arms.x={guidance: {name: pag, scale: 1, layers: [nothing]}}")


def test_guidance_that_needs_a_grid_is_refused_on_a_network_with_a_class_token() -> None:
    hybvit = "arms.x={model: hybvit, guidance: {name: %s, scale: 2}}"
    assert "arms.x.guidance: the 17 tokens of layer blocks.2 make no grid" in refused(
        hybvit % "sag"
    )
    assert "make no grid" in refused((hybvit % "seg").replace("scale: 2", "scale: 2, blur: 1"))
    assert made(hybvit % "seg")
    assert made(hybvit % "pag")
    assert made((hybvit % "sag").replace("model", "annotator: null, model"))


# Devices


@pytest.mark.parametrize(
    "device", ["meta", "mps", "xpu", "gpu", "", "cuda:-1", "cuda:99999999999999999999", "cpu,cuda"]
)
@pytest.mark.parametrize(
    "command",
    [
        ["run", TINY, "--dry-run"],
        ["clusters", TINY],
        ["sample", "nowhere", "--arm", "a"],
        ["heatmap", "nowhere", "--arm", "a"],
    ],
    ids=lambda words: words[0],
)
def test_a_device_that_fw_does_not_run_on_is_refused_in_one_sentence_before_anything_is_done(
    command: list[Any], device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = fw(*command, "--device", device)
    assert answer.code == 2
    assert answer.err.startswith(f"--device {device}: ")
    assert answer.err.count("\n") == 1
    assert "use auto, cpu, cuda or cuda:N" in answer.err
    assert list(tmp_path.iterdir()) == []


def test_devices_that_fw_runs_on_are_taken_if_they_are_there() -> None:
    assert checked_device("cpu") == "cpu"
    assert checked_device("auto") in ("cpu", "cuda")
    with pytest.raises(FwError, match=r"--device cuda:99: torch sees \d+ CUDA devices here"):
        checked_device("cuda:99")


# What is taken can be planned


EVERY = sorted(installed().components)
SECTIONS = {
    "dataset": "dataset",
    "encoder": "arms.x.encoder",
    "annotator": "arms.x.annotator",
    "prior": "arms.x.prior",
    "backbone": "arms.x.model",
    "process": "arms.x.process",
    "objective": "arms.x.objectives",
    "guidance": "arms.x.guidance",
    "sampler": "arms.x.sampler",
    "metric": "metrics",
    "probe": "probes",
}


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_recipe_with_any_fields_is_refused_in_words_or_planned(data: st.DataObject) -> None:
    kind, name = data.draw(st.sampled_from([key for key in EVERY if key[0] in SECTIONS]))
    component: type[Component] = installed().components[kind, name]
    fields = data.draw(changes(component))
    source = read(TINY)
    entry = {"name": name, **{key: value for key, value in fields.items() if value is not None}}
    arm: dict[str, Any] = {}
    section = SECTIONS[kind]
    if section.startswith("arms.x."):
        arm[section.removeprefix("arms.x.")] = entry
    else:
        source.data[section] = [entry] if section in ("metrics", "probes") else entry
    source.data["arms"]["x"] = arm
    with contextlib.suppress(FwError):
        recipe = validate(source, installed())
        plan(recipe)
        list(map(str, warnings(recipe)))
