"""own_classifier is classifier guidance with the right sign and scale, checked where the truth has
a closed form.

Classes are Gaussians N(+-MEAN, STD^2), so p(c | x; sigma) and E[x0 | x, c] are known: the guided
prediction at scale 2 must be the conditional one.
"""

import pytest
import torch
from fw_joint import OwnClassifier
from torch import Tensor, nn

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.guided import Guided
from fw.core.randomness import Draws
from fw.core.testing import check
from fw.plugins.processes.ddpm import DDPM
from fw.plugins.processes.edm import EDM
from fw.plugins.samplers.ddim import DDIM

MEAN, STD = 0.6, 0.2
SIGMAS = (0.05, 0.3, 1.0, 4.0, 20.0)


class Mixture(nn.Module):
    """Knows all about two classes of images whose pixels are all around -MEAN or all around
    MEAN; counts questions."""

    sigma_min, sigma_max = 0.002, 80.0

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def __call__(
        self, x: Tensor, sigma: float, condition: Tensor | None = None, attend: object = None
    ) -> Tensor:
        known = (
            self.posterior(x, sigma)
            if condition is None
            else nn.functional.one_hot(condition, 2).to(x)
        )
        centre = MEAN * (known[:, 1] - known[:, 0])[:, None, None, None]
        return (STD**2 * x + sigma**2 * centre) / (STD**2 + sigma**2)

    def logits(self, x: Tensor, sigma: float) -> Tensor:
        self.asked += 1
        return self.scores(x, sigma)

    def scores(self, x: Tensor, sigma: float) -> Tensor:
        gaps = [(x - side * MEAN).square().sum(dim=(1, 2, 3)) for side in (-1, 1)]
        return -torch.stack(gaps, dim=1) / (2 * (STD**2 + sigma**2))

    def posterior(self, x: Tensor, sigma: float) -> Tensor:
        return self.scores(x, sigma).softmax(dim=1)


class Network(nn.Module):
    """The same mixture as a network inside a process: it is given scale * x, as a trained one
    is."""

    def __init__(self, sigma: float, scale: float):
        super().__init__()
        self.sigma, self.scale = sigma, scale
        self.weight = nn.Parameter(torch.ones(()))

    def logits(self, x: Tensor, noise: Tensor) -> Tensor:
        return self.weight * Mixture().scores(x / self.scale, self.sigma)


def noisy(sigma: float, count: int = 6) -> tuple[Tensor, Tensor]:
    """Noisy images (B, 1, 2, 2) in float64, and a class for each, right or wrong."""
    draw = torch.Generator().manual_seed(0)
    classes = torch.arange(count) % 2
    clean = MEAN * (2.0 * (torch.arange(count) % 3 > 0) - 1)[:, None, None, None]
    return clean.double() + sigma * torch.randn(
        count, 1, 2, 2, generator=draw, dtype=torch.float64
    ), classes


def guided(model: Mixture, scale: float, x: Tensor, sigma: float, classes: Tensor) -> Tensor:
    return Guided(model, (OwnClassifier(scale=scale),), classes, model.sigma_min, model.sigma_max)(
        x, sigma
    )


class Unconditional(Mixture):
    """The generator of a joint model is never told the condition."""

    def __call__(
        self, x: Tensor, sigma: float, condition: Tensor | None = None, attend: object = None
    ) -> Tensor:
        return super().__call__(x, sigma, None)


def test_it_keeps_the_contract() -> None:
    check(OwnClassifier(scale=2.0))


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("inference", [True, False])
def test_at_scale_2_the_prediction_is_the_conditional_one(sigma: float, inference: bool) -> None:
    x, classes = noisy(sigma)
    model = Unconditional()
    with torch.inference_mode(inference):
        found = guided(model, 2.0, x, sigma, classes.clone())
    torch.testing.assert_close(found, Mixture()(x, sigma, classes), rtol=1e-9, atol=1e-9)
    assert model.asked == 1


@pytest.mark.parametrize("sigma", SIGMAS)
def test_a_step_away_from_what_is_worse_makes_the_class_likelier(sigma: float) -> None:
    x, classes = noisy(sigma)
    model = Unconditional()
    good = model(x, sigma)
    step = good - OwnClassifier().worse(model, x, sigma, classes, good)
    before, after, back = (
        model.scores(at, sigma).log_softmax(dim=1).gather(1, classes[:, None])
        for at in (x, x + step / 100, x - step / 100)
    )
    unsure = before < -1e-3  # elsewhere float64 has no room above
    assert unsure.any()
    assert (after > before)[unsure].all()
    assert (back < before)[unsure].all()


@pytest.mark.parametrize("process", [DDPM(), EDM()], ids=lambda process: process.name)
def test_the_gradient_is_that_of_x_and_not_of_what_the_network_is_given(
    process: DDPM | EDM,
) -> None:
    sigma = 1.3
    x, classes = noisy(sigma)
    scale = float(process.coefficients(torch.tensor([sigma], dtype=torch.float64)).scale)
    model = NetworkDenoiser(Network(sigma, scale), process)
    good = Unconditional()(x, sigma)
    found = good - OwnClassifier().worse(model, x, sigma, classes, good)
    expected = Mixture()(x, sigma, classes) - good
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert all(parameter.grad is None for parameter in model.network.parameters())


def test_guided_samples_are_of_the_class_asked_for_and_the_opposite_sign_gives_the_other() -> None:
    noise = torch.randn(200, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    draws = Draws("samples", rows=range(200))
    asked = torch.arange(200) % 2
    shares = {}
    for scale in (0.0, 1.0, 2.0):
        denoise = Guided(Unconditional(), (OwnClassifier(scale=scale),), asked, 0.002, 80.0)
        with torch.inference_mode():
            samples = DDIM(steps=40, clip=None).sample(denoise, noise, draws)
        shares[scale] = float(((samples.mean(dim=(1, 2, 3)) > 0).long() == asked).float().mean())
    assert shares[2.0] > 0.98
    assert 0.4 < shares[1.0] < 0.6
    assert shares[0.0] < 0.3


def test_it_needs_a_joint_model_and_conditions() -> None:
    assert OwnClassifier().requires == {"logits", "conditions"}
