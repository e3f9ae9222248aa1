"""The wheel of this checkout, and an environment that has nothing else of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("core", "plugins", "recipes", "registry")


def wheel(folder: Path) -> Path:
    """Made in the folder of a copy of the checkout."""
    source = folder / "source"
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    offline = ["--no-deps", "--no-build-isolation", "--no-index"]
    pip([sys.executable, "-m", "pip", "wheel", *offline, "--wheel-dir", folder, source])
    [made] = folder.glob("*.whl")
    return made


def environment(wheel: Path, folder: Path) -> Path:
    """The Python of a new environment that has the wheel, and sees the libraries but not what else
    is installed here as editable, such as this checkout."""
    venv.create(folder, with_pip=False, symlinks=True)
    here = f"python{sys.version_info.major}.{sys.version_info.minor}"
    python = folder / "bin/python"
    install = ["install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    pip([sys.executable, "-m", "pip", "--python", python, *install, wheel])
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    packages = folder / "lib" / here / "site-packages"
    (packages / "zz_libraries.pth").write_text("\n".join(libraries) + "\n")
    return python


def surroundings() -> dict[str, str]:
    """The variables of a process that is to see nothing of this checkout."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def pip(command: list[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
