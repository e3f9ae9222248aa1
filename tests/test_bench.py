"""The comparisons of tests/bench in small: what they score is what `fw run` scores."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from bench import agreement, peer, samplers
from bench.ruler import Ruler
from bench.table import Scores, cell
from safetensors.torch import load_file
from sites import fw
from torch import Tensor

from fw.core.recipe.loading import load

TINY = Path(__file__).parent / "tiny.yaml"

SPACE = "{name: classifier, steps: 10, batch: 16}"
METRICS = (
    f"[{{name: fd, space: {SPACE}}}, {{name: fd, space: pca}}, {{name: prdc, space: {SPACE}}}]"
)
ARMS = "{unconditional: {annotator: null}, self_1.0: {}}"
SMALL = ("train.steps=8", "tracker=null", "samples.seeds=2", f"metrics={METRICS}", f"arms={ARMS}")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of two finished runs, of seeds 0 and 1."""
    out = tmp_path_factory.mktemp("runs")
    sets = [word for each in SMALL for word in ("--set", each)]
    for seed in (0, 1):
        done = fw("run", TINY, "--jobs", "1", "--out", out, *sets, "--set", f"seed={seed}")
        assert done.code == 0, done.err
    return out


def results(folder: Path) -> Any:
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))["arms"]


def test_the_ruler_gives_the_scores_of_the_run_for_the_same_images(
    finished: Path, tmp_path: Path
) -> None:
    arm = results(next(finished.glob("tiny/seed0-*")))["unconditional"]
    product = finished / "store" / arm["sample_key"]
    sets = [
        load_file(product / f"samples-00{seed}-0000000.safetensors")["images"] for seed in (0, 1)
    ]
    scores = Ruler(load(TINY, SMALL), tmp_path).scores(sets)
    assert scores == {key: entry["values"] for key, entry in arm["metrics"].items()}


def test_other_samplers_share_the_trainings_and_the_own_one_scores_as_before(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = sorted(map(str, finished.glob("tiny/seed*")))
    before = {path.name for path in finished.glob("store/train-*")}
    words = ["--arms", "unconditional", "self_1.0", "--samplers", "dpmpp:3", "ddim:2"]
    words += ["--jobs", "1"]
    assert samplers.main([*runs, *words]) == 0
    assert {path.name for path in finished.glob("store/train-*")} == before
    made = sorted(finished.glob("tiny-samplers/seed*"))
    assert len(made) == 2
    for run, other in zip(runs, made, strict=True):
        old, new = results(Path(run)), results(other)
        assert new["self_1.0-dpmpp-3"]["metrics"] == old["self_1.0"]["metrics"]
        assert new["self_1.0-ddim-2"]["metrics"] != old["self_1.0"]["metrics"]
        assert new["unconditional-ddim-2"]["nfe"] == 2
    printed = capsys.readouterr().out.splitlines()
    expected = cell([samplers.scores(results(folder)["unconditional-dpmpp-3"]) for folder in made])
    assert printed[0] == "| sampler | unconditional | self_1.0 |"
    assert printed[2].startswith(f"| dpmpp 3 | {expected} | ")
    assert printed[3].startswith("| ddim 2 | ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--arms", "other"], "no arm other (known: unconditional, self_1.0)"),
        (["--arms", "self_1.0", "--samplers", "ddim:0"], "steps: input should be greater"),
    ],
)
def test_what_cannot_be_sampled_is_one_sentence(
    finished: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert samplers.main([str(next(finished.glob("tiny/seed0-*"))), *words]) == 2
    assert said in capsys.readouterr().err


def test_a_run_whose_trainings_are_gone_is_not_trained_again(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = next(finished.glob("tiny/seed0-*"))
    copy = tmp_path / "tiny" / run.name
    copy.mkdir(parents=True)
    for name in ("run.json", "recipe.resolved.yaml"):
        (copy / name).write_bytes((run / name).read_bytes())
    assert samplers.main([str(copy), "--arms", "self_1.0", "--samplers", "ddim:2"]) == 2
    assert "run its recipe again" in capsys.readouterr().err
    assert not list(tmp_path.glob("store/train-*"))


def test_a_cell_has_the_spread_over_runs_where_there_are_several() -> None:
    one, other = Scores(0.2, 0.05, 0.7, 10), Scores(0.4, 0.07, 0.8, 20)
    assert cell([one]) == "0.200 (0.050), 0.70, NFE 10"
    assert cell([one, other]) == "0.300 ± 0.141 (0.060 ± 0.014), 0.75 ± 0.07, NFE 10 to 20"


def test_the_peer_has_the_network_of_the_flagship() -> None:
    recipe = load(peer.FLAGSHIP)
    ours = recipe.arm(recipe.baseline).model.build(recipe.dataset.shape, None)
    theirs = peer.network(peer.Setting.of(recipe), recipe.dataset.shape)
    sizes = [
        sorted(tuple(each.shape) for each in network.parameters()) for network in (ours, theirs)
    ]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("way", peer.SAMPLERS)
def test_the_peers_samplers_end_at_the_data_if_the_noise_is_predicted_exactly(way: str) -> None:
    """Where all images are the same one, the noise in x is a closed form."""
    image = torch.linspace(-1, 1, 16).reshape(1, 1, 4, 4)
    kept = peer.noise_schedule().alphas_cumprod

    def exact(x: Tensor, time: Tensor) -> Any:
        return SimpleNamespace(sample=(x - kept[time].sqrt() * image) / (1 - kept[time]).sqrt())

    noise = torch.randn((3, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    expected = ((image + 1) * 127.5).round()
    assert (peer.sampled(exact, way, noise) - expected).abs().max() <= 1


def test_the_peer_prints_a_row_for_each_sampler(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peer, "SAMPLERS", {"DDPM 250": 3, "DDIM 50": 2, "DPM-Solver++ 10": 2})
    sets = [word for each in SMALL for word in ("--set", each)]
    assert peer.main(["--recipe", str(TINY), *sets, "--seed", "0", "1", "--steps", "6"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[0] == "| sampler | unconditional |"
    assert [row.split("|")[1].strip() for row in rows[2:5]] == [
        "diffusers, DDPM 250",
        "diffusers, DDIM 50",
        "diffusers, DPM-Solver++ 10",
    ]
    assert all(" ± " in row and ", NFE " in row for row in rows[2:5])


def test_the_seed_decides_what_the_peer_learns() -> None:
    setting = peer.Setting((8, 16), 1, 4, steps=3, batch=8, lr=1e-3, warmup=1, ema=0.9)
    images = torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8)
    weights = [
        torch.cat([each.flatten() for each in peer.trained(setting, images, seed).parameters()])
        for seed in (0, 0, 1)
    ]
    assert weights[0].equal(weights[1])
    assert not weights[0].equal(weights[2])


def test_the_noise_that_the_peer_adds_is_not_what_it_starts_from() -> None:
    images = torch.zeros(1, 1, 8, 8)
    with torch.random.fork_rng(devices=[]):
        for seed, number in itertools.product(range(3), range(3)):
            torch.manual_seed(peer.fresh_seed(number, seed))
            added = torch.randn(peer.AT_ONCE, 1, 8, 8)
            for other in range(3):
                start = peer.noise_of(other, peer.AT_ONCE, images, seed)
                assert abs((added * start).mean()) < 6 / start.numel() ** 0.5


def test_metrics_agree_with_themselves_where_all_samples_are_scored(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ({"name": "fd", "space": "pca"}, {"name": "prdc", "space": "pixels"})  # a new space
    monkeypatch.setattr(agreement, "METRICS", chosen)
    run = next(finished.glob("tiny/seed0-*"))
    words = [str(run), "--counts", "20", "40", "--sets", "3", "--against", "fd_pca"]
    assert agreement.main(words) == 0
    head, _, first, *rest = capsys.readouterr().out.splitlines()
    assert head == "| key | n = 20 | n = 40 | n = 80 |"
    assert first.startswith("| `fd_pca` | ")
    assert first.endswith(" | 1.00 (1.00) |")
    assert all(row.endswith(("(1.00) |", "(0.00) |")) for row in rest)
    assert agreement.main([*words[:-1], "fid"]) == 2
    assert "no such key (known: fd_pca, " in capsys.readouterr().err
    assert agreement.main([str(run), "--counts", "81", "--against", "fd_pca"]) == 2
    assert "an arm has 80 samples in all" in capsys.readouterr().err


def test_tau_is_one_for_the_same_order_and_minus_one_for_the_reverse() -> None:
    assert agreement.tau([1.0, 2.0, 5.0], [3.0, 4.0, 9.0]) == 1
    assert agreement.tau([1.0, 2.0, 5.0], [3.0, 2.0, 1.0]) == -1
    assert agreement.tau([1.0, 1.0], [3.0, 2.0]) == 0
    assert agreement.over([[1.0, 2.0], [2.0, 1.0]], [1.0, 2.0]) == "0.00 ± 1.41"
