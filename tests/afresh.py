"""`fw` as processes of their own that start at once: forks of one process that has imported torch,
but no library that reads its settings from the environment when it is imported.

Run as a script, it is that process. No connection leaves this machine.
"""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent
FORBIDDEN = ("HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_TOKEN", "FW_WEIGHTS_DIR", "TORCH_HOME")
OWN = "FW_TEST_SITE"
QUESTION = b"[y/N]"


@dataclass
class Ended:
    """How a command ended; minus the signal's number where one did it."""

    code: int
    out: str


@dataclass
class Afresh:
    """The process that forks."""

    process: subprocess.Popen[str]

    def start(self, *words: str | Path, env: Mapping[str, str], limit: int = 0) -> int:
        """The process of `fw WORDS`; `limit` is the most bytes that a file of its may have."""
        request = {"words": list(map(str, words)), "env": dict(env), "limit": limit}
        return int(self.ask(request)["pid"])

    def wait(self) -> Ended:
        """Of the command that was started last."""
        answer = self.hear()
        return Ended(answer["code"], answer["out"])

    def run(self, *words: str | Path, env: Mapping[str, str], limit: int = 0) -> Ended:
        self.start(*words, env=env, limit=limit)
        return self.wait()

    def on_a_terminal(self, *words: str | Path, env: Mapping[str, str], keys: str) -> Ended:
        """What is typed when the command asks, with a terminal for its standard streams."""
        self.ask({"words": list(map(str, words)), "env": dict(env), "keys": keys, "limit": 0})
        return self.wait()

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self.hear()

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer


@contextmanager
def afresh() -> Iterator[Afresh]:
    kept = {name: value for name, value in os.environ.items() if name not in FORBIDDEN}
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**kept, "PYTHONPATH": str(TESTS)},
    )
    try:
        yield Afresh(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


def serve() -> None:
    import torchvision.datasets

    import fw.core.commands.fetch  # noqa: F401
    from fw.registry import installed

    installed()
    assert torchvision.datasets
    early = {"huggingface_hub", "timm", "diffusers", "transformers", "datasets"} & set(sys.modules)
    assert not early, early
    for line in sys.stdin:
        request = json.loads(line)
        if "keys" in request:
            on_a_terminal(request)
            continue
        with tempfile.TemporaryFile() as output:
            pid = os.fork()
            if pid == 0:
                child(request, output.fileno())
            tell(pid=pid)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            output.seek(0)
            tell(code=code, out=output.read().decode())


def on_a_terminal(request: Mapping[str, Any]) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        child(request, None)
    tell(pid=pid)
    printed = b""
    try:
        while piece := os.read(terminal, 4096):
            if QUESTION in (printed + piece) and QUESTION not in printed:
                os.write(terminal, request["keys"].encode())
            printed += piece
    except OSError:  # the end, as Linux says it
        pass
    os.close(terminal)
    tell(code=os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), out=printed.decode())


def tell(**answer: Any) -> None:
    print(json.dumps(answer), flush=True)


def child(request: Mapping[str, Any], output: int | None) -> None:
    """With its output in a file; on a terminal if there is none."""
    code = 70
    try:
        if output is not None:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
        sys.stdin = os.fdopen(0, "r", closefd=False)
        os.environ.update(request["env"])
        if request["limit"]:
            import resource

            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (request["limit"],) * 2)
        only_here()
        patched(json.loads(os.environ.get(OWN, "{}")))
        code = call(request["words"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def call(words: list[str]) -> int:
    """What the console script does, without ending the process."""
    from fw.core.cli import app, guarded
    from fw.core.machine.offline import stay_offline

    stay_offline()
    try:
        code: Any = guarded(lambda: app(words, prog_name="fw"))
    except SystemExit as ended:
        code = ended.code
    return code if isinstance(code, int) else int(bool(code))


def only_here() -> None:
    """No connection leaves this machine, whoever tries."""

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "socket.connect" and isinstance(args[1], tuple):
            host = args[1][0]
        elif event == "socket.getaddrinfo":
            host = args[0]
        else:
            return
        if host not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"tests have no network, and {host} is not this machine")

    sys.addaudithook(hook)


def patched(own: Mapping[str, Any]) -> None:
    """Where the published files of CIFAR-10 and Inception lie, and their sums."""
    from torchvision.datasets import CIFAR10

    from fw.plugins.encoders import inception

    for name, value in own.get("cifar10", {}).items():
        setattr(CIFAR10, name, value)
    for name, value in own.get("inception", {}).items():
        setattr(inception, name, value)


if __name__ == "__main__":
    serve()
