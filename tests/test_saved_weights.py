"""Weights that users bring: all that save_pretrained writes, names without wrappers, finite
numbers, the very file.

The files are made by the libraries themselves, with random weights.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_diffusers_backbone import UNET, UNETS
from test_latents import made_kl, made_rae, made_tiny
from torch import Tensor, nn

from fw.core.errors import FwError, MissingFile
from fw.core.files import weights as core_weights
from fw.core.files.contents import mismatch
from fw.core.files.weights import unwrapped
from fw.core.job import Job
from fw.plugins.autoencoders.kl import KL
from fw.plugins.autoencoders.rae import RAE
from fw.plugins.autoencoders.tiny import Tiny
from fw.plugins.backbones.diffusers_folder import DiffusersFolder
from fw.plugins.backbones.unet import UNet
from fw.plugins.encoders import of_denoiser
from fw.plugins.encoders.clip import CLIP
from fw.plugins.encoders.diffusion import Diffusion
from fw.plugins.encoders.dinov2 import DINOv2
from fw.plugins.encoders.inception import Inception
from fw.plugins.encoders.simclr import SimCLR
from fw.plugins.encoders.trunks import ImageEncoder
from fw.plugins.encoders.weights import load_weights
from fw.plugins.shared.saved import saved

SHARDS = {"max_shard_size": "10KB"}
FORMS: Mapping[str, dict[str, Any]] = {
    "variant": {"variant": "fp16"},
    "shards": SHARDS,
    "shards of a variant": {"variant": "fp16", **SHARDS},
}


def made_unet(folder: Path) -> Path:
    import diffusers

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network: Any = diffusers.UNet2DModel(**{**UNET, **UNETS["attention"]})
    network.save_pretrained(folder)
    return folder


def made_dinov2(folder: Path) -> Path:
    transformers = pytest.importorskip("transformers")
    tiny = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.Dinov2Config(**tiny, image_size=24, patch_size=8)
        transformers.Dinov2Model(config).save_pretrained(folder)
    sides = {"size": {"shortest_edge": 28}, "crop_size": {"height": 24, "width": 24}}
    transformers.BitImageProcessor(**sides).save_pretrained(folder)
    return folder


def made_clip(folder: Path) -> Path:
    transformers = pytest.importorskip("transformers")
    tiny = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.CLIPVisionConfig(
            **tiny, image_size=24, patch_size=8, projection_dim=12
        )
        transformers.CLIPVisionModelWithProjection(config).save_pretrained(folder)
    sides = {"size": {"shortest_edge": 28}, "crop_size": {"height": 24, "width": 24}}
    transformers.CLIPImageProcessor(**sides).save_pretrained(folder)
    return folder


def again(folder: Path, to: Path, **how: Any) -> Path:
    """The network of a folder, saved once more by the library that it is of; a variant in half
    precision."""
    config = json.loads((folder / "config.json").read_text())
    if name := config.get("_class_name"):
        import diffusers

        network: Any = getattr(diffusers, name).from_pretrained(folder)
    else:
        import transformers

        network = getattr(transformers, config["architectures"][0]).from_pretrained(folder)
        to.mkdir()
        shutil.copy(folder / "preprocessor_config.json", to)
    (network.half() if "variant" in how else network).save_pretrained(to, **how)
    return to


MAKERS: Mapping[str, tuple[Callable[[Path], Path], Callable[[Path], Any]]] = {
    "backbone": (made_unet, lambda folder: DiffusersFolder(weights=folder)),
    "kl": (made_kl, lambda folder: KL(weights=folder, shrink=2)),
    "tiny": (made_tiny, lambda folder: Tiny(weights=folder, shrink=2)),
    "rae": (made_rae, lambda folder: RAE(weights=folder, channels=64, shrink=4)),
    "dinov2": (made_dinov2, lambda folder: DINOv2(weights=folder)),
    "clip": (made_clip, lambda folder: CLIP(weights=folder)),
}


def built(component: Any) -> nn.Module:
    if isinstance(component, DiffusersFolder):
        return component.build((1, 8, 8), None)
    return (
        component.build((3, 16, 16), 0)
        if component.kind == "encoder"
        else component.build((3, 16, 16))
    )


def state(component: Any) -> dict[str, Tensor]:
    return built(component).state_dict()


@pytest.fixture(scope="module", params=MAKERS)
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A component with a folder as save_pretrained writes it when it is told nothing."""
    make, component = MAKERS[request.param]
    return component(make(tmp_path_factory.mktemp("plain") / "model"))


def at(component: Any, folder: Path) -> Any:
    return component.model_copy(update={"weights": folder})


# What save_pretrained writes


@pytest.mark.parametrize("form", FORMS)
def test_variants_and_shards_are_read_and_all_their_files_are_in_the_key(
    form: str, plain: Any, tmp_path: Path
) -> None:
    there = at(plain, again(plain.weights, tmp_path / "model", **FORMS[form]))
    there.preflight()
    expected = state(plain)
    for name, tensor in state(there).items():
        wanted = expected[name].half().float() if "variant" in FORMS[form] else expected[name]
        assert tensor.dtype == wanted.dtype
        assert tensor.equal(wanted), name
    before = there.identity()
    assert str(tmp_path) not in json.dumps(before)
    assert before != plain.identity()
    files = sorted(there.weights.glob("*.safetensors"))
    assert (len(files) > 1) == ("max_shard_size" in FORMS[form])
    for file in files:
        was = file.read_bytes()
        tensors = load_file(file)
        save_file({name: tensor + 1 for name, tensor in tensors.items()}, file, {"format": "pt"})
        assert there.identity() != before, file.name
        file.write_bytes(was)
    moved = shutil.copytree(there.weights, tmp_path / "moved")
    assert at(there, moved).identity() == there.identity()


def test_weights_without_a_variant_are_read_where_there_are_both(
    plain: Any, tmp_path: Path
) -> None:
    folder = shutil.copytree(plain.weights, tmp_path / "model")
    again(plain.weights, tmp_path / "other", variant="fp16", **SHARDS)
    shutil.copytree(tmp_path / "other", folder, dirs_exist_ok=True)
    shutil.copy(plain.weights / "config.json", folder)
    there = at(plain, folder)
    assert there.identity() == plain.identity()
    expected = state(plain)
    assert all(tensor.equal(expected[name]) for name, tensor in state(there).items())


def test_the_key_of_a_folder_that_was_taken_before_is_as_it_was(plain: Any, tmp_path: Path) -> None:
    """One file, with or without shards beside it: its hash is the key, and it is what is read."""
    folder = shutil.copytree(plain.weights, tmp_path / "model")
    again(plain.weights, tmp_path / "shards", **SHARDS)
    for file in (tmp_path / "shards").glob("*model*"):
        if file.suffix == ".safetensors":
            save_file(
                {key: 0 * tensor for key, tensor in load_file(file).items()},
                folder / file.name,
                {"format": "pt"},
            )
        else:
            shutil.copy(file, folder)
    there = at(plain, folder)
    [file] = plain.weights.glob("*.safetensors")
    hashed = hashlib.sha256(file.read_bytes()).hexdigest()
    config = json.loads((folder / "config.json").read_text())
    for component in (plain, there):
        found = component.identity()["content"]
        if component.kind == "encoder":
            assert found["files"][2:] == [hashed]
            assert len(found["files"]) == 3
        else:
            noted = {"_class_name"} if component.kind == "backbone" else set()
            counting = {key: config[key] for key in config if key[0] != "_" or key in noted}
            settings = json.dumps(counting, sort_keys=True).encode()
            assert found == [hashlib.sha256(settings).hexdigest(), hashed]
    expected = state(plain)
    assert all(tensor.equal(expected[name]) for name, tensor in state(there).items())


def test_a_shard_that_is_missing_is_named_in_one_sentence(plain: Any, tmp_path: Path) -> None:
    there = at(plain, again(plain.weights, tmp_path / "model", **SHARDS))
    lost = sorted(there.weights.glob("*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(
        MissingFile, match=f"names 1 files that are not there: {lost.name}; copy the"
    ) as error:
        there.preflight()
    assert "\n" not in str(error.value)
    assert there.identity()["content"] is None


@pytest.mark.parametrize(
    ("index", "told"),
    [
        (
            '{"weight_map": {"a": "../model.safetensors"}}',
            "names '../model.safetensors', which is not a file beside",
        ),
        ('{"weight_map": ["a"]}', "does not say which files it is an index of"),
        ("{", "does not say which files it is an index of"),
    ],
)
def test_an_index_that_is_none_is_told_in_one_sentence(
    index: str, told: str, plain: Any, tmp_path: Path
) -> None:
    there = at(plain, again(plain.weights, tmp_path / "model", **SHARDS))
    next(there.weights.glob("*.index.json")).write_text(index)
    with pytest.raises(MissingFile, match=told):
        there.preflight()
    assert there.identity()["content"] is None


def test_several_variants_and_nothing_else_are_refused(plain: Any, tmp_path: Path) -> None:
    there = at(plain, again(plain.weights, tmp_path / "model", variant="fp16"))
    [file] = there.weights.glob("*.safetensors")
    shutil.copy(file, file.with_name(file.name.replace("fp16", "ema")))
    with pytest.raises(
        MissingFile,
        match=r"holds several variants of \w+\.safetensors \(ema, fp16\) and none without",
    ):
        there.preflight()
    assert there.identity()["content"] is None


@pytest.mark.parametrize(
    ("names", "read"),
    [
        (["a.fp16.b.index.json"], "a.fp16.b.index.json"),
        (
            ["a.b.index.fp16.json", "a.fp16-00001-of-00002.b", "a.fp16-00002-of-00002.b"],
            "a.b.index.fp16.json",
        ),
        (["a.b.index.fp16.json", "a.fp16.b"], "a.fp16.b"),
        (["a.fp16.b", "a.b.index.json"], "a.b.index.json"),
        (["a.fp16-00001-of-00002.b", "a.txt", "xa.fp16.b"], None),
    ],
)
def test_the_rule_for_what_is_read(names: list[str], read: str | None, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).write_text("{}")
    found = saved(tmp_path, ["a.b"])
    assert (found and found.first.name) == read


# Numbers that are none


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite_are_refused_with_the_tensor_and_the_file(
    wrong: float, plain: Any, tmp_path: Path
) -> None:
    there = at(plain, again(plain.weights, tmp_path / "model", **SHARDS))
    file = sorted(there.weights.glob("*.safetensors"))[0]
    tensors = load_file(file)
    name = next(name for name, tensor in tensors.items() if tensor.dim())
    tensors[name].view(-1)[0] = wrong
    save_file(tensors, file, {"format": "pt"})
    what = "NaN" if wrong != wrong else "infinite"
    with pytest.raises(
        MissingFile, match=rf"{file.name} has 1 of [\d,]+ numbers in '{name}' that are {what}"
    ):
        built(there)


def simclr_state() -> dict[str, Tensor]:
    return network_of(SimCLR(width=8)).backbone.state_dict()


def network_of(encoder: SimCLR) -> ImageEncoder:
    network = encoder.build((1, 8, 8), 0)
    assert isinstance(network, ImageEncoder)
    return network


def stored(tensors: Mapping[str, Any], path: Path) -> Path:
    torch.save(dict(tensors), path) if path.suffix in (".pt", ".pth") else save_file(
        dict(tensors), path
    )
    return path


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_weights_of_an_encoder_that_are_not_finite_are_refused(name: str, tmp_path: Path) -> None:
    tensors = simclr_state()
    first = next(iter(tensors))
    tensors[first] = tensors[first].clone().fill_(torch.nan)
    path = stored(tensors, tmp_path / name)
    network = network_of(SimCLR(width=8))
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    with pytest.raises(
        MissingFile, match=rf"{name} has 18 of 18 numbers in '{first}' that are NaN"
    ):
        load_weights(network, path)
    assert all(tensor.equal(before[key]) for key, tensor in network.state_dict().items())


def small_denoiser() -> nn.Module:
    return UNet(channels=[4, 8], groups=2).build((1, 8, 8), None)


def test_weights_of_a_denoiser_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    tensors = small_denoiser().state_dict()
    last = list(tensors)[-1]
    tensors[last] = torch.full_like(tensors[last], torch.inf)
    with pytest.raises(MissingFile, match=f"numbers in '{last}' that are infinite"):
        of_denoiser.load(small_denoiser(), stored(tensors, tmp_path / "model.safetensors"))


def test_timms_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    tensors = timm_state()
    tensors["norm.weight"][3] = torch.nan
    path = stored(tensors, tmp_path / "weights.pth")
    with pytest.raises(
        MissingFile, match=r"weights\.pth has 1 of 384 numbers in 'norm\.weight' that are NaN"
    ):
        DINOv2(weights=path, model=TIMM, resolution=28).build((3, 28, 28), 0)


TIMM = "vit_small_patch14_reg4_dinov2.lvd142m"


def timm_state() -> dict[str, Tensor]:
    import timm

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return timm.create_model(TIMM, pretrained=False, img_size=28, num_classes=0).state_dict()


def test_inceptions_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    from test_spaces import made_inception

    path = made_inception(tmp_path)
    tensors = torch.load(path)
    tensors["Conv2d_1a_3x3.conv.weight"][0] = torch.nan
    torch.save(tensors, path)
    encoder = Inception(weights=path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(MissingFile, match=r"numbers in 'Conv2d_1a_3x3\.conv\.weight' that are NaN"):
        encoder.build((3, 8, 8), 0)(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def test_infinity_in_a_mask_is_no_fault(tmp_path: Path) -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))

    core_weights.check_finite(Masked(), Masked().state_dict(), tmp_path)
    with pytest.raises(MissingFile, match="'mask' that are NaN"):
        core_weights.check_finite(Masked(), {"mask": torch.tensor([torch.nan])}, tmp_path)


# Names of wrappers


@pytest.mark.parametrize(
    ("names", "wanted", "plain"),
    [
        (["module.a.b"], (), ["a.b"]),
        (["_orig_mod.a.b", "_orig_mod.c"], (), ["a.b", "c"]),
        (["module._orig_mod.a", "module._orig_mod.b"], (), ["a", "b"]),
        (["_orig_mod.module.a"], (), ["a"]),
        (["a._orig_mod.b", "c"], (), ["a.b", "c"]),
        (["module.a", "c"], (), ["module.a", "c"]),
        (["module.a", "n_averaged"], ["a"], ["a", "n_averaged"]),
        (["module.module.a"], ["module.a"], ["module.a"]),
        (["module.a"], ["module.a"], ["module.a"]),
        (["module.x"], ["y"], ["module.x"]),
        (["module.a", "a"], ["a"], ["module.a", "a"]),
    ],
)
def test_names_are_those_from_before_the_module_was_wrapped(
    names: list[str], wanted: list[str], plain: list[str]
) -> None:
    assert list(unwrapped(names, wanted).values()) == plain


def compiled(network: nn.Module) -> nn.Module:
    return torch.compile(network, backend="eager")  # type: ignore[return-value]


WRAPPED: Mapping[str, Callable[[nn.Module], nn.Module]] = {
    "module": nn.DataParallel,
    "_orig_mod": compiled,
    "module, _orig_mod": lambda network: nn.DataParallel(compiled(network)),
}


def test_wrapped_weights_of_a_folder_are_read_and_it_is_said_once(
    plain: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(plain.weights, tmp_path / "model")
    [file] = folder.glob("*.safetensors")
    tensors = load_file(file)
    save_file(
        {f"module._orig_mod.{name}": tensor for name, tensor in tensors.items()},
        file,
        {"format": "pt"},
    )
    expected = state(plain)
    capsys.readouterr()
    for _ in range(2):
        assert all(
            tensor.equal(expected[name]) for name, tensor in state(at(plain, folder)).items()
        )
    said = [line for line in capsys.readouterr().err.splitlines() if str(file) in line]
    assert said == [
        f"{file}: names of weights are read without `module.` and `_orig_mod.`, which wrapped the "
        "module"
    ]


@pytest.mark.parametrize("wrapper", WRAPPED)
@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_wrapped_weights_of_an_encoder_are_read_and_it_is_said(
    wrapper: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = (network_of(SimCLR(width=8)) for _ in range(2))
    wrapped = WRAPPED[wrapper](source.backbone)
    load_weights(target, stored(wrapped.state_dict(), tmp_path / name))
    expected = source.backbone.state_dict()
    assert all(tensor.equal(expected[key]) for key, tensor in target.backbone.state_dict().items())
    said = capsys.readouterr().err
    assert str(tmp_path / name) in said
    assert all(f"`{word}.`" in said for word in wrapper.split(", "))


def test_a_wrapped_encoder_and_a_wrapped_denoiser_are_read(tmp_path: Path) -> None:
    source, target = (network_of(SimCLR(width=8)) for _ in range(2))
    source.backbone = compiled(source.backbone)
    load_weights(
        target, stored(nn.DataParallel(source).state_dict(), tmp_path / "encoder.safetensors")
    )
    assert all(
        a.equal(b)
        for a, b in zip(target.state_dict().values(), source.state_dict().values(), strict=True)
    )
    model, other = small_denoiser(), small_denoiser()
    of_denoiser.load(
        other, stored(nn.DataParallel(compiled(model)).state_dict(), tmp_path / "model.safetensors")
    )
    assert all(
        a.equal(b)
        for a, b in zip(other.state_dict().values(), model.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("form", ["module.{}", "_orig_mod.{}", "module._orig_mod.{}", "inner"])
def test_timms_wrapped_weights_are_read_and_it_is_said(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = timm_state()
    wrapped = {
        name.replace("blocks.0.", "blocks.0._orig_mod.")
        if form == "inner"
        else form.format(name): tensor
        for name, tensor in tensors.items()
    }
    path = stored({"model": wrapped}, tmp_path / "weights.pth")
    network: Any = DINOv2(weights=path, model=TIMM, resolution=28).build((3, 28, 28), 0)
    found = network.network.state_dict()
    assert all(tensor.equal(found[name]) for name, tensor in tensors.items())
    assert str(path) in capsys.readouterr().err


# Files that are not what their names say

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 335000000\n"
PAGE = b"\n<!DOCTYPE html>\n<html><head><title>401</title></head></html>"


def some_torch(path: Path) -> bytes:
    return stored(simclr_state(), path / "some.pt").read_bytes()


def some_safetensors(path: Path) -> bytes:
    return stored(simclr_state(), path / "some.safetensors").read_bytes()


CONTENTS: Mapping[str, tuple[Callable[[Path], bytes], str]] = {
    "pointer": (lambda path: POINTER, "is a Git LFS pointer, not the file: run `git lfs pull`"),
    "page": (lambda path: PAGE, r"is a web page \(HTML\), not the file"),
    "empty": (lambda path: b"", r"is empty \(0 bytes\)"),
}
OF_SAFETENSORS = {
    **CONTENTS,
    "cut": (lambda path: some_safetensors(path)[:-9], r"is cut short, [\d,]+ of [\d,]+ bytes"),
    "cut early": (lambda path: some_safetensors(path)[:60], "is cut short at 60 bytes"),
    "torch": (some_torch, r"is what torch\.save writes, not safetensors: let its name end in \.pt"),
    "pickle": (
        lambda path: pickle.dumps({"a": 1}, 2),
        r"is what torch\.save writes, not safetensors",
    ),
    "text": (
        lambda path: b"nothing of the kind",
        "is not in the format safetensors, whatever its name says",
    ),
    "odd header": (lambda path: b"\x02\0\0\0\0\0\0\0[]", "is not in the format safetensors"),
    "odd offsets": (lambda path: b'\x08\0\0\0\0\0\0\0{"a": 1}', "is not in the format safetensors"),
}
OF_TORCH = {
    **CONTENTS,
    "cut": (lambda path: some_torch(path)[:-9], "is cut short at"),
    "safetensors": (
        some_safetensors,
        r"is in the format safetensors: let its name end in \.safetensors",
    ),
}


@pytest.mark.parametrize("content", OF_SAFETENSORS)
def test_safetensors_that_are_none_are_told_by_what_they_are(content: str, tmp_path: Path) -> None:
    made, told = OF_SAFETENSORS[content]
    path = tmp_path / "weights.safetensors"
    path.write_bytes(made(tmp_path))
    for ask in (SimCLR(weights=path).preflight, Diffusion(weights=path).preflight):
        with pytest.raises(MissingFile, match=rf"weights file {path} {told}") as error:
            ask()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", OF_TORCH)
def test_files_of_torch_that_are_none_are_told_by_what_they_are(
    content: str, tmp_path: Path
) -> None:
    made, told = OF_TORCH[content]
    path = tmp_path / "weights.pth"
    path.write_bytes(made(tmp_path))
    for component in (
        SimCLR(weights=path),
        DINOv2(weights=path, model=TIMM),
        Inception(weights=path, sha256=hashlib.sha256(path.read_bytes()).hexdigest()),
    ):
        with pytest.raises(MissingFile, match=rf"{path} {told}") as error:
            component.preflight()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", CONTENTS)
def test_settings_weights_and_shards_of_a_folder_are_told_by_what_they_are(
    content: str, plain: Any, tmp_path: Path
) -> None:
    made, told = CONTENTS[content]
    folder = again(plain.weights, tmp_path / "model", **SHARDS)
    shard, *_ = sorted(folder.glob("*.safetensors"))
    processor = folder / "preprocessor_config.json"
    for file in (folder / "config.json", shard, next(folder.glob("*.index.json")), processor):
        if file.exists():
            was = file.read_bytes()
            file.write_bytes(made(tmp_path))
            with pytest.raises(MissingFile, match=rf"{file} {told}"):
                at(plain, folder).preflight()
            file.write_bytes(was)
    at(plain, folder).preflight()


def test_a_scheduler_that_cannot_be_read_is_told_and_not_taken_for_none(tmp_path: Path) -> None:
    folder = made_unet(tmp_path / "pipeline" / "unet").parent
    (folder / "model_index.json").write_text("{}")
    (folder / "scheduler").mkdir()
    file = folder / "scheduler" / "scheduler_config.json"
    for content, told in ((POINTER, "is a Git LFS pointer"), (b"[", "is not a JSON object")):
        file.write_bytes(content)
        with pytest.raises(FwError, match=rf"{file} {told}"):
            DiffusersFolder(weights=folder).preflight()


def test_files_that_are_what_their_names_say_pass(plain: Any, tmp_path: Path) -> None:
    assert [mismatch(file) for file in plain.weights.iterdir()] == [None] * len(
        list(plain.weights.iterdir())
    )
    torch.save(simclr_state(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save(simclr_state(), tmp_path / "new.pt")
    for name in ("old.pt", "new.pt"):
        encoder = SimCLR(weights=tmp_path / name, width=8)
        encoder.preflight()
        encoder.fit(network_of(encoder), None, Job(tmp_path))  # type: ignore[arg-type]
