"""The device that `--device` names, and one device per job."""

from __future__ import annotations

import torch

from fw.core.errors import FwError


def known_device(name: str) -> torch.device:
    """What `--device` names, if fw runs on it; whether it is here is another question."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise FwError(f"--device {name}: no such device; use auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise FwError(f"--device {name}: fw runs on cpu and cuda; use auto, cpu, cuda or cuda:N")
    return device


def checked_device(name: str) -> str:
    """The device that `--device` asks for, if it is here."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    device = known_device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise FwError(f"--device {name}: torch sees {count} CUDA devices here; use --device cpu")
    return name


def devices(device: str, jobs: int) -> list[str]:
    """One device per job: CUDA devices in turn, or the one that was asked for."""
    if device == "cuda":
        return [f"cuda:{number % torch.cuda.device_count()}" for number in range(jobs)]
    return [device] * jobs
