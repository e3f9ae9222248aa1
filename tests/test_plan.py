"""A plan shares what arms agree on, and a stage's key is all that decides its product, and
nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fw.core.errors import FwError
from fw.core.files.finished import FinishedWeights
from fw.core.plan.assembly import plan
from fw.core.plan.graph import Plan
from fw.core.recipe.loading import validate
from fw.core.recipe.model import Recipe
from fw.core.recipe.source import parse
from fw.core.settings import Train
from fw.core.stages.annotate import Annotate
from fw.core.stages.base import Stage
from fw.core.stages.encode import Encode
from fw.core.stages.evaluate import Evaluate
from fw.core.stages.keys import digest, identity
from fw.core.stages.sample import Sample
from fw.core.stages.train import TrainDenoiser
from fw.registry.names import fields_by_key
from tests.toys import RECIPE, Flat, Gap, Mean, Through, registry

TOYS = registry()
KINDS = ("encode", "annotate", "train", "sample", "evaluate")


def recipe(*sets: str) -> Recipe:
    source = parse(RECIPE, "r.yaml")
    source.set(sets)
    return validate(source, TOYS)


def planned(*sets: str) -> Plan:
    return plan(recipe(*sets))


def counts(found: Plan) -> dict[str, int]:
    return dict(Counter(stage.kind for stage in found.stages.values()))


def keys(found: Plan, arm: str = "self_1.5") -> dict[str, Any]:
    """The stages of one arm by what they are for."""
    own = found.arms[arm]
    spaces = [found.stages[stage].inputs["space"] for stage in own.evaluate]
    named = (own.encode, own.annotate, own.train, own.sample, own.evaluate)
    return {**dict(zip(KINDS, named, strict=True)), "space": spaces}


def changed(*sets: str, arm: str = "self_1.5") -> set[str]:
    """Which of an arm's stages the settings replace by others."""
    before, after = keys(planned(), arm), keys(planned(*sets), arm)
    return {kind for kind in before if before[kind] != after[kind]}


def test_arms_that_agree_share_their_stages() -> None:
    drawn = {"sample": 3, "features": 3, "evaluate": 3}
    assert counts(planned()) == {"encode": 2, "annotate": 1, "train": 2, **drawn}
    more = planned(
        "arms.self_9={guidance: {name: selfish, scale: 9}}",
        "arms.faster={sampler: {name: euler, steps: 1}}",
        "arms.coin={annotator: coin}",
        "arms.blind_coin={annotator: coin, encoder: null}",
        "arms.twin={}",
    )
    drawn = {"sample": 6, "features": 6, "evaluate": 6}
    assert counts(more) == {"encode": 2, "annotate": 2, "train": 3, **drawn}
    assert keys(more, "twin") == keys(more, "self_1.0")
    assert more.users(keys(more)["train"]) == ["self_1.0", "self_1.5", "self_9", "faster", "twin"]
    assert more.users(keys(more)["space"][0]) == list(more.arms)


def test_an_arm_that_looks_at_no_features_plans_no_encoder() -> None:
    found = planned("arms.coin={annotator: coin}")
    assert keys(found, "plain")["encode"] is None
    assert keys(found, "plain")["annotate"] is None
    assert keys(found, "coin")["encode"] is None
    assert keys(found, "coin")["annotate"] is not None


ALL = set(KINDS) | {"space"}
AFTER_TRAIN = {"train", "sample", "evaluate"}


@pytest.mark.parametrize(
    ("setting", "replaced"),
    [
        ("dataset.count=21", ALL),
        ("seed=1", ALL - {"space"}),
        ("encoder.cells=3", ALL - {"space"}),
        ("annotator.clusters=3", {"annotate"} | AFTER_TRAIN),
        ("model.width=2", AFTER_TRAIN),
        *[
            (f"train.{entry}", AFTER_TRAIN)
            for entry in ("steps=5", "batch=9", "lr=1", "warmup=2", "weight_decay=1")
        ],
        *[
            (f"train.{entry}", AFTER_TRAIN)
            for entry in ("clip=2", "clip=null", "ema=0.5", "cond_drop=0.2", "flip=true")
        ],
        *[
            (f"train.{entry}", AFTER_TRAIN)
            for entry in ("optimizer=adam", "betas=[0, 0]", "schedule=constant", "ema_halflife=9")
        ],
        ("train.ema_ramp=false", AFTER_TRAIN),
        ("train.precision=bf16", AFTER_TRAIN),
        ("sampler.steps=3", {"sample", "evaluate"}),
        ("arms.self_1.5.guidance.scale=1.6", {"sample", "evaluate"}),
        ("arms.self_1.5.guidance.interval=[0.1, 1]", {"sample", "evaluate"}),
        ("arms.self_1.5.guidance=dropped", {"sample", "evaluate"}),
        ("samples.count=7", {"sample", "evaluate"}),
        ("samples.seeds=4", {"sample", "evaluate"}),
        ("metrics.0.space.cells=3", {"evaluate", "space"}),
        ("metrics.0.weights={a: 2}", {"evaluate"}),
    ],
)
def test_a_setting_replaces_the_stages_that_depend_on_it_and_no_others(
    setting: str, replaced: set[str]
) -> None:
    assert changed(setting) == replaced


@pytest.mark.parametrize(
    "setting",
    [
        *(
            "name=other",
            "baseline=self_1.0",
            "guidance=free",
            "arms.x={annotator: coin}",
            "tracker=null",
        ),
        *(
            "train.steps=4",
            "encoder={cells: 2, name: mean}",
            "arms.self_1.5.encoder={name: mean, cells: 2}",
        ),
        *(
            "arms.self_1.5.guidance=[{name: selfish, scale: 1.5}]",
            "dataset={name: dots, count: 20}",
        ),
    ],
)
def test_what_decides_nothing_changes_no_key(setting: str) -> None:
    assert changed(setting) == set()


def test_every_setting_of_training_is_in_its_key() -> None:
    """Away from its neutral value, if it has one; but for three that change no result."""
    keyed = fields_by_key(Train).keys() - {"compile", "checkpointing", "keep"}
    neutral: Any = {
        "accumulate": 2,
        "optimizer": "adam",
        "betas": (0, 0),
        "schedule": "constant",
        "ema_halflife": 9,
        "ema_ramp": False,
        "augment": 0.1,
        "snapshots": 2,
        "averages": (0.1,),
        "from": FinishedWeights(run="runs/a", arm="b", sha256="0" * 64, process={"name": "flow"}),
    }
    assert identity(Train(**neutral)).keys() == keyed
    found = planned()
    payload = found.stages[keys(found)["train"]].payload
    assert payload["train"].keys() == keyed - neutral.keys()


def test_raising_a_components_version_replaces_what_it_makes_and_all_that_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = keys(planned())
    monkeypatch.setattr(Mean, "version", 2)
    monkeypatch.setattr(Flat, "version", 1)
    after = keys(planned())
    assert {kind for kind in before if before[kind] != after[kind]} == ALL - {"space"}


def test_raising_the_version_of_a_metrics_space_replaces_its_scores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = keys(planned())
    monkeypatch.setattr(Flat, "version", 2)
    after = keys(planned())
    assert {kind for kind in before if before[kind] != after[kind]} == {"evaluate", "space"}


def test_the_version_of_a_component_within_a_component_is_in_the_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    holding = ("arms.self_1.5.guidance={name: through, lens: flat}", "metrics.0.space=taught")
    before = keys(planned(*holding))
    monkeypatch.setattr(Flat, "version", 2)
    after = keys(planned(*holding))
    assert {kind for kind in before if before[kind] != after[kind]} == {"sample", "evaluate"}
    assert Through.version == Gap.version == 1


@pytest.mark.parametrize("kind", KINDS)
def test_raising_a_stages_version_replaces_it_and_all_that_follows(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = keys(planned())
    stages: list[type[Stage]] = [Encode, Annotate, TrainDenoiser, Sample, Evaluate]
    [changed] = [stage for stage in stages if stage.kind == kind]
    monkeypatch.setattr(changed, "version", 99)
    after = keys(planned())
    follows = ALL if kind == "encode" else set(KINDS[KINDS.index(kind) :])
    assert {each for each in before if before[each] != after[each]} == follows


arms = st.sampled_from(
    [
        "{}",
        "{annotator: null}",
        "{annotator: coin}",
        "{annotator: coin, encoder: null}",
        "{annotator: truth, guidance: {name: dropped, scale: 2}}",
        "{guidance: {name: selfish, scale: 1.5}}",
        "{encoder: {name: mean, cells: 3}}",
        "{train: {steps: 9}, model: attentive, guidance: [free, blurred]}",
        "{sampler: {name: euler, steps: 7}}",
    ]
)
tables = st.dictionaries(
    st.from_regex(r"[a-z0-9]{1,4}", fullmatch=True), arms, min_size=1, max_size=6
)


def with_arms(table: dict[str, str], *sets: str) -> Recipe:
    body = ", ".join(f"'{name}': {arm}" for name, arm in table.items())
    return recipe(f"arms={{{body}}}", f"baseline='{next(iter(table))}'", *sets)


@given(tables, st.randoms())
def test_the_order_and_the_company_of_arms_change_no_key(
    table: dict[str, str], random: Any
) -> None:
    together = plan(with_arms(table))
    shuffled = plan(with_arms(dict(random.sample(list(table.items()), len(table)))))
    assert shuffled.stages.keys() == together.stages.keys()
    for name, arm in table.items():
        alone = keys(plan(with_arms({name: arm})), name)
        assert alone == keys(together, name) == keys(shuffled, name)


@given(tables, st.integers(2, 99), st.integers(1, 9))
def test_how_much_is_sampled_changes_no_training(
    table: dict[str, str], count: int, seeds: int
) -> None:
    before = plan(with_arms(table))
    after = plan(with_arms(table, f"samples={{count: {count}, seeds: {seeds}}}"))
    assert all(before.arms[name].train == after.arms[name].train for name in table)
    same = {"count": count, "seeds": seeds} == {"count": 6, "seeds": 3}
    assert all((before.arms[name].sample == after.arms[name].sample) == same for name in table)


@given(tables)
def test_stages_stand_after_what_they_read_and_nothing_is_planned_twice(
    table: dict[str, str],
) -> None:
    found = plan(with_arms(table))
    seen: set[str] = set()
    for name, stage in found.stages.items():
        assert seen.issuperset(stage.inputs.values())
        assert name == stage.id not in seen
        seen.add(name)
    assert seen == set().union(*(found.needed(arm) for arm in found.arms.values()))


@given(tables)
def test_what_more_work_waits_for_is_more_urgent(table: dict[str, str]) -> None:
    found = plan(with_arms(table))
    for stage in found.stages.values():
        assert all(
            found.priority(source) > found.priority(stage.id) for source in stage.inputs.values()
        )
    for arm in found.arms.values():
        if arm.encode is not None:
            assert found.priority(arm.encode) > found.priority(
                found.stages[arm.evaluate[0]].inputs["space"]
            )


@given(tables)
def test_a_stage_carries_the_components_that_it_runs_with_and_its_payload_is_json(
    table: dict[str, str],
) -> None:
    for stage in plan(with_arms(table)).stages.values():
        named = {getattr(component, "name", None) for component in stage.components}
        assert "dots" in named
        assert stage.key == digest(json.loads(json.dumps(stage.payload)))


def test_a_seed_is_told_apart_where_it_decides_and_evaluators_keep_their_own() -> None:
    found = planned("seed=7")
    seeds = {
        stage.kind: stage.seed for stage in found.stages.values() if "space" not in stage.inputs
    }
    assert {kind: seeds[kind] for kind in ("annotate", "train", "sample")} == dict.fromkeys(
        KINDS[1:4], 7
    )
    assert found.stages[keys(found)["encode"]].seed == 7
    assert found.stages[keys(found)["space"][0]].seed == 0


def test_a_run_with_seed_zero_may_share_the_evaluators_encoder() -> None:
    shared = planned("encoder={name: flat, cells: 1}")
    assert keys(shared)["encode"] == keys(shared)["space"][0]
    other = planned("encoder={name: flat, cells: 1}", "seed=1")
    assert keys(other)["encode"] != keys(other)["space"][0]


def test_network_evaluations_count_one_more_per_mode_that_is_on() -> None:
    found = planned(
        "arms.off={guidance: {name: selfish, scale: 1}}",
        "arms.two={guidance: [{name: free, scale: 2}, {name: selfish, scale: 0}]}",
    )
    assert {name: arm.nfe for name, arm in found.arms.items()} == {
        "plain": 2,
        "self_1.0": 2,
        "self_1.5": 4,
        "off": 2,
        "two": 6,
    }


def test_only_the_named_arms_are_planned_with_the_keys_they_have_in_company() -> None:
    found = plan(recipe(), ["self_1.5", "self_1.5"])
    assert list(found.arms) == ["self_1.5"]
    assert keys(found) == keys(planned())
    drawn = {"sample": 1, "features": 1, "evaluate": 1}
    assert counts(found) == {"encode": 2, "annotate": 1, "train": 1, **drawn}


def test_an_arm_that_is_not_there_is_refused_in_one_sentence() -> None:
    with pytest.raises(FwError) as caught:
        plan(recipe(), ["plain", "best"])
    assert (
        str(caught.value)
        == "--arm best: no such arm in recipe 'toy' (known: plain, self_1.0, self_1.5)"
    )


KEYS_ELSEWHERE = """
import sys
sys.path.insert(0, sys.argv[1])
from fw.core.plan.assembly import plan
from fw.core.recipe.loading import validate
from fw.core.recipe.source import parse
from toys import RECIPE, registry
source = parse(RECIPE, "r")
source.set(["metrics.0.weights={a: 1, b: 2, c: 3}"])
print(*plan(validate(source, registry())).stages)
"""


def test_keys_are_the_same_in_every_process() -> None:
    here = list(planned("metrics.0.weights={a: 1, b: 2, c: 3}").stages)
    for seed in ("1", "2"):
        command = [sys.executable, "-c", KEYS_ELSEWHERE, str(Path(__file__).parent)]
        env = os.environ | {"PYTHONHASHSEED": seed}
        there = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        assert there.stdout.split() == here


def test_the_order_in_which_a_mapping_is_written_does_not_matter() -> None:
    one, other = ("metrics.0.weights={a: 1, b: 2}", "metrics.0.weights={b: 2, a: 1}")
    assert planned(one).stages.keys() == planned(other).stages.keys()


@settings(max_examples=50)
@given(
    st.dictionaries(
        st.text(max_size=3), st.floats() | st.integers() | st.text() | st.none(), max_size=4
    )
)
def test_a_digest_is_sixteen_hex_digits_of_what_json_can_hold(payload: dict[str, Any]) -> None:
    assert len(digest(payload)) == 16
    assert int(digest(payload), 16) >= 0
    assert digest(payload) != digest({**payload, "more": 1})
