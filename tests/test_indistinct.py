"""Arms that came out the same although they were sampled in different ways are pointed out, and
guidance that acts in a part of the calls is told of in run.json and the report."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fw.core.report.warnings import indistinct
from tests.sites import Answer, fw, install, site, toy_recipe

DEAF = '''
    from typing import ClassVar

    import toys
    from fw.registry import hookimpl


    class DeafNetwork(toys.LinearNetwork):
        def forward(self, x, noise, condition=None, dropped=None, attend=None):
            return super().forward(x, noise)


    class Deaf(toys.Linear):
        """Ignores its condition."""

        name: ClassVar[str] = "deaf"

        def build(self, shape, condition):
            return DeafNetwork(condition)


    @hookimpl
    def fw_components():
        return [Deaf]
'''


def arm(key: str, status: str = "finished", **metrics: list[float]) -> dict[str, Any]:
    scores = {
        name: {"mean": sum(values) / len(values), "values": values}
        for name, values in metrics.items()
    }
    return {"status": status, "metrics": scores, "sample_key": key}


def test_arms_with_equal_scores_in_all_seeds_and_other_samples_are_named_with_their_scores() -> (
    None
):
    arms = {
        "a": arm("1", fd=[1.0, 2.0]),
        "b": arm("2", fd=[1.0, 2.0]),
        "c": arm("3", fd=[1.0, 2.5]),
    }
    [told] = indistinct({"arms": arms})
    assert told.startswith(
        "arms a and b have exactly equal scores in all sampling seeds (fd 1.500): the model ignores"
    )
    assert "guidance never acted" in told


@pytest.mark.parametrize(
    "other",
    [
        arm("2", fd=[2.0, 1.0]),
        arm("2", fd=[1.0, 2.0], recall=[0.5, 0.6]),
        arm("1", fd=[1.0, 2.0], recall=[0.5, 0.5]),
        arm("2", "pending", fd=[1.0, 2.0]),
        arm("2"),
    ],
    ids=["other seeds", "another score differs", "the same samples", "not finished", "not scored"],
)
def test_arms_that_differ_in_anything_or_share_their_samples_are_not_named(
    other: dict[str, Any],
) -> None:
    assert indistinct({"arms": {"a": arm("1", fd=[1.0, 2.0], recall=[0.5, 0.5]), "b": other}}) == []


def test_arms_are_compared_in_the_scores_that_both_have() -> None:
    arms = {"a": arm("1", fd=[1.0, 2.0]), "b": arm("2", fd=[1.0, 2.0], agreement=[0.1, 0.2])}
    assert len(indistinct({"arms": arms})) == 1


@pytest.fixture
def toys_site(tmp_path: Path) -> Iterator[Path]:
    with site(tmp_path / "site") as folder:
        yield folder


def run(tmp_path: Path, *sets: str) -> tuple[Answer, dict[str, Any], str]:
    words = [word for each in sets for word in ("--set", each)]
    answer = fw(
        "run",
        toy_recipe(tmp_path),
        "--out",
        tmp_path / "runs",
        "--device",
        "cpu",
        "--jobs",
        "1",
        *words,
    )
    folder = tmp_path / "runs/toy/latest"
    result = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    # the toys' sampler is none of Gaussian data
    result["warnings"] = [text for text in result["warnings"] if "Gaussian" not in text]
    return answer, result, (folder / "report.md").read_text()


def test_a_backbone_that_ignores_its_condition_is_pointed_out_by_its_equal_scores(
    toys_site: Path, tmp_path: Path
) -> None:
    install(toys_site, "deafness", DEAF)
    answer, result, report = run(tmp_path, "model=deaf")
    assert answer.code == 0
    [told] = [text for text in result["warnings"] if "exactly equal" in text]
    assert told.startswith(
        "arms self_1.0 and self_1.5 have exactly equal scores in all sampling seeds (gap_flat 0."
    )
    assert told in report


def test_a_backbone_that_ignores_its_condition_is_named_on_the_terminal_and_in_every_report(
    toys_site: Path, tmp_path: Path
) -> None:
    install(toys_site, "deafness", DEAF)
    answer, result, report = run(tmp_path, "model=deaf")
    page = (tmp_path / "runs/toy/latest/report.html").read_text()
    [said] = [text for text in result["warnings"] if "backbone 'deaf' ignores" in text]
    sentence = said.partition("backbone 'deaf' ")[2]
    assert sentence.startswith("ignores its condition: its predictions are the same, to the last")
    for where in (answer.err, report, html.unescape(page)):
        assert sentence in where


def test_an_honest_run_has_no_such_warning(toys_site: Path, tmp_path: Path) -> None:
    answer, result, report = run(tmp_path)
    assert answer.code == 0
    assert result["warnings"] == []
    assert result["arms"]["self_1.5"]["guidance"] == [{"name": "selfish", "acts": 2, "calls": 2}]
    assert "guidance" not in result["arms"]["self_1.0"]
    assert "## Guidance" not in report


def test_guidance_that_acts_in_some_calls_or_in_none_is_told_of_in_the_report(
    toys_site: Path, tmp_path: Path
) -> None:
    _, result, report = run(tmp_path, "arms.self_1.5.guidance.interval=[0.1, 0.6]")
    assert result["arms"]["self_1.5"]["guidance"] == [{"name": "selfish", "acts": 1, "calls": 2}]
    assert "* self_1.5: selfish acts in 1 of 2 calls" in report
    assert result["warnings"] == []
    _, result, report = run(tmp_path, "arms.self_1.5.guidance.interval=[1000, 2000]")
    assert "* self_1.5: selfish acts in 0 of 2 calls" in report
    never, equal = result["warnings"]
    assert "guidance 'selfish' never acts: its interval is (1000, 2000]" in never
    assert equal.startswith("arms self_1.0 and self_1.5 have exactly equal scores")
