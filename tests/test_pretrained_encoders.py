"""Pretrained encoders: local files only, what timm and transformers themselves give, and keys that
know the content.

The checkpoints are made here with random weights, in the formats in which the real ones are
published.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from timm.data import create_transform, resolve_model_data_config
from timm.models import save_for_hf
from torch import Tensor

from fw.core.errors import FwError, MissingFile
from fw.core.testing import check
from fw.plugins.encoders import transformers_checkpoint
from fw.plugins.encoders.checkpoint import Tower
from fw.plugins.encoders.clip import CLIP
from fw.plugins.encoders.dinov1 import DINOv1
from fw.plugins.encoders.dinov2 import DINOv2
from fw.plugins.encoders.dinov3 import DINOv3
from fw.plugins.encoders.pretrained import Pretrained
from fw.registry import CAPTIONS, NOTHING, UNKNOWN

transformers = pytest.importorskip("transformers")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SMALL: dict[str, Any] = {"embed_dim": 32, "depth": 2, "num_heads": 2}
TIMM: dict[type[Pretrained], tuple[str, dict[str, Any]]] = {
    DINOv1: ("vit_small_patch8_224.dino", {**SMALL, "img_size": 32}),
    DINOv2: ("vit_small_patch14_reg4_dinov2.lvd142m", {**SMALL, "img_size": 28}),
    DINOv3: ("vit_small_patch16_dinov3.lvd1689m", {**SMALL, "img_size": 32}),
    CLIP: (
        "vit_base_patch32_clip_quickgelu_224.openai",
        {**SMALL, "img_size": 64, "num_classes": 12},
    ),
}
ALL = list(TIMM)
LEVEL = 1 / 255 / 0.224
"""One of 256 levels, after normalisation."""

Folder = Callable[[type[Pretrained]], Path]


def named(value: Any) -> str:
    return getattr(value, "name", None) or str(value)


@pytest.fixture(autouse=True)
def the_hub_may_be_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its own switch is off, so that conftest sees every attempt; its cache is empty."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Ten smooth images, uint8 (10, 3, 24, 36)."""
    coarse = torch.rand(10, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    return (255 * torch.nn.functional.interpolate(coarse, (24, 36), mode="bilinear")).byte()


def as_pil(images: Tensor) -> list[Image.Image]:
    return [
        Image.fromarray(image.permute(1, 2, 0).numpy()).convert("RGB")
        for image in images.expand(-1, 3, -1, -1)
    ]


def random_timm(name: str, seed: int = 0, **arguments: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = timm.create_model(name, **arguments).eval()
        for parameter in network.parameters():  # so that no bias or layer scale is 0
            parameter.data += 0.02 * torch.randn(parameter.shape)
    return network


@pytest.fixture(scope="module")
def timm_folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A folder as timm's repositories on the hub have it."""

    def folder(encoder: type[Pretrained]) -> Path:
        name, arguments = TIMM[encoder]
        path = tmp_path_factory.mktemp("timm") / "model"
        save_for_hf(random_timm(name, **arguments), str(path), safe_serialization=True)
        return path

    return folder


def transformers_model(kind: str) -> tuple[Any, Any]:
    """A tiny random model and an image processor that suits it."""
    tiny = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
    }
    tower = {**tiny, "image_size": 24, "patch_size": 8}
    sides = {"size": {"shortest_edge": 28}, "crop_size": {"height": 24, "width": 24}}
    text = {**tiny, "vocab_size": 32, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "dinov2":
            return transformers.Dinov2Model(
                transformers.Dinov2Config(**tower)
            ), transformers.BitImageProcessor(**sides)
        if kind == "dinov2_with_registers":
            registers = transformers.Dinov2WithRegistersConfig(**tower, num_register_tokens=3)
            return transformers.Dinov2WithRegistersModel(registers), transformers.BitImageProcessor(
                **sides
            )
        if kind == "dinov3_vit":
            config = transformers.DINOv3ViTConfig(**tower, num_register_tokens=4)
            processor = transformers.DINOv3ViTImageProcessor(size={"height": 24, "width": 24})
            return transformers.DINOv3ViTModel(config), processor
        if kind == "clip":
            config = transformers.CLIPConfig(
                text_config=text, vision_config=tower, projection_dim=12
            )
            return transformers.CLIPModel(config), transformers.CLIPImageProcessor(**sides)
        config = transformers.CLIPVisionConfig(**tower, projection_dim=12)
        return transformers.CLIPVisionModelWithProjection(config), transformers.CLIPImageProcessor(
            **sides
        )


KINDS = {
    "dinov2": DINOv2,
    "dinov2_with_registers": DINOv2,
    "dinov3_vit": DINOv3,
    "clip": CLIP,
    "clip_vision_model": CLIP,
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder as transformers' `save_pretrained` writes it."""

    def folder(kind: str) -> Path:
        path = tmp_path_factory.mktemp("transformers") / "model"
        for part in transformers_model(kind):
            part.save_pretrained(path)
        assert json.loads((path / "config.json").read_text())["model_type"] == kind
        return path

    return folder


def tower_of(encoder: Pretrained, shape: tuple[int, int, int] = (3, 24, 36)) -> Tower:
    network = encoder.build(shape, 0)
    assert isinstance(network, Tower)
    return network.eval()


@torch.inference_mode()
def features(encoder: Pretrained, images: Tensor) -> Tensor:
    found = tower_of(encoder)(images)
    assert found.dtype == torch.float32
    return found


def assert_like(found: Tensor, wanted: Tensor, share: float = 0.05) -> None:
    """The same but for a level of grey here and there: the error is a small share of how images
    differ."""
    assert found.shape == wanted.shape
    assert (found - wanted).square().mean().sqrt() < share * wanted.std(
        dim=0
    ).square().mean().sqrt()


def assert_same_pixels(found: Tensor, wanted: Tensor) -> None:
    """But for rounding: Pillow does it after each of its two passes, torch on some processors
    after the second."""
    assert found.shape == wanted.shape
    gap = (found - wanted).abs()
    assert gap.max() < 2.01 * LEVEL
    assert gap.mean() < 0.25 * LEVEL


def in_the_cache(repository: str, files: dict[str, Path]) -> None:
    """As `hf download` leaves it."""
    folder = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    (folder / "snapshots" / COMMIT).mkdir(parents=True)
    for name, file in files.items():
        shutil.copy(file, folder / "snapshots" / COMMIT / name)


# The contract


@pytest.mark.parametrize("encoder", ALL, ids=named)
def test_with_a_folder_of_timm_it_keeps_to_the_contract_of_encoders(
    encoder: type[Pretrained], timm_folder: Folder
) -> None:
    check(encoder(weights=timm_folder(encoder)))


@pytest.mark.parametrize("kind", KINDS)
def test_with_a_folder_of_transformers_it_keeps_to_the_contract_of_encoders(
    kind: str, saved: Callable[[str], Path]
) -> None:
    check(KINDS[kind](weights=saved(kind)))


# What the libraries themselves give


@pytest.mark.parametrize("encoder", [DINOv1, DINOv2, DINOv3], ids=named)
@pytest.mark.parametrize("grey", [False, True])
def test_dino_features_are_those_of_timm_after_its_own_transform(
    encoder: type[Pretrained], grey: bool, timm_folder: Folder, images: Tensor
) -> None:
    seen = images[:, :1] if grey else images
    name, arguments = TIMM[encoder]
    network = random_timm(name, **arguments)
    tokens, pixels = by_timm(network, seen)
    before = 1 if encoder is DINOv1 else 5  # the class token, and in later ones four registers
    cls, patches = tokens[:, 0], tokens[:, before:].mean(1)
    folder = timm_folder(encoder)
    for embedding, wanted in {
        "cls": cls,
        "patches": patches,
        "both": torch.cat([cls, patches], 1),
    }.items():
        made = encoder.model_validate({"weights": folder, "embedding": embedding})
        assert_like(features(made, seen), wanted)
        with torch.inference_mode():
            torch.testing.assert_close(tower_of(made).embed(pixels), wanted)
    assert_same_pixels(
        tower_of(encoder(weights=folder)).prepare(seen.expand(-1, 3, -1, -1)), pixels
    )


@torch.inference_mode()
def by_timm(network: Any, images: Tensor, **changes: Any) -> tuple[Tensor, Tensor]:
    """timm's tokens, and the pixels that its evaluation transform makes of images in Pillow's
    form."""
    size = {"input_size": (3, *network.patch_embed.img_size)}
    transform = create_transform(**{**resolve_model_data_config(network), **size, **changes})
    pixels = torch.stack([transform(image) for image in as_pil(images)])
    return network.forward_features(pixels), pixels


def test_clip_features_are_those_of_timm_projected_or_not(
    timm_folder: Folder, images: Tensor
) -> None:
    name, arguments = TIMM[CLIP]
    network = random_timm(name, **arguments)
    tokens, pixels = by_timm(network, images)
    folder = timm_folder(CLIP)
    with torch.inference_mode():
        projected, pooled = network.head(tokens[:, 0]), tokens[:, 0]
    assert projected.shape == (10, 12)
    assert_like(features(CLIP(weights=folder), images), projected)
    assert_like(features(CLIP(weights=folder, embedding="pooled"), images), pooled)
    prepared = tower_of(CLIP(weights=folder)).prepare(images)
    assert prepared.shape[2:] == (64, 64)
    assert_same_pixels(prepared, pixels)


def test_a_folder_of_timm_says_how_images_are_cropped(timm_folder: Folder, images: Tensor) -> None:
    folder = timm_folder(CLIP)
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"crop_mode": "center"', '"crop_mode": "squash"'))
    _, pixels = by_timm(random_timm(TIMM[CLIP][0], **TIMM[CLIP][1]), images, crop_mode="squash")
    assert_same_pixels(tower_of(CLIP(weights=folder)).prepare(images), pixels)
    config.write_text(config.read_text().replace("squash", "border"))
    with pytest.raises(MissingFile, match="the way 'border', which fw does not know"):
        CLIP(weights=folder).preflight()


@pytest.mark.parametrize("encoder", ALL, ids=named)
def test_another_resolution_is_what_timm_interpolates_to(
    encoder: type[Pretrained], timm_folder: Folder, images: Tensor
) -> None:
    name, arguments = TIMM[encoder]
    side = 2 * arguments["img_size"]
    dynamic = random_timm(name, **arguments, dynamic_img_size=True)
    tokens, _ = by_timm(dynamic, images, input_size=(3, side, side))
    with torch.inference_mode():
        wanted = dynamic.head(tokens[:, 0])
    found = features(encoder(weights=timm_folder(encoder), resolution=side), images)
    assert_like(found, wanted)
    with pytest.raises(AssertionError):
        assert_like(features(encoder(weights=timm_folder(encoder)), images), wanted)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grey", [False, True])
def test_features_are_those_of_transformers_after_its_own_image_processor(
    kind: str, grey: bool, saved: Callable[[str], Path], images: Tensor
) -> None:
    seen = images[:, :1] if grey else images
    folder = saved(kind)
    for embedding, wanted in by_transformers(kind, seen).items():
        found = features(
            KINDS[kind].model_validate({"weights": folder, "embedding": embedding}), seen
        )
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def by_transformers(kind: str, images: Tensor, **changes: Any) -> dict[str, Tensor]:
    """What the model gives for each embedding, one image in Pillow's form at a time."""
    network, processor = transformers_model(kind)
    network.eval()
    pixels = torch.cat(
        [processor(image, return_tensors="pt", **changes).pixel_values for image in as_pil(images)]
    )
    if kind == "clip":
        tower = network.vision_model(pixels, interpolate_pos_encoding=True)
        return {
            "projected": network.visual_projection(tower.pooler_output),
            "pooled": tower.pooler_output,
        }
    if kind == "clip_vision_model":
        pooled = network.vision_model(pixels, interpolate_pos_encoding=True).pooler_output
        return {
            "projected": network(pixels, interpolate_pos_encoding=True).image_embeds,
            "pooled": pooled,
        }
    tokens = network(pixels).last_hidden_state
    side = pixels.shape[-1] // 8
    cls, patches = tokens[:, 0], tokens[:, -(side**2) :].mean(1)
    return {"cls": cls, "patches": patches, "both": torch.cat([cls, patches], 1)}


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("dinov2", {"size": {"shortest_edge": 56}, "crop_size": {"height": 48, "width": 48}}),
        ("dinov3_vit", {"size": {"height": 48, "width": 48}}),
        ("clip", {"size": {"shortest_edge": 56}, "crop_size": {"height": 48, "width": 48}}),
    ],
)
def test_another_resolution_enlarges_what_the_image_processor_does(
    kind: str, changes: dict[str, Any], saved: Callable[[str], Path], images: Tensor
) -> None:
    folder = saved(kind)
    for embedding, wanted in by_transformers(kind, images, **changes).items():
        encoder = KINDS[kind].model_validate(
            {"weights": folder, "embedding": embedding, "resolution": 48}
        )
        found = features(encoder, images)
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_the_weights_are_used_in_full_precision_however_they_are_stored(
    saved: Callable[[str], Path], tmp_path: Path, images: Tensor
) -> None:
    transformers_model("dinov2")[0].half().save_pretrained(tmp_path / "half")
    shutil.copy(saved("dinov2") / "preprocessor_config.json", tmp_path / "half")
    assert {
        tensor.dtype for tensor in load_file(tmp_path / "half" / "model.safetensors").values()
    } == {torch.float16}
    network = tower_of(DINOv2(weights=tmp_path / "half"))
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert_like(network(images), by_transformers("dinov2", images)["cls"])


# Where the files are looked for


@pytest.mark.parametrize(
    ("encoder", "name"),
    [
        (DINOv2, "vit_small_patch14_dinov2.lvd142m"),
        (DINOv3, "vit_tiny_patch16_dinov3_qkvb.eupe_lvd1689m"),
        (CLIP, "vit_xsmall_patch16_clip_224.tinyclip_yfcc15m"),
    ],
)
def test_a_name_of_timm_is_found_in_the_hubs_cache_and_is_the_same_as_its_file_and_its_folder(
    encoder: type[Pretrained], name: str, tmp_path: Path, images: Tensor
) -> None:
    network = random_timm(name)
    save_for_hf(network, str(tmp_path / "folder"), safe_serialization=True)
    in_the_cache(f"timm/{name}", {"model.safetensors": tmp_path / "folder" / "model.safetensors"})
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    cached = encoder(model=name, resolution=112)
    cached.preflight()
    wanted = features(cached, images[:2])
    assert wanted.shape == (2, network.num_classes or network.num_features)
    for other in (
        encoder(weights=tmp_path / "folder" / "model.safetensors", model=name, resolution=112),
        encoder(weights=tmp_path / "weights.pth", model=name, resolution=112),
        encoder(weights=tmp_path / "folder", resolution=112),
    ):
        other.preflight()
        assert features(other, images[:2]).equal(wanted)


def test_a_repository_of_transformers_is_found_in_the_hubs_cache(
    saved: Callable[[str], Path], images: Tensor
) -> None:
    folder = saved("dinov2")
    in_the_cache("someone/dinov2-tiny", {file.name: file for file in folder.iterdir()})
    cached, local = DINOv2(model="someone/dinov2-tiny"), DINOv2(weights=folder)
    cached.preflight()
    assert cached.identity() == local.identity()
    assert features(cached, images).equal(features(local, images))


@pytest.mark.parametrize("encoder", ALL, ids=named)
def test_the_default_model_and_the_published_ones_are_known_to_timm(
    encoder: type[Pretrained],
) -> None:
    encoder().check((3, 32, 32))
    for name in {
        DINOv1: ["vit_base_patch8_224.dino"],
        DINOv2: ["vit_large_patch14_reg4_dinov2.lvd142m"],
        DINOv3: ["vit_base_patch16_dinov3.lvd1689m", "vit_large_patch16_dinov3.sat493m"],
        CLIP: ["vit_base_patch32_clip_224.openai", "vit_large_patch14_clip_quickgelu_336.openai"],
    }[encoder]:
        encoder(model=name).check((3, 32, 32))


@pytest.mark.parametrize("encoder", ALL, ids=named)
def test_what_is_not_in_the_cache_is_told_in_one_sentence_with_the_way_to_get_it(
    encoder: type[Pretrained],
) -> None:
    with pytest.raises(MissingFile) as error:
        encoder().preflight()
    told = str(error.value)
    repository = "timm/" + encoder.default.replace("_quickgelu", "")
    for part in (
        encoder.name,
        "model.safetensors",
        repository,
        constants.HF_HUB_CACHE,
        "hf download",
        "`weights:",
    ):
        assert part in told
    assert "\n" not in told
    assert (
        encoder().identity()["content"] is None
    )  # so that a recipe can be planned where the files are not
    with pytest.raises(MissingFile):
        encoder().build((3, 32, 32), 0)


@pytest.mark.parametrize("lost", ["config.json", "model.safetensors", "preprocessor_config.json"])
def test_a_file_that_is_missing_in_a_folder_is_named(
    lost: str, saved: Callable[[str], Path]
) -> None:
    folder = saved("clip")
    CLIP(weights=folder).preflight()
    (folder / lost).unlink()
    with pytest.raises(MissingFile, match=f"no {lost}.* in {folder}"):
        CLIP(weights=folder).preflight()


def test_a_shard_that_is_missing_is_named_and_shards_enter_the_key(tmp_path: Path) -> None:
    network, processor = transformers_model("dinov2")
    network.save_pretrained(tmp_path / "model", max_shard_size="20KB")
    processor.save_pretrained(tmp_path / "model")
    shards = sorted((tmp_path / "model").glob("model-*.safetensors"))
    assert len(shards) > 1
    encoder = DINOv2(weights=tmp_path / "model")
    encoder.preflight()
    before = encoder.identity()
    save_file(
        {name: tensor + 1 for name, tensor in load_file(shards[-1]).items()},
        shards[-1],
        {"format": "pt"},
    )
    assert encoder.identity() != before
    shards[-1].unlink()
    with pytest.raises(MissingFile, match=shards[-1].name):
        encoder.preflight()
    assert encoder.identity()["content"] is None


def test_weights_that_are_nowhere_are_told(tmp_path: Path) -> None:
    with pytest.raises(
        MissingFile, match=f"`weights` is {tmp_path / 'none'}, and there is neither"
    ):
        DINOv2(weights=tmp_path / "none").preflight()


# What is refused


def test_a_folder_with_another_type_of_model_is_told_in_one_sentence(
    saved: Callable[[str], Path], timm_folder: Folder, tmp_path: Path
) -> None:
    clip = saved("clip")
    with pytest.raises(
        MissingFile,
        match="holds a model of the type 'clip', and this encoder takes dinov2 or dinov2_",
    ):
        DINOv2(weights=clip).preflight()
    with pytest.raises(
        MissingFile, match=r"holds timm's vit_small_patch16_dinov3\.lvd1689m, which is none of its"
    ):
        CLIP(weights=timm_folder(DINOv3)).preflight()
    with pytest.raises(MissingFile, match="does not say whether its ViT saw labels"):
        DINOv1(weights=clip).preflight()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(
        MissingFile, match="neither timm's `architecture` nor transformers' `model_type`"
    ):
        CLIP(weights=tmp_path).preflight()
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(MissingFile, match="is not JSON"):
        CLIP(weights=tmp_path).preflight()
    with pytest.raises(MissingFile, match="leave out `model`"):
        CLIP(weights=clip, model=CLIP.default).preflight()


def test_a_folder_with_weights_that_saw_the_labels_of_imagenet_is_refused(
    timm_folder: Folder,
) -> None:
    config = timm_folder(CLIP) / "config.json"
    config.write_text(config.read_text().replace('"openai"', '"openai_ft_in1k"'))
    with pytest.raises(
        MissingFile, match=r"holds timm's \w+\.openai_ft_in1k, which is none of its models"
    ):
        CLIP(weights=config.parent).preflight()


def test_weights_of_another_model_and_damaged_ones_are_told(
    timm_folder: Folder, saved: Callable[[str], Path], tmp_path: Path
) -> None:
    other = timm_folder(DINOv3) / "model.safetensors"
    with pytest.raises(
        MissingFile, match="does not hold weights of timm's vit_small_patch14_dinov2"
    ) as error:
        DINOv2(weights=other).build((3, 32, 32), 0)
    assert "\n" not in str(error.value)
    (tmp_path / "weights.pth").write_bytes(b"nothing")
    with pytest.raises(MissingFile, match="does not hold weights of timm's"):
        DINOv2(weights=tmp_path / "weights.pth").build((3, 32, 32), 0)
    folder = saved("dinov2")
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(MissingFile, match="is not in the format safetensors"):
        DINOv2(weights=folder).build((3, 32, 32), 0)


def test_a_transformers_folder_that_lacks_weights_is_told_and_not_filled_with_random_ones(
    tmp_path: Path,
) -> None:
    network, processor = transformers_model("clip_vision_model")
    network.vision_model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with pytest.raises(
        MissingFile, match=r"lacks weights .* visual_projection.weight; .* `embedding: pooled`"
    ):
        CLIP(weights=tmp_path).build((3, 32, 32), 0)
    CLIP(weights=tmp_path, embedding="pooled").build((3, 32, 32), 0)


def test_a_timm_model_without_a_projection_is_told(timm_folder: Folder) -> None:
    folder = timm_folder(CLIP)
    save_for_hf(
        random_timm(TIMM[CLIP][0], **{**TIMM[CLIP][1], "num_classes": 0}),
        str(folder),
        safe_serialization=True,
    )
    with pytest.raises(MissingFile, match="no projection"):
        CLIP(weights=folder).build((3, 32, 32), 0)
    CLIP(weights=folder, embedding="pooled").build((3, 32, 32), 0)


@pytest.mark.parametrize(
    ("encoder", "told"),
    [
        (
            DINOv2(model="dinov2_vits14"),
            "none of its models in timm, such as vit_small_patch14_dinov2.lvd142m",
        ),
        (DINOv2(model="vit_small_patch14_dinov2.nobody"), "none of its models"),
        (DINOv2(model=CLIP.default), "none of its models"),
        (DINOv1(model="vit_small_patch16_224.augreg_in1k"), "none of its models"),
        (DINOv1(model="vit_small_patch16_224"), "none of its models"),
        (
            CLIP(model="vit_base_patch32_clip_224.openai_ft_in1k"),
            "trained further with the labels of ImageNet",
        ),
        (DINOv2(resolution=224 + 1), "resolution 225 is no multiple of the patch, 14"),
    ],
)
def test_a_model_that_is_not_its_own_is_refused_when_the_recipe_is_validated(
    encoder: Pretrained, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        encoder.check((3, 32, 32))


def test_images_that_are_neither_grey_nor_coloured_are_refused() -> None:
    with pytest.raises(ValueError, match="images have 2 channels"):
        CLIP().check((2, 32, 32))
    with pytest.raises(ValidationError):
        CLIP.model_validate({"embedding": "cls"})


def test_a_resolution_that_does_not_suit_a_folder_is_told(
    saved: Callable[[str], Path], timm_folder: Folder
) -> None:
    for encoder in (
        CLIP(weights=saved("clip"), resolution=28),
        DINOv2(weights=timm_folder(DINOv2), resolution=32),
    ):
        with pytest.raises(MissingFile, match="is no multiple of the patch"):
            encoder.preflight()


def test_without_transformers_its_folders_are_refused_with_the_extra_to_install(
    saved: Callable[[str], Path], timm_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformers_checkpoint, "find_spec", lambda name: None)
    with pytest.raises(FwError, match=r"pip install 'fw\[pretrained\]'"):
        DINOv2(weights=saved("dinov2")).preflight()
    DINOv2(weights=timm_folder(DINOv2)).preflight()


# The key


def test_moved_weights_have_the_same_key_and_changed_weights_or_settings_another(
    saved: Callable[[str], Path], timm_folder: Folder, tmp_path: Path
) -> None:
    sources = {
        DINOv3: (timm_folder(DINOv3), "config.json"),
        CLIP: (saved("clip"), "preprocessor_config.json"),
    }
    for encoder, (folder, settings) in sources.items():
        was = encoder(weights=folder).identity()
        moved = shutil.copytree(folder, tmp_path / encoder.name)
        assert encoder(weights=moved).identity() == was
        assert str(tmp_path) not in json.dumps(was)
        assert encoder(weights=moved, resolution=96).identity() != was
        file = moved / settings
        file.write_text(file.read_text().replace("0.4", "0.3"))
        changed = encoder(weights=moved).identity()
        assert changed != was
        tensors = load_file(moved / "model.safetensors")
        next(iter(tensors.values())).view(-1)[0] += 1
        save_file(tensors, moved / "model.safetensors", {"format": "pt"})
        assert encoder(weights=moved).identity() not in (was, changed)


def test_a_file_is_read_once_for_many_keys(
    timm_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, read, digest = timm_folder(DINOv2), [], hashlib.file_digest

    def counted(file: io.BufferedReader, name: str) -> Any:
        read.append(file.name)
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    for resolution in (28, 42, 56, 28):
        DINOv2(weights=folder, resolution=resolution).identity()
    assert len(read) == 1


# What the weights have seen


@pytest.mark.parametrize("encoder", ALL, ids=named)
def test_a_folder_says_what_its_weights_have_seen_and_a_state_dict_says_nothing(
    encoder: type[Pretrained], timm_folder: Folder
) -> None:
    known = CAPTIONS if encoder is CLIP else NOTHING
    folder = timm_folder(encoder)
    assert encoder().own_supervision == known
    assert encoder(weights=folder).own_supervision == known
    state_dict = encoder(weights=folder / "model.safetensors")
    assert state_dict.own_supervision == UNKNOWN
    config = folder / "config.json"
    settings = json.loads(config.read_text())
    settings["pretrained_cfg"]["tag"] = ""
    config.write_text(json.dumps(settings))
    if encoder is not DINOv1:  # which takes no weights without their tag
        assert encoder(weights=folder).own_supervision == UNKNOWN


def test_a_folder_of_timm_with_a_classifier_may_have_seen_labels(tmp_path: Path) -> None:
    """timm keeps the tag of the weights that a training began with: it said `nothing`."""
    name, settings = TIMM[DINOv1]
    tuned = {**settings, "num_classes": 10}
    save_for_hf(timm.create_model(name, **tuned), str(tmp_path), model_args=tuned)
    supervision = DINOv1(weights=tmp_path).own_supervision
    assert supervision == UNKNOWN
    assert "a classifier of 10 classes" in supervision.remark


def test_timms_usual_weights_of_a_model_are_known_without_their_tag() -> None:
    assert DINOv2(model="vit_small_patch14_dinov2").own_supervision == NOTHING
    assert DINOv2(model="someone/dinov2").own_supervision == UNKNOWN


def test_weights_in_the_hubs_cache_are_known_by_their_name(timm_folder: Folder) -> None:
    config: Any = timm.models.get_pretrained_cfg(DINOv2.default)
    in_the_cache(config.hf_hub_id, {"model.safetensors": timm_folder(DINOv2) / "model.safetensors"})
    assert DINOv2().own_supervision == NOTHING


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_transformers_that_was_saved_for_a_task_may_have_seen_anything(
    kind: str, saved: Callable[[str], Path]
) -> None:
    folder = saved(kind)
    encoder = KINDS[kind](weights=folder)
    assert encoder.own_supervision == (CAPTIONS if "clip" in kind else NOTHING)
    config = folder / "config.json"
    settings = json.loads(config.read_text())
    config.write_text(json.dumps({**settings, "architectures": ["Dinov2ForImageClassification"]}))
    assert encoder.own_supervision == UNKNOWN
    assert "Dinov2ForImageClassification" in encoder.own_supervision.remark
