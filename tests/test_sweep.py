"""`fw sweep`: what ranges come to, which arm is swept, what is refused, grids that share trainings
and go on after a crash, and searches whose best is scored again."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import toys
from mlflow import MlflowClient
from sites import Answer, fw, site, write

from fw.core.api import load as load_run
from fw.core.commands.sweep.axes import axis
from fw.core.commands.sweep.points import names
from fw.core.commands.sweep.tpe import Suggestions
from fw.core.errors import FwError
from fw.core.files.layout import MANIFEST
from fw.core.recipe.loading import load
from fw.core.report.selection import selection
from fw.core.store.at_work import notes
from fw.core.store.store import Store

pytestmark = pytest.mark.timeout(900)  # two fixtures run twenty small stages each

TINY = Path(__file__).parent / "tiny.yaml"

SCALES = [1.25, 1.5, 1.75, 2, 2.25, 2.5, 2.75, 3]

PLANTED = '''
    from typing import ClassVar

    from fw.core.kinds import Guidance, Metric
    from fw.registry import hookimpl

    FW_API = 2


    class Aims(Guidance):
        """Makes every image grey: (scale - 1.75) / 2, where -1 is black and 1 is white."""

        name: ClassVar[str] = "aims"

        def worse(self, model, x, sigma, condition, good):
            grey = good * 0 + (self.scale - 1.75) / 2
            return good - (grey - good) / (self.scale - 1)


    class Off(Metric):
        """How far the mean brightness is from the middle, squared: 0 at scale 1.75."""

        name: ClassVar[str] = "off"

        @property
        def keys(self):
            return {"off": "lower", "near": "higher"}

        def compare(self, prepared, fake, wanted=None):
            off = float(fake.double().mean() - 0.5) ** 2
            return {"off": off, "near": -off}


    @hookimpl
    def fw_components():
        return [Aims, Off]
'''

CURVE = (
    toys.RECIPE.replace("name: toy", "name: curve")
    .replace("{name: selfish, scale: 1.5}", "{name: aims, scale: 1.5}")
    .replace("{name: gap, space: flat}", "{name: off, space: flat}, {name: gap, space: flat}")
)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("guidance.scale=1:3:0.25", [1, 1.25, 1.5, 1.75, 2, 2.25, 2.5, 2.75, 3]),
        ("a.b=0.1:0.7:0.1", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]),
        ("a.b=3:1:-1", [3, 2, 1]),
        ("a.b=-1:1:1", [-1, 0, 1]),
        ("a.b=0.001:1:x10", [0.001, 0.01, 0.1, 1]),
        ("a.b=160:10:x0.5", [160, 80, 40, 20, 10]),
        ("a.b=10,30,100", [10, 30, 100]),
        ("a.b=1:2:0.5,4,1e1", [1, 1.5, 2, 4, 10.0]),
        ("encoder=pixels,{name: dino, steps: 5}", ["pixels", {"name": "dino", "steps": 5}]),
        ("model.channels=[8],[8, 16]", [[8], [8, 16]]),
        ("a.b=true,null", [True, None]),
    ],
)
def test_ranges_are_exact_and_end_where_they_say_and_lists_are_yaml(
    text: str, values: list[Any]
) -> None:
    assert list(axis(text).values) == values
    assert [type(value) for value in axis(text).values] == [type(value) for value in values]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("guidance.scale", "expected KEY=VALUES"),
        ("guidance.scale=", "expected KEY=VALUES"),
        ("a.b=1:3:0.3", "do not meet 3: they come to 2.8 and 3.1"),
        ("a.b=1:3:0", "no steps of 0 lead from 1 to 3"),
        ("a.b=3:1:1", "no steps of 1 lead from 3 to 1"),
        ("a.b=1:3", "'1:3' is no range; write START:STOP:STEP"),
        ("a.b=one:3:1", "'one:3:1' is no range"),
        ("a.b=0:8:x2", "no factors of 2 lead from 0 to 8"),
        ("a.b=1:9:x2", "do not meet 9: they come to 8 and 16"),
        ("a.b=8:1:x2", "no factors of 2 lead from 8 to 1"),
        ("a.b=0:1:0.00001", "more than 1,000 values"),
        ("a.b=1,2,1", "1 is there twice"),
        ("a.b=[1", "no values in YAML"),
    ],
)
def test_what_is_no_range_and_no_list_is_told_in_one_sentence(text: str, reason: str) -> None:
    with pytest.raises(FwError, match=r"^--over ") as refused:
        axis(text)
    assert reason in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_points_are_called_after_their_keys_and_values() -> None:
    scale, clusters = axis("guidance.0.scale=1.25,2"), axis("annotator.clusters=-5,30")
    assert names([scale, clusters], [(1.25, -5), (2, 30)], "base") == [
        "scale_1.25_clusters_-5",
        "scale_2_clusters_30",
    ]
    others = [axis("model.name=unet,dit"), axis("sampler.name=ddpm,heun")]
    assert names(others, [("unet", "ddpm")], "base") == ["model_unet_sampler_ddpm"]
    steps = [axis("sampler.steps=1,2"), axis("encoder.steps=3,4")]
    assert names(steps, [(1, 3)], "base") == ["sampler_steps_1_encoder_steps_3"]
    whole = [axis("annotator={name: kmeans, clusters: 5},{name: kmeans, clusters: 7},[1]")]
    assert names(whole, [(value,) for value in whole[0].values], "annotator_1") == [
        "annotator_kmeans",
        "annotator_kmeans_2",
        "annotator_1_2",
    ]


def swept(*words: str | Path) -> Answer:
    return fw("sweep", *words)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["guidance.scal=1,2"], "no arm of recipe 'tiny' has such a key"),
        (["guidanse.scale=1,2"], "no section of an arm; did you mean 'guidance'?"),
        (["samples.count=10,20"], "equal in all arms by design"),
        (["annotator.clusters=5,10"], "several arms have these keys (self_1.0, self_1.5)"),
        (["guidance.scale=1:3:0.3"], "do not meet 3"),
        (["guidance.scale=2"], "one point is no sweep"),
        (["guidance.scale=1,2", "--over", "guidance.scale=3,4"], "it is there twice"),
        (["guidance.scale=1:2:0.005"], "these are 201 points, each an arm of its own; --yes"),
        (["guidance.scale=1:2:0.002", "--over", "train.lr=1:2:0.1"], "a recipe has at most 999"),
        (["guidance.scale=1,2", "--arm", "nobody"], "--arm nobody: no such arm"),
        (["guidance.scale=1,2", "--arm", "self_1.0"], "arm self_1.0 has no such key"),
        (["guidance.scale=1,2", "--minimise", "fid"], "no metric reports it (known: fd_pca"),
        (["guidance.scale=1,2", "--maximise", "fd_pca"], "of this score, lower is better"),
        (["guidance.scale=1,2", "--trials", "3"], "add --sampler optuna"),
        (["guidance.scale=1,2", "--sampler", "grid"], "take optuna"),
        (["guidance.scale=1,2", "--sampler", "optuna", "--again", "0"], "on fresh seeds"),
        (["guidance.scale=1,-2"], "arms.scale_-2.guidance.scale: "),
        (["guidance.scale=1,2", "-o", str(TINY)], "was not written by `fw sweep`"),
    ],
)
def test_what_cannot_be_swept_is_refused_in_one_sentence_before_any_work(
    tmp_path: Path, words: list[str], reason: str
) -> None:
    answer = swept(TINY, "--over", *words, "--out", tmp_path / "runs")
    assert (answer.code, answer.out) == (2, "")
    assert reason in answer.err
    assert len(answer.err.splitlines()) == 1
    assert not (tmp_path / "runs" / "store").exists()


def test_the_arm_is_the_one_that_has_all_keys_or_that_the_recipe_asks_about(tmp_path: Path) -> None:
    flagship = TINY.parents[1] / "recipes/self_guidance.yaml"
    words: list[str | Path] = ["--dry-run", "--out", tmp_path]
    scale, clusters = ["--over", "guidance.scale=1.5,2"], ["--over", "annotator.clusters=10,20"]
    assert "points of arm self_1.5" in swept(TINY, *scale, *clusters, *words).err
    assert "points of arm self_1.5" in swept(flagship, *scale, *words).err
    assert "points of arm self_1.0" in swept(TINY, *clusters, "--arm", "self_1.0", *words).err
    answer = swept(flagship, *scale, *clusters, *words)
    assert "4 points of arm self_1.5, and the baseline: 3 trainings, 5 samplings" in answer.err


def test_a_sampler_that_the_baseline_has_is_known_however_it_is_written(tmp_path: Path) -> None:
    words = ["--set", "sampler=dpmpp", "--set", "tracker=null", "--arm", "self_1.5", "--dry-run"]
    answer = swept(TINY, "--over", "sampler.name=dpmpp,heun", *words, "--out", tmp_path)
    arms = [line.split(":")[0] for line in answer.out.splitlines() if line.startswith("arm ")]
    assert arms == [
        "arm unconditional",
        "arm unconditional_sampler_heun",
        "arm sampler_dpmpp",
        "arm sampler_heun",
    ]


def test_a_sweep_of_samplers_gives_the_baseline_each_of_them(tmp_path: Path) -> None:
    words = ["--over", "sampler.steps=3,4,6", "--arm", "self_1.5", "--dry-run"]
    answer = swept(TINY, *words, "--out", tmp_path)
    arms = [line.split(":")[0] for line in answer.out.splitlines() if line.startswith("arm ")]
    assert arms == [
        "arm unconditional",
        "arm unconditional_steps_4",
        "arm unconditional_steps_6",
        "arm steps_3",
        "arm steps_4",
        "arm steps_6",
    ]


class Swept(NamedTuple):
    """A grid that was killed and continued."""

    out: Path
    words: list[str | Path]
    before: dict[str, bytes]
    """The manifests of what was finished when it was killed."""
    answer: Answer

    @property
    def folder(self) -> Path:
        return self.out / "tiny_sweep" / "latest"

    @property
    def result(self) -> dict[str, Any]:
        return json.loads((self.folder / "run.json").read_text())


def manifests(out: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in out.glob(f"store/*/{MANIFEST}")}


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """Eight scales on digits, killed in the middle of their samplings."""
    out = tmp_path_factory.mktemp("grid")
    small = ["--set", "train.steps=20", "--set", "samples={count: 20, seeds: 3}"]
    words: list[str | Path] = [
        TINY,
        "--over",
        "guidance.scale=1.25:3:0.25",
        *small,
        "--out",
        out,
        "--jobs",
        "1",
    ]
    command = [sys.executable, "-m", "fw.core", "sweep", *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + 200
        while len(list(out.glob(f"store/sample-*/{MANIFEST}"))) < 2:
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    before = manifests(out)
    assert len([stage for stage in before if stage.startswith("sample-")]) < 9
    return Swept(out, words, before, swept(*words))


def test_a_sweep_of_eight_scales_is_one_training_and_eight_samplings(grid: Swept) -> None:
    assert grid.answer.code == 0, grid.answer.err
    stages = manifests(grid.out)
    kinds = [stage.partition("-")[0] for stage in stages]
    assert (kinds.count("train"), kinds.count("sample")) == (2, 9)  # the baseline has one of each
    arms = grid.result["arms"]
    points = [f"scale_{scale}" for scale in SCALES]
    assert list(arms) == ["unconditional", *points]
    assert len({arms[name]["train_key"] for name in points}) == 1
    assert len({arms[name]["sample_key"] for name in points}) == 8


def test_a_sweep_that_was_killed_does_nothing_twice(grid: Swept) -> None:
    assert grid.before.items() <= manifests(grid.out).items()
    unpacked = {stage for stage in grid.before if stage.startswith(("train-", "sample-"))}
    assert unpacked
    assert not [stage for stage in unpacked if f"start  {stage}" in grid.answer.err]


def test_a_sweep_says_that_its_best_was_chosen_by_what_it_is_named_with(grid: Swept) -> None:
    result = grid.result
    points = {name: arm for name, arm in result["arms"].items() if name != "unconditional"}
    best = min(points, key=lambda name: points[name]["metrics"]["fd_pca"]["mean"])
    said = [f"Of 8 points {best} is the best", "chosen among them by these very samples"]
    for text in (grid.answer.out, (grid.folder / "report.md").read_text()):
        assert all(part in " ".join(text.split()) for part in said)


def test_the_recipe_of_a_sweep_runs_again_with_nothing_to_do(grid: Swept, tmp_path: Path) -> None:
    before, file = manifests(grid.out), grid.folder / "sweep.yaml"
    text = file.read_text()
    assert text.startswith("# Written by `fw sweep` from ")
    assert load(file).sweep is not None
    copy = shutil.copy(file, tmp_path / "again.yaml")
    answer = fw("run", copy, "--out", grid.out, "--jobs", "1")
    assert answer.code == 0, answer.err
    assert "start" not in answer.err
    assert manifests(grid.out) == before
    assert [path.name for path in (grid.out / "tiny_sweep").glob("seed*")] == [
        grid.folder.resolve().name
    ]


def test_a_sweep_is_written_where_the_user_says_and_again(grid: Swept, tmp_path: Path) -> None:
    for _ in range(2):
        assert swept(*grid.words, "-o", tmp_path / "mine.yaml").code == 0
    mine, kept = (
        (path / name).read_text()
        for path, name in ((tmp_path, "mine.yaml"), (grid.folder, "sweep.yaml"))
    )
    assert mine.split("\nfw: 1", 1)[1] == kept.split("\nfw: 1", 1)[1]


def test_a_sweep_is_drawn_along_its_key_without_being_asked(grid: Swept, tmp_path: Path) -> None:
    assert (grid.folder / "sweep.png").stat().st_size > 5000
    assert "![sweep](sweep.png)" in (grid.folder / "report.md").read_text()
    for key in ([], ["--x", "guidance.scale"], ["--x", "guidance.0.scale"]):
        answer = fw("plot", grid.folder, *key, "-o", tmp_path / "drawn.png")
        assert answer.code == 0, answer.err
        assert (tmp_path / "drawn.png").read_bytes() == (grid.folder / "sweep.png").read_bytes()


def test_a_point_of_a_sweep_is_an_arm_to_draw_from(grid: Swept, tmp_path: Path) -> None:
    words = ["--arm", "scale_1.75", "-n", "4", "--device", "cpu", "-o", tmp_path / "few.png"]
    drawn = fw("sample", grid.folder, *words)
    assert drawn.code == 0, drawn.err
    arm = load_run(grid.folder).arm("scale_1.75")
    assert torch.equal(arm.sample(4, device="cpu"), arm.samples(seed=0)[:4])


def test_a_sweep_is_one_run_of_mlflow_with_its_keys_as_params_of_the_arms(grid: Swept) -> None:
    client = MlflowClient(f"sqlite:///{grid.out}/mlflow.db")
    experiment = client.get_experiment_by_name("tiny_sweep")
    assert experiment is not None
    parents = client.search_runs([experiment.experiment_id], "tags.`fw.role` = 'recipe'")
    [tags] = [parent.data.tags for parent in parents]
    assert (tags["fw.sweep"], tags["fw.sweep.over"]) == ("grid", "guidance.0.scale")
    arms = client.search_runs(
        [experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{parents[0].info.run_id}'"
    )
    scales = [arm.data.params.get("guidance.0.scale") for arm in arms]
    assert sorted(float(scale) for scale in scales if scale) == SCALES
    assert all("eval/fd_pca" in arm.data.metrics for arm in arms)
    [view] = [value for tag, value in experiment.tags.items() if "compareRunCharts" in value]
    charts = json.loads(json.loads(view)["state"])["compareRunCharts"]
    [scatter] = [chart for chart in charts if chart["type"] == "SCATTER"]
    assert scatter["xaxis"]["key"] == "guidance.0.scale"
    assert scatter["yaxis"]["key"] == "eval/fd_pca"


@pytest.mark.parametrize("best", [3, 20, 37])
@pytest.mark.parametrize("at_once", [1, 4])
@pytest.mark.parametrize("better", ["lower", "higher"])
def test_suggestions_come_to_the_best_of_a_planted_curve(
    best: int, at_once: int, better: str
) -> None:
    scale = axis("guidance.scale=1:5:0.1")
    suggestions = Suggestions([scale], better)
    tried = []
    for _ in range(60 // at_once):
        suggested = [place for (place,) in suggestions.make(at_once)]
        sign = 1 if better == "lower" else -1
        suggestions.tell([sign * (place - best) ** 2 for place in suggested])
        tried += suggested
    assert best in tried
    near = [place for place in range(len(scale.values)) if abs(place - best) <= 2]
    by_chance = len(near) / len(scale.values)
    assert sum(place in near for place in tried) > 2 * by_chance * len(tried)
    assert len(set(tried)) < len(scale.values)


def test_suggestions_are_the_same_for_the_same_scores_and_go_on_after_a_failure() -> None:
    made: list[list[tuple[int, ...]]] = []
    for _ in range(2):
        axes = [axis("a.b=1,2,4,8"), axis("c.d=x,y,z")]
        suggestions = Suggestions(axes, "lower")
        made.append([])
        for number in range(15):
            suggested = suggestions.make(2)
            suggestions.tell([None if number == 3 else sum(place) for place in suggested])
            made[-1] += suggested
    assert made[0] == made[1]
    assert {place for place, _ in made[0]} <= set(range(4))
    assert {place for _, place in made[0]} == set(range(3))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str | Path]]]:
    """A recipe whose score is a known function of the scale, and how it is searched."""
    folder = tmp_path_factory.mktemp("planted")
    recipe = write(folder / "curve.yaml", CURVE)
    plugin = write(folder / "planted.py", PLANTED)
    words: list[str | Path] = [
        recipe,
        "--plugin",
        plugin,
        "--over",
        "guidance.scale=1.25:3.75:0.5",
    ]
    with site(folder / "site"):
        yield folder, [*words, "--sampler", "optuna", "--trials", "6", "--jobs", "2"]


@pytest.fixture(scope="module")
def searched(planted: tuple[Path, list[str | Path]]) -> tuple[Path, Answer]:
    folder, words = planted
    return folder / "runs", swept(*words, "--again", "2", "--out", folder / "runs")


def record(out: Path, name: str) -> dict[str, Any]:
    return json.loads((out / name / "latest" / "run.json").read_text())


def test_a_search_finds_the_best_of_a_planted_curve(searched: tuple[Path, Answer]) -> None:
    out, answer = searched
    assert answer.code == 0, answer.err
    result = record(out, "curve_search")
    scores = {
        float(name.removeprefix("scale_")): arm["metrics"]["off"]["mean"]
        for name, arm in result["arms"].items()
        if name != "plain"
    }
    for scale, score in scores.items():
        assert score == pytest.approx(((scale - 1.75) / 4) ** 2, abs=0.005)
    assert len(scores) == 6  # the whole grid: that less is enough is for suggestions to show
    assert min(scores, key=scores.__getitem__) == 1.75


def test_a_search_is_exploratory_wherever_it_is_read(searched: tuple[Path, Answer]) -> None:
    out, answer = searched
    result, folder = record(out, "curve_search"), out / "curve_search/latest"
    assert (result["sweep"]["kind"], result["sweep"]["trials"]) == ("search", 6)
    assert {each["decision"] for each in result["verdict"]["comparisons"]} == {"undecided"}
    for text in (answer.out, (folder / "report.md").read_text()):
        assert "Exploratory: of 6 trials" in text
        assert "optimistic" in text
    assert "Exploratory" in (folder / "report.html").read_text()


def test_the_best_of_a_search_is_scored_again_on_fresh_seeds_beside_the_baseline(
    searched: tuple[Path, Answer],
) -> None:
    out, answer = searched
    again = record(out, "curve_search_again")
    assert list(again["arms"]) == ["plain", "scale_1.75"]
    assert (again["seed"], again["repeats"]) == (1, 2)
    assert list(again["arms"]["scale_1.75"]["metrics"]["off"]["trainings"]) == ["1", "2"]
    before = record(out, "curve_search")["arms"]["scale_1.75"]
    assert again["arms"]["scale_1.75"]["train_key"] != before["train_key"]
    assert again["verdict"]["sentences"][0].startswith("Is scale_1.75 better than plain?")
    assert "was chosen by 6 trials on seed 0" in answer.out
    assert answer.out.index("Exploratory") < answer.out.index("Is scale_1.75 better than plain?")


def test_a_search_that_is_given_again_suggests_the_same_and_does_nothing(
    planted: tuple[Path, list[str | Path]],
    searched: tuple[Path, Answer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And between two trials, no product of those before is without a user: `fw store --prune`."""
    out, first = searched
    before = manifests(out)
    shutil.rmtree(out / "curve_search")  # what it knows, it knows from the store
    used: list[int] = []
    tell = Suggestions.tell

    def heard(self: Suggestions, scores: Any) -> None:
        used.append(len({stage for run in notes(Store(out / "store")) for stage in run.uses}))
        tell(self, scores)

    monkeypatch.setattr(Suggestions, "tell", heard)
    again = swept(*planted[1], "--again", "2", "--out", out)
    assert again.code == 0, again.err
    trials = [
        [line for line in answer.err.splitlines() if line.startswith("trial")]
        for answer in (first, again)
    ]
    assert len(trials[0]) == 6
    assert trials[0] == trials[1]
    assert used == sorted(used)
    assert 0 < used[0] < used[-1]
    assert "start" not in again.err
    assert manifests(out) == before


def test_the_score_of_a_search_is_what_its_verdict_is_about(
    planted: tuple[Path, list[str | Path]], searched: tuple[Path, Answer]
) -> None:
    out, _ = searched
    answer = swept(
        *planted[1][:4], "guidance.scale=1.5,1.75,4", "--maximise", "near", "--out", out, "--jobs",
        "1"
    )  # fmt: skip
    assert answer.code == 0, answer.err
    result = record(out, "curve_sweep")
    assert result["headline"] == result["verdict"]["key"] == "near"
    assert "scale_1.75 is the best, near -" in answer.out


def test_seeds_that_have_not_chosen_the_points_of_a_search_are_as_good_as_any() -> None:
    arms = {name: {"metrics": {"fd": {"mean": mean}}} for name, mean in (("a", 2.0), ("b", 1.0))}
    result = {
        "seed": 0,
        "headline": "fd",
        "better": {"fd": "lower"},
        "recipe": "x_search",
        "arms": arms,
        "sweep": {"kind": "search", "points": ["a", "b"], "trials": 2, "chosen_on": [0]},
    }
    [said] = selection(result)
    assert said.startswith("Exploratory")
    [said] = selection({**result, "seed": 1})
    assert said.startswith("Of 2 points b is the best")
    again = {"kind": "again", "points": ["b"], "trials": 2, "chosen_on": [0], "chosen_at": 1.0}
    [said] = selection({**result, "sweep": again, "seed": 1, "repeats": 2})
    assert "none of these trainings" in said
    [said] = selection({**result, "sweep": again})
    assert "optimistic" in said
