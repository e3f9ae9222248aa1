"""Every stage starts from the same global state, whatever plugins did to it on import or in an earlier stage.

Results are functions of generators that fw seeds, so a stage needs none of this. It guards against accidents: a plugin
that sets torch's default dtype when it is imported must not change the numbers of a recipe that does not name it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def stock_state(seed: int) -> Iterator[None]:
    """torch's own defaults, and global random generators seeded by `seed`; what was there before comes back."""
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    precision = torch.get_float32_matmul_precision()
    python, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(), torch.set_grad_enabled(True):
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
        torch.set_float32_matmul_precision("highest")
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
            torch.set_default_device(None if device.type == "cpu" else device)
            torch.set_float32_matmul_precision(precision)
            random.setstate(python)
            np.random.set_state(arrays)  # noqa: NPY002
