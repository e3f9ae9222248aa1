"""An arm's trained network as D(x; sigma, c), for torch code."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.given import Condition, given
from fw.core.errors import FwError
from fw.core.types import Annotation, ConditionSpec


class Denoiser(nn.Module):
    """D(x; sigma, c), an estimate of E[x0 | x, c] for x = x0 + sigma * n with n ~ N(0, 1) (EDM,
    arXiv 2206.00364), without guidance.

    x0 are images in -1..1, or their latents where the recipe has some. The weights are those that
    images are drawn of, frozen; gradients reach x. `.to("cuda")` moves it, as any module.
    """

    def __init__(
        self,
        denoiser: NetworkDenoiser,
        shape: tuple[int, int, int],
        annotation: Annotation | None,
        class_names: Sequence[str],
        knows_null: bool,
    ):
        super().__init__()
        self.network = denoiser.network.requires_grad_(False)
        self.process = denoiser.process
        """Its `coefficients` make D of the network."""
        self.shape = shape
        """(C, H, W) of x."""
        self.sigma_min, self.sigma_max = denoiser.sigma_min, denoiser.sigma_max
        """The noise levels that it was trained at."""
        self.annotation = annotation
        self.class_names = class_names
        self.knows_null = knows_null
        self._denoiser = denoiser

    @property
    def conditions(self) -> ConditionSpec | None:
        """The form and number of its conditions; None without any."""
        return None if self.annotation is None else self.annotation.spec

    def forward(
        self, x: Tensor, sigma: float | Tensor, condition: Condition | None = None
    ) -> Tensor:
        """x (B, C, H, W) with noise of level `sigma`, one number or (B,) -> D (B, C, H, W).

        `condition` is as in `LoadedArm.sample`: one for all images, or B of them; None is the null
        condition. FwError if there are none of the kind.
        """
        dtype = next(self.network.parameters()).dtype
        if tuple(x.shape[1:]) != self.shape:
            raise FwError(f"x: it has shape {tuple(x.shape)}, and D takes (B, *{self.shape})")
        if x.dtype != dtype:
            raise FwError(f"x: it is {in_short(x.dtype)}, and D takes {in_short(dtype)}")
        levels = self._levels(sigma, x)
        return self._denoiser.denoised(x, levels, self._told(condition, len(x), x.device), None)

    def _levels(self, sigma: float | Tensor, x: Tensor) -> Tensor:
        """(B,); what lies on a GPU is not waited for to be looked at."""
        levels = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
        if tuple(levels.shape) not in ((), (1,), (len(x),)):
            raise FwError(
                f"sigma: it has shape {tuple(levels.shape)}, and D takes one number or ({len(x)},)"
            )
        if levels.device.type == "cpu" and not bool(((levels > 0) & levels.isfinite()).all()):
            raise FwError(f"sigma {sigma}: noise levels are finite and above 0")
        return levels.expand(len(x))

    def _told(self, condition: Condition | None, count: int, device: torch.device) -> Tensor | None:
        if condition is None:
            if not self.knows_null:
                raise FwError(
                    "condition None: this network never saw the null condition "
                    "(train.cond_drop is 0); name one"
                )
            return None
        bank = given(self.annotation, condition, self.class_names).bank
        assert bank is not None
        if len(bank) not in (1, count):
            raise FwError(f"condition: there are {len(bank)} for {count} images")
        return bank.expand(count, *bank.shape[1:]).to(device)


def in_short(dtype: torch.dtype) -> str:
    """`float32`"""
    return str(dtype).removeprefix("torch.")
