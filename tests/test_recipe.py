"""Recipes: every fault at once with its line, arms that replace whole sections, and a form that
reads back as equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fw.core.errors import RecipeError
from fw.core.plan.assembly import plan
from fw.core.recipe.loading import load, validate
from fw.core.recipe.model import Recipe
from fw.core.recipe.source import dump, parse
from tests.saying import all_say, says
from tests.toys import RECIPE, Dropped, Free, Mean, registry

TOYS = registry()


def made(text: str = RECIPE, *sets: str) -> Recipe:
    source = parse(text, "r.yaml")
    source.set(sets)
    return validate(source, TOYS)


def problems(text: str = RECIPE, *sets: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        made(text, *sets)
    return caught.value.problems


def with_arms(*lines: str) -> str:
    return RECIPE + "".join(f"  {line}\n" for line in lines)


FAULTY = """\
fw: 1
name: Toy Story
dataset: dots
encodr: mean
encoder: {name: maen}
model: linear
process: {unit: 1}
train: {steps: 0, lr: fast, stepz: 4, flip: 3}
sampler: {name: euler, stpes: 2}
samples: {count: 6}
metrics:
  - {name: gap, spaec: flat}
  - {name: gap, space: {name: flat, cels: 1}}
  - gap
baseline: plain
arms:
  plain: {annotator: null, annotatr: null}
  bad name: {}
  deep: {guidance: [free, {name: through, lens: {name: mean, cell: 2}}]}
  none: {sampler: null}
"""


def test_all_faults_are_told_at_once_with_line_path_reason_and_suggestion() -> None:
    sections = (
        "encoder, annotator, prior, model, process, train, ema, objectives, guidance, sampler"
    )
    assert all_say(
        problems(FAULTY),
        "r.yaml:2: name: ... pattern ... 'Toy Story'",
        "r.yaml:4: encodr: ... 'encoder' ... fw, name, seed, repeats, dataset, latents, "
        f"{sections}, samples",
        "r.yaml:5: encoder: ... 'maen' ... 'mean' ... flat, mean, taught",
        "r.yaml:7: process: ... name of a process ... 'name'",
        "r.yaml:8: train.steps: ... 1 ... 0",
        "r.yaml:8: train.lr: ... number ... 'fast'",
        "r.yaml:8: train.stepz: ... 'steps' ... steps, batch, accumulate",
        "r.yaml:8: train.flip: ... boolean ... 3",
        "r.yaml:9: sampler.stpes: ... 'steps' ... name, steps",
        "r.yaml:12: metrics.0.space: ... required",
        "r.yaml:12: metrics.0.spaec: ... 'space' ... name, space, weights",
        "r.yaml:13: metrics.1.space.cels: ... 'cells' ... name, cells",
        "r.yaml:14: metrics.2.space: ... required",
        f"r.yaml:17: arms.plain.annotatr: ... 'annotator' ... {sections}",
        "r.yaml:18: arms.bad name: ... pattern ... 'bad name'",
        "r.yaml:19: arms.deep.guidance.1.lens.cell: ... 'cells' ... name, cells",
        "r.yaml:20: arms.none.sampler: ... leave the key out",
    )


@pytest.mark.parametrize(
    ("arm", "problem"),
    [
        ("x: {guidance: {name: free, scal: 2}}", ".guidance.scal: ... 'scale' ... name, scale"),
        ("x: {guidance: [{name: free, scal: 2}]}", ".guidance.0.scal: ... 'scale'"),
        (
            "x: {guidance: {name: through, lens: {name: mean, x: 1}}}",
            ".guidance.lens.x: ... name, cells",
        ),
        ("x: {guidance: pga}", ".guidance: ... 'pga' ... blurred, dropped, free, selfish, through"),
        ("x: {guidance: 3}", ".guidance: ... 3"),
        ("x: {train: {step: 2}}", ".train.step: ... 'steps' ... steps, batch"),
        ("x: {train: 3}", ".train: ... mapping ... 3"),
        ("x: {samples: {count: 3}}", ".samples: ... 'sampler' ... encoder"),
        ("x: 3", ": ... mapping ... 3"),
    ],
)
def test_a_fault_in_an_arm_names_the_arm(arm: str, problem: str) -> None:
    (told,) = problems(with_arms(arm))
    assert says(told, f"r.yaml:{RECIPE.count(chr(10)) + 1}: arms.x{problem}")


@pytest.mark.parametrize("name", ["train", "model", "encoder", "guidance", "name"])
def test_an_arm_may_be_named_like_a_section(name: str) -> None:
    (told,) = problems(with_arms(f"{name}: {{trian: 3}}"))
    assert says(
        told,
        f"r.yaml:{RECIPE.count(chr(10)) + 1}: arms.{name}.trian: ... 'train' ... encoder, "
        "annotator",
    )


@pytest.mark.parametrize("section", ["model", "process", "train", "sampler"])
def test_no_arm_can_do_without_its_model_process_train_or_sampler(section: str) -> None:
    assert len(problems(with_arms(f"x: {{{section}: null}}"))) == 1
    assert len(problems(RECIPE, f"{section}=null")) == 1


@pytest.mark.parametrize(
    ("sets", "problem"),
    [
        (["arms={}"], "--set #1: arms: ... at least 1"),
        (["metrics=[]"], "--set #1: metrics: ... at least 1"),
        (["fw=2"], "--set #1: fw: ... 1 ... 2"),
        (["seed=-1"], "--set #1: seed: ... 0 ... -1"),
        (["train.lr=.inf"], "--set #1: train.lr: ... finite ... inf"),
        (["train.lr=1", "train.stepz=5"], "--set #2: train.stepz: ... 'steps'"),
        (["encoder.cells=0"], "--set #1: encoder.cells: ... 1 ... 0"),
        (["metrics.0.spice=mean"], "--set #1: metrics.0.spice: ... 'space'"),
        (["arms.self_1.5.guidance.scale=-1"], "--set #1: arms.self_1.5.guidance.scale: ... -1"),
        (["arms.new={baseline: x}"], "--set #1: arms.new.baseline: ... unknown"),
        (["arms.new.train.steps=1"], "--set #1: arms ... 'new' ... known: plain, self_1.0"),
        (["encoder=broken"], "--set #1: encoder: ... 'broken' ... flat, mean, taught"),
        (["baseline=nobody"], "--set #1: baseline: ... 'nobody' ... plain, self_1.0, self_1.5"),
        (["baseline=../x"], "--set #1: baseline: ... pattern"),
        (["name=../x"], "--set #1: name: ... pattern"),
    ],
)
def test_a_fault_from_the_command_line_names_its_set(sets: list[str], problem: str) -> None:
    (told,) = problems(RECIPE, *sets)
    assert says(told, problem)


@pytest.mark.parametrize("name", ["../x", ".x", "a b", "a/b", "a\\b", "-x", "x\n", "", "é"])
def test_names_that_would_be_awkward_as_files_are_refused(name: str) -> None:
    data = parse(RECIPE, "r").data
    (told,) = problems(dump({**data, "arms": {**data["arms"], name: {}}}))
    assert ": arms." in told
    assert any("name: " in told for told in problems(dump({**data, "name": name})))


def test_missing_sections_are_all_named() -> None:
    required = ["dataset", "model", "process", "sampler", "metrics", "baseline", "arms"]
    assert all_say(
        problems("fw: 1\nname: x\n"), *[f"r.yaml: {key}: ... required" for key in required]
    )


def test_absent_is_the_recipes_and_null_is_none() -> None:
    recipe = made(
        RECIPE,
        "guidance=dropped",
        "arms.plain={annotator: null, encoder: null, guidance: null}",
        "arms.x={}",
    )
    assert recipe.arm("x").encoder == Mean(cells=2)
    assert recipe.arm("x").annotator == recipe.annotator is not None
    assert recipe.arm("x").guidance == (Dropped(),)
    plain = recipe.arm("plain")
    assert (plain.encoder, plain.annotator, plain.guidance) == (None, None, ())


def test_an_arm_replaces_a_section_whole() -> None:
    recipe = made(RECIPE, "arms.x={train: {lr: 1}, encoder: mean}")
    assert recipe.train.steps == 4
    assert (recipe.arm("x").train.steps, recipe.arm("x").train.lr) == (
        1000,
        1.0,
    )  # the default, not the recipe's 4
    assert recipe.arm("x").encoder == Mean(cells=1)


@pytest.mark.parametrize(
    "written", ["mean", "{name: mean}", "{name: mean, cells: 1}", "{cells: 1, name: mean}"]
)
def test_a_name_is_short_for_a_component_with_its_defaults(written: str) -> None:
    assert made(RECIPE, f"encoder={written}").encoder == Mean()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("null", ()),
        ("[]", ()),
        ("free", (Free(),)),
        ("{name: free, scale: 2}", (Free(scale=2),)),
        ("[free, {name: free, scale: 2}]", (Free(), Free(scale=2))),
        ("[{name: dropped, interval: [0.5, 80]}]", (Dropped(interval=(0.5, 80)),)),
    ],
)
def test_guidance_is_one_mode_or_a_list(written: str, meant: tuple) -> None:
    assert made(RECIPE, f"guidance={written}", "arms.plain.guidance=null").guidance == meant


def test_a_recipe_file_is_loaded_with_its_sets(tmp_path: Path) -> None:
    file = tmp_path / "toy.yaml"
    file.write_text(RECIPE)
    assert load(file, ["train.steps=9"], TOYS).train.steps == 9
    file.write_text(RECIPE.replace("fw: 1", "fw: 3"))
    with pytest.raises(RecipeError, match=r"toy\.yaml:1: fw: "):
        load(file, (), TOYS)


numbers = st.floats(1e-9, 1e9)
intervals = st.lists(numbers, min_size=2, max_size=2, unique=True).map(sorted)
encoders = st.sampled_from(["mean", "flat"]) | st.builds(
    lambda n: {"name": "mean", "cells": n}, st.integers(1, 4)
)
annotators = st.sampled_from(["coin", {"name": "halves", "clusters": 3}])
modes = st.fixed_dictionaries(
    {"name": st.sampled_from(["free", "dropped", "selfish"])},
    optional={"scale": numbers, "interval": st.none() | intervals},
) | st.builds(lambda lens: {"name": "through", "lens": lens}, encoders)
trains = st.fixed_dictionaries(
    {},
    optional={
        "steps": st.integers(1, 9),
        "lr": numbers,
        "flip": st.booleans(),
        "precision": st.just("bf16"),
    },
)
sections = {
    "encoder": encoders,
    "annotator": annotators,
    "model": st.sampled_from(["linear", {"name": "attentive", "width": 2}]),
    "process": st.just("unit"),
    "train": trains,
    "guidance": st.none() | modes | st.lists(modes, max_size=3),
    "sampler": st.sampled_from(["euler", {"name": "euler", "steps": 7}]),
}
overrides = st.fixed_dictionaries({}, optional=sections) | st.just(
    {"annotator": None, "encoder": None, "guidance": None}
)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,6}", fullmatch=True) | st.sampled_from(
    ["1e5", "08", "no", "null"]
)
weights = st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), numbers, max_size=2)
recipes = st.fixed_dictionaries(
    {
        **sections,
        "fw": st.just(1),
        "name": st.from_regex(r"[a-z0-9][a-z0-9_\-]{0,8}", fullmatch=True),
        "dataset": st.sampled_from(["dots", {"name": "dots", "count": 7}]),
        "metrics": st.builds(
            lambda space, w: {"name": "gap", "space": space, "weights": w}, encoders, weights
        ),
        "arms": st.dictionaries(names, overrides, min_size=1, max_size=4),
    },
    optional={"seed": st.integers(0, 2**63), "samples": st.just({"count": 5})},
)


@settings(max_examples=100)
@given(recipes)
def test_the_resolved_recipe_reads_back_as_an_equal_one_with_the_same_stages(
    data: dict[str, Any],
) -> None:
    recipe = made(dump({**data, "baseline": next(iter(data["arms"]))}))
    again = made(recipe.to_yaml())
    assert again == recipe
    assert list(again.arms) == list(recipe.arms)
    assert all(again.arm(name) == recipe.arm(name) for name in recipe.arms)
    assert plan(again).stages.keys() == plan(recipe).stages.keys()
    assert again.to_yaml() == recipe.to_yaml()


def test_the_resolved_recipe_writes_out_every_default() -> None:
    resolved = parse(made().to_yaml(), "r").data
    assert resolved["train"]["cond_drop"] == 0.1
    assert resolved["sampler"] == {"name": "euler", "steps": 2}
    assert resolved["metrics"] == [
        {"name": "gap", "space": {"name": "flat", "cells": 1}, "weights": {}}
    ]
    assert resolved["arms"]["plain"] == {"annotator": None}
    assert resolved["arms"]["self_1.0"] == {}
    assert resolved["arms"]["self_1.5"] == {
        "guidance": [{"name": "selfish", "scale": 1.5, "interval": None}]
    }
