"""Every stage starts from the same global state, whatever plugins did to it in an earlier stage.

Results are functions of generators that fw seeds, so a stage needs none of this. It guards against
accidents: a component that sets torch's default dtype must not change the numbers of a recipe that
does not name it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch

from fw.core.randomness import forked, seed_torch
from fw.registry.global_state import SDP_KERNELS, flags, undisturbed


@contextmanager
def stock_state(seed: int, device: torch.device, threads: int) -> Iterator[None]:
    """torch's own defaults, `threads` threads, and global random generators seeded by `seed`. All
    is restored after.

    What says `cuda` alone means `device`, if that is a GPU.
    """
    with (
        undisturbed(),
        torch.cuda.device(device) if device.type == "cuda" else nullcontext(),
        forked(),
        torch.inference_mode(False),
        torch.set_grad_enabled(True),
    ):
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
        torch.set_deterministic_debug_mode(0)
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision("highest")
        # Strict fp32, convolutions on a GPU included: by default torch runs those in TF32.
        for owner, name in flags(torch):
            setattr(owner, name, name == "enabled")
        for kernel in SDP_KERNELS:
            getattr(torch.backends.cuda, f"enable_{kernel}_sdp")(True)
        seed_torch(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        yield
