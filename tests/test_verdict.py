"""The verdict answers what the recipe asks: which arms are compared, and what trainings from
several seeds decide."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from sites import fw, site, toy_recipe

from fw.core.plan.assembly import plan
from fw.core.recipe.comparisons import Comparison, comparisons, roles
from fw.core.recipe.loading import validate
from fw.core.recipe.model import Recipe
from fw.core.recipe.source import parse
from fw.core.report.tables import differences, title_of
from fw.core.report.verdict import verdict
from tests.saying import all_say
from tests.test_checks import faults, warned
from tests.toys import RECIPE, Coin, registry

TOYS = registry()

CONTROL = "arms.coin={annotator: coin}"
ORACLE = "arms.oracle={annotator: truth, guidance: null}"
QUESTION = "question={better: self_1.5, controls: [coin], ablations: self_1.0, reference: oracle}"


def made(*sets: str) -> Recipe:
    source = parse(RECIPE, "r.yaml")
    source.set(sets)
    return validate(source, TOYS)


def result(*, better: str = "lower", **scores: list[list[float]]) -> dict[str, Any]:
    """A run.json of arms with these scores: of each training, of each of its sampling seeds."""
    arms = {}
    for name, trainings in scores.items():
        values = [sum(each) / len(each) for each in trainings]
        by_seed = {str(seed): each for seed, each in enumerate(trainings)}
        score = {"mean": sum(values) / len(values), "values": values, "trainings": by_seed}
        arms[name] = {"metrics": {"fd": score}, "nfe": 2, "sampler": "euler"}
    return {
        "headline": "fd",
        "baseline": "plain",
        "baselines": ["plain"],
        "better": {"fd": better},
        "arms": arms,
    }


PLAIN = [[5.0, 5.2], [5.1, 5.1], [4.9, 5.1], [5.0, 5.0]]
GOOD = [[3.0, 3.1], [3.2, 3.0], [2.9, 3.0], [3.1, 3.1]]


def test_without_a_question_every_arm_but_a_control_is_compared_with_the_baseline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Coin, "control", True)
    recipe = made(CONTROL, ORACLE)
    assert comparisons(recipe) == [
        Comparison("self_1.0", "plain", "baseline"),
        Comparison("self_1.5", "plain", "baseline"),
        Comparison("oracle", "plain", "reference"),
    ]
    assert roles(recipe) == {
        "plain": "baseline",
        "self_1.0": "candidate",
        "self_1.5": "candidate",
        "coin": "control",
        "oracle": "reference",
    }


def test_true_labels_are_no_mere_reference_where_the_baseline_has_them_too() -> None:
    recipe = made("annotator=truth", "guidance=null", "arms={plain: {}, more: {train: {steps: 5}}}")
    assert roles(recipe) == {"plain": "baseline", "more": "candidate"}


def test_a_question_is_what_the_recipe_is_compared_by() -> None:
    recipe = made(CONTROL, ORACLE, QUESTION)
    assert comparisons(recipe) == [
        Comparison("self_1.5", "plain", "baseline"),
        Comparison("self_1.5", "coin", "control", True),
        Comparison("self_1.5", "self_1.0", "ablation", True),
        Comparison("self_1.5", "oracle", "reference", True),
    ]
    assert roles(recipe)["self_1.0"] == "ablation"


def test_a_question_about_arms_that_there_are_not_is_refused() -> None:
    assert all_say(
        faults("question={better: best, controls: [none]}"),
        "--set #1: question.better: no arm named 'best' (known: plain, self_1.0, self_1.5)",
        "--set #1: question.controls: no arm named 'none' (known: plain, self_1.0, self_1.5)",
    )
    assert all_say(faults("question={better: plain}"), "--set #1: question: ... 'plain' twice")


def test_what_is_asked_is_in_no_key_and_in_no_folder_name() -> None:
    silent, asking = made(CONTROL, ORACLE), made(CONTROL, ORACLE, QUESTION)
    assert silent.folder_text() == asking.folder_text()
    assert list(plan(silent).stages) == list(plan(asking).stages)


def test_several_trainings_decide_and_the_first_sentence_answers() -> None:
    answer = verdict(result(plain=PLAIN, good=GOOD), [Comparison("good", "plain", "baseline")])
    [one] = answer["comparisons"]
    assert one["decision"] == "better"
    assert one["values"] == pytest.approx((-2.05, -2.0, -2.05, -1.9))
    assert one["interval"][0] < one["difference"] < one["interval"][1] < 0
    assert one["adjusted"] == one["p"] < 0.001
    assert answer["sentences"] == [
        "Is good better than plain? Yes: fd 3.05 against 5.05, -2 (95 %: -2.11 to -1.89)."
    ]
    assert "3 degrees of freedom" in answer["rule"]


def test_the_same_numbers_are_worse_where_more_is_better() -> None:
    answer = verdict(
        result(better="higher", plain=PLAIN, good=GOOD), [Comparison("good", "plain", "baseline")]
    )
    assert answer["comparisons"][0]["decision"] == "worse"
    assert answer["sentences"][0].startswith("Is good better than plain? No, it is worse:")


def test_one_training_decides_nothing_however_far_apart_its_scores_are() -> None:
    answer = verdict(
        result(plain=PLAIN[:1], good=GOOD[:1]), [Comparison("good", "plain", "baseline")]
    )
    [one] = answer["comparisons"]
    assert (one["decision"], one["interval"], one["p"]) == ("undecided", None, None)
    assert one["spread"] == pytest.approx(0.0707, abs=1e-4)
    assert answer["sentences"] == [
        "Is good better than plain? Undecided, one training: fd 3.05 against 5.1, -2.05 ± 0.071 "
        "over sampling seeds."
    ]
    assert "`repeats: 3`" in answer["rule"]


def test_more_comparisons_ask_more_of_each() -> None:
    near = [[4.9], [4.8], [4.7], [4.96]]
    plain = [values[:1] for values in PLAIN]
    pairs = [Comparison(name, "plain", "baseline") for name in ("near", "same", "other")]
    scores = result(plain=plain, near=near, same=[[5.0]] * 4, other=[[5.1], [5.0], [4.9], [5.2]])
    alone = verdict(scores, pairs[:1])["comparisons"][0]
    first = verdict(scores, pairs)["comparisons"][0]
    assert alone["adjusted"] == alone["p"] == first["p"]
    assert first["adjusted"] == pytest.approx(3 * first["p"])


def test_several_candidates_are_grouped_by_what_was_decided() -> None:
    worse = [[7.1], [7.0], [7.2], [6.9]]
    noise = [[5.3], [4.7], [5.2], [4.9]]
    pairs = [Comparison(name, "plain", "baseline") for name in ("noise", "worse", "good")]
    pairs.append(Comparison("oracle", "plain", "reference"))
    scores = {"plain": [v[:1] for v in PLAIN], "worse": worse, "noise": noise}
    scores |= {"good": [v[:1] for v in GOOD], "oracle": [[1.0], [1.1], [0.9], [1.2]]}
    sentences = verdict(result(better="lower", **scores), pairs)["sentences"]
    assert [sentence.split(":")[0] for sentence in sentences] == [
        "Better than plain, fd 5",
        "Worse than plain, fd 5",
        "Undecided against plain, fd 5",
        "Beside it, the reference oracle against plain",
    ]
    assert "good" in sentences[0]


def test_trainings_that_only_one_arm_has_are_left_out_of_the_difference() -> None:
    answer = verdict(result(plain=PLAIN[:3], good=GOOD), [Comparison("good", "plain", "baseline")])
    assert len(answer["comparisons"][0]["values"]) == 3


def test_repeats_train_everything_again_and_share_what_was_there(tmp_path: Path) -> None:
    options = ("--out", tmp_path / "out", "--jobs", 1, "--device", "cpu")
    recipe, run = toy_recipe(tmp_path), tmp_path / "out/toy/latest"
    with site(tmp_path / "site"):
        assert fw("run", recipe, *options).code == 0
        before = set((tmp_path / "out/store").iterdir())
        once = json.loads((run / "run.json").read_text())
        again = fw("run", recipe, *options, "--set", "repeats=3", "--set", QUESTION_OF_TOYS)
        assert again.code == 0, again.err
        assert "done   train linear, halves of mean, seed 2" in again.err
        assert "seeds 0 to 2" in fw("compare", run).out
        assert fw("sample", run, "--arm", "self_1.5", "-o", tmp_path / "a.png").code == 0
    result = json.loads((run / "run.json").read_text())
    assert (title_of(once), title_of(result)) == ("toy, seed 0", "toy, seeds 0 to 2")
    assert before < set((tmp_path / "out/store").iterdir())
    for name, arm in result["arms"].items():
        score = arm["metrics"]["gap_flat"]
        first = once["arms"][name]["metrics"]["gap_flat"]
        assert arm["status"] == "finished"
        assert score["trainings"]["0"] == first["values"]
        assert len(score["values"]) == 3
    [one, beside] = result["verdict"]["comparisons"]
    assert (one["arm"], one["than"], len(one["values"])) == ("self_1.5", "plain", 3)
    assert beside["role"] == "ablation"
    report = (run / "report.md").read_text()
    assert differences(result) in report
    assert result["verdict"]["sentences"][0].split("?")[0] in report


QUESTION_OF_TOYS = "question={better: self_1.5, ablations: [self_1.0]}"


def test_two_trainings_are_warned_of() -> None:
    assert all_say(warned("repeats=2"), "repeats: two trainings decide only ... take 3")
    assert warned("repeats=3", "samples.seeds=1") == []


def test_seeds_end_where_whole_numbers_do() -> None:
    assert all_say(faults(f"seed={2**64 - 1}", "repeats=2"), "--set #2: repeats: ... last seed")


def test_arms_that_failed_ask_no_less_of_the_others() -> None:
    near = [[4.9], [4.8], [4.7], [4.96]]
    plain = [values[:1] for values in PLAIN]
    pairs = [Comparison(name, "plain", "baseline") for name in ("near", "failed", "failed_too")]
    answer = verdict(result(plain=plain, near=near), pairs)
    [one] = answer["comparisons"]
    assert one["adjusted"] == pytest.approx(3 * one["p"])
    assert "3 decisions share" in answer["rule"]
    assert [each["arm"] for each in answer["planned"]] == ["near", "failed", "failed_too"]


def test_differences_that_are_equal_but_for_rounding_decide_nothing() -> None:
    plain = [[21 / 40], [22 / 40], [28 / 40]]
    good = [[20 / 40], [21 / 40], [27 / 40]]
    pair = Comparison("good", "plain", "baseline")
    [one] = verdict(result(plain=plain, good=good), [pair])["comparisons"]
    assert len(set(one["values"])) > 1
    assert (one["decision"], one["p"]) == ("undecided", None)


def test_a_difference_says_of_how_many_trainings_it_is_where_some_have_no_partner() -> None:
    pair = Comparison("good", "plain", "baseline")
    answer = verdict(result(plain=PLAIN[:3], good=GOOD), [pair])
    assert answer["comparisons"][0]["left_out"] == 1
    assert answer["sentences"][0].endswith(" over the 3 trainings that both have.")
    scores = result(plain=PLAIN[:1], good=GOOD[:2])
    scores["arms"]["good"]["metrics"]["fd"]["trainings"] = {"5": [3.0], "6": [3.0]}
    apart = verdict(scores, [pair])
    assert apart["sentences"][0].endswith("fd 3.075 against 5.1, no training in common.")
    assert "One training of each arm" not in apart["rule"]
    several = [pair, Comparison("short", "plain", "baseline")]
    mixed = verdict(result(plain=PLAIN, good=GOOD, short=GOOD[:2]), several)
    assert "2 to 4 trainings, Student's t with one degree of freedom less" in mixed["rule"]


def test_infinite_scores_have_no_difference_that_is_a_number() -> None:
    infinite = [[math.inf]] * 3
    pair = Comparison("good", "plain", "baseline")
    answer = verdict(result(plain=infinite, good=infinite), [pair])
    assert answer["sentences"][0].endswith("fd inf against inf, no difference that is a number.")


def test_where_nothing_is_compared_the_reason_is_the_right_one() -> None:
    def said(scores: dict[str, Any], *pairs: Comparison) -> str:
        for arm in scores["arms"].values():
            arm["status"] = "finished"
        [sentence] = verdict(scores, pairs)["sentences"]
        return str(sentence)

    alone = result(plain=PLAIN)
    assert said(alone) == "fd: nothing is compared with plain, since it is the only arm."
    controls = result(plain=PLAIN, coin=GOOD)
    assert "the others are controls" in said(controls)
    pair = Comparison("good", "plain", "baseline")
    conditional = result(plain=PLAIN, good=GOOD)
    del conditional["arms"]["plain"]["metrics"]["fd"]
    assert "plain cannot have this score" in said(conditional, pair)
    failed = result(plain=PLAIN)
    assert verdict(failed, [pair])["sentences"] == ["fd: not enough finished arms to compare."]


def test_an_arm_that_the_question_names_is_not_replaced_by_one_with_another_sampler() -> None:
    scores = result(plain=PLAIN, good=GOOD, slow=[[4.0], [4.1], [3.9], [4.0]])
    scores["baselines"] = ["plain", "slow"]
    by_default, stated = (
        verdict(scores, [Comparison("good", "plain", "baseline", each)]) for each in (False, True)
    )
    assert by_default["comparisons"][0]["than"] == "slow"
    assert stated["comparisons"][0]["than"] == "plain"
    assert comparisons(made("question={better: self_1.5, than: plain}"))[0].stated
    assert not comparisons(made("question={better: self_1.5}"))[0].stated
