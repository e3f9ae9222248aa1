"""What plugins do to the process while they are imported does not last.

A plugin that sets torch's default dtype, or seeds a global generator, would change what others
compute. This package does not need torch or numpy; where they are loaded, it restores their state.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

SDP_KERNELS = ("flash", "mem_efficient", "cudnn", "math")
"""Ways in which torch computes attention."""


@contextmanager
def undisturbed() -> Iterator[None]:
    """Restore the global state of Python's, numpy's and torch's arithmetic afterwards."""
    modules: dict[str, Any] = {
        name: sys.modules[name] for name in ("numpy", "torch") if name in sys.modules
    }
    restore = [put_back(random.setstate, random.getstate())]
    if numpy := modules.get("numpy"):
        restore.append(put_back(numpy.random.set_state, numpy.random.get_state()))
    if torch := modules.get("torch"):
        restore += torch_state(torch)
    try:
        yield
    finally:
        for undo in restore:
            undo()


def torch_state(torch: Any) -> Iterator[Callable[[], None]]:
    default = torch.empty(0).device  # torch 2.6 cannot report it once it was set to None
    yield put_back(torch.set_default_dtype, torch.get_default_dtype())
    yield put_back(torch.set_default_device, None if default.type == "cpu" else default)
    yield put_back(torch.set_grad_enabled, torch.is_grad_enabled())
    yield put_back(torch.set_deterministic_debug_mode, torch.get_deterministic_debug_mode())
    yield put_back(torch.set_num_threads, torch.get_num_threads())
    yield put_back(torch.random.set_rng_state, torch.random.get_rng_state())
    if torch.cuda.is_initialized():
        yield put_back(torch.cuda.set_device, torch.cuda.current_device())
        yield put_back(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all())
    for owner, name in flags(torch):
        yield put_back(partial(setattr, owner, name), getattr(owner, name))
    for kernel in SDP_KERNELS:
        enabled = getattr(torch.backends.cuda, f"{kernel}_sdp_enabled")()
        yield put_back(getattr(torch.backends.cuda, f"enable_{kernel}_sdp"), enabled)
    try:
        yield put_back(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
    except RuntimeError:  # it was set per backend, by the newer interface
        for products in (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul):
            yield put_back(partial(setattr, products, "fp32_precision"), products.fp32_precision)


def flags(torch: Any) -> Iterator[tuple[Any, str]]:
    """The switches of torch's libraries that change what a convolution computes."""
    for name in ("enabled", "benchmark", "deterministic", "allow_tf32"):
        yield torch.backends.cudnn, name
    yield torch.backends.mkldnn, "enabled"


def put_back(setter: Callable[[Any], object], value: Any) -> Callable[[], None]:
    def restore() -> None:
        setter(value)

    return restore
