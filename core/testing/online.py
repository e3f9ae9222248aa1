"""The contract of an online annotator: a module that groups features and goes on with the same
bits after a crash."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from fw.core.errors import FwError
from fw.core.kinds import Online
from fw.core.kinds.boundaries import describe, is_tensor
from fw.core.testing import tiny, usual
from fw.core.testing.compare import copied, largest_difference, same
from fw.core.testing.contract import Clause
from fw.core.testing.forall import forall
from fw.core.testing.global_state import ambient, repeated
from fw.core.testing.usual import Batch
from fw.core.types import Observations

WIDTH = 6
BATCH = 512
"""Images in a batch: it may refuse to make more prototypes than it has images."""
LATE = 100_000
"""A step after whatever warm-up there is."""


def says_what_it_is(online: Online) -> None:
    """It makes vectors, of the denoiser's blocks and a null condition, and sees neither labels
    nor features"""
    assert online.form == online.condition.form == "vector", (
        f"its form is {online.form}, of {online.condition}"
    )
    assert online.condition.size >= 1, f"its conditions have size {online.condition.size}"
    assert not online.uses_labels, "it declares uses_labels"
    assert not online.uses_features, "it declares uses_features"
    assert online.requires >= {"taps", "null"}, (
        f"it requires {', '.join(sorted(online.requires)) or 'nothing'}"
    )


def not_before(online: Online) -> None:
    """annotate() is refused with an FwError: there are no conditions before a denoiser learns"""
    try:
        with tiny.job() as job:
            online.annotate(Observations(30, tiny.features(30)), job)
    except FwError:
        return
    raise AssertionError("it annotates")


def valid(online: Online) -> None:
    """Prototypes are float32 (K, D) of length 1 and the promised size, and assign() names one of
    them per image"""

    def body(width: int, count: int) -> None:
        for device in tiny.devices():
            grouping = built(online, width).to(device)
            prototypes: Any = grouping.prototypes
            size = online.condition.size
            expected = f"not torch.float32 (K, {size})"
            assert is_tensor(prototypes, torch.float32, (None, size)), (
                f"they are {describe(prototypes)}, {expected}"
            )
            assert len(prototypes), "there are none"
            off = float((prototypes.norm(dim=1) - 1).abs().max())
            assert off < 1e-4, f"their lengths are off by {off:.2g}"
            groups = assigned(grouping, tiny.features(count, width).to(device))
            assert is_tensor(groups, torch.int64, (count,)), (
                f"assign() gives {describe(groups)}, not int64 ({count},)"
            )
            assert 0 <= int(groups.min()) <= int(groups.max()) < len(prototypes), (
                "it names prototypes that are not there"
            )

    body(WIDTH, 30)
    forall(body, width=st.integers(1, 40), count=st.integers(1, 50), examples=6)


def function_of_the_seed(online: Online) -> None:
    """build() depends on nothing but torch's global generator"""
    first, second = (dict(built(online).state_dict()) for _ in range(2))
    assert same(first, second), "two modules from the same seed differ"


@usual.same_in_any_batch
def each_image_its_own(online: Online) -> Iterator[Batch]:
    """assign() depends on the image alone, changes nothing and draws nothing"""
    grouping = learnt(online)
    features = tiny.features(12)
    before = copied(dict(grouping.state_dict()))
    repeated(lambda: assigned(grouping, features))
    yield Batch(12, lambda rows: assigned(grouping, features[rows]), 0, largest_difference)
    assert same(before, dict(grouping.state_dict())), "it changes the module"


def loss_teaches(online: Online) -> None:
    """loss() is a finite number, and every weight gets a finite gradient from it, once it has
    begun"""
    grouping = built(online).train()
    with ambient(0):
        loss = grouping.loss(tiny.features(BATCH), LATE)  # type: ignore[operator]
    assert isinstance(loss, Tensor), f"it is a {type(loss).__name__}"
    assert loss.shape == (), f"it is {describe(loss)}, not one number"
    assert loss.isfinite(), f"it is {float(loss.detach())}"
    loss.backward()
    for name, weight in grouping.named_parameters():
        assert weight.grad is not None, f"{name} gets none"
        assert weight.grad.isfinite().all(), f"that of {name} is not finite"


def does_not_collapse(online: Online) -> None:
    """After it has learnt from three kinds of images, they do not all have the same prototype"""
    groups = assigned(learnt(online), tiny.features(60))
    assert len(groups.unique()) > 1, "all 60 images do"


def goes_on(online: Online) -> None:
    """Stored and restored with its optimizer it goes on with the same bits"""
    grouping, optimizer = learner(online)
    learn(grouping, optimizer, range(3))
    stored = io.BytesIO()
    torch.save([grouping.state_dict(), optimizer.state_dict()], stored)
    stored.seek(0)
    again, other = learner(online)
    weights, moments = torch.load(stored, weights_only=True)
    again.load_state_dict(weights)
    other.load_state_dict(moments)
    for each in ((grouping, optimizer), (again, other)):
        learn(*each, range(3, 6))
    assert same(dict(grouping.state_dict()), dict(again.state_dict())), (
        "it learns something else afterwards"
    )


PREREQUISITE = valid

CLAUSES: tuple[Clause, ...] = (
    says_what_it_is,
    not_before,
    valid,
    function_of_the_seed,
    each_image_its_own,
    loss_teaches,
    does_not_collapse,
    goes_on,
)


def built(online: Online, width: int = WIDTH) -> nn.Module:
    with ambient(0):
        return online.build(width)


def learner(online: Online) -> tuple[nn.Module, torch.optim.Optimizer]:
    grouping = built(online)
    return grouping, torch.optim.AdamW(grouping.parameters(), lr=online.lr)


def learnt(online: Online, steps: int = 60) -> nn.Module:
    grouping, optimizer = learner(online)
    learn(grouping, optimizer, range(LATE, LATE + steps))
    return grouping


def learn(grouping: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    """As training does it: a batch and a step number, torch's global generator seeded by it."""
    grouping.train()
    for step in steps:
        with ambient(step):
            loss = grouping.loss(tiny.features(BATCH).roll(step % 3, 0), step)  # type: ignore[operator]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


@torch.no_grad()
def assigned(grouping: nn.Module, features: Tensor) -> Tensor:
    return grouping.eval().assign(features)  # type: ignore[operator]
