"""Trackers get at most 2,000 points of a curve, the same ones however often the work was cut
off."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from test_job import Heard

from fw.core.errors import Interrupted
from fw.core.job import POINTS, Job
from fw.core.run.tracking import curves


def trained(folder: Path, total: int, cuts: tuple[int, ...] = ()) -> Heard:
    """A loop that logs a loss every step and a score every 700."""
    folder.mkdir()
    heard = Heard()
    for cut in (*cuts, total):
        job = Job(folder, reporter=heard, checkpoint_seconds=1e9)
        done = [-1]
        job.stopping = lambda done=done, cut=cut: done[0] >= cut  # type: ignore[misc]
        try:
            for step in job.steps(total, {}):
                done[0] = step
                job.log(step, {"loss": 1.0 / (1 + step)})
                if step % 700 == 3:
                    job.log(step, {"score": float(step)})
        except Interrupted:
            continue
        job.finish()
    return heard


def steps(heard: Heard, key: str) -> list[float]:
    return [record["step"] for record in heard.records if key in record]


@pytest.mark.parametrize("total", [1, 7, POINTS - 1, POINTS, POINTS + 1, 9_999, 20_000])
def test_a_curve_has_at_most_so_many_points_spread_evenly_with_its_first_and_last(
    tmp_path: Path, total: int
) -> None:
    points = steps(trained(tmp_path / "run", total), "loss")
    assert min(total, POINTS // 2) <= len(points) <= POINTS
    assert (points[0], points[-1]) == (0, total - 1)
    gaps = {later - earlier for earlier, later in pairwise(points[:-1])}
    assert len(gaps) <= 1


def test_a_curve_of_few_points_keeps_them_all_beside_one_of_many(tmp_path: Path) -> None:
    heard = trained(tmp_path / "run", 20_000)
    assert steps(heard, "score") == list(range(3, 20_000, 700))
    assert len((tmp_path / "run/log.jsonl").read_text().splitlines()) == 20_000 + 29


def test_points_are_the_same_however_often_the_loop_was_stopped(tmp_path: Path) -> None:
    straight = trained(tmp_path / "straight", 9_999)
    cut = trained(tmp_path / "cut", 9_999, cuts=(13, 14, 5_000, 9_990))
    assert cut.records == straight.records
    lines = (tmp_path / "cut/log.jsonl").read_text().splitlines()
    whole = curves([eval(line) for line in lines])
    for key in ("loss", "score"):
        assert [record["step"] for record in whole if key in record] == steps(straight, key)
