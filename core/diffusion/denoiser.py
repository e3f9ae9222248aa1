"""The mathematics of fw: the denoiser and its training loss, in EDM's convention (arXiv
2206.00364).

Noisy images are x = x0 + sigma * n with n ~ N(0, 1); a denoiser D(x; sigma, c) estimates E[x0 | x,
c].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fw.core import kinds
from fw.core.diffusion.pixels import per_image
from fw.core.diffusion.sharing import Shared, order
from fw.core.diffusion.taps import tapped
from fw.core.kinds import Attend, Guidance, Process, Steering
from fw.core.kinds.boundaries import check_prediction
from fw.core.machine.precision import lengthened


class NetworkDenoiser:
    """A network and its process as D(x; sigma, c); counts how often it is evaluated."""

    def __init__(self, network: nn.Module, process: Process, bf16: bool = False):
        self.network = network
        self.process = process
        self.bf16 = bf16
        self.sigma_min, self.sigma_max = process.sigma_range
        self.evaluations = 0
        self.sharing = False
        """Whether what comes before the first changed layer is computed once for both branches of
        attention guidance."""
        self._shared: Shared | None = None

    def __call__(
        self, x: Tensor, sigma: float, condition: Tensor | None = None, attend: Attend | None = None
    ) -> Tensor:
        """Denoise a batch x (B, C, H, W) that has one noise level."""
        self.evaluations += 1
        sigmas = x.new_full((len(x),), sigma)
        if not self.sharing:
            return self.denoised(x, sigmas, condition, attend)
        with self._beginnings(x).during(x, sigma, condition, attend):
            return self.denoised(x, sigmas, condition, attend)

    def denoised(
        self, x: Tensor, sigma: Tensor, condition: Tensor | None, attend: Attend | None
    ) -> Tensor:
        """D(x; sigma, c) at levels sigma (B,): tensors alone, so that it is compiled once for all
        noise levels. It counts and shares nothing."""
        skip, out, scale, noise = self.process.coefficients(sigma)
        raw = self._network(per_image(scale) * x, noise, condition, None, attend)
        return per_image(skip) * x + per_image(out) * raw

    def layers(self, x: Tensor) -> tuple[str, ...]:
        """The attention layers in the order of their calls. One pass of one image shows them; it
        is not counted."""
        return tuple(self._beginnings(x).order.before)

    def share(self, guidance: Sequence[Steering], shape: tuple[int, int, int]) -> None:
        """Compute once what these modes have in common with the usual prediction of images of this
        shape (C, H, W)."""
        modes = [
            mode
            for mode in guidance
            if isinstance(mode, Guidance) and "attention" in mode.requires and not mode.idle()
        ]
        self.sharing = bool(modes)
        if modes:
            x = next(self.network.parameters()).new_zeros(1, *shape)
            shared = self._beginnings(x)
            for mode in modes:
                shared.expect(mode.changes(self.layers(x)))

    def _beginnings(self, x: Tensor) -> Shared:
        if self._shared is None:

            def usual(attend: Attend) -> Tensor:
                _, _, scale, noise = self.process.coefficients(x.new_full((1,), self.sigma_max))
                return self._network(per_image(scale) * x[:1], noise, None, None, attend)

            self._shared = Shared(self.network, order(self.network, usual))
        return self._shared

    def logits(self, x: Tensor, sigma: float) -> Tensor:
        """A joint model's class logits (B, K) of a batch x (B, C, H, W) that has one noise
        level."""
        self.evaluations += 1
        sigmas = x.new_full((len(x),), sigma)
        _, _, scale, noise = self.process.coefficients(sigmas)
        with self._autocast(x):
            return lengthened(self.network.logits(per_image(scale) * x, noise))  # type: ignore[operator]

    def steered(self, x: Tensor, sigma: float, move: kinds.Move) -> Tensor:
        """D(x; sigma) of a joint model, from the hidden features that `move` makes of its own."""
        self.evaluations += 1
        skip, out, scale, noise = self.process.coefficients(x.new_full((len(x),), sigma))
        with self._autocast(x):
            raw = self.network.steered(per_image(scale) * x, noise, move)  # type: ignore[operator]
        check_prediction(self.network, raw, x)
        return per_image(skip) * x + per_image(out) * (raw.float() if self.bf16 else raw)

    def features(
        self, x: Tensor, sigma: Tensor, blocks: Sequence[str], condition: Tensor | None = None
    ) -> dict[str, Tensor]:
        """What these blocks return for noisy images x (B, C, H, W) at levels sigma (B,), from
        one pass."""
        self.evaluations += 1
        _, _, scale, noise = self.process.coefficients(sigma)
        with tapped(self.network, blocks) as activations:
            self._network(per_image(scale) * x, noise, condition, None, None)
        return {block: lengthened(activations[block]) for block in blocks}

    def loss(
        self,
        x0: Tensor,
        sigma: Tensor,
        noise: Tensor,
        condition: Tensor | None,
        dropped: Tensor | None,
        augmentation: Tensor | None = None,
    ) -> Tensor:
        """The weighted squared error of F, (B,), whose target is (x0 - skip * x) / out (EDM eq.
        8).

        `augmentation` (B, 9) says how the images x0 were transformed, to a network that takes it.
        """
        x, level, target = self._task(x0, sigma, noise)
        raw = self._network(x, level, condition, dropped, None, augmentation=augmentation)
        return self._error(raw, target, sigma)

    def joint_loss(
        self, x0: Tensor, sigma: Tensor, noise: Tensor, classes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A joint model's two losses on the same noisy images, (B,) each, and whether it recognised
        them, bool (B,).

        The losses are that of F, and the cross entropy of the logits with `classes` (B,). Class -1
        means no class; the cross entropy is then 0.
        """
        x, level, target = self._task(x0, sigma, noise)
        with self._autocast(x):
            raw, logits = self.network.both(x, level)  # type: ignore[operator]
        check_prediction(self.network, raw, x)
        raw, logits = lengthened(raw), lengthened(logits)
        recognised = logits.argmax(dim=1) == classes
        error = cross_entropy(logits, classes, reduction="none", ignore_index=-1)
        return self._error(raw, target, sigma), error, recognised

    def _task(self, x0: Tensor, sigma: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The inputs of F, x (B, C, H, W) and noise levels (B,), and its target (B, C, H, W)."""
        x = x0 + per_image(sigma) * noise
        skip, out, scale, level = self.process.coefficients(sigma)
        return per_image(scale) * x, level, (x0 - per_image(skip) * x) / per_image(out)

    def _error(self, raw: Tensor, target: Tensor, sigma: Tensor) -> Tensor:
        error = (raw - target).square().mean(dim=(1, 2, 3))
        return self.process.weight(sigma) * error if self.process.weighted else error

    def _network(
        self,
        x: Tensor,
        noise: Tensor,
        *rest: Tensor | Attend | None,
        augmentation: Tensor | None = None,
    ) -> Tensor:
        named = {} if augmentation is None else {"augmentation": augmentation}
        with self._autocast(x):
            raw = self.network(x, noise, *rest, **named)
        check_prediction(self.network, raw, x)
        return raw.float() if self.bf16 else raw

    def _autocast(self, x: Tensor) -> torch.autocast:
        return torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=self.bf16)
