"""What types cannot say: capabilities, label-freeness, and comparisons that would not be fair."""

from __future__ import annotations

from pathlib import Path

import pytest

from fw.core.errors import RecipeError
from fw.core.recipe.checks import warnings
from fw.core.recipe.loading import validate
from fw.core.recipe.model import Recipe
from fw.core.recipe.source import parse, read
from fw.registry import installed
from tests.saying import all_say, says
from tests.toys import RECIPE, registry

TOYS = registry()
FIRST_ARM = RECIPE.splitlines().index("arms:") + 2


def made(*sets: str) -> Recipe:
    source = parse(RECIPE, "r.yaml")
    source.set(sets)
    return validate(source, TOYS)


def faults(*sets: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        made(*sets)
    return caught.value.problems


def warned(*sets: str) -> list[str]:
    """What is warned about, but that the toys' sampler is none of Gaussian data."""
    return [str(entry) for entry in warnings(made(*sets)) if "Gaussian" not in entry.reason]


def test_an_honest_recipe_has_no_faults_and_no_warnings() -> None:
    assert warned() == []


def test_a_baseline_that_is_no_arm_is_refused() -> None:
    assert all_say(
        faults("baseline=best"), "--set #1: baseline: ... 'best' ... plain, self_1.0, self_1.5"
    )


LABEL_FREE = (
    f"r.yaml:{FIRST_ARM + 2}: arms.self_1.5.guidance: ... 'selfish' ... without labels ... "
    "annotator"
)


def test_label_free_guidance_refuses_an_annotator_that_uses_labels() -> None:
    assert all_say(faults("annotator=truth"), LABEL_FREE)


def test_label_free_guidance_refuses_labels_that_come_in_through_the_encoder() -> None:
    assert all_say(faults("encoder=taught"), LABEL_FREE)


def test_an_encoder_that_uses_labels_does_no_harm_where_the_annotator_looks_at_no_features() -> (
    None
):
    assert made("encoder=taught", "annotator=coin").arm("self_1.5").guidance


def test_guidance_that_may_use_labels_is_free_to() -> None:
    assert made("arms.self_1.5.guidance.name=dropped", "annotator=truth").arm("self_1.5").guidance


def test_guidance_by_conditions_is_refused_in_an_unconditional_arm_in_one_sentence() -> None:
    assert all_say(
        faults("guidance=selfish"), f"r.yaml:{FIRST_ARM}: arms.plain: ... 'selfish' ... annotator"
    )
    dropped = "--set #1: arms.plain.guidance: ... 'dropped' ... annotator"
    assert all_say(faults("arms.plain.guidance=dropped"), dropped)


def test_guidance_by_the_null_condition_is_refused_without_condition_dropout() -> None:
    where = f"r.yaml:{FIRST_ARM + 2}: arms.self_1.5.guidance: "
    assert all_say(faults("train.cond_drop=0"), f"{where} ... 'selfish' ... train.cond_drop > 0")
    assert made("train.cond_drop=0", "arms.self_1.5.guidance=free")


def test_guidance_by_attention_is_refused_on_a_model_that_has_none() -> None:
    places = [
        f"r.yaml:{FIRST_ARM + arm}: arms.{name}: " for arm, name in enumerate(["plain", "self_1.0"])
    ]
    assert all_say(
        faults("guidance=blurred"), *[f"{place} ... 'blurred' ... attention" for place in places]
    )
    assert made("guidance=blurred", "model=attentive")


def test_every_mode_of_a_list_is_checked() -> None:
    assert len(faults("arms.plain.guidance=[free, dropped, blurred]")) == 2


def test_an_annotator_of_features_is_refused_without_an_encoder() -> None:
    reason = " ... 'halves' ... encoder"
    assert all_say(faults("arms.x={encoder: null}"), f"--set #1: arms.x: {reason}")
    assert all_say(
        faults("encoder=null", "arms.x={annotator: halves}"),
        f"r.yaml:{FIRST_ARM + 1}: arms.self_1.0: {reason}",
        f"r.yaml:{FIRST_ARM + 2}: arms.self_1.5: {reason}",
        f"--set #2: arms.x.annotator: {reason}",
    )
    assert made("encoder=null", "annotator=coin")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("metrics.0.space=taught", "r.yaml:11: metrics.0: ... gap ... dataset with labels"),
        (
            "arms.x={annotator: truth}",
            "--set #2: arms.x.annotator: ... 'truth' ... dataset with labels",
        ),
        (
            "arms.x={encoder: taught}",
            "--set #2: arms.x.encoder: ... 'taught' ... dataset with labels",
        ),
    ],
)
def test_what_needs_labels_is_refused_on_a_dataset_without(change: str, told: str) -> None:
    assert made(change)
    assert any(says(fault, told) for fault in faults("dataset.labelled=false", change))


def test_an_encoder_that_nobody_uses_needs_nothing() -> None:
    assert made("dataset.labelled=false", "encoder=taught", "annotator=coin")


def test_two_metrics_with_one_key_are_refused() -> None:
    twice = "metrics=[{name: gap, space: flat}, {name: gap, space: {name: flat, cells: 2}}]"
    assert all_say(faults(twice), "--set #1: metrics: ... 'gap_flat' ... take one away ... space")


@pytest.mark.parametrize(
    ("arm", "what"),
    [
        ("{train: {steps: 5, batch: 8, warmup: 1}}", "train.steps ... 5 ... 4"),
        ("{train: {steps: 4, batch: 9, warmup: 1}}", "train.batch ... 9 ... 8"),
        (
            "{train: {steps: 4, batch: 8, warmup: 1, precision: bf16}}",
            "train.precision ... bf16 ... fp32",
        ),
        (
            "{model: {name: linear, width: 2}}",
            "model differs from the baseline's: width 2 against 1",
        ),
    ],
)
def test_arms_that_do_not_compete_on_equal_terms_are_warned_about(arm: str, what: str) -> None:
    assert all_say(warned(f"arms.x={arm}"), f"arms.x: {what}")


def test_a_list_that_is_too_short_says_which_entry_it_lacks() -> None:
    [fault] = faults("train={betas: [0.9]}")
    assert fault.endswith("train.betas: entry 2 of the list is required")


def test_a_sampler_that_the_baseline_is_never_drawn_with_is_warned_about() -> None:
    [told] = warned("arms.x={sampler: {name: euler, steps: 3}}")
    assert told.startswith("arms.x.sampler: the comparison is across samplers: euler (steps: 3), ")
    assert "NFE 3, against the baseline's euler (steps: 2), NFE 2" in told
    own = "annotator: null, guidance: null, sampler: {name: euler, steps: 3}"
    assert not warned("arms.x={sampler: {name: euler, steps: 3}}", f"arms.other={{{own}}}")


def test_what_an_arm_may_well_do_differently_is_not_warned_about() -> None:
    assert (
        warned("arms.x={annotator: truth, encoder: taught, guidance: {name: dropped, scale: 3}}")
        == []
    )
    assert warned("arms.x={train: {steps: 4, batch: 8, warmup: 1, cond_drop: 0.5}}") == []


def test_scoring_in_the_space_of_the_conditioning_encoder_is_warned_about_for_each_arm() -> None:
    told = warned("metrics.0.space={name: mean, cells: 4}", "arms.coin={annotator: coin}")
    assert all_say(
        told, *[f"metrics: ... arm {arm} ... 'mean' ... space" for arm in ("self_1.0", "self_1.5")]
    )


def test_fewer_than_three_sampling_seeds_are_warned_about() -> None:
    assert all_say(warned("samples.seeds=2"), "samples.seeds: ... 2 ... take 3")


def test_a_conditional_baseline_is_warned_about() -> None:
    assert all_say(warned("baseline=self_1.0"), "baseline: ... conditional")


def test_a_warm_up_as_long_as_the_training_is_warned_about() -> None:
    told = warned("arms.x={train: {steps: 4, batch: 8, warmup: 4}}")
    assert all_say(
        told, "arms.x: train.warmup ... 4 ... 1", "arms.x: train.warmup ... 4 ... train.steps"
    )


def test_a_name_that_the_runs_folder_uses_itself_is_refused() -> None:
    assert all_say(faults("name=store"), "--set #1: name: ... 'store' ... another name")


@pytest.mark.parametrize(
    ("set_to", "at", "known"),
    [
        (
            "probes=[{name: linear, of: model, blocks: [mid, up.7]}]",
            "probes.0: backbone 'unet'",
            "mid, up.0",
        ),
        (
            "arms.o={objectives: {name: dispersive, block: up.7}}",
            "arms.o.objectives: backbone 'unet'",
            "mid, up.0",
        ),
        (
            "arms.o={annotator: {name: online, block: up.7}}",
            "arms.o.annotator: backbone 'unet'",
            "mid, up.0",
        ),
        (
            "arms.o={encoder: {name: diffusion, model: dit, blocks: [up.7]}}",
            "arms.o.encoder: encoder diffusion: backbone 'dit'",
            "blocks.0",
        ),
    ],
)
def test_a_block_that_the_network_does_not_have_is_told_before_anything_runs(
    set_to: str, at: str, known: str
) -> None:
    source = read(Path(__file__).parent / "tiny.yaml")
    source.set([set_to])
    with pytest.raises(RecipeError) as caught:
        validate(source, installed())
    [problem] = caught.value.problems
    assert says(problem, f"--set #1: {at} ... 'up.7' ... {known}")
    source.set([set_to.replace("up.7", "blocks.0" if "dit" in set_to else "up.0")])
    validate(source, installed())


def test_a_probe_with_few_labels_of_an_encoder_that_has_seen_them_all_is_warned_about() -> None:
    few = "probes=[{name: linear, shares: [0.1]}]"
    arm = "arms.o={encoder: classifier, guidance: {name: cfg, scale: 1.5}}"
    source = read(Path(__file__).parent / "tiny.yaml")
    source.set([few, arm])
    told = [
        entry.reason
        for entry in warnings(validate(source, installed()))
        if entry.location == ("probes", 0)
    ]
    assert all_say(told, "linear ... labels ... encoder 'classifier' ... arm o")
    source.set(["probes=[linear]"])
    assert not [
        entry
        for entry in warnings(validate(source, installed()))
        if entry.location == ("probes", 0)
    ]
