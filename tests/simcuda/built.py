"""The library that makes torch believe in CUDA devices: why it cannot be built, and what to run
with."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

HERE = Path(__file__).parent
SOURCES = (HERE / "cuda.c", HERE / "crt" / "host_defines.h")
COMPILERS = ("cc", "gcc", "clang")


def lacking() -> str | None:
    """Why there can be no simulated device here; None if there can."""
    if torch.version.cuda is None:
        return "this torch was built without CUDA"
    if torch.cuda.is_available():
        return "there is a real GPU"
    if compiler() is None:
        return f"there is no C compiler ({', '.join(COMPILERS)})"
    if headers() is None:
        return "torch came without CUDA's driver_types.h"
    return None


def environment(devices: int = 2) -> dict[str, str]:
    """What a process needs in its environment to see that many devices."""
    return {"LD_PRELOAD": str(library()), "SIMCUDA_DEVICES": str(devices)}


@functools.cache
def library() -> Path:
    """The library, built once for each text of it and version of torch."""
    assert torch.version.cuda is not None
    words = [torch.__version__, *(source.read_text(encoding="utf-8") for source in SOURCES)]
    digest = hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]
    path = Path(tempfile.gettempdir()) / f"simcuda-{os.getuid()}-{digest}" / "libcuda.so.1"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        built = path.with_name(f"{os.getpid()}.so")
        major, minor = map(int, torch.version.cuda.split(".")[:2])
        words = [str(compiler()), "-shared", "-fPIC", "-O1", f"-Wl,-soname,{path.name}"]
        words += [f"-DSIMCUDA_VERSION={1000 * major + 10 * minor}"]
        words += [f"-I{HERE}", f"-I{headers()}", "-o", str(built), str(SOURCES[0])]
        subprocess.run(words, check=True)
        built.replace(path)
    return path


def compiler() -> str | None:
    return next(filter(None, map(shutil.which, COMPILERS)), None)


def headers() -> Path | None:
    """The folder of the CUDA runtime's headers; they come with torch's own dependencies."""
    beside = Path(torch.__file__).parents[1] / "nvidia"
    return next((found.parent for found in beside.glob("*/include/driver_types.h")), None)
