"""The contract of an objective: a finite term of the images that are taken, which teaches the
network and the head."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from fw.core.kinds import Objective, Seen
from fw.core.kinds.boundaries import checked_term
from fw.core.randomness import generator
from fw.core.testing import tiny, usual
from fw.core.testing.compare import copied, same
from fw.core.testing.contract import Clause
from fw.core.testing.forall import forall
from fw.core.testing.global_state import ambient
from fw.core.testing.usual import Use

WIDTH, FEATURES = 12, 5
COUNT = 8
"""Images of a batch; every other one is taken where not all are."""


def says_what_it_needs(objective: Objective) -> None:
    """It requires `taps`, and `labels` if the encoder that it names uses them; its depth is in
    0..1"""
    needed = {"taps"} | (objective.target.requires if objective.target is not None else set())
    missing = ", ".join(sorted(needed - objective.requires))
    assert not missing, f"it does not require {missing}"
    assert 0 <= objective.depth <= 1, f"its depth is {objective.depth:g}"


def one_finite_number(objective: Objective) -> None:
    """term() is one finite number, for any block and batch, also where no image is taken or all
    are alike"""

    def body(count: int, positions: int, width: int, level: float) -> None:
        for device in tiny.devices():
            usual = example(objective, count, positions, width, level, device)
            head = built(objective, width).to(device)
            alike = replace(usual, tokens=torch.ones_like(usual.tokens, requires_grad=True))
            none = replace(usual, taken=torch.zeros_like(usual.taken))
            for what, seen in {
                "": usual,
                " where all are alike": alike,
                " where none is taken": none,
            }.items():
                with tiny.as_in_a_run():
                    term = checked_term(objective, term_of(objective, head, seen))
                assert term.isfinite(), f"it is {float(term)}{what}"
                gradients = reached(term, [seen.tokens, *head.parameters()])
                assert all(each.isfinite().all() for each in gradients), (
                    f"a gradient is not finite{what}"
                )

    body(COUNT, 4, WIDTH, 0.5)
    forall(
        body,
        count=st.integers(2, 9),
        positions=st.sampled_from([1, 4, 16]),
        width=st.integers(2, 20),
        level=st.floats(0.02, 10.0),
        examples=8,
    )


def teaches_the_network(objective: Objective) -> None:
    """The activations of an image that is taken get a gradient, so that the network learns from
    it"""
    seen = example(objective)
    [gradient] = reached(term_of(objective, built(objective), seen), [seen.tokens])
    assert gradient.flatten(1).any(dim=1).any(), "they get none"


def teaches_the_head(objective: Objective) -> None:
    """Every weight of the head gets a gradient"""
    head, seen = built(objective), example(objective)
    term = term_of(objective, head, seen)
    names = [name for name, weight in head.named_parameters() if weight.requires_grad]
    weights = [dict(head.named_parameters())[name] for name in names]
    for name, gradient in zip(names, reached(term, weights), strict=True):
        assert gradient.any(), f"{name} gets none"


def only_what_is_taken(objective: Objective) -> None:
    """Images that are not taken change nothing and get no gradient; if none is taken, the term
    is 0"""
    head, usual = built(objective), example(objective)
    half = replace(usual, taken=torch.arange(COUNT) % 2 == 0)
    term = term_of(objective, head, half)
    [gradient] = reached(term, [half.tokens])
    left = gradient[~half.taken].abs().max()
    assert left <= 1e-6 * gradient.abs().max().clamp(min=1e-6), (
        f"one that is not taken gets a gradient of {left:.2g}"
    )
    none = term_of(objective, head, replace(usual, taken=torch.zeros_like(usual.taken)))
    assert none == 0, f"it is {float(none.detach()):.4g} where none is taken"
    louder = half.tokens.detach().clone()
    louder[~half.taken] *= 3
    other = term_of(objective, head, replace(half, tokens=louder.requires_grad_()))
    gap = (other - term).abs()
    assert gap <= 1e-4 * term.abs().clamp(min=1e-2), (
        f"other activations of those not taken change it by {gap:.2g}"
    )


def means_over_images(objective: Objective) -> None:
    """With `per_image`, its term is a mean over the images that are taken: what one adds depends
    on no other"""
    if not objective.per_image:
        return
    head, usual = built(objective), example(objective)
    [gradient] = reached(term_of(objective, head, usual), [usual.tokens])
    last = torch.arange(COUNT) == COUNT - 1

    def others(seen: Seen) -> Tensor:
        [changed] = reached(term_of(objective, head, seen), [seen.tokens])
        return changed[~last]

    most = gradient.abs().max().clamp(min=1e-6)
    fewer = others(replace(usual, taken=~last)) * (COUNT - 1) / COUNT
    gap = (fewer - gradient[~last]).abs().max() / most
    assert gap <= 1e-3, f"one image fewer changes what the others add to the sum by {gap:.2g}"
    values = {"tokens": usual.tokens.detach(), "x0": usual.x0, "features": usual.features}
    changes: dict[str, Any] = {
        name: torch.cat([value[:-1], -2 * value[-1:]])
        for name, value in values.items()
        if value is not None
    }
    changes["tokens"].requires_grad_()
    gap = (others(replace(usual, **changes)) - gradient[~last]).abs().max() / most
    assert gap <= 1e-3, f"another image in a batch changes what the others add by {gap:.2g}"


@usual.repeatable
def function_of_what_it_sees(objective: Objective) -> Iterator[Callable[[], Tensor]]:
    """term() gives the same for the same head, images and generator; no other randomness comes
    in"""
    head = built(objective)
    stored = copied(head.state_dict())

    def call() -> Tensor:
        head.load_state_dict(stored)
        return term_of(objective, head, example(objective)).detach()

    yield call


@usual.inputs_untouched
def nothing_is_written_into(objective: Objective) -> Iterator[Use]:
    """term() does not write into what it sees"""
    seen = example(objective)
    values = {field.name: getattr(seen, field.name) for field in fields(seen)}
    inputs = {f"`{name}`": value for name, value in values.items() if isinstance(value, Tensor)}
    yield Use(lambda: term_of(objective, built(objective), seen), inputs)


def head_of_the_seed(objective: Objective) -> None:
    """build() depends on nothing but torch's global generator"""
    first, second = (built(objective).state_dict() for _ in range(2))
    assert same(dict(first), dict(second)), "two heads from the same seed differ"


def goes_on(objective: Objective) -> None:
    """A head that was stored and restored goes on with the same bits"""
    head = built(objective)
    learn(objective, head)
    stored = io.BytesIO()
    torch.save(head.state_dict(), stored)
    stored.seek(0)
    again = built(objective)
    again.load_state_dict(torch.load(stored, weights_only=True))
    for each in (head, again):
        learn(objective, each)
    assert same(dict(head.state_dict()), dict(again.state_dict())), (
        "it learns something else afterwards"
    )
    first, second = (
        term_of(objective, each, example(objective)).detach() for each in (head, again)
    )
    assert torch.equal(first, second), "its term is another one afterwards"


PREREQUISITE = one_finite_number

CLAUSES: tuple[Clause, ...] = (
    says_what_it_needs,
    one_finite_number,
    teaches_the_network,
    teaches_the_head,
    only_what_is_taken,
    means_over_images,
    function_of_what_it_sees,
    nothing_is_written_into,
    head_of_the_seed,
    goes_on,
)


def example(
    objective: Objective,
    count: int = COUNT,
    positions: int = 4,
    width: int = WIDTH,
    level: float = 0.5,
    device: str = "cpu",
) -> Seen:
    """What a training gives it of a batch, the same each time: features and a teacher only if it
    asks for them."""
    draw = generator(0, "objective", count, positions, width)
    x0 = tiny.images(count).images.float() / 127.5 - 1  # (B, C, H, W)
    noise = torch.randn(x0.shape, generator=draw)
    tokens = torch.randn(count, positions, width, generator=draw)  # (B, N, D)
    features = tiny.features(count, FEATURES) if objective.target is not None else None
    sigma = torch.full((count,), level, device=device)
    return Seen(
        tokens.to(device).requires_grad_(),
        torch.ones_like(sigma, dtype=torch.bool),
        x0.to(device),
        sigma,
        noise.to(device),
        torch.Generator(device),
        None if features is None else features.to(device),
        Teacher(positions, width).to(device) if objective.uses_teacher else None,
    )


class Teacher(nn.Module):
    """Looks at every image by itself, like an averaged network: an untrained one."""

    weight: Tensor

    def __init__(self, positions: int, width: int):
        super().__init__()
        self.positions = positions
        draw = generator(0, "teacher", positions, width)
        pixels = tiny.SHAPE[0] * tiny.SHAPE[1] * tiny.SHAPE[2] // positions
        self.register_buffer("weight", torch.randn(pixels, width, generator=draw) / pixels**0.5)

    @torch.no_grad()
    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return torch.tanh(
            x.reshape(len(x), self.positions, -1) @ self.weight / (1 + sigma[:, None, None])
        )


def built(objective: Objective, width: int = WIDTH) -> nn.Module:
    with ambient(0):
        return objective.build(width, FEATURES if objective.target is not None else 0).train()


def term_of(objective: Objective, head: nn.Module, seen: Seen) -> Tensor:
    """The term, with a fresh generator each time."""
    return objective.term(
        head, replace(seen, generator=generator(0, "term", device=seen.x0.device))
    )


def reached(term: Tensor, weights: list[Any]) -> list[Tensor]:
    """The gradient of each weight, 0 where there is none."""
    if not weights or not term.requires_grad:
        return [torch.zeros_like(each) for each in weights]
    gradients = torch.autograd.grad(term, weights, retain_graph=True, allow_unused=True)
    return [
        torch.zeros_like(each) if one is None else one
        for each, one in zip(weights, gradients, strict=True)
    ]


def learn(objective: Objective, head: nn.Module, steps: int = 3) -> None:
    optimizer = torch.optim.SGD([*head.parameters()] or [torch.zeros(1)], lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        term_of(objective, head, example(objective)).backward()
        optimizer.step()
