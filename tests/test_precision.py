"""What `precision` asks for is what networks compute in, and rulers compute in fp32 whatever else
is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fw.core.diffusion.generate import generate
from fw.core.errors import RecipeError
from fw.core.job import Job
from fw.core.kinds import Encoder
from fw.core.learning.train import train
from fw.core.machine.isolation import stock_state
from fw.core.machine.precision import shortened
from fw.core.plan.assembly import plan
from fw.core.plan.graph import Plan
from fw.core.recipe.loading import validate
from fw.core.recipe.source import read
from fw.core.settings import Train
from fw.core.stages.encode import Encode
from fw.core.stages.sample import Sample
from fw.core.testing import tiny
from fw.plugins.backbones.unet import UNet
from fw.plugins.encoders.byol import BYOL
from fw.plugins.encoders.classifier import Classifier
from fw.plugins.encoders.dino import Dino
from fw.plugins.encoders.mae import MAE
from fw.plugins.encoders.moco import MoCo
from fw.plugins.encoders.pretrained import Pretrained
from fw.plugins.encoders.repfusion import RepFusion
from fw.plugins.encoders.simclr import SimCLR
from fw.plugins.encoders.swav import SwAV
from fw.registry import installed

TINY = Path(__file__).parent / "tiny.yaml"
GPU, CPU = torch.device("cuda"), torch.device("cpu")
SMALL = {"name": "unet", "channels": [8, 16], "groups": 4}
LEARNERS: list[Callable[..., Encoder]] = [Dino, SwAV, SimCLR, MoCo, BYOL, MAE]


@pytest.fixture
def inner(monkeypatch: pytest.MonkeyPatch) -> set[torch.dtype]:
    """What convolutions and linear layers return while the test lasts."""
    types: set[torch.dtype] = set()
    for layer in (nn.Conv2d, nn.Linear):

        def forward(self: Any, x: Tensor, usual: Any = layer.forward) -> Tensor:
            y = usual(self, x)
            types.add(y.dtype)
            return y

        monkeypatch.setattr(layer, "forward", forward)
    return types


def planned(*sets: str) -> Plan:
    source = read(TINY)
    source.set(sets)
    return plan(validate(source, installed()))


def stages(found: Plan, kind: str) -> dict[str, str]:
    return {stage.title: id for id, stage in found.stages.items() if stage.kind == kind}


def fitted(encoder: Encoder, folder: Path) -> tuple[Encode, nn.Module, Job]:
    stage, job = Encode(tiny.TinyDataset(), encoder, seed=0), Job(folder)
    network = stage.new_network(job)
    encoder.fit(network, tiny.images(40), job)
    return stage, network.eval(), job


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp32", torch.float32), ("tf32", torch.float32), ("bf16", torch.bfloat16)],
)
@pytest.mark.parametrize("method", LEARNERS)
def test_an_encoder_learns_and_reads_in_its_precision_and_gives_float32(
    method: Callable[..., Encoder],
    precision: str,
    dtype: torch.dtype,
    tmp_path: Path,
    inner: set[torch.dtype],
) -> None:
    encoder = method(precision=precision, steps=2, batch=8)
    stage, network, job = fitted(encoder, tmp_path)
    assert dtype in inner
    inner.clear()
    features = stage.features(network, tiny.images(20).images, job)
    assert inner == {dtype}
    assert features.dtype == torch.float32
    assert features.isfinite().all()


def test_a_student_and_its_teacher_compute_in_the_precision_of_their_encoder(
    tmp_path: Path, inner: set[torch.dtype]
) -> None:
    encoder = RepFusion(model=SMALL, train=None, steps=2, batch=8, precision="bf16")
    stage, network, job = fitted(encoder, tmp_path)
    inner.clear()
    stage.features(network, tiny.images(20).images, job)
    assert inner == {torch.bfloat16}


@pytest.mark.parametrize("asked", [None, "fp32", "tf32", "bf16"])
@pytest.mark.parametrize("trained", ["fp32", "bf16"])
def test_samples_are_drawn_in_their_own_precision_by_default_that_of_the_training(
    asked: str | None, trained: str
) -> None:
    sets = [f"train.precision={trained}", f"samples.precision={asked or 'null'}"]
    sample = next(stage for stage in planned(*sets).stages.values() if isinstance(stage, Sample))
    assert sample.precision == (asked or trained)


def test_samples_of_a_denoiser_trained_in_fp32_can_be_drawn_in_bf16(
    tmp_path: Path, inner: set[torch.dtype]
) -> None:
    found = planned("samples.precision=bf16", "samples.count=4", "samples.seeds=1")
    sample = next(stage for stage in found.stages.values() if isinstance(stage, Sample))
    trained = sample.train
    network = trained.model.build(trained.shape, None)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    networks = sample.networks(None, lambda stage: tmp_path, CPU)
    images = list(generate(networks.own, [], sample.drawing, None, 0, range(4)))
    assert torch.bfloat16 in inner
    assert images[0].dtype == torch.uint8
    x = torch.randn(2, *trained.shape)
    assert networks.own(x, 1.0).dtype == torch.float32


def test_what_is_asked_for_twice_is_one_stage() -> None:
    """Only the precision that samples are drawn in counts, not where the recipe says so."""
    for precision in ("fp32", "bf16"):
        trained = f"train.precision={precision}"
        for kind in ("sample", "evaluate"):
            assert stages(planned(trained), kind) == stages(
                planned(trained, f"samples.precision={precision}"), kind
            )
    assert stages(planned(), "sample") != stages(planned("samples.precision=bf16"), "sample")
    assert stages(planned(), "train") == stages(planned("samples.precision=bf16"), "train")


@pytest.mark.parametrize("encoder", [Dino, MAE, RepFusion, Pretrained])
def test_at_fp32_no_key_says_so(encoder: type[Encoder]) -> None:
    field = encoder.model_fields["precision"]
    assert field.default == "fp32"
    if encoder is not Pretrained:
        assert "precision" not in encoder().identity()
        assert encoder(precision="bf16").identity()["precision"] == "bf16"  # type: ignore[call-arg]


def test_a_training_in_tf32_is_one_in_fp32_on_the_cpu_to_the_bit(tmp_path: Path) -> None:
    def weights(precision: Any) -> list[Tensor]:
        settings = Train(steps=3, batch=8, warmup=0, precision=precision)
        job = Job(tmp_path / precision)
        job.folder.mkdir()
        backbone = UNet(channels=(8, 16), groups=4)
        trained = train(backbone, tiny.TinyProcess(), tiny.images(16), None, settings, job)
        return list(trained.parameters())

    for one, other in zip(weights("fp32"), weights("tf32"), strict=True):
        assert torch.equal(one, other)


def tf32() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def test_every_stage_starts_without_tf32_in_products_and_in_convolutions() -> None:
    with stock_state(0, CPU, 1):
        assert tf32() == (False, False)


def test_tf32_is_allowed_on_a_gpu_for_the_work_that_asks_for_it_and_no_longer() -> None:
    with stock_state(0, CPU, 1):
        with shortened("tf32", GPU):
            assert tf32() == (True, True)
        assert tf32() == (False, False)
        with pytest.raises(ZeroDivisionError), shortened("tf32", GPU):
            _ = 1 / 0
        assert tf32() == (False, False)
        for precision, device in (("fp32", GPU), ("bf16", GPU), ("tf32", CPU)):
            with shortened(precision, device):  # type: ignore[arg-type]
                assert tf32() == (False, False)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_a_space_of_a_metric_that_is_not_computed_in_fp32_is_refused(precision: str) -> None:
    space = f"{{name: dino, steps: 4, precision: {precision}}}"
    with pytest.raises(RecipeError) as caught:
        planned(f"metrics=[{{name: fd, space: {space}}}]")
    (problem,) = caught.value.problems
    for word in ("metrics", "fd", precision, "fp32", "dino"):
        assert word in problem


def test_a_ruler_is_not_touched_by_the_precision_of_what_it_measures(
    tmp_path: Path, inner: set[torch.dtype]
) -> None:
    found = planned("train.precision=bf16", "samples.precision=bf16")
    assert set(stages(planned(), "encode").values()) == set(stages(found, "encode").values())
    stage, job = Encode(tiny.TinyDataset(), Classifier(steps=2, batch=8), seed=0), Job(tmp_path)
    with stock_state(0, CPU, 1):
        stage.run(job, lambda _: tmp_path)
    assert inner == {torch.float32}
