"""Images under affine maps, resampled at twice their resolution through the filters of a wavelet,
as StyleGAN2-ADA does it (arXiv 2006.06676, appendix B).

The paper's symlet is not symmetric: mirroring would move details by fractions of a pixel. The
biorthogonal 9/7 wavelet (Cohen, Daubechies and Feauveau, 1992) is. So an image that is mirrored,
turned by quarters or shifted by whole pixels keeps its exact values, as does one that stays.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d, grid_sample, pad

from fw.core.machine.transfer import constant, sent

# fmt: off
DOUBLING = (
    -0.0645388826286971, -0.0406894176091641, 0.4180922732216172, 0.7884856164055829,
    0.4180922732216172, -0.0406894176091641, -0.0645388826286971,
)
"""The low-pass filter of the synthesis. PyWavelets calls the wavelet bior4.4; its digits."""
HALVING = (
    0.0378284555072640, -0.0238494650195568, -0.1106244044184371, 0.3774028556128307,
    0.8526986790088939,
    0.3774028556128307, -0.1106244044184371, -0.0238494650195568, 0.0378284555072640,
)
"""The low-pass filter of the analysis: it undoes the doubling."""
# fmt: on


def warped(images: Tensor, linear: Tensor, shift: Tensor) -> Tensor:
    """Images (B, C, H, W), each moved by p -> linear p + shift.

    `linear` (B, 2, 2) and `shift` (B, 2), on the CPU, act on (x, y) in pixels from the image's
    middle, x to the right and y down. Beyond its borders an image is mirrored once, and zero from
    there on.
    """
    height, width = images.shape[2:]
    most = (width - 1, width - 1, height - 1, height - 1)  # a mirror image has no more
    fine = doubled(pad(images, most, mode="reflect"))
    inverse = sent(torch.linalg.inv(linear), images.device)
    start = sent(shift[:, None, None], images.device)
    x, y = (positions(side, images.device) for side in (width, height))
    to = torch.stack(torch.broadcast_tensors(x, y[:, None]), dim=-1)  # (2H + 7, 2W + 7, 2)
    x, y = torch.einsum("bij,bhwj->ibhw", inverse, to - start)
    rows, columns = fine.shape[2:]
    places = torch.stack([4 * x / (columns - 1), 4 * y / (rows - 1)], dim=-1)  # -1..1
    return halved(grid_sample(fine, places, align_corners=True))


def positions(side: int, device: torch.device) -> Tensor:
    """Where `halved` looks for `side` pixels, in pixels from the middle: (2 * side + 7,)"""
    return torch.arange(-side - 3, side + 4, device=device) / 2


def doubled(images: Tensor) -> Tensor:
    """(B, C, H, W) to (B, C, 2H + 5, 2W + 5), where pixel k becomes sample 2k + 3."""
    across, down = filters(DOUBLING, 2**0.5, images)
    singles = images.flatten(0, 1)[:, None]  # (B * C, 1, H, W)
    wider = conv_transpose2d(singles, across, stride=(1, 2))
    return conv_transpose2d(wider, down, stride=(2, 1))[:, 0].unflatten(0, images.shape[:2])


def halved(images: Tensor) -> Tensor:
    """(B, C, 2H + 7, 2W + 7) to (B, C, H, W), where sample 2k + 4 becomes pixel k."""
    across, down = filters(HALVING, 0.5**0.5, images)
    singles = images.flatten(0, 1)[:, None]
    narrower = conv2d(singles, across, stride=(1, 2))
    return conv2d(narrower, down, stride=(2, 1))[:, 0].unflatten(0, images.shape[:2])


def filters(taps: tuple[float, ...], gain: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """The filter along rows (1, 1, 1, n) and along columns (1, 1, n, 1)."""
    row = gain * constant(taps, like.device)
    return row[None, None, None], row[None, None, :, None]
