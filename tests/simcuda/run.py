"""`python -m simcuda.run ARGUMENTS...`: fw on simulated devices, in this process and its workers.

`SIMCUDA_WAITS` names a file that gets a line for each stage (waits.py), `SIMCUDA_DEVICES` says how
many devices there are (2).
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from simcuda import built

IMAGES_AT_ONCE = 32
"""In one batch of whatever has no batch size of its own: larger ones would only take longer."""


def install() -> None:
    """Simulate the devices, and watch what fw does with them."""
    from simcuda import device

    device.install()  # before fw is imported, which uses inference mode as a decorator

    from fw.core.diffusion import generate
    from fw.core.diffusion.denoiser import NetworkDenoiser
    from fw.core.execution import local, stage
    from fw.core.job import Job
    from fw.core.kinds import Sampler
    from fw.registry import installed
    from simcuda.waits import WAITS

    generate.MOST_AT_ONCE["cuda"] = IMAGES_AT_ONCE

    def steps(self: Job, *args: Any, **kwargs: Any) -> Iterator[int]:
        for step in unwatched(self, *args, **kwargs):
            with WAITS.inside("step"):
                yield step

    unwatched, Job.steps = Job.steps, steps  # type: ignore[method-assign]
    installed()
    for sampler in descendants(Sampler):
        if "sample" in vars(sampler):
            sampler.sample = within(WAITS.sampling, sampler.sample)
    for call in ("__call__", "logits", "steered", "features"):
        setattr(NetworkDenoiser, call, within(WAITS.call, getattr(NetworkDenoiser, call)))
    recorded = within(WAITS.stage, stage.execute)
    stage.execute = local.execute = recorded  # type: ignore[attr-defined]


def descendants(kind: type[Any]) -> Iterator[Any]:
    each: Any
    for each in kind.__subclasses__():
        yield each
        yield from descendants(each)


def within(
    context: Callable[..., AbstractContextManager[None]], function: Callable[..., Any]
) -> Callable[..., Any]:
    """The function, in a context that gets its first argument."""

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        with context(args[0]):
            return function(*args, **kwargs)

    return called


def simulated(module: str) -> None:
    """Start this process again with the library, if it has it not, as `python -m MODULE`."""
    if "simcuda" in os.environ.get("LD_PRELOAD", ""):
        return
    if reason := built.lacking():
        sys.exit(reason)
    words = [sys.executable, "-m", module, *sys.argv[1:]]
    os.execve(sys.executable, words, {**os.environ, **built.environment()})


if __name__ == "__main__":
    simulated("simcuda.run")
if __name__ in ("__main__", "__mp_main__"):  # the second is a worker's name for it
    install()
if __name__ == "__main__":
    from fw.core import cli

    cli.main()
