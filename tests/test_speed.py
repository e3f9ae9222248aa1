"""What tests/bench/speed counts is as good as it should be, and each of its groups runs. No time is
asserted."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from bench.speed import __main__ as command
from bench.speed import (
    clusters,
    counted,
    cuda,
    guidance,
    metrics,
    page,
    planning,
    sampling,
    starting,
    teams,
    training,
    views,
)
from bench.speed.interleaved import Paired, paired
from bench.speed.row import Goal, Row, speed, table
from torch.nn.utils import parameters_to_vector

ROOT = Path(__file__).parents[1]
PERFORMANCE = ROOT / "docs/performance.md"


def by_unit(rows: Iterable[Row], unit: str) -> dict[str, Row]:
    """The rows of a unit, by what they are against."""
    return {row.against: row for row in rows if row.unit == unit}


@pytest.fixture(scope="module")
def trained() -> list[Row]:
    return list(training.rows(training.SMALL))


def test_a_training_step_does_hardly_more_than_a_loop_by_hand(trained: list[Row]) -> None:
    operations = by_unit(trained, "x the operations")
    assert operations[training.SAME].value <= 1.015
    assert operations[training.BARE].value <= 1.085
    [flops] = by_unit(trained, "x the FLOPs").values()
    assert flops.value == 1.0


def test_a_rank_sends_its_gradients_and_hardly_more() -> None:
    sent = next(iter(teams.rows()))
    assert 1 <= sent.value <= 1.01
    assert sent.counts["all_reduce, exchanges"] == 3


def test_training_is_compared_with_two_loops_and_with_diffusers(trained: list[Row]) -> None:
    assert set(by_unit(trained, "x the CPU time")) == {training.SAME, training.BARE}
    assert set(by_unit(trained, "x as fast")) == {"diffusers' example"}


def test_the_loop_by_hand_learns_the_same_from_the_same_batches() -> None:
    """So it is the same mathematics whose time is compared."""
    flagship = training.Flagship(batch=8)
    start, ours, theirs = (
        parameters_to_vector(network.parameters())
        for network in (flagship.network(), flagship.by_fw(6), flagship.in_the_same_way(6))
    )
    assert (ours - theirs).norm() < 1e-3 * (ours - start).norm()


def test_sampling_computes_what_a_loop_by_hand_does() -> None:
    rows = list(sampling.rows(sampling.SMALL))
    [flops] = by_unit(rows, "x the FLOPs").values()
    assert flops.value == 1.0
    assert len(rows) == 4


def test_attention_guidance_costs_as_few_passes_as_was_set_in_any_order() -> None:
    rows = [row for row in guidance.rows(guidance.SMALL) if row.unit == "passes"]
    assert [row.met for row in rows] == [True] * 3
    alone, cfg_first, cfg_last = (row.value for row in rows)
    assert cfg_first == cfg_last == pytest.approx(alone + 1)


def test_a_plan_walks_a_folder_once_and_reads_only_what_is_new() -> None:
    new, known = planning.rows(planning.SMALL)
    assert new.counts == {"walks": 1, "reads": 40}
    assert known.counts == {"walks": 1, "reads": 0}


def test_clusters_and_neighbours_are_those_of_others() -> None:
    rows = list(clusters.rows(clusters.SMALL))
    whats = [row.what.partition(",")[0] for row in rows]
    assert whats == ["k-means"] * 2 + ["4 nearest neighbours"] * 2 + ["Sinkhorn"]
    neighbours, sinkhorn = rows[2:4], rows[4]
    assert [row.counts["the same share"] for row in neighbours] == [1.0, 1.0]
    assert sinkhorn.counts["the same share"] > 0.95


def test_scores_agree_with_those_of_others() -> None:
    rows = list(metrics.rows(metrics.SMALL))
    apart = [row for row in rows if row.unit == "apart, of the score"]
    assert [row.met for row in apart] == [True] * 3
    assert len(rows) == 6


def test_views_and_starts_are_measured() -> None:
    assert len(list(views.rows(views.SMALL))) == 1
    rows = [row.what for row in starting.rows(starting.SMALL)]
    assert rows[1:] == ["fw --help", "fw run, 2 arms and nothing to do"]


def test_the_trials_for_a_gpu_have_the_work_of_the_published_networks() -> None:
    """GFLOP of a forward pass, twice the multiply-adds: DDPM's 6.2, and 6.06 and 23.0 of DiT's
    table 4, to which the embeddings are added here."""
    work = {trial.name: cuda.forward(trial) / 1e9 for trial in cuda.TRIALS}
    published = {"DDPM's U-Net": 12.4, "DiT-S/2": 12.1, "DiT-B/2": 46.0}
    assert work == pytest.approx(published, rel=0.005)


def test_two_ways_take_turns_after_both_were_done_once() -> None:
    calls = []

    def costing(name: str, cost: float) -> float:
        calls.append(name)
        return cost

    result = paired(lambda: costing("a", 1.0), lambda: costing("b", 4.0), 3)
    assert calls == ["a", "b"] * 4
    assert (result.cost, result.speed) == ((0.25,) * 3, (4.0,) * 3)
    assert result.noise == 1.0


def test_a_ratio_is_the_median_with_its_quartiles_and_the_noise_is_that_of_ours() -> None:
    pairs = Paired(ours=(1.0, 2.0, 1.0, 2.0, 1.0), theirs=(1.0, 1.0, 1.0, 1.0, 1.0))
    assert pairs.cost == (1.0, 1.0, 2.0)
    assert pairs.noise == pytest.approx(2.0)


def test_operations_and_bytes_are_those_that_reach_a_kernel() -> None:
    x = torch.ones(10, 4)
    counts = counted.dispatched(lambda: x.T @ x)
    assert counts.operations == 2
    assert counts.bytes == 4 * (40 + 40 + 16)
    assert counted.flops(lambda: x.T @ x) == 2 * 4 * 10 * 4


def test_a_goal_is_reached_by_the_digits_that_the_table_shows() -> None:
    row = Row("a", "b", 1.02004, "x", Goal(1.02))
    assert row.met
    assert not Row("a", "b", 1.021, "x", Goal(1.02)).met
    assert Row("a", "b", 3.0, "x", Goal(2.5, least=True)).met
    assert Row("a", "b", 3.0, "x").met is None


def test_the_table_has_a_line_for_each_row_and_says_what_missed_its_goal() -> None:
    pairs = Paired((1.0, 1.0), (2.0, 2.0))
    text = table({"one": [speed("views", "lightly", pairs, 3, the_same_share=1.0)]})
    [line] = text.splitlines()[2:]
    assert line == (
        "| views | lightly | 2 x as fast (2 to 2; itself 1) | at least 3 | **no** | ours, CPU s 1; "
        "theirs, CPU s 2; pairs 2; the same share 1 |"
    )


def test_groups_that_are_not_measured_again_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    values = iter((1.0, 2.0, 3.0))

    def rows() -> list[Row]:
        return [Row("what", "other", next(values), "s", Goal(5), (0.5, 1.5), 1.1, {"n": 3})]

    monkeypatch.setattr(command, "GROUPS", {"a": rows, "b": rows})
    file, place = tmp_path / "speed.json", tmp_path / "performance.md"
    place.write_text(f"# Words\n\n{page.BEGIN}\nold\n{page.END}\nMore.\n")
    assert command.main(["--json", str(file), "--page", str(place), "--only", "a", "b"]) == 0
    assert command.main(["--json", str(file), "--page", str(place), "--only", "a"]) == 0
    groups = json.loads(file.read_text())["groups"]
    assert {name: rows[0]["value"] for name, rows in groups.items()} == {"a": 3.0, "b": 2.0}
    text = place.read_text()
    assert text.index("| 3 s") < text.index("| 2 s")
    assert "old" not in text
    assert text.startswith("# Words\n\n")
    assert text.endswith("\nMore.\n")
    capsys.readouterr()


def test_what_another_machine_measured_is_not_mixed_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "speed.json"
    command.write_json(file, {"a": [Row("what", "other", 1.0, "s")]})
    assert command.earlier(file) == {"a": [Row("what", "other", 1.0, "s")]}
    monkeypatch.setattr(command, "machine", lambda: "another one")
    assert command.earlier(file) == {}


def test_the_page_has_the_rows_of_all_groups_that_need_no_gpu() -> None:
    text = PERFORMANCE.read_text(encoding="utf-8")
    table = text[text.index(page.BEGIN) : text.index(page.END)]
    for what in ("training step", "sampling", "pag", "k-means", "prdc", "views", "plan", "--help"):
        assert what in table, what
