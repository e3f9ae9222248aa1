"""What is installed: every package, every data file, nothing at the top level but `fw`, and
light to import."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]
FOLDERS = ("core", "plugins", "recipes", "registry")
HEAVY = ("torch", "mlflow", "diffusers", "lightly", "sklearn", "numpy", "faiss")


def files(pattern: str) -> list[Path]:
    """The files of the four folders that match, relative to the checkout."""
    found = (
        path for folder in FOLDERS for path in (ROOT / folder).rglob(pattern) if path.is_file()
    )
    return sorted(path.relative_to(ROOT) for path in found if "__pycache__" not in path.parts)


def python(code: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run code in a fresh interpreter that sees only what is installed."""
    return subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )


def test_every_package_of_the_tree_is_listed() -> None:
    packages = sorted(".".join(("fw", *path.parent.parts)) for path in files("__init__.py"))
    assert SETUPTOOLS["packages"] == packages


def test_every_module_lies_in_a_package() -> None:
    packages = {path.parent for path in files("__init__.py")}
    assert {path.parent for path in files("*.py")} == packages


def test_package_data_covers_every_other_file() -> None:
    patterns = SETUPTOOLS["package-data"]["*"]
    others = [path for path in files("*") if path.suffix != ".py"]
    assert [path for path in others if not any(path.match(pattern) for pattern in patterns)] == []
    assert {Path(folder, "py.typed") for folder in ("core", "plugins", "registry")} <= set(others)


def test_a_wheel_holds_every_file_and_nothing_at_the_top_level_but_fw(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for folder in FOLDERS:
        shutil.copytree(
            ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    offline = ["--no-deps", "--no-build-isolation", "--no-index"]
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        *offline,
        "--wheel-dir",
        str(tmp_path),
        str(source),
    ]
    result = subprocess.run(build, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    [wheel] = tmp_path.glob("*.whl")
    inside = {Path(name) for name in zipfile.ZipFile(wheel).namelist()}
    info = f"fw-{PROJECT['project']['version']}.dist-info"
    assert {path for path in inside if path.parts[0] != info} == {
        Path("fw", path) for path in files("*")
    }
    assert Path(info, "licenses", "LICENSE") in inside


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_of_the_checkout_can_only_be_imported_from_fw(folder: str, tmp_path: Path) -> None:
    leaked = python(f"import {folder}", tmp_path)
    assert f"No module named '{folder}'" in leaked.stderr
    found = python(f"import fw.{folder}; print(fw.{folder}.__name__)", tmp_path)
    assert (found.stdout.strip(), found.stderr) == (f"fw.{folder}", "")


def test_fw_is_a_namespace_that_others_may_join(tmp_path: Path) -> None:
    assert (
        python("import fw; print(getattr(fw, '__file__', None))", tmp_path).stdout.strip() == "None"
    )
    (tmp_path / "fw" / "mine").mkdir(parents=True)
    (tmp_path / "fw" / "mine" / "__init__.py").touch()
    both = python(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import fw.mine, fw.registry", tmp_path
    )
    assert both.stderr == ""


def test_the_fw_command_is_installed() -> None:
    [command] = metadata.entry_points(group="console_scripts", name="fw")
    assert command.value == "fw.core.cli:main"
    assert callable(command.load())
    result = subprocess.run(
        [Path(sys.executable).with_name("fw"), "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("module", ["fw.registry", "fw.core.errors", "fw.core.cli"])
def test_what_answers_at_once_imports_nothing_heavy(module: str, tmp_path: Path) -> None:
    result = python(f"import sys, {module}; print(*sys.modules)", tmp_path)
    assert result.returncode == 0, result.stderr
    assert set(result.stdout.split()) & set(HEAVY) == set()


def test_the_constraints_pin_everything_that_is_installed_for_fw_and_nothing_else() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [
        line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._+!]+", line)
    ] == []
    pinned = {canonicalize_name(line.partition("==")[0]) for line in lines}
    needed = set(dependencies("fw", "test", "lint", "docs")) - {"fw", "pip", "setuptools"}
    assert needed <= pinned
    if sys.platform == "linux" and sys.version_info[:2] == (3, 11):  # where they were resolved
        assert pinned <= needed


def dependencies(distribution: str, *extras: str) -> Iterator[str]:
    """The names of a distribution and of everything that it needs here."""
    waiting, seen = [(distribution, frozenset(extras))], set()
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        yield name
        for line in metadata.requires(name) or []:
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *wanted)):
                waiting.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))


def test_torch_load_never_unpickles_arbitrary_objects():
    calls = [
        (path.name, call)
        for folder in ("core", "plugins", "registry")
        for path in (ROOT / folder).rglob("*.py")
        for call in re.findall(r"(?:torch|pickle|joblib)\.loads?\([^\n]*", path.read_text())
    ]
    assert calls, "the search itself must find something"
    assert [call for call in calls if "weights_only=True" not in call[1]] == []
