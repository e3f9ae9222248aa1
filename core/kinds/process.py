"""A forward process with its prediction target, as four coefficients (EDM, arXiv 2206.00364)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from fw.registry import Component


class Coefficients(NamedTuple):
    """How a process wraps a raw network F into a denoiser, per sample (B,):

    D(x; sigma) = skip * x + out * F(scale * x, noise)      (EDM, arXiv 2206.00364, eq. 7)
    """

    skip: Tensor
    out: Tensor
    scale: Tensor
    noise: Tensor


class Process(Component):
    """A forward process with its prediction target: DDPM, EDM, flow matching, ... are choices of
    four coefficients."""

    kind: ClassVar[str] = "process"

    @property
    @abstractmethod
    def sigma_range(self) -> tuple[float, float]:
        """The smallest and the largest noise level that training covers."""

    @property
    def data_std(self) -> float | None:
        """The standard deviation that it takes the data to have; None where that does not
        matter. Samplers are judged by what they make of such data."""
        return None

    @abstractmethod
    def coefficients(self, sigma: Tensor) -> Coefficients:
        """The preconditioning at noise levels sigma (B,)."""

    @property
    def in_torch(self) -> str | None:
        """The four coefficients as lines of torch code, for whoever uses a network without fw: of
        `sigma` (B,) they make `skip`, `out`, `scale` and `noise` (B,). None if nobody wrote it."""
        return None

    @property
    def scheduler(self) -> Mapping[str, Any] | None:
        """The settings of diffusers' scheduler for such networks, with its `_class_name`; None if
        there is none."""
        return None

    @abstractmethod
    def sigmas(self, uniform: Tensor) -> Tensor:
        """Training noise levels (B,) from uniform random numbers (B,) in [0, 1): an inverse CDF."""

    def weight(self, sigma: Tensor) -> Tensor:
        """The weight (B,) of the squared error of F in the loss. With weight 1 it is each
        process's simple loss."""
        return torch.ones_like(sigma)

    @property
    def weighted(self) -> bool:
        """Whether a loss has to be multiplied with `weight`: it is 1 where no class says
        otherwise."""
        return type(self).weight is not Process.weight
