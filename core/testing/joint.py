"""The contract of a joint model, beside that of a backbone: one network that denoises and
recognises.

Its predictions do not depend on the condition. Its logits are each image's own, and have a gradient
with respect to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fw.core.kinds import Joint, Move, Read
from fw.core.kinds.boundaries import describe
from fw.core.testing import tiny, usual
from fw.core.testing.backbone import (
    DIFFERENT,
    SPECS,
    Inputs,
    as_on,
    built,
    chosen,
    inputs_for,
    moved,
    predict,
    smallest,
)
from fw.core.testing.compare import gap, same
from fw.core.testing.forall import forall
from fw.core.testing.global_state import repeated
from fw.core.testing.usual import Batch, OnDevice


def says_so(joint: Joint) -> None:
    """It provides `logits`, and the conditions that it takes are classes"""
    assert "logits" in joint.provides, (
        f"it provides {', '.join(sorted(joint.provides)) or 'nothing'}"
    )
    assert joint.conditions == {"class"}, (
        f"`conditions` is {', '.join(sorted(joint.conditions)) or 'empty'}"
    )


def logits_are_usable(joint: Joint) -> None:
    """logits() gives finite numbers (B, K) for the K classes of the condition, in bf16 as well"""

    def body(levels: list[float]) -> None:
        count, noise = len(levels), torch.tensor(levels)
        network, inputs = with_head(joint, count)
        for device in tiny.devices():
            x, level = inputs.x.to(device), noise.to(device)
            for bf16 in (False, True):
                with (
                    torch.inference_mode(),
                    torch.autocast(device, dtype=torch.bfloat16, enabled=bf16),
                ):
                    logits = logits_of(network.to(device), x, level)
                expected = (count, classes())
                assert logits.shape == expected, (
                    f"they are {describe(logits)} for {count} images, not {expected}"
                )
                assert bf16 or logits.dtype == torch.float32, (
                    f"they are {describe(logits)}, not float32"
                )
                assert logits.isfinite().all(), (
                    f"they are not finite at noise levels {levels}{' in bf16' * bf16}"
                )

    body([-1.5])
    body([0.0, 999.0])
    forall(body, levels=st.lists(st.floats(-2, 1000), min_size=1, max_size=4), examples=3)


def both_is_both(joint: Joint) -> None:
    """both() gives the prediction of forward and the logits of logits()"""
    network, inputs = with_head(joint)
    with torch.inference_mode():
        prediction, logits = network.both(inputs.x, inputs.noise)  # type: ignore[operator]
        pairs = {
            "forward": (prediction, predict(network, inputs)),
            "logits()": (logits, answer(network, inputs)),
        }
    for name, (joint_result, expected) in pairs.items():
        assert joint_result.shape == expected.shape, (
            f"{describe(joint_result)} from both(), {describe(expected)} from {name}"
        )
        assert gap(joint_result, expected) <= 1e-5, (
            f"it differs from {name} by {gap(joint_result, expected):.2g} of the largest value"
        )


def condition_changes_nothing(joint: Joint) -> None:
    """Predictions do not depend on `condition` or `dropped`"""
    network, inputs = with_head(joint, 4)
    plain = predict(network, inputs._replace(condition=None))
    changed = {
        "condition": inputs,
        "dropped": inputs._replace(dropped=torch.tensor([True, False, True, False])),
    }
    for name, each in changed.items():
        assert gap(predict(network, each), plain) <= 1e-6, f"{name} changes the prediction"


@usual.same_in_any_batch
def logits_are_each_images_own(joint: Joint) -> Iterator[Batch]:
    """The logits of an image depend on the image, and not on the batch that it is in or on
    earlier calls"""
    network, inputs = with_head(joint, 5)
    together = repeated(lambda: answer(network, inputs))
    assert gap(together[:1].expand(5, -1), together) > 1e-6, "all images get the same logits"
    yield Batch(5, lambda rows: answer(network, chosen(inputs, rows)))
    assert same(answer(network, inputs), together), "an earlier call changes them"


def one_trunk(joint: Joint) -> None:
    """The gradients of both losses are finite and meet in a weight that the two tasks share"""
    network, inputs = with_head(joint)
    assert inputs.condition is not None
    reached = []
    for task in ("denoising", "recognising"):
        network.zero_grad(set_to_none=True)
        prediction, logits = network.both(inputs.x, inputs.noise)  # type: ignore[operator]
        loss = (
            prediction.square().mean()
            if task == "denoising"
            else cross_entropy(logits, inputs.condition)
        )
        loss.backward()
        gradients = {
            name: weight.grad
            for name, weight in network.named_parameters()
            if weight.grad is not None
        }
        wrong = [name for name, gradient in gradients.items() if not gradient.isfinite().all()]
        assert not wrong, f"{task} gives {', '.join(wrong)} a gradient that is not finite"
        reached.append({name for name, gradient in gradients.items() if gradient.any()})
    assert reached[0] & reached[1], "no weight gets a gradient from both: they are two networks"


def logits_can_guide(joint: Joint) -> None:
    """The logits have a finite gradient with respect to the image, also inside sampling's
    inference mode"""
    network, inputs = with_head(joint)
    with torch.inference_mode():
        answer(network, inputs)
        with torch.inference_mode(False), torch.enable_grad():
            x = inputs.x.clone().requires_grad_()
            chosen = logits_of(network, x, inputs.noise.clone()).log_softmax(dim=1)[:, 0]
            [gradient] = torch.autograd.grad(chosen.sum(), x)
    assert gradient.isfinite().all(), "it is not finite"
    assert gradient.flatten(1).any(dim=1).all(), "it is zero"


@usual.if_provided("steerable")
def features_can_be_moved(joint: Joint) -> None:
    """If it provides `steerable`, moved features are decoded, and the logits are read off them,
    with a gradient"""
    network, inputs = with_head(joint)
    read_off: list[Tensor] = []

    def stay(hidden: Sequence[Tensor], read: Read) -> Sequence[Tensor]:
        read_off.append(read(hidden))
        return hidden

    def uphill(hidden: Sequence[Tensor], read: Read) -> Sequence[Tensor]:
        with torch.inference_mode(False), torch.enable_grad():
            copies = [each.clone().requires_grad_() for each in hidden]
            gradients = torch.autograd.grad(read(copies)[:, 0].sum(), copies)
        assert all(each.isfinite().all() for each in gradients), (
            "a gradient with respect to the features is not finite"
        )
        assert any(each.any() for each in gradients), (
            "the gradients with respect to the features are zero"
        )
        return [each + gradient for each, gradient in zip(hidden, gradients, strict=True)]

    expected, kept = predict(network, inputs), steered(network, inputs, stay)
    assert gap(kept, expected) <= 1e-5, (
        f"left in place, they give predictions that differ by {gap(kept, expected):.2g}"
    )
    logits = answer(network, inputs)
    assert gap(read_off[0], logits) <= 1e-5, (
        f"what is read differs from the logits by {gap(read_off[0], logits):.2g}"
    )
    assert gap(steered(network, inputs, uphill), expected) > DIFFERENT, (
        "moved, they give the same prediction"
    )
    assert same(steered(network, inputs, stay), kept), "what was moved before stays behind"


def denoises_alone(joint: Joint) -> None:
    """Built without a condition it denoises and has no head: logits() raises"""
    shape = smallest(joint)
    network, inputs = built(joint, shape, None), inputs_for(range(3), shape, None)
    assert predict(network, inputs).isfinite().all(), "predictions are not finite"
    try:
        logits = answer(network, inputs)
    except Exception:
        return
    raise AssertionError(f"logits() gives {describe(logits)}")


@usual.same_on_a_gpu
def same_logits_on_a_gpu(joint: Joint) -> Iterator[OnDevice]:
    """On a GPU, where there is one, its logits are those that it has on the CPU"""
    network, inputs = with_head(joint)
    yield OnDevice(lambda device: answer(as_on(device, network), moved(inputs, device)))


CLAUSES = (
    says_so,
    logits_are_usable,
    both_is_both,
    condition_changes_nothing,
    logits_are_each_images_own,
    one_trunk,
    logits_can_guide,
    features_can_be_moved,
    denoises_alone,
    same_logits_on_a_gpu,
)


def with_head(joint: Joint, count: int = 3) -> tuple[nn.Module, Inputs]:
    """A network that recognises classes, and inputs for it."""
    shape = smallest(joint)
    return built(joint, shape, "class"), inputs_for(range(count), shape, "class")


@torch.inference_mode()
def answer(network: nn.Module, inputs: Inputs) -> Tensor:
    return logits_of(network, inputs.x, inputs.noise)


@torch.inference_mode()
def steered(network: nn.Module, inputs: Inputs, move: Move) -> Tensor:
    return network.steered(inputs.x, inputs.noise, move)  # type: ignore[operator]


def logits_of(network: nn.Module, x: Tensor, noise: Tensor) -> Tensor:
    return network.logits(x, noise)  # type: ignore[operator]


def classes() -> int:
    spec = SPECS["class"]
    assert spec is not None
    return spec.size
