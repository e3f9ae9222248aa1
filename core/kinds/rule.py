"""Rules change how the differences of guidance modes are put together."""

from __future__ import annotations

from torch import Tensor

from fw.core.kinds.guidance import Steering


class Rule(Steering):
    """Changes how the modes of the list are put together, wherever one of them is active:

    D_w = result(good, good + sum_i (scale_i - 1) * direction(good, good - worse_i))

    Several rules follow each other in the order of the list.
    """

    def direction(self, good: Tensor, difference: Tensor, memory: dict[str, Tensor]) -> Tensor:
        """Takes and returns a difference (B, C, H, W) between predictions of x0. Each rule has a
        `memory` for each mode in each batch; it is empty at the first noise level."""
        return difference

    def result(self, good: Tensor, guided: Tensor) -> Tensor:
        """Takes the unguided and the guided prediction of x0 (B, C, H, W), and returns the
        guided one."""
        return guided
