"""Gradients of a team are added up while the backward pass goes on (Li et al., PyTorch Distributed,
arXiv 2006.15704, section 3.2): in buckets, from the last weights to the first, each as soon as it
is complete."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fw.core.machine.team import Team

BUCKET = 25 * 2**20
"""Bytes that are sent at once."""


@dataclass(eq=False)
class Bucket:
    """Weights whose gradients are sent together."""

    parameters: Sequence[nn.Parameter]
    lacking: int = 0
    """How many of them have no gradient yet."""
    sent: Tensor | None = None
    work: Any = None


@dataclass(eq=False)
class Addition:
    """Adds up the gradients of these parameters over a team; with a team of one it does nothing.

    `begin` it before the last backward pass of a step, and `finish` it after.
    """

    parameters: Sequence[nn.Parameter]
    team: Team
    buckets: list[Bucket] = field(default_factory=list)
    _next: int = 0
    """The first bucket that is not under way. All members send them in this order."""
    _going: bool = False

    def __post_init__(self) -> None:
        if self.team.size > 1:
            learned = [each for each in self.parameters if each.requires_grad]
            self.buckets = [Bucket(few) for few in filled(reversed(learned))]
            for bucket in self.buckets:
                for parameter in bucket.parameters:
                    parameter.register_post_accumulate_grad_hook(self._arrived(bucket))

    def begin(self) -> None:
        self._going, self._next = True, 0
        for bucket in self.buckets:
            bucket.lacking = len(bucket.parameters)

    @torch.no_grad()
    def finish(self) -> None:
        """Every gradient <- its sum over the members. A weight that no member has a gradient of
        keeps none."""
        if not self.buckets:
            return
        if not self._going:
            self.begin()
        self._going = False
        for bucket in self.buckets[self._next :]:
            self._send(bucket)
        used = iter(self.team.most([float(each.grad is not None) for each in self._all]))
        for bucket in self.buckets:
            assert bucket.sent is not None
            bucket.work.wait()
            sums = bucket.sent.split([each.numel() for each in bucket.parameters])
            for parameter, value in zip(bucket.parameters, sums, strict=True):
                if not next(used):
                    continue
                if parameter.grad is None:
                    parameter.grad = torch.empty_like(parameter)
                parameter.grad.copy_(value.view_as(parameter))
            bucket.sent = bucket.work = None

    @property
    def _all(self) -> Iterator[nn.Parameter]:
        for bucket in self.buckets:
            yield from bucket.parameters

    def _arrived(self, bucket: Bucket) -> Any:
        def hook(parameter: nn.Parameter) -> None:
            if self._going:
                bucket.lacking -= 1
                while self._next < len(self.buckets) and not self.buckets[self._next].lacking:
                    self._send(self.buckets[self._next])
                    self._next += 1

        return hook

    @torch.no_grad()
    def _send(self, bucket: Bucket) -> None:
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket.parameters]
        bucket.sent = torch.cat([each.flatten() for each in gradients])
        bucket.work = dist.all_reduce(bucket.sent, async_op=True)


def filled(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """The parameters in order, some `BUCKET` bytes at a time, one type in each."""
    few: list[nn.Parameter] = []
    size = 0
    for parameter in parameters:
        if few and (size >= BUCKET or parameter.dtype != few[0].dtype):
            yield few
            few, size = [], 0
        few.append(parameter)
        size += parameter.numel() * parameter.element_size()
    if few:
        yield few
