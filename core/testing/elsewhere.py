"""A second process, as stages have it: what holds there too does not depend on this process's
memory or hash seed."""

from __future__ import annotations

import atexit
import functools
import os
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from multiprocessing.reduction import ForkingPickler
from typing import Any

from fw.core.machine.streams import sturdy
from fw.registry import installed

STDERR = 2
"""Where components print in the second process: stdout is for fw's own answers."""


def elsewhere(function: Callable[..., Any], *arguments: Any) -> Any:
    """What `function(*arguments)` returns in another process; AssertionError if it raises or cannot
    be sent there.

    The function is a module's. It takes components and plain values and returns plain values, not
    tensors.
    """
    try:
        call = ForkingPickler.dumps((function, arguments))
    except Exception as error:
        raise AssertionError(f"it cannot be sent to a worker process: {error}") from None
    connection = second_process()
    connection.send((list(sys.path), list(installed().files)))
    connection.send_bytes(call)
    fine, answer = connection.recv()
    assert fine, f"in another process: {answer}"
    return answer


@functools.cache
def second_process() -> Connection:
    """Started once. Its strings hash differently, so what depends on the order of a set differs
    as well."""
    seed = "1234" if os.environ.get("PYTHONHASHSEED") == "4321" else "4321"
    ours, theirs = Pipe()
    command = [
        sys.executable,
        "-P",
        "-c",
        f"from fw.core.testing.elsewhere import serve; serve({theirs.fileno()})",
    ]
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONHASHSEED": seed},
        pass_fds=[theirs.fileno()],
        stdout=STDERR,
    )
    theirs.close()
    atexit.register(process.kill)
    return ours


def serve(descriptor: int) -> None:
    """The life of the second process: calls in, results out; ends when the first does."""
    sturdy()
    connection = Connection(descriptor)
    while True:
        try:
            path, plugins = connection.recv()
            call = connection.recv_bytes()
        except EOFError:
            return
        sys.path[:] = path
        try:
            for plugin in plugins:
                plugin.load()
            function, arguments = ForkingPickler.loads(call)
            connection.send((True, function(*arguments)))
        except BaseException as error:
            connection.send((False, f"{type(error).__name__}: {error}"))
