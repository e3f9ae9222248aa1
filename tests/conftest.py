"""What holds for every test: one thread, no telemetry, no network, and nothing of the
developer's settings."""

import ipaddress
import os
import socket
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

# Before anything imports torch, mlflow or huggingface_hub, which read these on import; children
# inherit them.
os.environ |= {"OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "HF_HUB_OFFLINE": "1"}
for setting in ("FW_PLUGINS", "MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
    os.environ.pop(setting, None)
if "FW_CACHE_DIR" not in os.environ:  # of pytest-xdist's processes, all use the first one's
    cache = tempfile.TemporaryDirectory(prefix="fw-cache-", ignore_cleanup_errors=True)
    os.environ["FW_CACHE_DIR"] = cache.name

settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Only this machine can be reached. A test that tries another fails, even where a library
    swallows the error."""
    refused: list[str] = []

    def check(host: str) -> None:
        if not is_here(host):
            refused.append(host)
            raise OSError(f"tests have no network, and {host} is not this machine")

    def guard(method: str, address: int) -> None:
        unguarded = getattr(socket.socket, method)

        def guarded(self: socket.socket, *args: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6):
                check(args[address][0])
            return unguarded(self, *args)

        monkeypatch.setattr(socket.socket, method, guarded)

    def getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
        check(host.decode() if isinstance(host, bytes) else host or "localhost")
        return unguarded_getaddrinfo(host, *args, **options)

    unguarded_getaddrinfo = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    guard("connect", address=0)
    guard("connect_ex", address=0)
    guard("sendto", address=-1)
    yield
    assert not refused, f"the test tried to reach {', '.join(refused)}"


def is_here(host: str) -> bool:
    """Whether this is a name or an address of this machine."""
    if host in ("", "localhost", socket.gethostname()):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified
