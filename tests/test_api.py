"""fw from Python: what `load` gives is what the run stored, and what commands make of it."""

import inspect
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from sites import GUIDANCE, fw, write
from torch import Tensor

from fw.core.api import LoadedRun, load, run
from fw.core.cli.run import run as command
from fw.core.errors import FwError, RecipeError, StageFailed
from fw.core.report.tables import rows
from fw.core.stages.grid import save_grid
from fw.core.types import ConditionSpec
from fw.registry import installed

TINY = yaml.safe_load(Path(__file__).with_name("tiny.yaml").read_text("utf-8"))
SMALL: dict[str, Any] = {
    **TINY,
    "name": "small",
    "repeats": 2,
    "train": {"steps": 8, "batch": 16, "warmup": 1},
    "samples": {"count": 12, "seeds": 2},
    "probes": [{"name": "linear"}],
    "tracker": None,
    "arms": {
        "unconditional": {"annotator": None},
        "self_1.0": {},
        "self_1.5": {"guidance": {"name": "self_guidance", "scale": 1.5}},
        "oracle": {"annotator": "labels"},
        "vectors": {"annotator": "representation"},
    },
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> LoadedRun:
    return run(SMALL, out=tmp_path_factory.mktemp("runs"), jobs=1, device="cpu", quiet=True)


def drawn(done: LoadedRun, arm: str, **asked: Any) -> Tensor:
    return done.arm(arm).sample(4, device="cpu", **asked)


def test_a_recipe_as_a_mapping_and_as_a_file_are_one_run(small: LoadedRun, tmp_path: Path) -> None:
    file = write(tmp_path / "small.yaml", yaml.safe_dump(SMALL, sort_keys=False))
    again = run(file, set={"repeats": 2}, out=small.folder.parents[1], device="cpu", quiet=True)
    assert again.folder == small.folder
    assert again.recipe == small.recipe


def test_scores_are_those_of_run_json_and_of_the_table(small: LoadedRun) -> None:
    result = json.loads((small.folder / "run.json").read_text("utf-8"))
    frame = small.scores
    assert list(frame.seed.unique()) == [0, 1]
    metrics = frame[frame.sampling_seed.notna()]
    for (arm, score, seed), values in metrics.groupby(["arm", "score", "seed"]).value:
        assert result["arms"][arm]["metrics"][score]["trainings"][str(seed)] == list(values)
    means = frame.groupby(["arm", "score"]).value.mean()
    header, *table = rows(result)
    keys = [heading.split()[0] for heading in header[1:-2]]
    assert set(means.index.unique("score")) == set(keys)
    for name, *cells in table[:-1]:
        for key, cell in zip(keys, cells, strict=False):
            expected = f"{means[name, key]:.3f}" if (name, key) in means else ""
            assert cell.split(" ")[0] == expected, (name, key)


def test_the_verdict_is_the_reports_with_its_numbers(small: LoadedRun) -> None:
    report = (small.folder / "report.md").read_text("utf-8")
    verdict = small.verdict
    assert str(verdict) == "\n".join(verdict.sentences)
    assert verdict.sentences[0].replace("_", "") in report.replace("\\", "").replace("_", "")
    assert (verdict.score, verdict.better) == ("fd_pca", "lower")
    means = small.scores.groupby(["arm", "score"]).value.mean()
    for each in verdict.comparisons:
        assert each.than == "unconditional"
        difference = means[each.arm, "fd_pca"] - means[each.than, "fd_pca"]
        assert each.difference == pytest.approx(difference)


@pytest.mark.parametrize("arm", ["unconditional", "self_1.5", "vectors"])
def test_samples_are_the_runs_own_bit_for_bit(small: LoadedRun, arm: str) -> None:
    for seed in (0, 1):
        stored = small.arm(arm).samples(seed)
        assert (stored.dtype, stored.shape) == (torch.uint8, (12, 1, 8, 8))
        assert torch.equal(drawn(small, arm, seed=seed), stored[:4])
    other = small.arm(arm, training=1)
    assert torch.equal(other.sample(4, device="cpu"), other.samples()[:4])
    assert not torch.equal(other.samples(), small.arm(arm).samples())


def test_fw_sample_draws_the_same(small: LoadedRun, tmp_path: Path) -> None:
    done = fw("sample", small.folder, "--arm", "self_1.5", "-n", 4, "--device", "cpu",
              "-o", tmp_path / "command.png")  # fmt: skip
    assert done.code == 0, done.err
    save_grid(drawn(small, "self_1.5"), tmp_path / "python.png")
    one, other = (Image.open(tmp_path / f"{who}.png") for who in ("command", "python"))
    assert np.array_equal(np.asarray(one), np.asarray(other))


def test_one_condition_or_several_in_turn_by_number_and_by_name(small: LoadedRun) -> None:
    threes, fours = (drawn(small, "oracle", condition=each) for each in (3, 4))
    assert not torch.equal(threes, fours)
    both = drawn(small, "oracle", condition=[3, 4])
    assert torch.equal(both[0::2], threes[0::2])
    assert torch.equal(both[1::2], fours[1::2])
    assert torch.equal(drawn(small, "oracle", condition=torch.tensor([3, 4])), both)
    assert torch.equal(drawn(small, "oracle", condition=np.int64(3)), threes)
    names = small.recipe.dataset.class_names
    if names:
        assert torch.equal(drawn(small, "oracle", condition=names[3]), threes)


def test_vectors_are_taken_from_a_training_image_or_given(small: LoadedRun) -> None:
    annotation = small.arm("vectors").annotation
    assert annotation is not None
    taken = drawn(small, "vectors", condition=7)
    assert torch.equal(drawn(small, "vectors", condition=annotation.conditions[7]), taken)
    several = drawn(small, "vectors", condition=annotation.conditions[[7, 8]])
    assert torch.equal(several[0::2], taken[0::2])
    assert not torch.equal(several[1::2], taken[1::2])


def test_other_guidance_is_that_of_an_arm_that_has_it(small: LoadedRun) -> None:
    guided, plain = (small.arm(arm).samples()[:4] for arm in ("self_1.5", "self_1.0"))
    mode = {"name": "self_guidance", "scale": 1.5}
    assert torch.equal(drawn(small, "self_1.0", guidance=mode), guided)
    assert torch.equal(drawn(small, "self_1.5", guidance=1), plain)
    assert torch.equal(drawn(small, "self_1.5", guidance=[]), plain)
    component = installed().get("guidance", "self_guidance").model_validate({"scale": 1.5})
    assert torch.equal(drawn(small, "self_1.0", guidance=[component]), guided)


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("oracle", {"condition": 10}, "10 classes"),
    ("oracle", {"condition": "cat"}, "no such class"),
    ("self_1.0", {"condition": "cat"}, "numbers alone"),
    ("oracle", {"condition": True}, "no whole number"),
    ("oracle", {"condition": 1.5}, "no whole number"),
    ("oracle", {"condition": []}, "at least one"),
    ("oracle", {"condition": torch.zeros(3)}, "number of a class"),
    ("vectors", {"condition": torch.zeros(3)}, r"\(64,\)"),
    ("vectors", {"condition": 100_000}, "training images"),
    ("unconditional", {"condition": 0}, "no conditions"),
    ("unconditional", {"guidance": 2}, "name one"),
    ("unconditional", {"guidance": "self_guidance"}, "guidance 'self_guidance' needs"),
    ("self_1.5", {"guidance": -1}, "scale"),
    ("self_1.5", {"guidance": True}, "scale"),
    ("self_1.5", {"guidance": {"name": "self_guidence"}}, "did you mean 'self_guidance'"),
    ("self_1.5", {"guidance": {"name": "self_guidance", "scales": 2}}, "did you mean 'scale'"),
    ("self_1.5", {"guidance": {"name": "autoguidance", "scale": 2.0}}, "another network"),
    ("self_1.5", {"device": "tpu"}, "no such device"),
    ("self_1.5", {"batch": 0}, "batch 0"),
    ("self_1.5", {"seed": -1}, "seed -1"),
]


@pytest.mark.parametrize(("arm", "asked", "reason"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_cannot_be_drawn_is_refused_in_a_sentence(
    small: LoadedRun, arm: str, asked: dict[str, Any], reason: str
) -> None:
    with pytest.raises(FwError, match=reason) as caught:
        small.arm(arm).sample(**{"n": 4, "device": "cpu", **asked})
    assert "\n" not in str(caught.value)


def test_arms_and_trainings_that_are_not_there_are_named(small: LoadedRun, tmp_path: Path) -> None:
    with pytest.raises(FwError, match=r"self_1\.5"):
        small.arm("self_2")
    with pytest.raises(FwError, match="known: 0, 1"):
        small.arm("self_1.5", training=2)
    with pytest.raises(FwError, match="not a run folder"):
        load(tmp_path)
    with pytest.raises(FwError, match="cannot be read"):
        load(small.folder, plugins=[tmp_path / "nothing.py"])


def test_what_is_no_path_is_refused() -> None:
    with pytest.raises(FwError, match="it takes the path of a run's folder"):
        load(7)  # type: ignore[arg-type]


def test_the_denoiser_is_the_network_in_its_process(small: LoadedRun) -> None:
    denoiser = small.arm("self_1.5").denoiser
    x, sigma = torch.randn(3, 1, 8, 8), torch.tensor([0.1, 1.0, 10.0])
    skip, out, scale, noise = (
        each[:, None, None, None] if index < 3 else each
        for index, each in enumerate(denoiser.process.coefficients(sigma))
    )
    classes = torch.tensor([1, 2, 2])
    expected = skip * x + out * denoiser.network(scale * x, noise, classes)
    assert torch.equal(denoiser(x, sigma, [1, 2, 2]), expected)
    assert torch.equal(denoiser(x, 1.0, 2)[1], denoiser(x, sigma, classes)[1])
    assert not torch.equal(denoiser(x, sigma), expected)
    assert denoiser.shape == (1, 8, 8)
    assert denoiser.conditions == ConditionSpec("class", 5)
    x.requires_grad_()
    denoiser(x, 1.0).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert not any(weight.requires_grad for weight in denoiser.parameters())
    wrongs: tuple[tuple[tuple[Any, ...], str], ...] = (
        ((x[:, :, :4], 1.0), "takes"),
        ((x.double(), 1.0), "x: it is float64, and D takes float32"),
        ((x.byte(), 1.0), "x: it is uint8"),
        ((x, 0), "sigma 0: noise levels are finite and above 0"),
        ((x, torch.tensor([1.0, -1.0, math.inf])), "finite and above 0"),
        ((x, torch.ones(2)), r"sigma: it has shape \(2,\), and D takes one number or \(3,\)"),
        ((x, torch.ones(3, 1)), "sigma: it has shape"),
        ((x, 1.0, [1, 2]), "2 for 3 images"),
    )
    for wrong, reason in wrongs:
        with pytest.raises(FwError, match=reason):
            denoiser(*wrong)


def test_the_encoder_gives_the_features_that_the_conditions_were_made_of(small: LoadedRun) -> None:
    arm = small.arm("vectors")
    images = small.recipe.dataset.load("train").images[:100]
    features = arm.encoder(images)
    assert arm.annotation is not None
    stage = arm.finished.plan.arms["vectors"].conditioned
    assert stage is not None
    stored = load_file(arm.finished.products(stage) / "features.safetensors")["train"]
    assert torch.allclose(features, stored[:100], atol=1e-6)
    with pytest.raises(FwError, match="uint8"):
        arm.encoder(images.float())
    with pytest.raises(FwError, match="not made of"):
        _ = small.arm("oracle").encoder


def test_the_annotation_has_a_condition_for_each_training_image(small: LoadedRun) -> None:
    labels = small.recipe.dataset.load("train").labels
    assert labels is not None
    known = small.arm("oracle").annotation
    assert known is not None
    assert torch.equal(known.conditions, labels)
    assert small.arm("unconditional").annotation is None


def test_a_notebook_shows_the_table_and_the_figure(small: LoadedRun) -> None:
    page = small._repr_html_()
    assert page is not None
    assert all(f"<td>{arm}</td>" in page for arm in small.arms)
    assert "data:image/png;base64," in page
    assert small.verdict.sentences[0].split(":")[0] in page
    assert all(arm in repr(small) for arm in small.arms)
    assert "self_1.5" in repr(small.arm("self_1.5"))


def test_a_run_that_was_stopped_says_so(small: LoadedRun, tmp_path: Path) -> None:
    folder = tmp_path / "small" / "seed0-0"
    folder.mkdir(parents=True)
    (folder / "recipe.resolved.yaml").write_text(small.recipe.to_yaml())
    (folder / "run.json").write_text('{"recipe": "small"}')
    stopped = load(folder)
    assert "stopped before it had results" in repr(stopped)
    assert stopped._repr_html_() is None
    with pytest.raises(FwError, match="stopped before it had results"):
        _ = stopped.scores
    with pytest.raises(FwError, match="not finished"):
        stopped.arm("self_1.5").sample(1)


def test_latest_is_followed_when_a_run_is_loaded(small: LoadedRun, tmp_path: Path) -> None:
    latest = tmp_path / "latest"
    latest.symlink_to(small.folder)
    done = load(str(latest))
    latest.unlink()
    latest.symlink_to(tmp_path)
    assert done.folder == small.folder
    assert done.arms == small.arms
    assert load(small.folder / "run.json").folder == small.folder


def test_every_fault_of_a_recipe_is_named_at_once(tmp_path: Path) -> None:
    broken = {**SMALL, "train": {"step": 3}, "sampler": {"name": "dmppp"}}
    with pytest.raises(RecipeError) as caught:
        run(broken, out=tmp_path)
    assert [problem.split(": ")[1] for problem in caught.value.problems] == [
        "train.step",
        "sampler",
    ]
    with pytest.raises(FwError, match="nothing that a recipe can hold"):
        run({**SMALL, "name": object()}, out=tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_stage_that_fails_is_an_exception_with_its_reason(
    small: LoadedRun, tmp_path: Path
) -> None:
    file = write(
        tmp_path / "falling.py",
        """
        from typing import ClassVar

        from fw.core.kinds import Sampler
        from fw.registry import hookimpl

        FW_API = 2


        class Falling(Sampler):
            \"\"\"Raises.\"\"\"

            name: ClassVar[str] = "falling"
            nfe: ClassVar[int] = 1

            def sample(self, denoise, noise, draws):
                raise ValueError("the wheel came off")


        @hookimpl
        def fw_components():
            return [Falling]
        """,
    )
    arms = {**SMALL["arms"], "falling": {"sampler": "falling"}}
    options: dict[str, Any] = {"out": small.folder.parents[1], "device": "cpu", "quiet": True}
    for _ in range(2):  # a cell that is run again
        with pytest.raises(StageFailed, match="the wheel came off"):
            run({**SMALL, "arms": arms}, plugins=[file], jobs=1, **options)


def test_a_run_takes_the_options_of_the_command_and_refuses_what_that_refuses(
    tmp_path: Path,
) -> None:
    options = {*inspect.signature(command).parameters} - {"dry_run"}
    named = {"set_": "set", "arm": "arms", "plugin": "plugins"}
    taken = {*inspect.signature(run).parameters} - {"quiet"}
    assert {named.get(each, each) for each in options} == taken
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"ranks": 0}, "--ranks 0: it is a number from 1 on"),
        ({"ranks": "2x8"}, "the nodes are those of a Ray cluster"),
        ({"jobs": 0}, "jobs 0: it is a whole number from 1"),
        ({"batch": -5}, "batch -5: it is a whole number from 1"),
    ]
    for each, reason in wrong:
        with pytest.raises(FwError, match=reason):
            run(SMALL, out=tmp_path, quiet=True, **each)


def test_a_run_with_a_plugin_in_a_file_is_loaded_with_it(small: LoadedRun, tmp_path: Path) -> None:
    file = write(tmp_path / "halved.py", GUIDANCE.format(name="halved"))
    arms = {**SMALL["arms"], "halved": {"guidance": {"name": "halved", "scale": 1.5}}}
    options: dict[str, Any] = {"out": small.folder.parents[1], "device": "cpu", "quiet": True}
    done = run({**SMALL, "arms": arms}, plugins=[file], jobs=1, **options)
    images = done.arm("halved").samples()
    installed.cache_clear()  # as in a fresh process
    with pytest.raises(FwError, match=r"halved\.py"):
        load(done.folder).arm("halved").sample(4)
    again = load(done.folder, plugins=[str(file)])
    assert torch.equal(drawn(again, "halved"), images[:4])
    file.write_text(file.read_text() + "# edited\n")
    with pytest.raises(FwError, match="start Python"):
        load(done.folder, plugins=[file])
    installed.cache_clear()


SCRIPT = """
print("executed", __name__, flush=True)
import torch
from fw.core.api import run

done = run({recipe!r}, out={out!r}, jobs=2, device="cpu", set={{"train.steps": 2, "repeats": 1}})
images = done.arm("unconditional").sample(4, device="cpu")
print(torch.equal(images, done.arm("unconditional").samples()[:4]), len(done.scores), flush=True)
"""


def test_a_script_needs_no_guard_for_its_worker_processes(tmp_path: Path) -> None:
    recipe = {**SMALL, "arms": {"unconditional": {"annotator": None}}, "probes": []}
    script = write(tmp_path / "script.py", SCRIPT.format(recipe=recipe, out=str(tmp_path / "runs")))
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["executed __main__", "True 6"]
