"""Arms may have samplers of their own, and then the report says what is compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sites import fw, site, toy_recipe

from fw.core.recipe.comparisons import Comparison
from fw.core.report.tables import markdown_table, sampler_table
from fw.core.report.verdict import verdict

ARMS = (
    "arms.plain_3={annotator: null, sampler: {name: euler, steps: 3}}",
    "arms.self_3={sampler: {name: euler, steps: 3}}",
)


def test_an_arm_with_its_own_sampler_shares_its_training_and_the_report_says_how_it_was_drawn(
    tmp_path: Path,
) -> None:
    sets = [word for each in ARMS for word in ("--set", each)]
    with site(tmp_path / "site"):
        options = ("--out", tmp_path / "out", "--jobs", 1, "--device", "cpu")
        done = fw("run", toy_recipe(tmp_path), *sets, *options)
        assert done.code == 0, done.err
    run = tmp_path / "out/toy/latest"
    result = json.loads((run / "run.json").read_text())
    arms = result["arms"]
    assert result["baselines"] == ["plain", "plain_3"]
    assert arms["plain"]["train_key"] == arms["plain_3"]["train_key"]
    assert arms["self_3"]["sampler"] == "euler (steps: 3)"
    assert (arms["plain"]["nfe"], arms["plain_3"]["nfe"]) == (2, 3)
    assert arms["plain"]["spread"].keys() >= {"data", "whole", "detail", "gain"}
    report = (run / "report.md").read_text()
    assert "| sampler | NFE | seconds |" in report
    assert "| euler (steps: 3) | 3 | " in report
    assert "## Samplers" in report
    assert not [line for line in result["warnings"] if "across samplers" in line]


def arm(score: float, sampler: str, nfe: int, **more: Any) -> dict[str, Any]:
    summary = {"mean": score, "std": 0.0, "values": [score], "trainings": {"0": [score]}}
    scores = {"fd": {**summary, "floor": None}}
    real = {"held_out": 5}
    facts = {"status": "finished", "metrics": scores, "real_images": real, "seconds": 1.0}
    return {**facts, "sampler": sampler, "nfe": nfe, **more}


def run_of(arms: dict[str, dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"headline": "fd", "baseline": "plain", "better": {"fd": "lower"}, "arms": arms, **more}


def said(run: dict[str, Any], arm: str) -> list[str]:
    pair = Comparison(arm, "plain", "baseline")
    return list(verdict(run, [pair])["sentences"])


SLOW, FAST = ("ddpm (steps: 100)", 100), ("dpmpp (steps: 20)", 20)


def test_the_verdict_gives_the_baseline_its_best_sampler() -> None:
    arms = {"plain": arm(0.22, *FAST), "slow": arm(0.17, *SLOW), "guided": arm(0.10, *FAST)}
    assert said(run_of(arms, baselines=["plain", "slow"]), "guided") == [
        "Is guided better than slow? Undecided, one training: fd 0.1 against 0.17, -0.07.",
        "Their samplers differ: dpmpp (steps: 20), NFE 20, against ddpm (steps: 100), NFE 100.",
    ]


def test_the_verdict_is_short_for_one_sampler_and_of_samplers_where_nothing_else_differs() -> None:
    same = run_of({"plain": arm(0.2, *FAST), "guided": arm(0.1, *FAST)}, baselines=["plain"])
    assert len(said(same, "guided")) == 1
    twins = run_of({"plain": arm(0.2, *FAST), "slow": arm(0.1, *SLOW)}, baselines=["plain", "slow"])
    first, samplers = said(twins, "slow")
    assert first.startswith("Is slow better than plain? Undecided, one training: fd 0.1 against")
    assert samplers.startswith("Their samplers differ: ddpm (steps: 100), NFE 100")


def test_samplers_have_a_column_where_they_differ() -> None:
    same = run_of({"plain": arm(0.2, *FAST), "guided": arm(0.1, *FAST)})
    other = run_of({"plain": arm(0.2, *FAST), "guided": arm(0.1, *SLOW)})
    assert "sampler" not in markdown_table(same)
    assert "| guided | 0.100 ± 0.000 | ddpm (steps: 100) | 100 | 1 |" in markdown_table(other)
    widths = {line.count("|") for line in markdown_table(other).splitlines()}
    assert len(widths) == 1


def test_arms_that_are_drawn_alike_share_a_row_of_the_samplers() -> None:
    numbers = {"data": 0.5, "whole": 1.0138, "detail": 0.9, "standard_error": 0.0, "gain": 0.64}
    estimated = {**numbers, "standard_error": 0.011}
    arms = {
        "plain": arm(0.2, *FAST, spread=numbers),
        "guided": arm(0.1, *FAST, spread=numbers),
        "own": arm(0.1, *SLOW, spread=estimated),
        "unknown": arm(0.1, "mine", 3),
    }
    rows = sampler_table(arms).splitlines()[2:]
    assert rows == [
        "| dpmpp (steps: 20) | 0.5 | 1.014 | 0.900 | 0.64 | plain, guided |",
        "| ddpm (steps: 100) | 0.5 | 1.014 ± 0.011 | 0.900 ± 0.011 | 0.64 | own |",
    ]
    assert sampler_table({"unknown": arms["unknown"]}) == ""
