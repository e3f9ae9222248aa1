"""Which processes and GPUs `--ranks` gives to a stage, and what it refuses before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
import sites
import torch

from fw.core.errors import FwError
from fw.core.execution import options as run_options
from fw.core.execution.devices import known_ranks
from fw.core.execution.member import device_of
from fw.core.execution.options import Options, places
from fw.core.execution.place import Place


@pytest.fixture
def eight_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(run_options, "cores", lambda: 64)


def given(stages: int = 20, **options: object) -> list[Place]:
    return places(Options(Path("runs"), **options), stages, ())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("jobs", "ranks", "firsts", "each"),
    [
        (None, 1, [0, 1, 2, 3, 4, 5, 6, 7], 1),
        (None, 2, [0, 2, 4, 6], 2),
        (None, 8, [0], 8),
        (1, 3, [0], 3),
        (2, 4, [0, 4], 4),
        (2, None, [0, 4], 4),
        (1, None, [0], 8),
        (3, None, [0, 2, 4], 2),
    ],
)
@pytest.mark.usefixtures("eight_gpus")
def test_teams_of_several_jobs_share_the_gpus_and_the_cores_of_a_machine(
    jobs: int | None, ranks: int | None, firsts: list[int], each: int
) -> None:
    found = given(device="cuda", jobs=jobs, ranks=ranks)
    assert [place.device for place in found] == [f"cuda:{first}" for first in firsts]
    assert {place.ranks for place in found} == {each}
    assert {place.threads for place in found} == {64 // (len(firsts) * each)}
    used = [device_of(place, rank) for place in found for rank in range(each)]
    assert len(set(used)) == len(used) <= 8


@pytest.mark.usefixtures("eight_gpus")
def test_more_ranks_than_gpus_are_refused_and_what_fits_is_said() -> None:
    with pytest.raises(FwError, match="takes 12 GPUs, and torch sees 8 here: --jobs 2 --ranks 4"):
        given(device="cuda", jobs=3, ranks=4)
    with pytest.raises(FwError, match="--device cuda:1 is one; use --device cuda"):
        given(device="cuda:1", ranks=2)


@pytest.mark.usefixtures("eight_gpus")
def test_auto_is_one_job_less_where_one_stage_is_left() -> None:
    (place,) = given(stages=1, device="cuda", ranks=None)
    assert place.ranks == 8


def test_on_a_cpu_ranks_are_processes_and_auto_is_one() -> None:
    assert {place.ranks for place in given(device="cpu", jobs=1, ranks=3)} == {3}
    assert device_of(given(device="cpu", jobs=1, ranks=3)[0], 2) == "cpu"
    assert {place.ranks for place in given(device="cpu", jobs=1, ranks=None)} == {1}


@pytest.mark.parametrize("ranks", ["0", "-1", "two", "1.5", ""])
def test_what_is_no_number_of_ranks_is_refused(ranks: str) -> None:
    with pytest.raises(FwError, match="it is a number from 1 on, or auto"):
        known_ranks(ranks)


def test_a_batch_with_fewer_images_than_ranks_is_refused_before_anything_is_done(
    tmp_path: Path,
) -> None:
    recipe = sites.toy_recipe(tmp_path)
    with sites.site(tmp_path / "site"):
        answer = sites.fw("run", recipe, "--out", tmp_path / "runs", "--ranks", "9", "--jobs", "1")
    assert answer.code == 2
    assert "divides batches of 8 images, so at most 8 ranks can do it" in " ".join(
        answer.err.split()
    )
    assert not list((tmp_path / "runs/store").glob("*-*"))
