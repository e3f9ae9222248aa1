"""What was measured on, without what would say whose machine it is."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

import torch


def machine() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    names = ("torch", "diffusers", "scikit-learn", "lightly", "torch-fidelity", "mlflow")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    cards = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    cards_or_none = ", ".join(cards) or "no GPU"
    return (
        f"{processor()}, {cores} cores of which one thread computes, {cards_or_none}; "
        f"Python {platform.python_version()}, {versions}"
    )


def processor() -> str:
    """The model of the CPU."""
    about = Path("/proc/cpuinfo")
    if about.exists():
        for line in about.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
