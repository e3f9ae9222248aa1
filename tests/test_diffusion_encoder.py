"""A denoiser as an encoder: what it reads, how it chooses, and that its features feed annotators
and metrics."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor, nn

from fw.core.commands import heatmap
from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.pixels import to_unit
from fw.core.errors import FwError, MissingFile, RecipeError
from fw.core.execution.options import Options
from fw.core.features.activations import as_map, flat, noise_of, read, split
from fw.core.features.logistic import accuracy_of, linear_probe
from fw.core.job import Job
from fw.core.kinds import Encoder
from fw.core.learning.state import state_of
from fw.core.plan.assembly import plan
from fw.core.recipe.loading import load
from fw.core.run.run import run as run_plan
from fw.core.settings import Train
from fw.core.stages.keys import digest
from fw.core.testing import check, tiny
from fw.core.types import ImageSet
from fw.plugins.backbones.dit import DiT
from fw.plugins.backbones.unet import UNet
from fw.plugins.encoders.diffusion import DenoiserEncoder, Diffusion, Reader
from fw.plugins.encoders.diffusion_selected import DiffusionSelected, Grid, Hyperfeatures, Mixture
from fw.plugins.joint.hybvit import HybViT
from fw.plugins.processes.ddpm import DDPM
from fw.plugins.processes.edm import EDM

SMALL = UNet(channels=(4, 8), groups=2)
SHORT = Train(steps=6, batch=16, warmup=1)
TINY = Path(__file__).parent / "tiny.yaml"

ENCODERS: dict[str, DenoiserEncoder] = {
    "unet": Diffusion(model=SMALL, train=SHORT),
    "dit": Diffusion(
        model=DiT(depth=2, width=16, heads=2),
        process=EDM(),
        train=SHORT,
        pool="grid",
        sigma=(0.05, 0.5),
    ),
    "hybvit": Diffusion(
        model=HybViT(depth=3, width=16, heads=2),
        train=SHORT,
        pool="grid",
        blocks=("blocks.2", "blocks.0"),
    ),
    "grid": DiffusionSelected(model=SMALL, train=SHORT, sigma=(0.05, 1.0)),
    "learned": DiffusionSelected(
        model=SMALL, train=SHORT, sigma=(0.05, 1.0), selector="learned", steps=6, dims=5
    ),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_they_keep_the_contract(name: str) -> None:
    check(ENCODERS[name])


def built(encoder: DenoiserEncoder, shape: tuple[int, int, int] = (1, 8, 8), seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return encoder.build(shape, 3 if encoder.uses_labels else 0).eval()


def fitted(encoder: DenoiserEncoder, data: ImageSet) -> Any:
    network = built(encoder, data.shape)
    with tiny.job() as job:
        encoder.fit(network, data, job)
    return network.eval()


# What is read


def test_features_are_the_means_of_a_blocks_activations_over_positions_and_draws() -> None:
    encoder = Diffusion(model=SMALL, blocks=("mid",), sigma=(0.3,), draws=3)
    network, images = built(encoder), tiny.images(5).images
    model, x0 = NetworkDenoiser(network.network, encoder.process), to_unit(images)
    expected = torch.zeros(5, 8)
    with torch.inference_mode():
        for draw in noise_of(images, 3, (1, 8, 8)):
            activation = model.features(x0 + 0.3 * draw, torch.full((5,), 0.3), ["mid"])["mid"]
            expected += activation.mean(dim=(2, 3)) / 3
        torch.testing.assert_close(network(images), expected)


def test_noise_is_each_images_own_and_independent() -> None:
    images = tiny.images(200).images
    noise = noise_of(images, 3, (1, 8, 8))
    assert torch.equal(noise_of(images[5:7], 3, (1, 8, 8)), noise[:, 5:7])
    assert torch.equal(noise_of(images.flip(0), 3, (1, 8, 8)), noise.flip(1))
    flat_noise = noise.flatten(2).flatten(0, 1)  # (600, 64)
    cosines = (
        torch.nn.functional.normalize(flat_noise, dim=1)
        @ torch.nn.functional.normalize(flat_noise, dim=1).T
    )
    assert float((cosines - torch.eye(600)).abs().max()) < 0.8
    assert abs(float(noise.mean())) < 0.03
    assert abs(float(noise.std()) - 1) < 0.03


def test_much_noise_takes_away_what_a_probe_can_tell() -> None:
    """One map of noise for all images would not: a probe learns to subtract it."""
    data = planted(300)
    x0, labels = to_unit(data.images), heatmap.labels_of(data)
    shared = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = []
    for noise in (noise_of(data.images, 1, (1, 8, 8))[0], shared):
        noisy = (x0 + 5.0 * noise).flatten(1)
        probe = linear_probe(noisy[:200], labels[:200])
        found.append(accuracy_of(probe, noisy[200:], labels[200:]))
    assert found[0] < 0.6
    assert found[1] > 0.95


def test_noise_levels_and_blocks_are_put_side_by_side_and_share_their_passes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder = Diffusion(model=SMALL, blocks=("up.0", "mid"), sigma=(0.05, 0.5), draws=2)
    network, images = built(encoder), tiny.images(4).images
    calls: list[float] = []
    features = NetworkDenoiser.features

    def counted(self: NetworkDenoiser, x: Tensor, sigma: Tensor, *rest: Any) -> Any:
        calls.append(float(sigma[0]))
        return features(self, x, sigma, *rest)

    monkeypatch.setattr(NetworkDenoiser, "features", counted)
    with torch.inference_mode():
        found = network(images)
        assert calls == pytest.approx([0.05, 0.05, 0.5, 0.5])
        for place, cell in enumerate([(0.05, "up.0"), (0.05, "mid"), (0.5, "up.0"), (0.5, "mid")]):
            torch.testing.assert_close(
                found[:, 8 * place : 8 * place + 8], next(network.read(images, [cell]))
            )


@pytest.mark.parametrize(
    ("model", "block"),
    [
        (UNet(channels=(4, 8, 8), groups=2), "up.1"),
        (SMALL, "up.0"),
        (DiT(depth=4, width=16, heads=2), "blocks.2"),
    ],
    ids=["three levels", "two levels", "transformer"],
)
def test_without_a_choice_the_block_is_that_of_the_literature(model: Any, block: str) -> None:
    assert built(Diffusion(model=model)).blocks == (block,)


def test_a_grid_keeps_the_four_quarters_of_maps_and_of_tokens() -> None:
    square = torch.arange(16.0).view(1, 1, 4, 4)
    assert flat(square, "grid", 1.0).tolist() == [[2.5, 4.5, 10.5, 12.5]]
    tokens = square.flatten(2).transpose(1, 2)  # (1, 16, 1)
    assert flat(tokens, "grid", 1.0).tolist() == [[2.5, 4.5, 10.5, 12.5]]
    with_class_token = torch.cat([tokens, torch.full((1, 1, 1), 99.0)], dim=1)
    assert flat(with_class_token, "grid", 1.0).tolist() == [[2.5, 4.5, 10.5, 12.5]]
    assert as_map(torch.zeros(1, 8, 3), 0.5).shape == (1, 3, 2, 4)
    with pytest.raises(FwError, match="7 tokens are no grid over the image"):
        as_map(torch.zeros(1, 7, 3), 1.0)


def test_averaging_more_draws_brings_features_closer_to_their_expectation() -> None:
    network, images = built(ENCODERS["unet"]), tiny.images(6).images
    model, x0 = NetworkDenoiser(network.network, DDPM()), to_unit(images)
    draw = torch.Generator().manual_seed(1)
    noise = torch.randn(400, 6, 1, 8, 8, generator=draw)
    wanted = read(model, x0, noise[:300], 1.0, ["mid"])["mid"]
    few, many = (
        read(model, x0, noise[300 : 300 + count], 1.0, ["mid"])["mid"] for count in (1, 64)
    )
    assert (many - wanted).norm() < 0.5 * (few - wanted).norm()


def test_features_have_mean_0_and_variance_1_over_the_training_images() -> None:
    data = tiny.images(60)
    network = fitted(ENCODERS["unet"], data)
    with torch.inference_mode():
        features = network(data.images)
    torch.testing.assert_close(features.mean(dim=0), torch.zeros(8), atol=1e-4, rtol=0)
    torch.testing.assert_close(features.std(dim=0, correction=0), torch.ones(8), atol=1e-4, rtol=0)


def test_a_feature_that_is_the_same_for_all_images_is_zero() -> None:
    network = built(ENCODERS["unet"])
    features = torch.randn(20, 8)
    features[:, 3] = 7.0
    network.standardise(features)
    assert network.scale[3] == 0
    assert network.scale.isfinite().all()


# Training and stored weights


def test_the_denoiser_is_trained_and_its_labels_are_not_looked_at() -> None:
    encoder, data = ENCODERS["unet"], tiny.images(60)
    untrained, trained = state_of(built(encoder).network), state_of(fitted(encoder, data).network)
    assert any(not torch.equal(untrained[name], trained[name]) for name in trained)
    shuffled = dataclasses.replace(
        data, labels=data.labels.flip(0) if data.labels is not None else None
    )
    again = state_of(fitted(encoder, shuffled).network)
    assert all(torch.equal(trained[name], again[name]) for name in trained)


def test_stored_weights_are_read_in_place_of_training(tmp_path: Path) -> None:
    data = tiny.images(60)
    trained = fitted(ENCODERS["unet"], data)
    path = tmp_path / "model.safetensors"
    save_file(state_of(trained.network), path)
    loaded = fitted(Diffusion(model=SMALL, weights=path), data)
    with torch.inference_mode():
        assert torch.equal(loaded(data.images), trained(data.images))


def test_weights_enter_the_key_by_their_content_and_make_the_training_irrelevant(
    tmp_path: Path,
) -> None:
    keys = []
    for place, (fill, steps) in enumerate([(0.0, 5), (0.0, 9), (1.0, 5)]):
        path = tmp_path / f"{place}.safetensors"
        save_file({"weight": torch.full((2,), fill)}, path)
        keys.append(
            digest(Diffusion(model=SMALL, weights=path, train=Train(steps=steps)).identity())
        )
    assert keys[0] == keys[1] != keys[2]
    without = [Diffusion(model=SMALL, train=Train(steps=steps)).identity() for steps in (5, 9)]
    assert without[0] != without[1]


def test_weights_that_are_not_there_or_of_another_model_are_told_in_a_sentence(
    tmp_path: Path,
) -> None:
    missing = Diffusion(model=SMALL, weights=tmp_path / "none.safetensors")
    with pytest.raises(MissingFile, match="is not there"):
        missing.preflight()
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(1)}, path)
    with pytest.raises(
        FwError, match="does not hold weights of this model without conditions: Missing key"
    ) as caught:
        fitted(Diffusion(model=SMALL, weights=path), tiny.images(20))
    assert "\n" not in str(caught.value)


# What cannot be


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"sigma": (1e-9,)}, "sigma 1e-09 is not among the noise levels of training"),
        ({"sigma": (0.1, 0.1)}, "sigma lists one twice"),
        ({"blocks": ("mid", "mid")}, "blocks lists one twice"),
        ({"model": tiny.TinyBackbone()}, "backbone 'tiny' names no blocks"),
    ],
)
def test_a_choice_that_cannot_be_read_is_refused(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        Diffusion(**fields)


def test_a_block_that_the_model_has_not_is_named_with_those_that_it_has() -> None:
    with pytest.raises(
        FwError,
        match=r"the model has no block 'up\.7' \(it has down\.0, down\.1, mid, up\.0, up\.1\)",
    ):
        built(Diffusion(model=SMALL, blocks=("up.7",)))


def test_a_typo_in_the_nested_settings_is_found_in_its_line(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(TINY.read_text().replace("pixels", "{name: diffusion, train: {step: 3}}"))
    with pytest.raises(
        RecipeError,
        match=r"recipe\.yaml:\d+: encoder\.train\.step: unknown key; did you mean 'steps'",
    ):
        load(path)


# Selection


class Planted(nn.Module):
    """A network whose blocks return given features: only `good` knows the class, which is
    written in the image."""

    def __init__(self) -> None:
        super().__init__()
        self.bad, self.good = nn.Identity(), nn.Identity()

    def taps(self) -> dict[str, nn.Module]:
        return {"bad": self.bad, "good": self.good}

    def forward(self, x: Tensor, noise: Tensor, *_: Any) -> Tensor:
        clean = (x[:, :, :1, :3].abs() > 0.5).float() * (noise < 0)[
            :, None, None, None
        ]  # the level decides, too
        self.bad(x.flatten(1)[:, -3:, None, None])
        self.good(clean.flatten(1)[:, :, None, None])
        return x


def planted(count: int) -> ImageSet:
    """Images whose first three pixels say the class, and the others nothing."""
    draw = torch.Generator().manual_seed(count)
    labels = torch.arange(count) % 3
    images = torch.randint(100, 156, (count, 1, 8, 8), generator=draw).to(torch.uint8)
    images[torch.arange(count), 0, 0, labels] = 255
    return ImageSet(images, labels, 3)


def select(
    selector: str, monkeypatch: pytest.MonkeyPatch, **fields: Any
) -> tuple[DiffusionSelected, Any]:
    encoder = DiffusionSelected(
        model=SMALL, process=EDM(), sigma=(0.02, 2.0), selector=selector, **fields
    )
    monkeypatch.setattr(UNet, "build", lambda *_: Planted())
    monkeypatch.setattr("fw.plugins.encoders.of_denoiser.train", lambda *_: Planted())
    return encoder, fitted(encoder, planted(150))


def test_the_grid_finds_the_cell_that_knows_the_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, network = select("grid", monkeypatch)
    assert isinstance(network, Grid)
    found = encoder.quality(network, planted(30))
    assert (found["sigma"], found["block"], found["accuracy"]) == (0.02, 1, 1.0)
    assert found["accuracy/good/0.02"] == 1.0
    assert max(found[f"accuracy/{cell}"] for cell in ("bad/0.02", "bad/2", "good/2")) < 0.7
    with torch.inference_mode():
        assert network(planted(9).images).shape == (9, 3)


def test_the_mixture_gives_the_cell_that_knows_the_labels_the_most_weight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder, network = select("learned", monkeypatch, steps=120, dims=6)
    assert isinstance(network, Mixture)
    found = encoder.quality(network, planted(30))
    weights = {name: value for name, value in found.items() if name.startswith("weight/")}
    assert max(weights, key=weights.__getitem__) == "weight/good/0.02"
    assert sum(weights.values()) == pytest.approx(1)
    assert found["accuracy"] > 0.9
    with torch.inference_mode():
        assert network(planted(9).images).shape == (9, 6)


def test_held_out_images_have_no_part_in_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, network = select("grid", monkeypatch)
    assert encoder.quality(network, planted(30)) == encoder.quality(
        network, planted(9).without_labels()
    )


def test_hyperfeatures_of_equal_weights_are_the_mean_of_what_bottlenecks_make_of_the_cells() -> (
    None
):
    mix = Hyperfeatures([2, 3, 2, 3], blocks=2, dims=4)
    features = torch.randn(5, 10)
    a, b = mix.bottlenecks
    expected = (
        a(features[:, :2]) + b(features[:, 2:5]) + a(features[:, 5:7]) + b(features[:, 7:])
    ) / 4
    torch.testing.assert_close(mix(features), expected)


def test_the_split_and_the_probe() -> None:
    fit, held = split(50, torch.Generator().manual_seed(0))
    assert (len(fit), len(held)) == (40, 10)
    assert sorted([*fit.tolist(), *held.tolist()]) == list(range(50))
    labels = torch.arange(50) % 2
    features = torch.stack([labels * 1e4, torch.randn(50)], dim=1).float()
    probe = linear_probe(features[fit], labels[fit])
    assert accuracy_of(probe, features[held], labels[held]) == 1.0


# With everything else

RECIPE = """\
fw: 1
name: closed_loop
dataset:   digits
encoder:   {name: diffusion, model: MODEL, train: TRAIN, sigma: [0.1]}
annotator: {name: kmeans, clusters: 3, nredo: 1}
model:     MODEL
process:   {name: ddpm}
train:     {steps: 4, batch: 16, warmup: 1}
sampler:   {name: dpmpp, steps: 2}
samples:   {count: 20, seeds: 3}
metrics:   [{name: fd, space: {name: diffusion, model: MODEL, train: TRAIN, blocks: [mid]}}]
baseline:  unconditional
arms:
  unconditional: {annotator: null}
  self_1.5:      {guidance: {name: self_guidance, scale: 1.5}}
"""


def recipe_of(tmp_path: Path, change: Callable[[str], str] = str) -> Path:
    text = RECIPE.replace("MODEL", "{name: unet, channels: [4, 8], groups: 2}").replace(
        "TRAIN", "{steps: 4, batch: 16, warmup: 1}"
    )
    path = tmp_path / "recipe.yaml"
    path.write_text(change(text))
    return path


def test_clusters_of_a_diffusion_models_own_features_guide_a_new_one_and_another_ones_score_it(
    tmp_path: Path,
) -> None:
    recipe = load(recipe_of(tmp_path))
    options = Options(tmp_path / "runs", device="cpu", jobs=1)
    result, failure = run_plan(recipe, plan(recipe), options, [], Console(quiet=True))
    assert failure is None
    guided = result["arms"]["self_1.5"]
    assert guided["status"] == "finished"
    assert 0 < guided["annotation"]["nmi"] <= 1
    assert guided["metrics"]["fd_diffusion"]["mean"] > 0
    json.dumps(result)


def test_a_choice_by_labels_is_refused_where_conditions_have_to_be_label_free(
    tmp_path: Path,
) -> None:
    load(recipe_of(tmp_path))
    with pytest.raises(RecipeError, match="conditions that were made without labels"):
        load(
            recipe_of(
                tmp_path,
                lambda text: text.replace(
                    "name: diffusion, model", "name: diffusion_selected, model", 1
                ),
            )
        )


def test_a_fit_of_the_mixture_logs_its_loss(tmp_path: Path) -> None:
    encoder = ENCODERS["learned"]
    job = Job(tmp_path)
    encoder.fit(built(encoder), tiny.images(60), job)
    job.flush()
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {key for record in logged for key in record} >= {"train/loss", "select/loss"}


def test_the_two_components_are_encoders_that_share_a_denoiser() -> None:
    assert issubclass(DiffusionSelected, Encoder)
    assert not Diffusion.uses_labels
    assert DiffusionSelected.uses_labels
    assert issubclass(Mixture, Reader)
