"""Latent diffusion: autoencoders of diffusers as its own classes have them, and recipes that
train in their latents."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from faulty_latents import FAULTS, Same, Wrong
from made import products
from safetensors.torch import load_file, save_file
from torch import Tensor
from variants import assert_named

from fw.core.cli import app, guarded
from fw.core.diffusion import latents as core_latents
from fw.core.diffusion.latents import Codec, Latents, Unit
from fw.core.errors import Interrupted, MissingFile, RecipeError, StageFailed
from fw.core.job import Job
from fw.core.kinds import Autoencoder, Dataset
from fw.core.learning.train import train
from fw.core.machine.tables import Table
from fw.core.plan.assembly import plan
from fw.core.recipe.loading import load
from fw.core.settings import Train
from fw.core.stages.grid import save_grid
from fw.core.stages.latents import EncodeLatents
from fw.core.templates.autoencoder import Example
from fw.core.testing import check
from fw.core.testing.tiny import TinyBackbone, TinyProcess
from fw.core.types import ImageSet
from fw.plugins.autoencoders.kl import KL
from fw.plugins.autoencoders.pretrained import Pretrained
from fw.plugins.autoencoders.rae import RAE
from fw.plugins.autoencoders.tiny import Tiny
from fw.plugins.datasets.digits import Digits
from fw.plugins.samplers.dpmpp import DPMSolverPP

CPU = torch.device("cpu")

RECIPE = """\
fw: 1
name: latent
dataset:   digits
latents:   {{name: kl, weights: "{weights}", shrink: 2, posterior: {posterior}}}
encoder:   pixels
annotator: {{name: kmeans, clusters: 3, nredo: 1}}
model:     {{name: unet, channels: [4, 8], groups: 2}}
process:   {{name: edm, sigma_data: 1.0}}
train:     {{steps: 3, batch: 8, warmup: 1, flip: true}}
sampler:   {{name: dpmpp, steps: 2, clip: null}}
samples:   {{count: 6, seeds: 3}}
metrics:   [{{name: fd, space: {{name: pca, dims: 2}}}}]
baseline:  unconditional
arms:
  unconditional: {{annotator: null}}
  self_1.5:      {{guidance: {{name: self_guidance, scale: 1.5}}}}
"""


def theirs(name: str) -> Any:
    """A class of diffusers, whose own base classes have no types."""
    import diffusers

    return getattr(diffusers, f"Autoencoder{name}")


def made_kl(folder: Path, seed: int = 0, **settings: Any) -> Path:
    """A random AutoencoderKL that halves sides, in the format of the hub."""
    blocks: dict[str, Any] = {
        "block_out_channels": (8, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "norm_num_groups": 4,
        "sample_size": 16,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        theirs("KL")(**{**blocks, **settings}).save_pretrained(folder)
    return folder


def made_tiny(folder: Path, **settings: Any) -> Path:
    blocks: dict[str, Any] = {
        f"{part}_block_out_channels": (8, 8) for part in ("encoder", "decoder")
    }
    blocks |= {f"num_{part}_blocks": (1, 1) for part in ("encoder", "decoder")}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs("Tiny")(**blocks, **settings).save_pretrained(folder)
    return folder


def made_rae(folder: Path, **settings: Any) -> Path:
    encoder = {"hidden_size": 64, "patch_size": 4, "num_hidden_layers": 1, "input_size": 16}
    decoder = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    named = {f"encoder_{key}": value for key, value in encoder.items()}
    named |= {f"decoder_{key}": value for key, value in decoder.items()}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs("RAE")(**named, patch_size=4, **settings).save_pretrained(folder)
    return folder


MAKERS: Mapping[str, Callable[[Path], Pretrained]] = {
    "kl": lambda folder: KL(weights=made_kl(folder), shrink=2),
    "kl, posterior": lambda folder: KL(weights=made_kl(folder), shrink=2, posterior="sample"),
    "kl, shifted": lambda folder: KL(
        weights=made_kl(folder, scaling_factor=0.36, shift_factor=0.12), shrink=2
    ),
    "kl, by channel": lambda folder: KL(
        weights=made_kl(
            folder,
            latents_mean=[0.1, -0.2, 0.3, 0.0],
            latents_std=[1.0, 2.0, 0.5, 4.0],
            scaling_factor=0.5,
        ),
        shrink=2,
    ),
    "tiny": lambda folder: Tiny(
        weights=made_tiny(folder, scaling_factor=1.5, shift_factor=0.1), shrink=2
    ),
    "rae": lambda folder: RAE(weights=made_rae(folder, scaling_factor=0.8), channels=64, shrink=4),
}


@pytest.fixture(scope="module", params=MAKERS)
def autoencoder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Pretrained:
    return MAKERS[request.param](tmp_path_factory.mktemp("weights"))


def pictures(count: int = 3, colours: int = 3, side: int = 16) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, colours, side, side), generator=draw).to(torch.uint8)


# The autoencoders


def test_they_keep_the_contract(autoencoder: Pretrained) -> None:
    check(autoencoder)


def test_latents_and_images_are_those_of_diffusers(autoencoder: Pretrained) -> None:
    reference = (
        theirs(autoencoder.architecture.removeprefix("Autoencoder"))
        .from_pretrained(autoencoder.weights)
        .eval()
    )
    images, network = pictures(), autoencoder.build((3, 16, 16))
    config = reference.config
    with torch.inference_mode():
        code = autoencoder.encode(network, images)
        back = autoencoder.decode(network, code.mean)
        if isinstance(autoencoder, RAE):
            expected = reference.encode(images / 255).latent
            torch.testing.assert_close(back, 2 * reference.decode(expected).sample - 1)
        elif isinstance(autoencoder, Tiny):
            raw = reference.encode(images / 127.5 - 1).latents
            expected = (raw - config.shift_factor) * config.scaling_factor
            torch.testing.assert_close(back, reference.decode(raw).sample)
        else:
            posterior = reference.encode(images / 127.5 - 1).latent_dist
            shift = torch.tensor(config.latents_mean or [config.shift_factor or 0.0]).view(
                1, -1, 1, 1
            )
            scale = config.scaling_factor / torch.tensor(config.latents_std or [1.0]).view(
                1, -1, 1, 1
            )
            expected = (posterior.mean - shift) * scale
            torch.testing.assert_close(
                back, reference.decode(posterior.mean).sample, atol=1e-5, rtol=1e-4
            )
            assert isinstance(autoencoder, KL)
            assert (code.std is not None) == (autoencoder.posterior == "sample")
            if code.std is not None:
                torch.testing.assert_close(code.std, posterior.std * scale)
    torch.testing.assert_close(code.mean, expected)


def test_grey_images_are_repeated_and_what_is_decoded_is_averaged(autoencoder: Pretrained) -> None:
    grey = pictures(colours=1)
    network, colour = autoencoder.build((1, 16, 16)), autoencoder.build((3, 16, 16))
    with torch.inference_mode():
        code = autoencoder.encode(network, grey)
        torch.testing.assert_close(
            code.mean, autoencoder.encode(colour, grey.repeat(1, 3, 1, 1)).mean
        )
        expected = autoencoder.decode(colour, code.mean).mean(dim=1, keepdim=True)
        torch.testing.assert_close(autoencoder.decode(network, code.mean), expected)


def test_the_key_is_that_of_the_content_wherever_it_lies(
    autoencoder: Pretrained, tmp_path: Path
) -> None:
    moved = shutil.copytree(autoencoder.weights, tmp_path / "moved")
    there = autoencoder.model_copy(update={"weights": moved})
    assert there.identity() == autoencoder.identity()
    notes = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps({**notes, "_diffusers_version": "0.0.1"}))
    assert there.identity() == autoencoder.identity()
    (moved / "config.json").write_text(json.dumps({**notes, "scaling_factor": 0.123}))
    assert there.identity() != autoencoder.identity()
    shutil.copy(autoencoder.weights / "config.json", moved)
    weights = load_file(moved / "diffusion_pytorch_model.safetensors")
    first = next(iter(weights))
    save_file({**weights, first: weights[first] + 1}, moved / "diffusion_pytorch_model.safetensors")
    assert there.identity() != autoencoder.identity()


def test_what_is_wrong_with_a_folder_is_told_in_one_sentence(tmp_path: Path) -> None:
    folder = made_kl(tmp_path / "kl")
    KL(weights=folder, shrink=2).preflight()
    wrong = {
        "there is no config.json in": KL(weights=tmp_path / "absent"),
        "holds an AutoencoderKL, and this is for AutoencoderTiny": Tiny(weights=folder, shrink=2),
        "has `channels` 4 and `shrink` 2, and the recipe says 4 and 8": KL(weights=folder),
    }
    for said, autoencoder in wrong.items():
        with pytest.raises(MissingFile, match=re.escape(said)):
            autoencoder.preflight()
    weights = load_file(folder / "diffusion_pytorch_model.safetensors")
    save_file(dict(list(weights.items())[1:]), folder / "diffusion_pytorch_model.safetensors")
    with pytest.raises(MissingFile):
        KL(weights=folder, shrink=2).build((3, 16, 16))
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(MissingFile, match="is not in the format safetensors"):
        KL(weights=folder, shrink=2).build((3, 16, 16))
    (folder / "config.json").write_text("[")
    with pytest.raises(MissingFile, match="is not a JSON object"):
        KL(weights=folder, shrink=2).preflight()


def test_images_that_do_not_fit_are_refused_with_and_without_the_files(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    assert KL(weights=absent).latent_shape((3, 256, 128)) == (4, 32, 16)
    assert RAE(weights=absent).latent_shape((3, 256, 256)) == (768, 16, 16)
    for shape in ((2, 16, 16), (3, 12, 16)):
        with pytest.raises(ValueError, match="autoencoder kl: images"):
            KL(weights=absent).latent_shape(shape)
    rae = RAE(weights=made_rae(tmp_path / "rae"), channels=64, shrink=4)
    with pytest.raises(ValueError, match="images are 32x32, and it takes 16x16 only"):
        rae.latent_shape((3, 32, 32))


# What is stored, and what training takes of it


def stored(autoencoder: Autoencoder, folder: Path, flip: bool, **job: Any) -> Latents:
    folder.mkdir(exist_ok=True)
    EncodeLatents(Digits(), autoencoder, flip).run(Job(folder, **job), products)
    return Latents.load(folder)


def unit(generator: torch.Generator, count: int) -> Unit:
    return lambda shape: torch.randn(count, *shape, generator=generator)


def test_the_stage_stores_the_latents_of_all_images_in_their_order(tmp_path: Path) -> None:
    autoencoder = KL(weights=made_kl(tmp_path / "kl"), shrink=2)
    found = stored(autoencoder, tmp_path / "job", flip=True)
    images = Digits().load("train").images
    assert (len(found), found.shape) == (len(images), (4, 4, 4))
    some = torch.tensor([0, 249, 250, 999, 1000, len(images) - 1])
    network = autoencoder.build((1, 8, 8))
    with torch.no_grad():
        plain = autoencoder.encode(network, images[some]).mean
        mirrored = autoencoder.encode(network, images[some].flip(-1)).mean
    draw = unit(torch.Generator(), 6)
    torch.testing.assert_close(found.take(some, None, draw), plain, atol=1e-5, rtol=1e-4)
    which = torch.tensor([True, False] * 3)
    expected = torch.where(which[:, None, None, None], mirrored, plain)
    torch.testing.assert_close(found.take(some, which, draw), expected, atol=1e-5, rtol=1e-4)
    quality = json.loads((tmp_path / "job/quality.json").read_text())
    assert quality.keys() == {"mean", "std", "rmse"}
    assert quality["std"] == pytest.approx(
        torch.cat(list(found.parts["mean"].pieces)).std().item(), rel=0.2
    )


def test_latents_in_half_the_room_are_rounded_and_trained_on_in_single_precision(
    tmp_path: Path,
) -> None:
    weights = made_kl(tmp_path / "kl")
    single, half = (
        KL(weights=weights, shrink=2, posterior="sample", stored=each) for each in ("fp32", "fp16")
    )
    whole, rounded = (stored(each, tmp_path / each.stored, flip=True) for each in (single, half))
    for name in whole.parts:
        assert rounded.parts[name].nbytes * 2 == whole.parts[name].nbytes
    some, which = torch.tensor([3, 0, 999, 1000]), torch.tensor([True, False] * 2)
    taken = [
        each.take(some, which, unit(torch.Generator().manual_seed(0), 4))
        for each in (whole, rounded)
    ]
    assert {each.dtype for each in taken} == {torch.float32}
    torch.testing.assert_close(taken[1], taken[0], atol=2e-3, rtol=2**-10)
    assert not torch.equal(*taken)
    keys = [EncodeLatents(Digits(), each, True).key for each in (single, half)]
    assert (
        keys[0]
        == EncodeLatents(Digits(), KL(weights=weights, shrink=2, posterior="sample"), True).key
    )
    assert keys[0] != keys[1]


def test_a_posterior_is_drawn_afresh_with_the_generator_that_training_gives() -> None:
    mean, std = torch.randn(5, 2, 3, 3), torch.rand(5, 2, 3, 3)
    tensors = {"mean": mean, "std": std, "mirrored.mean": -mean, "mirrored.std": 10 * std}
    found = Latents({name: Table([tensor]) for name, tensor in tensors.items()})
    chosen, mirrored = torch.tensor([4, 0, 4]), torch.tensor([False, True, True])
    noise = torch.randn(3, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    signs, widths = torch.tensor([1.0, -1, -1]), torch.tensor([1.0, 10, 10])
    expected = (
        mean[chosen] * signs[:, None, None, None]
        + std[chosen] * widths[:, None, None, None] * noise
    )
    torch.testing.assert_close(
        found.take(chosen, mirrored, unit(torch.Generator().manual_seed(1), 3)), expected
    )
    other = found.take(chosen, mirrored, unit(torch.Generator().manual_seed(2), 3))
    assert not torch.equal(other, expected)


@pytest.mark.parametrize("stop", [1, 3])
def test_a_stage_that_was_stopped_continues_behind_the_files_that_it_wrote(
    stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core_latents, "SHARD", 500)  # two batches
    whole = stored(Example(), tmp_path / "whole", flip=True)
    asked = iter(range(100))
    with pytest.raises(Interrupted):
        stored(Example(), tmp_path / "job", flip=True, stopping=lambda: next(asked) >= stop)
    before = {
        path: path.stat().st_mtime_ns for path in (tmp_path / "job").glob("latents-*.safetensors")
    }
    assert len(before) == stop // 2
    again = stored(Example(), tmp_path / "job", flip=True)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert again.parts.keys() == whole.parts.keys() == {"mean", "mirrored.mean"}
    all_of = torch.arange(len(whole))
    for name, rows in whole.parts.items():
        assert torch.equal(again.parts[name].take(all_of), rows.take(all_of))


def test_what_is_decoded_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    codec = Codec(KL(weights=made_kl(tmp_path / "kl"), shrink=2), (1, 8, 8), CPU)
    latents = torch.randn(codec.size + 3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    together = codec.decode(latents)
    assert (together.dtype, together.shape) == (torch.uint8, (codec.size + 3, 1, 8, 8))
    for count in (1, 3, codec.size):
        assert torch.equal(codec.decode(latents[:count]), together[:count])


def test_the_autoencoder_is_given_full_batches_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = Codec(KL(weights=made_kl(tmp_path / "kl"), shrink=2), (1, 8, 8), CPU)
    given: list[int] = []
    for name in ("code", "images"):
        method = getattr(KL, name)

        def spy(self: KL, network: Any, x: Tensor, method: Any = method) -> Any:
            given.append(len(x))
            return method(self, network, x)

        monkeypatch.setattr(KL, name, spy)
    assert codec.encode(Digits().load("test").images[:2]).mean.shape == (2, 4, 4, 4)
    codec.decode(torch.zeros(codec.size + 1, 4, 4, 4))
    assert given == [codec.size] * 3


def test_with_nothing_lost_the_images_come_back_to_the_last_level() -> None:
    images = Digits().load("test").images
    codec = Codec(Example(patch=4, keep=4), (1, 8, 8), CPU)
    code = torch.cat([codec.encode(few).mean for few in images.split(codec.size)])
    assert code.shape == (len(images), 16, 2, 2)
    assert torch.equal(codec.decode(code), images)
    assert codec.quality(images)["rmse"] == 0
    assert Codec(Example(patch=4, keep=2), (1, 8, 8), CPU).quality(images)["rmse"] > 1


@pytest.mark.parametrize("flip", [False, True])
def test_latents_that_are_the_images_train_to_the_same_bits_as_the_images(
    flip: bool, tmp_path: Path
) -> None:
    check(Same())
    images = Digits().load("train").without_labels()
    settings = Train(steps=3, batch=16, warmup=0, flip=flip)

    def trained(data: ImageSet | Latents, folder: Path) -> dict[str, Tensor]:
        folder.mkdir()
        return train(TinyBackbone(), TinyProcess(), data, None, settings, Job(folder)).state_dict()

    one = trained(images, tmp_path / "pixels")
    other = trained(stored(Same(), tmp_path / "stage", flip), tmp_path / "latents")
    assert all(torch.equal(weight, other[name]) for name, weight in one.items())


# Faults


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named(fault: str) -> None:
    assert_named(Wrong(fault=fault), *FAULTS[fault])


@pytest.mark.parametrize("fault", ["shape", "double"])
def test_a_run_ends_in_a_sentence_where_an_autoencoder_breaks_its_promise(
    fault: str, tmp_path: Path
) -> None:
    with pytest.raises(StageFailed, match="autoencoder wrong: the mean of "):
        stored(Wrong(fault=fault), tmp_path / "job", flip=False)


# Recipes


def written(
    folder: Path, *changes: tuple[str, str], posterior: str = "mean", weights: Path | None = None
) -> Path:
    text = RECIPE.format(weights=weights or folder / "kl", posterior=posterior)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    file = folder / "latent.yaml"
    file.write_text(text)
    return file


def fw(*words: str | Path) -> tuple[int, str]:
    """The exit code of `fw WORDS` in this process, and what it wrote."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            code: Any = guarded(lambda: app([str(word) for word in words], prog_name="fw"))
        except SystemExit as ended:
            code = ended.code
    return code or 0, out.getvalue()


@pytest.mark.parametrize("posterior", ["mean", "sample"])
def test_a_recipe_runs_in_latents_and_is_scored_in_pixels(posterior: str, tmp_path: Path) -> None:
    made_kl(tmp_path / "kl")
    recipe = written(tmp_path, posterior=posterior)
    out = tmp_path / "runs"
    words = ("run", recipe, "--out", out, "--device", "cpu", "--jobs", "1")
    code, said = fw(*words)
    assert code == 0, said
    result = json.loads((out / "latent/latest/run.json").read_text())
    assert {arm["status"] for arm in result["arms"].values()} == {"finished"}
    assert result["arms"]["self_1.5"]["latents"]["std"] > 0
    assert "## Latents" in (out / "latent/latest/report.md").read_text()
    planned = plan(load(recipe))
    assert len({arm.latents for arm in planned.arms.values()}) == 1
    store = out / "store"
    first = store / planned.arms["self_1.5"].sample / "samples-000-0000000.safetensors"
    samples = load_file(first)["images"]
    assert (samples.dtype, samples.shape) == (torch.uint8, (6, 1, 8, 8))
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*.safetensors")}
    assert fw(*words)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*.safetensors")} == before
    grid = tmp_path / "grid.png"
    code, said = fw(
        "sample",
        out / "latent/latest",
        "--arm",
        "self_1.5",
        "-n",
        "4",
        "-o",
        grid,
        "--device",
        "cpu",
    )
    assert code == 0, said
    save_grid(samples[:4], tmp_path / "expected.png")
    assert grid.read_bytes() == (tmp_path / "expected.png").read_bytes()


def test_missing_weights_are_told_before_any_work_and_not_by_validate(tmp_path: Path) -> None:
    recipe = written(tmp_path)
    assert fw("validate", recipe)[0] == 0
    code, said = fw("run", recipe, "--out", tmp_path / "runs", "--device", "cpu")
    assert code == 2
    assert "autoencoder kl: there is no config.json in" in said
    assert not list((tmp_path / "runs/store").glob("*-*"))


def test_only_the_latents_and_what_reads_them_depend_on_the_weights(tmp_path: Path) -> None:
    made_kl(tmp_path / "kl")
    one = plan(load(written(tmp_path)))
    moved = shutil.copytree(tmp_path / "kl", tmp_path / "moved")
    assert plan(load(written(tmp_path, weights=moved))).stages.keys() == one.stages.keys()
    other = plan(load(written(tmp_path, weights=made_kl(tmp_path / "other", seed=1))))
    shared = {stage.partition("-")[0] for stage in one.stages.keys() & other.stages.keys()}
    changed = {stage.partition("-")[0] for stage in one.stages.keys() - other.stages.keys()}
    assert shared == {"encode", "annotate", "reference"}
    assert changed == {"latents", "train", "sample", "features", "evaluate"}


def test_the_run_s_seed_does_not_encode_again_and_flip_does(tmp_path: Path) -> None:
    def encoded(*changes: tuple[str, str]) -> set[str | None]:
        return {arm.latents for arm in plan(load(written(tmp_path, *changes))).arms.values()}

    assert encoded() == encoded(("name: latent", "name: latent\nseed: 5"))
    assert encoded() != encoded(("flip: true", "flip: false"))


def test_recipes_without_latents_have_the_stages_that_they_had() -> None:
    for entry in files("fw.recipes").iterdir():
        if entry.name.endswith(".yaml") and "latents:" not in entry.read_text():
            for stage in plan(load(Path(str(entry)))).stages.values():
                assert "latents" not in json.dumps(stage.payload)


REFUSED = {
    "a sampler that clamps": (
        (", clip: null", ""),
        "sampler 'dpmpp' needs the images themselves in -1..1",
    ),
    "images that do not fit": (
        ("shrink: 2", "shrink: 16"),
        "latents: autoencoder kl: images are 8x8, and sides must be",
    ),
    "a model that does not fit": (
        ("name: unet, channels: [4, 8], groups: 2", "name: dit, patch: 3"),
        "and these are 4x4",
    ),
    "latents of an arm": (
        ("{annotator: null}", "{annotator: null, latents: null}"),
        "latents: unknown key",
    ),
}


@pytest.mark.parametrize(("change", "told"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_told_when_the_recipe_is_read(
    change: tuple[str, str], told: str, tmp_path: Path
) -> None:
    load(written(tmp_path))
    with pytest.raises(RecipeError, match=re.escape(told)):
        load(written(tmp_path, change))


def test_a_sampler_clamps_unless_it_is_told_not_to() -> None:
    assert DPMSolverPP().requires == {"pixels"}
    assert DPMSolverPP(clip=None).requires == set()


def test_the_tiny_dataset_can_be_encoded_by_the_template(tiny_dataset: Dataset) -> None:
    assert Example().latent_shape(tiny_dataset.shape) == (4, 4, 4)
