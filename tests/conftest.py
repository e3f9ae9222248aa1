"""What holds for every test: one thread, no telemetry, no network; nothing else happens behind a test's back."""

import ipaddress
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

# Set before anything imports torch, mlflow or huggingface_hub, which read them on import; children inherit them.
os.environ |= {"OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "HF_HUB_OFFLINE": "1"}

settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Only this machine can be reached; a test that tries another fails, even where the library forgives it."""
    refused: list[str] = []

    def refuse(host: str) -> None:
        if not stays_here(host):
            refused.append(host)
            raise OSError(f"tests have no network: {host} is out of reach")

    def guard(method: str, address_at: int) -> None:
        original = getattr(socket.socket, method)

        def guarded(self: socket.socket, *args: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6):
                refuse(args[address_at][0])
            return original(self, *args)

        monkeypatch.setattr(socket.socket, method, guarded)

    def getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
        refuse(host.decode() if isinstance(host, bytes) else host or "localhost")
        return resolve(host, *args, **options)

    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    guard("connect", 0)
    guard("connect_ex", 0)
    guard("sendto", -1)
    yield
    assert not refused, f"the test tried to reach {', '.join(refused)}"


def stays_here(host: str) -> bool:
    """Whether this is a name or an address of this machine."""
    if host in ("", "localhost", socket.gethostname()):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified
