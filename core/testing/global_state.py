"""Check that a component changes neither the process's global state nor itself."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from fw.core.randomness import forked
from fw.core.testing.compare import same
from fw.core.testing.digest import digest
from fw.registry import Component

Result = TypeVar("Result")

AMBIENT_SEEDS = (1, 2)
SET_BY_LIBRARIES = ("TORCH", "_MLFLOW", "TRITON", "KMP_", "PYTORCH_", "MLFLOW_", "HF_")


class Touched(AssertionError):
    """Something changed the state of the process or of the component."""


@contextmanager
def untouched(component: Component) -> Iterator[None]:
    """Raise Touched if what runs inside changes the state of the process or of the component."""
    before = state_of(component)
    yield
    after = state_of(component)
    changed = [what for what, value in before.items() if after.get(what) != value]
    changed += [what for what in after if what not in before]
    if changed:
        raise Touched(f"it changed {', '.join(changed)}")


def state_of(component: Component) -> dict[str, Any]:
    """All state that is watched, by name."""
    return {**random_state(), **torch_state(), **process_state(), **own_state(component)}


def random_state() -> dict[str, Any]:
    _, words, *position = np.random.get_state()  # noqa: NPY002
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {
        "the GPUs' global random generators": [state.numpy().tobytes() for state in gpus],
        "torch's global random generator": torch.random.get_rng_state().numpy().tobytes(),
        "numpy's global random generator": (np.asarray(words).tobytes(), position),
        "Python's global random generator": hash(random.getstate()),
    }


def torch_state() -> dict[str, Any]:
    modules: Any = torch.nn.modules.module
    hooks = ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks")
    return {
        "torch's default dtype": torch.get_default_dtype(),
        "torch's default device": torch.empty(0).device,
        "torch's float32 matmul precision": matmul_precision(),
        "torch's gradient mode": torch.is_grad_enabled(),
        "torch's inference mode": torch.is_inference_mode_enabled(),
        "torch's deterministic mode": torch.are_deterministic_algorithms_enabled(),
        "torch's number of threads": torch.get_num_threads(),
        "cudnn's flags": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "torch's global module hooks": [len(getattr(modules, name)) for name in hooks],
    }


def matmul_precision() -> Any:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # it was set per backend, by the newer interface
        backends: Any = torch.backends
        return backends.cuda.matmul.fp32_precision, backends.mkldnn.matmul.fp32_precision


def process_state() -> dict[str, Any]:
    """Without variables that libraries set when they are first imported."""
    watched = {
        name: value for name, value in os.environ.items() if not name.startswith(SET_BY_LIBRARIES)
    }
    return {"the environment variables": watched, "the working directory": Path.cwd()}


def own_state(component: Component) -> dict[str, Any]:
    """The component's fields and private attributes, and the plain data of its classes and of
    its module."""
    watched = {
        f"its field {name}": mark(getattr(component, name)) for name in type(component).model_fields
    }
    watched |= {
        f"its own {name}": mark(value)
        for name, value in (component.__pydantic_private__ or {}).items()
    }
    for owner in [
        cls
        for cls in type(component).__mro__
        if issubclass(cls, Component) and cls is not Component
    ]:
        watched |= {f"{owner.__name__}.{name}": value for name, value in plain(vars(owner))}
    module = sys.modules[type(component).__module__]
    watched |= {f"{module.__name__}.{name}": value for name, value in plain(vars(module))}
    return watched


def plain(values: Any) -> list[tuple[str, str]]:
    """Names and values of what can hold state without being code."""
    data = (list, dict, set, bytearray, int, float, str, torch.Tensor)
    return [
        (name, mark(value))
        for name, value in list(values.items())
        if isinstance(value, data) and not name.startswith(("__", "_abc_", "model_"))
    ]


def mark(value: Any) -> str:
    """What tells whether the value was changed in place."""
    if isinstance(value, torch.Tensor):
        return digest([value])
    return repr(value)


def repeated(call: Callable[[], Result]) -> Result:
    """The result of a call that may not depend on global random generators or on an earlier call;
    AssertionError else.

    The call is made twice, from different states of every global generator, and may not move them.
    """
    results = []
    for seed in AMBIENT_SEEDS:
        with ambient(seed):
            before = random_state()
            results.append(call())
            drawn = [what for what, value in random_state().items() if before[what] != value]
        assert not drawn, (
            f"it draws from {', '.join(drawn)}: take job.generator(...) or a generator that it is "
            "given"
        )
    assert same(*results), (
        "a second call gives another result: it keeps state or draws from a global generator"
    )
    return results[0]


@contextmanager
def ambient(seed: int) -> Iterator[None]:
    """Global generators in a state of their own; what was there before comes back."""
    python, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002
    with forked():
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(arrays)  # noqa: NPY002
