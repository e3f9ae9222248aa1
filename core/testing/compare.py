"""Tensors compared: to the last bit, by the largest difference, and by their form."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fw.core.kinds.boundaries import describe


def same(one: Any, other: Any) -> bool:
    """Equality to the last bit, through tuples, lists and mappings of tensors; NaN equals NaN."""
    if isinstance(one, Tensor):
        return (
            isinstance(other, Tensor)
            and one.dtype == other.dtype
            and one.shape == other.shape
            and torch.equal(one.nan_to_num(nan=1e30), other.nan_to_num(nan=1e30))
        )
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(
            same(value, other[key]) for key, value in one.items()
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(*pair) for pair in zip(one, other, strict=True))
    return bool(one == other)


def copied(values: Any) -> Any:
    """Clones of the tensors in lists, tuples and mappings; all else as it is."""
    if isinstance(values, Tensor):
        return values.detach().clone()
    if isinstance(values, dict):
        return {name: copied(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [copied(value) for value in values]
    return values


def gap(one: Tensor, other: Tensor) -> float:
    """The largest difference, as a share of the largest value of `other`."""
    return largest(one - other) / max(largest(other), 1e-12)


def largest_difference(one: Tensor, other: Tensor) -> float:
    return largest(one - other)


def largest(values: Tensor) -> float:
    return float(values.abs().max())


def assert_like(result: Tensor, given: Tensor, what: str = "it", when: str = "") -> None:
    """AssertionError unless a result is finite and has the shape, dtype and device of the tensor
    that was given."""
    alike = (result.shape, result.dtype) == (given.shape, given.dtype)
    assert alike, f"{what} is {describe(result)} for {describe(given)}{when}"
    assert result.device == given.device, f"{what} is on {result.device} for {given.device}{when}"
    wrong = int((~result.isfinite()).sum())
    assert not wrong, (
        f"{what} has {wrong} of {result.numel()} values that are not finite for "
        f"{describe(given)}{when}"
    )
