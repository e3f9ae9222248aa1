"""joint_unet keeps fw's contract, and one training teaches it both to denoise and to recognise."""

from pathlib import Path

import pytest
import torch
from fw_joint import JointUNet
from pydantic import ValidationError
from torch import Tensor, nn

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.pixels import to_unit
from fw.core.job import Job
from fw.core.learning.train import train
from fw.core.settings import Train
from fw.core.testing import check
from fw.core.types import Annotation, ConditionSpec
from fw.plugins.datasets.digits import Digits
from fw.plugins.processes.ddpm import DDPM
from fw.plugins.processes.edm import EDM

TEN = ConditionSpec("class", 10)


def built(
    condition: ConditionSpec | None = TEN, shape: tuple[int, int, int] = (1, 8, 8)
) -> nn.Module:
    torch.manual_seed(0)
    return JointUNet().build(shape, condition)


def after_training(annotation: Annotation | None, folder: Path, steps: int) -> NetworkDenoiser:
    """joint_unet after a short training on digits; without an annotation it has no second task."""
    settings = Train(steps=steps, warmup=20)
    images = Digits().load("train").without_labels()
    return NetworkDenoiser(
        train(JointUNet(), DDPM(), images, annotation, settings, Job(folder)).eval(), DDPM()
    )


def true_labels() -> Annotation:
    labels = Digits().load("train").labels
    assert labels is not None
    return Annotation(TEN, labels)


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> NetworkDenoiser:
    return after_training(true_labels(), tmp_path_factory.mktemp("joint"), 200)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> NetworkDenoiser:
    return after_training(None, tmp_path_factory.mktemp("alone"), 200)


def noisy_digits(sigma: float) -> tuple[Tensor, Tensor, Tensor]:
    """Held-out digits, the same in noise, and what they are."""
    data = Digits().load("test")
    assert data.labels is not None
    x0 = to_unit(data.images)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    return x0, x0 + sigma * noise, data.labels


def accuracy(model: NetworkDenoiser, sigma: float) -> float:
    _, x, labels = noisy_digits(sigma)
    with torch.inference_mode():
        return float((model.logits(x, sigma).argmax(dim=1) == labels).float().mean())


@pytest.mark.parametrize("channels", [(16, 32), (16,), (16, 24, 32)])
def test_it_keeps_the_contract(channels: tuple[int, ...]) -> None:
    check(JointUNet(channels=channels))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16), (3, 32, 24)])
def test_both_answers_come_from_one_pass_and_are_those_of_the_single_ones(
    shape: tuple[int, int, int],
) -> None:
    network = built(shape=shape)
    x, noise = torch.randn(2, *shape), torch.tensor([3.0, 700.0])
    denoised, logits = network.both(x, noise)  # type: ignore[operator]
    assert denoised.shape == x.shape
    assert logits.shape == (2, 10)
    assert torch.equal(denoised, network(x, noise))
    assert torch.equal(logits, network.logits(x, noise))  # type: ignore[operator]


def test_the_generator_starts_from_the_same_weights_with_and_without_the_second_head() -> None:
    alone, joint = built(None).state_dict(), built().state_dict()
    assert alone.keys() < joint.keys()
    assert all(torch.equal(tensor, joint[name]) for name, tensor in alone.items())


def test_without_conditions_there_is_nothing_to_recognise() -> None:
    with pytest.raises(ValueError, match="no classes to recognise"):
        built(None).logits(torch.zeros(1, 1, 8, 8), torch.zeros(1))  # type: ignore[operator]


def test_both_tasks_teach_the_shared_trunk() -> None:
    network = built()
    denoised, logits = network.both(torch.randn(4, 1, 8, 8), torch.full((4,), 100.0))  # type: ignore[operator]
    for loss in (denoised.square().mean(), nn.functional.cross_entropy(logits, torch.arange(4))):
        network.zero_grad()
        loss.backward(retain_graph=True)
        assert network.stem.weight.grad.abs().sum() > 0  # type: ignore[union-attr, operator]


@pytest.mark.parametrize("process", [DDPM(), EDM()], ids=lambda process: process.name)
def test_the_logits_stay_finite_and_moderate_at_every_noise_level(process: DDPM | EDM) -> None:
    """The published head takes the raw timestep through a batch norm, and saturates at levels it
    was not trained on."""
    model = NetworkDenoiser(built().eval(), process)
    least, most = process.sigma_range
    for step in range(12):
        sigma = least * (most / least) ** (step / 11)
        x = (1 + sigma) * torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            assert model.logits(x, sigma).abs().max() < 20


def test_after_a_short_training_it_recognises_held_out_digits(joint: NetworkDenoiser) -> None:
    clear, noisy, hidden = (accuracy(joint, sigma) for sigma in (0.1, 1.0, 50.0))
    assert clear > 0.6
    assert clear > noisy > hidden


@pytest.mark.parametrize("sigma", [0.3, 1.0, 3.0])
def test_it_denoises_about_as_well_as_the_generator_alone(
    joint: NetworkDenoiser, alone: NetworkDenoiser, sigma: float
) -> None:
    x0, x, _ = noisy_digits(sigma)
    with torch.inference_mode():
        errors = [float((model(x, sigma) - x0).square().mean()) for model in (joint, alone)]
    assert errors[0] < 1.03 * errors[1]
    assert errors[1] < 0.95 * float((x0 - x0.mean(dim=0)).square().mean())


@pytest.mark.parametrize("channels", [(12,), (8, 16), (0,), ()])
def test_widths_that_the_group_norms_cannot_take_are_refused(channels: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError):
        JointUNet(channels=channels)


def test_an_image_that_cannot_be_halved_so_often_is_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 4"):
        JointUNet(channels=(16, 16, 16)).check((1, 8, 10))


def test_it_trains_to_the_same_bits_again(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    first, second = (
        after_training(true_labels(), folder, 3).network.state_dict() for folder in folders
    )
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
