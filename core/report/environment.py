"""What else decides results: versions of packages, the machine, the devices that stages ran on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterable, Mapping
from typing import Any

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
    """This machine, and the devices that the stages with these manifests ran on."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "devices": sorted({manifest["device"] for manifest in manifests}),
    }
