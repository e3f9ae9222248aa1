"""What else decides results: versions of packages, the machine, the devices that stages ran on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterable, Mapping
from typing import Any

from fw.core.machine.memory import in_words

PACKAGES = (
    "fw",
    "torch",
    "diffusers",
    "lightly",
    "faiss-cpu",
    "scikit-learn",
    "torchmetrics",
    "torch-fidelity",
    "mlflow",
)


def versions() -> dict[str, str]:
    """Versions of what decides results, as far as it is installed."""
    return {name: version for name in PACKAGES if (version := version_of(name))}


def version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def environment(manifests: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """This machine, the devices that the stages with these manifests ran on, and the most memory
    that one of each kind took."""
    manifests = list(manifests)
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "devices": sorted({manifest["device"] for manifest in manifests}),
        **({"peak memory": peaks} if (peaks := peak_memory(manifests)) else {}),
    }


def peak_memory(manifests: Iterable[Mapping[str, Any]]) -> list[str]:
    """`train 1.5 GiB (GPU 3 GiB)`: the most that a stage of each kind took, as far as it was
    measured."""
    most: dict[str, dict[str, int]] = {}
    for manifest in manifests:
        kind = most.setdefault(manifest["stage"].partition("-")[0], {})
        for where, size in manifest.get("memory", {}).items():
            kind[where] = max(size, kind.get(where, 0))
    return [
        f"{kind} {in_words(peak['anonymous'])}{on_gpu(peak)}"
        for kind, peak in sorted(most.items())
        if "anonymous" in peak
    ]


def on_gpu(peak: Mapping[str, int]) -> str:
    return f" (GPU {in_words(peak['device'])})" if "device" in peak else ""
