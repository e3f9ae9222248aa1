"""Pretrained denoisers of diffusers from a folder: as diffusers runs them, with the process of
their training."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.pixels import to_unit
from fw.core.diffusion.taps import blocks_of
from fw.core.errors import FwError, MissingFile, RecipeError
from fw.core.features.activations import noise_of
from fw.core.job import Job
from fw.core.kinds import scaled_dot_product
from fw.core.learning.train import train
from fw.core.recipe.loading import load
from fw.core.settings import Train
from fw.core.stages.keys import digest
from fw.core.testing import check, tiny
from fw.core.types import ConditionSpec, ImageSet
from fw.plugins.backbones.diffusers_folder import DiffusersFolder
from fw.plugins.encoders.diffusion import Diffusion
from fw.plugins.encoders.dreamteacher import DreamTeacher
from fw.plugins.processes.ddpm import DDPM

SHAPE = (1, 8, 8)
TINY = Path(__file__).parent / "tiny.yaml"
UNET: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
}
UNETS: Mapping[str, Mapping[str, Any]] = {
    "plain": {
        "down_block_types": ("DownBlock2D",) * 2,
        "up_block_types": ("UpBlock2D",) * 2,
        "add_attention": False,
    },
    "attention": {
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    },
}


def saved(network: str, folder: Path, seed: int = 0, **settings: Any) -> Path:
    """A random network of diffusers, in the format of the hub."""
    import diffusers

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made: Any = getattr(diffusers, network)(**settings)
        for weight in made.parameters():
            torch.nn.init.normal_(weight, std=0.1)
        made.save_pretrained(folder)
    return folder


def unet(folder: Path, kind: str = "attention", **settings: Any) -> Path:
    return saved("UNet2DModel", folder, **{**UNET, **UNETS[kind], **settings})


def cross_unet(folder: Path, **settings: Any) -> Path:
    blocks = {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 12,
        "attention_head_dim": 2,
    }
    return saved("UNet2DConditionModel", folder, **{**UNET, **blocks, **settings})


def dit(folder: Path, **settings: Any) -> Path:
    sizes = {
        "num_layers": 3,
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "num_embeds_ada_norm": 5,
    }
    shape = {"sample_size": 8, "in_channels": 1, "out_channels": 2, "patch_size": 2}
    return saved("DiTTransformer2DModel", folder, **{**sizes, **shape, **settings})


MAKERS: Mapping[str, Callable[[Path], Path]] = {
    "unet": lambda folder: unet(folder, "plain"),
    "unet, attention": unet,
    "unet, classes, learned variance": lambda folder: unet(
        folder, num_class_embeds=5, out_channels=2
    ),
    "cross unet": cross_unet,
    "dit": dit,
}


@pytest.fixture(scope="module", params=MAKERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MAKERS[request.param](tmp_path_factory.mktemp("weights"))


def images() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(3, *SHAPE, generator=draw), torch.tensor([0.0, 17.0, 999.0])


def pipeline(tmp_path: Path, **scheduler: Any) -> Path:
    """A pipeline's folder with a U-Net, and a scheduler with these settings."""
    unet(tmp_path / "unet", "plain")
    (tmp_path / "model_index.json").write_text(
        '{"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"]}'
    )
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    return tmp_path


# What the network says


def test_it_keeps_the_contract(folder: Path) -> None:
    check(DiffusersFolder(weights=folder))


def test_without_a_condition_it_says_what_diffusers_says(folder: Path) -> None:
    import diffusers

    config = json.loads((folder / "config.json").read_text())
    theirs: Any = getattr(diffusers, config["_class_name"]).from_pretrained(folder).eval()
    x, t = images()
    given: dict[str, Any] = {}
    if config["_class_name"] == "UNet2DConditionModel":
        given["encoder_hidden_states"] = torch.zeros(3, 1, 12)
    if config["_class_name"] == "DiTTransformer2DModel":
        given["class_labels"] = torch.full((3,), 5)
    if config.get("num_class_embeds"):
        table = theirs.class_embedding.weight.detach()
        theirs.class_embedding = torch.nn.Identity()
        given["class_labels"] = table.mean(dim=0).expand(3, -1)
    ours = DiffusersFolder(weights=folder).build(SHAPE, None).eval()
    with torch.inference_mode():
        torch.testing.assert_close(ours(x, t), theirs(x, t.long(), **given).sample[:, :1])


@pytest.mark.parametrize("maker", ["unet, classes, learned variance", "dit"])
def test_kept_classes_are_those_of_the_network(maker: str, tmp_path: Path) -> None:
    import diffusers

    backbone = DiffusersFolder(weights=MAKERS[maker](tmp_path), classes="kept")
    config = json.loads((tmp_path / "config.json").read_text())
    theirs: Any = getattr(diffusers, config["_class_name"]).from_pretrained(tmp_path).eval()
    ours = backbone.build(SHAPE, ConditionSpec("class", 5)).eval()
    (x, t), classes = images(), torch.tensor([4, 0, 2])
    with torch.inference_mode():
        torch.testing.assert_close(
            ours(x, t, classes), theirs(x, t.long(), class_labels=classes).sample[:, :1]
        )
        assert not torch.allclose(ours(x, t), ours(x, t, classes))
    with pytest.raises(FwError, match="own 5 classes, and the arm has 3"):
        backbone.build(SHAPE, ConditionSpec("class", 3))


def test_new_classes_start_close_to_none(folder: Path) -> None:
    network = DiffusersFolder(weights=folder).build(SHAPE, ConditionSpec("class", 3)).eval()
    (x, t), classes = images(), torch.tensor([2, 0, 1])
    with torch.inference_mode():
        plain, told = network(x, t), network(x, t, classes)
    assert 0 < (plain - told).norm() < 0.2 * plain.norm()


def test_a_dit_drops_no_labels_by_itself(tmp_path: Path) -> None:
    network = DiffusersFolder(weights=dit(tmp_path)).build(SHAPE, ConditionSpec("class", 3)).train()
    x, t = (each.repeat_interleave(40, dim=0) for each in images())
    dropped = torch.arange(120) % 2 == 0
    with torch.inference_mode():
        torch.testing.assert_close(
            network(x, t, torch.ones(120, dtype=torch.int64), dropped),
            network.eval()(x, t, torch.ones(120, dtype=torch.int64), dropped),
        )


def test_blocks_and_layers_have_the_names_that_fws_own_networks_have(tmp_path: Path) -> None:
    of_unet = DiffusersFolder(weights=unet(tmp_path / "unet")).build(SHAPE, None)
    of_dit = DiffusersFolder(weights=dit(tmp_path / "dit")).build(SHAPE, None)
    assert list(blocks_of(of_unet)) == ["down.0", "down.1", "mid", "up.0", "up.1"]
    assert list(blocks_of(of_dit)) == ["blocks.0", "blocks.1", "blocks.2"]
    assert NetworkDenoiser(of_dit, DDPM()).layers(images()[0]) == (
        "blocks.0",
        "blocks.1",
        "blocks.2",
    )
    assert "mid_block.attentions.0" in NetworkDenoiser(of_unet, DDPM()).layers(images()[0])
    plain = DiffusersFolder(weights=unet(tmp_path / "plain", "plain"))
    assert plain.provides == {"taps"}
    assert NetworkDenoiser(plain.build(SHAPE, None), DDPM()).layers(images()[0]) == ()


def test_attend_may_change_its_mind(folder: Path) -> None:
    network = DiffusersFolder(weights=folder).build(SHAPE, None).eval()
    x, t = images()
    with torch.inference_mode():
        before = network(x, t)
        torch.testing.assert_close(network(x, t, attend=scaled_dot_product), before)
        network(x, t, attend=lambda query, key, value, layer: torch.zeros_like(value))
        assert torch.equal(network(x, t), before)


def test_a_perfect_network_of_theirs_is_a_perfect_denoiser_here() -> None:
    """What a DDPM is told of (x_t, t) by diffusers' scheduler and by fw's process is the same."""
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    scheduler: Any = DDPMScheduler()
    process = DDPM(prediction="eps", schedule="linear")
    x0, t = torch.randn(3, *SHAPE), torch.tensor([0, 300, 999])
    noise = torch.randn(x0.shape)
    noisy = scheduler.add_noise(x0, noise, t)
    abar = scheduler.alphas_cumprod[t]
    sigma = ((1 - abar) / abar).sqrt()
    _, _, scale, told = process.coefficients(sigma)
    torch.testing.assert_close(told, t.float(), atol=0.02, rtol=1e-3)
    torch.testing.assert_close(
        scale[:, None, None, None] * (x0 + sigma[:, None, None, None] * noise), noisy
    )


def test_training_goes_on_from_the_loaded_weights(tmp_path: Path) -> None:
    backbone = DiffusersFolder(weights=unet(tmp_path))
    data = tiny.images(40)
    with tiny.job() as job:
        settings = Train(steps=2, batch=8, warmup=0, lr=1e-9)
        network = train(
            backbone, DDPM(prediction="eps", schedule="linear"), data, None, settings, job
        )
    (x, t), loaded = images(), backbone.build(SHAPE, None).eval()
    with torch.inference_mode():
        torch.testing.assert_close(network.eval()(x, t), loaded(x, t))


# The folder


def test_where_the_folder_lies_does_not_matter_but_what_is_in_it(tmp_path: Path) -> None:
    one = DiffusersFolder(weights=unet(tmp_path / "one"))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    other = DiffusersFolder(weights=unet(tmp_path / "other", seed=1))
    keys = [
        digest(each.identity()) for each in (one, DiffusersFolder(weights=tmp_path / "two"), other)
    ]
    assert keys[0] == keys[1] != keys[2]
    assert one.identity() != DiffusersFolder(weights=tmp_path / "one", classes="kept").identity()


def test_a_pipelines_network_is_found_in_it(tmp_path: Path) -> None:
    whole, part = (
        DiffusersFolder(weights=pipeline(tmp_path)),
        DiffusersFolder(weights=tmp_path / "unet"),
    )
    whole.preflight()
    assert digest(whole.identity()) == digest(part.identity())
    assert (
        whole.requires
        == part.requires
        == {"process: {name: ddpm, prediction: eps, schedule: linear, timesteps: 1000}"}
    )


def test_the_network_and_its_scheduler_may_lie_side_by_side(tmp_path: Path) -> None:
    unet(tmp_path, "plain")
    (tmp_path / "model_index.json").write_text("{}")
    (tmp_path / "scheduler_config.json").write_text(
        '{"prediction_type": "v_prediction", "num_train_timesteps": 500}'
    )
    backbone = DiffusersFolder(weights=tmp_path)
    backbone.preflight()
    assert backbone.requires <= DDPM(prediction="v", schedule="linear", timesteps=500).provides
    assert not backbone.requires & DDPM(prediction="eps", schedule="linear", timesteps=500).provides


def test_a_folder_that_is_not_there_can_be_planned_but_not_run(tmp_path: Path) -> None:
    backbone = DiffusersFolder(weights=tmp_path / "nothing")
    backbone.check((3, 7, 7))
    assert backbone.identity()["content"] is None
    assert backbone.requires == {"timesteps"}
    for ask in (backbone.preflight, lambda: backbone.build(SHAPE, None)):
        with pytest.raises(MissingFile, match=r"^backbone diffusers: there is no config\.json in "):
            ask()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"_class_name": "VQModel"}, "holds an VQModel, and fw takes UNet2DModel, "),
        ({"time_embedding_type": "fourier"}, "has time_embedding_type fourier"),
        ({"class_embed_type": "timestep"}, "has class_embed_type timestep"),
        ({"out_channels": 3}, "makes 3 channels of 1"),
    ],
)
def test_a_network_that_wants_more_than_fw_tells_is_refused(
    change: dict[str, Any], told: str, tmp_path: Path
) -> None:
    config = unet(tmp_path, "plain") / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    backbone = DiffusersFolder(weights=tmp_path)
    with pytest.raises(FwError, match=re.escape(told)):
        backbone.preflight()
    with pytest.raises(ValueError, match=re.escape(told)):
        backbone.check(SHAPE)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"prediction_type": "flow_prediction"}, "prediction_type flow_prediction"),
        ({"beta_schedule": "scaled_linear"}, "beta_schedule scaled_linear"),
        ({"beta_end": 0.012}, "betas from 0.0001 to 0.012"),
    ],
)
def test_a_scheduler_that_no_process_is_like_is_refused(
    settings: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(FwError, match=re.escape(told)):
        DiffusersFolder(weights=pipeline(tmp_path, **settings)).preflight()


@pytest.mark.parametrize(
    ("shape", "told"),
    [((3, 8, 8), "takes images with 1 channels"), ((1, 7, 8), "multiples of 2, and these are 7x8")],
)
def test_images_have_to_fit_the_unet(
    shape: tuple[int, int, int], told: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=told):
        DiffusersFolder(weights=unet(tmp_path)).check(shape)


def test_images_have_to_fit_the_dit(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="takes images of 8x8 only, and these are 16x16"):
        DiffusersFolder(weights=dit(tmp_path)).check((1, 16, 16))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    unet(tmp_path / "one", "plain")
    unet(tmp_path / "other")
    name = "diffusion_pytorch_model.safetensors"
    for of, into, told in (
        ("one", "other", "lacks weights"),
        ("other", "one", "has too many weights"),
    ):
        mixed = shutil.copytree(tmp_path / into, tmp_path / f"{of} in {into}")
        shutil.copyfile(tmp_path / of / name, mixed / name)
        with pytest.raises(MissingFile, match=told):
            DiffusersFolder(weights=mixed).build(SHAPE, None)


# In recipes


def arms(folder: Path, process: str) -> tuple[str, ...]:
    return (f"model={{name: diffusers, weights: {folder}}}", f"process={process}")


def test_a_recipe_with_another_process_is_refused_in_a_sentence(tmp_path: Path) -> None:
    folder = pipeline(tmp_path, prediction_type="epsilon")
    load(TINY, arms(folder, "{name: ddpm, prediction: eps, schedule: linear}"))
    with pytest.raises(RecipeError) as caught:
        load(TINY, arms(folder, "{name: ddpm, prediction: v, schedule: linear}"))
    assert (
        "'diffusers' needs process: {name: ddpm, prediction: eps, schedule: linear"
        in caught.value.problems[0]
    )
    with pytest.raises(RecipeError, match="prediction: eps"):
        load(TINY, arms(folder, "edm"))


def test_the_networks_folder_alone_asks_for_timesteps(tmp_path: Path) -> None:
    load(TINY, arms(unet(tmp_path), "{name: ddpm, prediction: v, schedule: linear}"))
    with pytest.raises(
        RecipeError, match=r"needs a process that tells the network timesteps 0\.\.T-1"
    ):
        load(TINY, arms(tmp_path, "edm"))


EPS = DDPM(prediction="eps", schedule="linear")


def test_an_encoder_reads_it_with_its_own_process_only(tmp_path: Path) -> None:
    model = DiffusersFolder(weights=pipeline(tmp_path))
    Diffusion(model=model, process=EPS, train=None)
    with pytest.raises(
        ValueError, match=r"'diffusers' needs process: \{name: ddpm, prediction: eps"
    ):
        Diffusion(model=model, process=DDPM(), train=None)


@pytest.mark.parametrize("made", [Diffusion, DreamTeacher])
def test_an_encoder_of_it_says_whether_it_is_trained_further(made: Any, tmp_path: Path) -> None:
    model = DiffusersFolder(weights=pipeline(tmp_path))
    with pytest.raises(
        ValueError, match="'diffusers' was trained before: say which is meant, `train: null`"
    ):
        made(model=model, process=EPS)
    read, trained = (
        made(model=model, process=EPS, train=None),
        made(model=model, process=EPS, train=Train()),
    )
    assert read.identity() != trained.identity()


def test_an_encoder_reads_the_very_network_of_the_folder(tmp_path: Path) -> None:
    """Its features are the means of what the pipeline's own middle block returns, to standard
    scale."""
    import diffusers

    encoder = Diffusion(
        model=DiffusersFolder(weights=pipeline(tmp_path)),
        process=EPS,
        train=None,
        blocks=("mid",),
        draws=1,
    )
    images = torch.randint(
        0, 256, (20, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    network = encoder.build((*images.shape[1:],), 0)
    encoder.fit(network, ImageSet(images), Job(tmp_path))
    theirs: Any = diffusers.UNet2DModel.from_pretrained(tmp_path / "unet").eval()
    kept: dict[str, Tensor] = {}
    theirs.mid_block.register_forward_hook(
        lambda _block, _given, returned: kept.update(mid=returned)
    )
    x = to_unit(images) + 0.05 * noise_of(images, 1, images.shape[1:])[0]
    told = EPS.coefficients(torch.full((len(x),), 0.05))
    with torch.no_grad():
        theirs(x * told.scale[:, None, None, None], told.noise)
    means = kept["mid"].mean(dim=(2, 3))
    expected = (means - means.mean(dim=0)) / means.std(dim=0, correction=0)
    torch.testing.assert_close(network(images), expected, rtol=1e-3, atol=1e-3)
