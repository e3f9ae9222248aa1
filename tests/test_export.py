"""`fw export`: other tools read what it writes, and find in it what fw did."""

import json
import math
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_fidelity
import yaml
from diffusers import DDPMScheduler, UNet2DConditionModel, UNet2DModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sites import Answer, fw
from torch import Tensor
from torch.utils.data import Dataset
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from fw.core.api import Denoiser, LoadedArm, LoadedRun, run
from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.errors import FwError
from fw.core.export.card import code_of
from fw.core.export.diffusers import check, in_diffusers
from fw.core.files.durable import ASIDE
from fw.core.files.weights import supervision_in
from fw.core.stages.evaluate import Evaluate
from fw.core.types import Annotation, ConditionSpec
from fw.registry import installed

TINY = yaml.safe_load(Path(__file__).with_name("tiny.yaml").read_text("utf-8"))
SMALL: dict[str, Any] = {
    **TINY,
    "name": "small",
    "train": {"steps": 8, "batch": 16, "warmup": 1},
    "samples": {"count": 12, "seeds": 2},
    "tracker": None,
    "arms": {
        "unconditional": {"annotator": None},
        "self_1.5": {"guidance": {"name": "self_guidance", "scale": 1.5}},
        "vectors": {"annotator": "representation", "process": "edm"},
        "transformer": {"annotator": None, "model": {"name": "dit", "depth": 1, "width": 16}},
    },
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> LoadedRun:
    return run(SMALL, out=tmp_path_factory.mktemp("runs"), jobs=1, device="cpu", quiet=True)


@pytest.fixture
def export(small: LoadedRun) -> Callable[..., Answer]:
    def exported(arm: str, to: str | Path, *words: str | int) -> Answer:
        options = map(str, words)
        return fw("export", small.folder, "--arm", arm, "--to", to, "--device", "cpu", *options)

    return exported


def stored(small: LoadedRun, arm: str) -> Tensor:
    return torch.cat([small.arm(arm).samples(seed) for seed in (0, 1)])


# Images


def test_npz_has_the_layout_of_the_adm_evaluator(
    small: LoadedRun, export: Callable[..., Answer], tmp_path: Path
) -> None:
    done = export("self_1.5", tmp_path / "samples.npz")
    assert (done.code, done.out.splitlines()[1]) == (0, "24 images with their classes"), done.err
    with zipfile.ZipFile(tmp_path / "samples.npz") as archive, archive.open("arr_0.npy") as file:
        assert archive.namelist() == ["arr_0.npy", "arr_1.npy"]
        assert np.lib.format.read_magic(file) == (1, 0)  # the evaluator streams what comes after
        header = np.lib.format.read_array_header_1_0(file)
        assert header == ((24, 8, 8, 3), False, np.dtype(np.uint8))
    with np.load(tmp_path / "samples.npz") as arrays:
        images = torch.from_numpy(arrays["arr_0"]).permute(0, 3, 1, 2)
        classes = torch.from_numpy(arrays["arr_1"])
    assert all(torch.equal(images[:, [colour]], stored(small, "self_1.5")) for colour in range(3))
    assert classes.dtype == torch.int64
    again = small.arm("self_1.5").sample(12, seed=1, condition=classes[12:], device="cpu")
    assert torch.equal(again, images[12:, :1])  # they are what the images were drawn for


def test_without_classes_there_are_none_in_the_file(
    export: Callable[..., Answer], tmp_path: Path
) -> None:
    for arm in ("unconditional", "vectors"):
        assert export(arm, tmp_path / "samples.npz").out.splitlines()[1] == "24 images"
        with np.load(tmp_path / "samples.npz") as arrays:
            assert list(arrays) == ["arr_0"]
        assert export(arm, tmp_path / arm).code == 0
        assert sorted(each.name for each in (tmp_path / arm).iterdir())[-1] == "000023.png"


def test_png_files_are_grey_and_have_their_classes_beside_them(
    small: LoadedRun, export: Callable[..., Answer], tmp_path: Path
) -> None:
    from PIL import Image

    assert export("self_1.5", f"{tmp_path}/samples.v2/").code == 0
    folder = tmp_path / "samples.v2"
    names = sorted(each.name for each in folder.glob("*.png"))
    assert names == [f"{number:06d}.png" for number in range(24)]
    pictures = [Image.open(folder / name) for name in names]
    assert {picture.mode for picture in pictures} == {"L"}
    read = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))
    assert torch.equal(read[:, None], stored(small, "self_1.5"))
    labels = json.loads((folder / "dataset.json").read_text())["labels"]
    assert [name for name, _ in labels] == names
    export("self_1.5", tmp_path / "samples.npz")
    with np.load(tmp_path / "samples.npz") as arrays:
        assert [label for _, label in labels] == arrays["arr_1"].tolist()


@pytest.mark.parametrize(("words", "seed", "count"), [
    (("-n", 5), 0, 5), (("-n", 30, "--seed", 1), 1, 30), (("--seed", 1), 1, 12),
    (("-n", 3, "--seed", 7), 7, 3),
])  # fmt: skip
def test_the_images_of_one_seed_are_read_or_drawn_alike(
    small: LoadedRun,
    export: Callable[..., Answer],
    tmp_path: Path,
    words: tuple[str | int, ...],
    seed: int,
    count: int,
) -> None:
    done = export("self_1.5", tmp_path / "samples.npz", *words)
    assert done.code == 0, done.err
    with np.load(tmp_path / "samples.npz") as arrays:
        images = torch.from_numpy(arrays["arr_0"][..., 0])[:, None]
    expected = small.arm("self_1.5").sample(count, seed=seed, device="cpu")
    assert torch.equal(images, expected)


class Space(FeatureExtractorBase):
    """The space of fw's score, as torch-fidelity calls one: on what the files hold as RGB."""

    network: torch.nn.Module
    unit: float

    def __init__(self, name: str, features_list: list[str], **options: Any):
        super().__init__(name, features_list)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return ("features",)

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return "features"

    @staticmethod
    def can_be_compiled() -> bool:
        return False

    def forward(self, images: Tensor) -> tuple[Tensor]:
        assert images.shape[1] == 3
        return (self.network(images[:, :1]).double() / self.unit**0.5,)


class Pictures(Dataset[Tensor]):
    """uint8 images (N, 1, H, W) as RGB."""

    def __init__(self, images: Tensor):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> Tensor:
        return self.images[place].expand(3, -1, -1)


def test_torch_fidelity_finds_the_distance_that_fw_reports_in_both_forms(
    small: LoadedRun, export: Callable[..., Answer], tmp_path: Path
) -> None:
    arm = small.arm("self_1.5").finished
    [evaluate] = [
        stage for stage in arm.plan.arms["self_1.5"].judged if isinstance(stage, Evaluate)
    ]
    encoder = evaluate.space
    real, module = small.recipe.dataset.load("train").images, encoder.encoder.build((1, 8, 8), 0)
    module.load_state_dict(load_file(arm.products(encoder) / "encoder.safetensors"))
    features = module.eval()(real).double()
    Space.network, Space.unit = module, float(torch.cov(features.T).trace()) / features.shape[1]
    torch_fidelity.register_feature_extractor("space", Space)
    frame = small.scores.query("arm == 'self_1.5' and score == 'fd_pca'")
    for seed in (0, 1):
        assert export("self_1.5", tmp_path / f"{seed}.npz", "--seed", seed).code == 0
        assert export("self_1.5", tmp_path / f"{seed}", "--seed", seed).code == 0
        with np.load(tmp_path / f"{seed}.npz") as arrays:
            in_file = Pictures(torch.from_numpy(arrays["arr_0"]).permute(0, 3, 1, 2)[:, :1])
        [expected] = frame[frame.sampling_seed == seed].value
        for samples in (in_file, str(tmp_path / f"{seed}")):
            found = torch_fidelity.calculate_metrics(
                input1=samples, input2=Pictures(real), fid=True, cuda=False, verbose=False,
                feature_extractor="space", cache=False, save_cpu_ram=True,
            )  # fmt: skip
            assert found["frechet_inception_distance"] == pytest.approx(expected, rel=1e-6)
        drawn = module(in_file.images).double() / Space.unit**0.5
        assert frechet(features / Space.unit**0.5, drawn) == pytest.approx(expected, rel=1e-6)


def frechet(one: Tensor, other: Tensor) -> float:
    """By the symmetric root, in torch."""
    difference = one.mean(0) - other.mean(0)
    first, second = torch.cov(one.T), torch.cov(other.T)
    values, vectors = torch.linalg.eigh(first)
    root = vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ second @ root).clamp(min=0).sqrt().sum()
    return float(difference.square().sum() + first.trace() + second.trace() - 2 * cross)


# Networks


def test_safetensors_say_what_they_are_and_build_the_network(
    small: LoadedRun, export: Callable[..., Answer], tmp_path: Path
) -> None:
    file = tmp_path / "model.safetensors"
    done = export("self_1.5", file)
    assert done.code == 0, done.err
    with safe_open(file, "pt") as opened:
        said = opened.metadata()
    assert (said["fw.recipe"], said["fw.arm"], said["fw.training"]) == ("small", "self_1.5", "0")
    assert said["fw.key"] == small.arm("self_1.5").finished.sample.weights.id
    assert yaml.safe_load(said["fw.resolved"])["name"] == "small"
    assert str(supervision_in(file)) == "nothing"
    kinds = installed()
    model, process = (json.loads(said[f"fw.{kind}"]) for kind in ("model", "process"))
    backbone = kinds.get("backbone", model.pop("name")).model_validate(model)
    spec = ConditionSpec(**json.loads(said["fw.condition"]))
    network = backbone.build(tuple(json.loads(said["fw.shape"])), spec)  # type: ignore[attr-defined]
    network.load_state_dict(load_file(file))
    made = kinds.get("process", process.pop("name")).model_validate(process)
    x, sigma = torch.randn(4, 1, 8, 8), torch.tensor([0.1, 1.0, 3.0, 10.0])
    denoiser = small.arm("self_1.5").denoiser
    expected = denoiser(x, sigma, [0, 1, 2, 3])
    rebuilt = NetworkDenoiser(network.eval(), made)  # type: ignore[arg-type]
    assert torch.equal(rebuilt.denoised(x, sigma, torch.arange(4), None), expected)


OUTSIDE = """
import sys
sys.modules["fw"] = None  # nothing of it may be imported
{code}
from safetensors.torch import load_file, save_file

given = load_file("given.safetensors")
with torch.no_grad():
    made = {{key: D(given["x"], given["sigma"], given.get(key)) for key in ("condition", "null")}}
save_file(made, "made.safetensors")
"""


@pytest.mark.parametrize("arm", ["vectors"])
def test_the_card_of_a_diffusers_folder_makes_d_without_fw(
    small: LoadedRun, export: Callable[..., Answer], tmp_path: Path, arm: str
) -> None:
    done = export(arm, tmp_path / "model", "--as", "diffusers")
    assert done.code == 0, done.err
    model = UNet2DModel.from_pretrained(tmp_path / "model", local_files_only=True)
    assert list(model.config.sample_size) == [8, 8]
    denoiser = small.arm(arm).denoiser
    sigma = torch.tensor([0.01, 0.3, 2.0, 50.0])
    x = torch.randn(4, 1, 8, 8) * sigma[:, None, None, None]
    assert denoiser.annotation is not None
    condition = denoiser.annotation.conditions[:4].contiguous()
    save_file(
        {"x": x, "sigma": sigma, "condition": condition}, tmp_path / "model/given.safetensors"
    )
    [code] = re.findall(r"```python\n(.*?)```", (tmp_path / "model/README.md").read_text(), re.S)
    ended = subprocess.run(
        [sys.executable, "-c", OUTSIDE.format(code=code)],
        cwd=tmp_path / "model",
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert ended.returncode == 0, ended.stderr
    made = load_file(tmp_path / "model/made.safetensors")
    with torch.no_grad():
        for key, given in (("condition", condition), ("null", None)):
            assert (made[key] - denoiser(x, sigma, given)).abs().max() < 1e-5


def test_the_scheduler_and_fw_itself_read_the_folder(
    small: LoadedRun, export: Callable[..., Answer], tmp_path: Path
) -> None:
    assert export("unconditional", tmp_path / "model", "--as", "diffusers").code == 0
    scheduler = DDPMScheduler.from_pretrained(tmp_path / "model", local_files_only=True)
    denoiser = small.arm("unconditional").denoiser
    abar = scheduler.alphas_cumprod.double()
    sigma = ((1 - abar) / abar).sqrt()[[0, 400, 900]].float()
    assert torch.allclose(denoiser.process.coefficients(sigma).noise, torch.tensor([0.0, 400, 900]))
    assert scheduler.config.prediction_type == "v_prediction"
    folder = {"name": "diffusers", "weights": str(tmp_path / "model")}
    backbone: Any = (
        installed()
        .get("backbone", "diffusers")
        .model_validate({key: value for key, value in folder.items() if key != "name"})
    )
    assert backbone.requires <= denoiser.process.provides
    network = backbone.build((1, 8, 8), None).eval()
    x = torch.randn(3, 1, 8, 8)
    again = NetworkDenoiser(network, denoiser.process).denoised(x, sigma, None, None)
    assert torch.allclose(again, denoiser(x, sigma), atol=1e-5)


PROCESSES: list[dict[str, Any]] = [
    *({"name": "ddpm", "prediction": prediction} for prediction in ("eps", "v", "x0")),
    {"name": "ddpm", "schedule": "linear", "timesteps": 500},
    {"name": "edm", "sigma_data": 0.7},
    {"name": "flow"},
]


def component(kind: str, fields: dict[str, Any]) -> Any:
    rest = {key: value for key, value in fields.items() if key != "name"}
    return installed().get(kind, fields["name"]).model_validate(rest)


@pytest.mark.parametrize("fields", PROCESSES, ids=str)
def test_a_process_writes_its_coefficients_as_code(fields: dict[str, Any]) -> None:
    process = component("process", fields)
    low, high = process.sigma_range
    sigma = torch.logspace(0, 1, 50, base=high / low) * low
    names = {"torch": torch, "math": math, "sigma": sigma}
    exec(process.in_torch, names)
    for name, expected in process.coefficients(sigma)._asdict().items():
        assert torch.allclose(names[name], expected, rtol=1e-6), name


FORMS = [
    None,
    ConditionSpec("class", 3),
    ConditionSpec("vector", 5),
    ConditionSpec("tokens", 5, 2),
]
UNETS: list[dict[str, Any]] = [
    {"channels": [8, 16], "groups": 4},
    {"channels": [8, 16], "groups": 4, "attention": [1], "head_dim": 4},
    {"channels": [16, 16], "groups": 4, "attention": [1], "heads": 2},
    {"channels": [8, 16], "groups": 4, "attention": [0, 1], "heads": 1},
]


def random_weights(network: torch.nn.Module) -> torch.nn.Module:
    """Other ones than those that a network starts with, some of which are zero."""
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return network.eval()


def denoiser_of(network: torch.nn.Module, spec: ConditionSpec | None) -> Denoiser:
    process = component("process", {"name": "flow"})
    annotation = None
    if spec is not None:
        shape = {"class": (), "vector": (spec.size,), "tokens": (spec.count, spec.size)}[spec.form]
        conditions = torch.randn(4, *shape) if shape else torch.arange(4) % spec.size
        annotation = Annotation(spec, conditions)
    return Denoiser(NetworkDenoiser(network, process), (1, 8, 8), annotation, (), True)


@pytest.mark.parametrize("spec", FORMS, ids=str)
@pytest.mark.parametrize("fields", UNETS, ids=str)
def test_any_unet_is_the_same_in_diffusers(
    fields: dict[str, Any], spec: ConditionSpec | None, tmp_path: Path
) -> None:
    backbone = component("backbone", {"name": "unet", **fields})
    network = random_weights(backbone.build((1, 8, 8), spec))
    written(network, spec, tmp_path)
    crossed = spec is not None and spec.form == "tokens"
    model = UNet2DConditionModel if crossed else UNet2DModel
    model.from_pretrained(tmp_path, local_files_only=True)


BLOCKS: dict[str, Any] = {
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "layers_per_block": 1,
    "in_channels": 1,
    "out_channels": 1,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "UNet2DModel": {
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        **BLOCKS,
    },
    "UNet2DConditionModel": {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 8,
        "attention_head_dim": 2,
        **BLOCKS,
    },
    "DiTTransformer2DModel": {
        "num_attention_heads": 2,
        "attention_head_dim": 4,
        "patch_size": 2,
        "in_channels": 1,
        "out_channels": 2,
        "num_layers": 1,
        "sample_size": 8,
        "norm_num_groups": 1,
    },
}


@pytest.mark.parametrize("classes", [None, 3])
@pytest.mark.parametrize("spec", FORMS[:2], ids=str)
@pytest.mark.parametrize("kind", SETTINGS)
def test_what_came_from_diffusers_goes_back(
    kind: str, spec: ConditionSpec | None, classes: int | None, tmp_path: Path
) -> None:
    import diffusers

    settings = {**SETTINGS[kind]}
    if kind == "DiTTransformer2DModel":
        settings["num_embeds_ada_norm"] = classes or 1
    else:
        settings["num_class_embeds"] = classes
    getattr(diffusers, kind)(**settings).save_pretrained(tmp_path / "before")
    backbone = component("backbone", {"name": "diffusers", "weights": tmp_path / "before"})
    written(random_weights(backbone.build((1, 8, 8), spec)), spec, tmp_path / "after")


def written(network: Any, spec: ConditionSpec | None, folder: Path) -> None:
    """What the export writes of a network, checked as it checks."""
    denoiser = denoiser_of(network, spec)
    form = network.in_diffusers()
    form.model.save_pretrained(folder)
    if form.inputs:
        save_file(dict(form.inputs), folder / "inputs.safetensors")
    code = code_of(form, denoiser.process, "inputs.safetensors")
    check(code, folder, denoiser)
    wrong = code.replace("skip * x + out", "skip * x - out")
    with pytest.raises(FwError, match="another D"):
        check(wrong, folder, denoiser)


def test_heads_that_diffusers_cannot_have_are_refused(small: LoadedRun) -> None:
    fields = {"channels": [8, 16], "groups": 4, "attention": [0, 1], "heads": 2}
    network = component("backbone", {"name": "unet", **fields}).build((1, 8, 8), None)
    arm = LoadedArm(small.finished, "unconditional")
    with pytest.raises(FwError, match="several widths"):
        in_diffusers(network, arm)


# Targets


REFUSED: list[tuple[str, str, tuple[str | int, ...], str]] = [
    ("self_1.5", "x.zip", (), "name samples.npz"),
    ("self_1.5", "x.npz", ("--as", "png"), "it is a folder"),
    ("self_1.5", "x", ("--as", "npz"), "ends with .npz"),
    ("self_1.5", "x", ("--as", "jpeg"), "one of npz, png"),
    ("self_1.5", "nowhere/x.npz", (), "make it first"),
    ("self_1.5", "there", (), "it is there already"),
    ("self_1.5", "there", ("--as", "diffusers"), "it is there already"),
    ("self_1.5", "x.safetensors", ("-n", 3), "-n and --seed are of images"),
    ("self_1.5", "x.npz", ("--seed", 2), "say with -n"),
    ("self_1.5", "x.npz", ("--training", 1), "--training 1"),
    ("nobody", "x.npz", (), "no such arm"),
    ("transformer", "x", ("--as", "diffusers"), "no network of diffusers"),
]


@pytest.mark.parametrize(("arm", "to", "words", "reason"), REFUSED)
def test_what_cannot_be_written_is_refused_before_anything_is(
    export: Callable[..., Answer],
    tmp_path: Path,
    arm: str,
    to: str,
    words: tuple[str | int, ...],
    reason: str,
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there/mine.txt").write_text("mine")
    done = export(arm, tmp_path / to, *words)
    assert (done.code, reason in done.err, done.err.count("\n")) == (2, True, 1), done.err
    assert [each.name for each in tmp_path.iterdir()] == ["there"]
    assert (tmp_path / "there/mine.txt").read_text() == "mine"


@pytest.mark.parametrize("to", ["samples.npz", "samples"])
def test_what_is_cut_off_leaves_nothing_and_what_was_there(
    export: Callable[..., Answer], tmp_path: Path, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / to
    if target.suffix:
        target.write_text("before")
    (tmp_path / f"samples{ASIDE}").mkdir()  # of a process that was killed
    (tmp_path / f"samples{ASIDE}/000000.png").write_text("half")

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fw.core.export.images.conditions", interrupted)
        assert export("self_1.5", target).code == 130
    assert not target.is_dir()
    assert not target.suffix or target.read_text() == "before"
    assert export("self_1.5", target).code == 0
    assert not (target / "half").exists()
    assert list(tmp_path.glob(f"{to}{ASIDE}")) == []


def test_an_equal_export_is_an_equal_file(export: Callable[..., Answer], tmp_path: Path) -> None:
    for name in ("one.npz", "other.npz"):
        export("self_1.5", tmp_path / name)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "other.npz").read_bytes()
