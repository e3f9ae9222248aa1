"""Which executor does a run's stages: this machine's, or a cluster's."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from rich.console import Console

from fw.core.errors import FwError
from fw.core.execution.executor import TRIES, Executor
from fw.core.execution.local import Local
from fw.core.execution.options import LOCAL, Options, places
from fw.core.plan.graph import Plan
from fw.registry import LocalPlugin

RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    "RAY_task_oom_retries": str(TRIES),
}
"""What Ray reads when it is imported: it reports nothing to its makers, and prints nothing that a
run says itself."""


@contextlib.contextmanager
def chosen(
    options: Options,
    plan: Plan,
    finished: Collection[str],
    plugins: Sequence[LocalPlugin],
    console: Console,
) -> Iterator[Executor]:
    """The executor that the options name. A cluster is not connected to if nothing is to be
    done."""
    missing = len(plan.stages) - len(finished)
    if options.cluster is None:
        yield Local(places(options, missing, plugins))
        return
    if not missing:
        yield Local(places(replace(options, device="cpu", nodes=1), missing, plugins))
        return
    refuse(options)
    os.environ.update({**RAY, **os.environ})
    if options.cluster == LOCAL:  # nobody else is to run anything there
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        import ray  # noqa: F401
    except ImportError:
        raise FwError("--cluster needs Ray: pip install 'fw[cluster]'") from None
    from fw.core.execution.cluster import connected

    with connected(options, plan, plugins, console) as cluster:
        yield cluster


def refuse(options: Options) -> None:
    """FwError for options that mean nothing on a cluster."""
    assert options.cluster is not None
    if "://" in options.cluster:
        raise FwError(
            f"--cluster {options.cluster}: name host:port, or auto, on a machine of the cluster: "
            "fw reads the store, too"
        )
    if options.jobs is not None:
        raise FwError(
            "--jobs is about this machine: on a cluster Ray does as many stages at once as there "
            "is room for; --workers says how many CPUs each takes"
        )
    if options.ranks is None:
        raise FwError("--ranks auto divides the GPUs of one machine: on a cluster say how many")
    if options.device.startswith("cuda:"):
        raise FwError(
            f"--device {options.device}: on a cluster Ray chooses the GPU; use --device cuda"
        )
