"""What is installed: every package, every data file, nothing at the top level but `fw`, and
light to import."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]
FOLDERS = ("core", "plugins", "recipes", "registry")
SHRUNK = (
    *("encoder.steps=2", "train.steps=4", "train.warmup=1", "sampler.steps=4", "samples.count=20"),
    *("metrics=[{name: fd, space: {name: pca, dims: 8}}]", "tracker=null"),
)
"""What makes a recipe of digits quick: all of its stages, and hardly any work."""
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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the checkout."""
    tmp_path = tmp_path_factory.mktemp("wheel")
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
    [made] = tmp_path.glob("*.whl")
    return made


def test_a_wheel_holds_every_file_and_nothing_at_the_top_level_but_fw(wheel: Path) -> None:
    inside = {Path(name) for name in zipfile.ZipFile(wheel).namelist()}
    info = f"fw-{PROJECT['project']['version']}.dist-info"
    assert {path for path in inside if path.parts[0] != info} == {
        Path("fw", path) for path in files("*")
    }
    assert Path(info, "licenses", "LICENSE") in inside


def test_a_wheel_in_a_bare_environment_runs_the_smoke_recipe(wheel: Path, tmp_path: Path) -> None:
    """The environment has the wheel, and sees the libraries but not what else is installed there
    as editable, such as this checkout."""
    bare = tmp_path / "bare"
    venv.create(bare, with_pip=False, symlinks=True)
    here = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = bare / "lib" / here / "site-packages"
    install = ["install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--python", bare / "bin/python", *install, wheel],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "zz_libraries.pth").write_text("\n".join(libraries) + "\n")

    words = [word for change in SHRUNK for word in ("--set", change)]
    recipe = packages / "fw/recipes/smoke.yaml"
    done = subprocess.run(
        [bare / "bin/fw", "run", recipe, *words, "--jobs", "1", "--device", "cpu"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "runs/smoke/latest/run.json").read_text())
    assert {arm["status"] for arm in result["arms"].values()} == {"finished"}
    assert (tmp_path / "runs/smoke/latest/report.html").exists()
    where = "import fw.core, fw.plugins; print(fw.core.__file__, fw.plugins.__file__)"
    found = subprocess.run(
        [bare / "bin/python", "-I", "-c", where], capture_output=True, text=True, check=True
    )
    assert all(Path(file).is_relative_to(packages) for file in found.stdout.split())


def test_the_metadata_say_what_fw_is_and_agree_with_the_citation() -> None:
    project = PROJECT["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    required = {"cff-version", "message", "title", "authors"}  # of Citation File Format 1.2
    assert required <= citation.keys()
    assert (citation["cff-version"], citation["type"]) == ("1.2.0", "software")
    assert all(citation[name] == project[name] for name in ("version", "license", "keywords"))
    names = [author["name"] for author in citation["authors"]]
    assert names == [author["name"] for author in project["authors"]]
    assert project["description"].rstrip(".").lower() in citation["title"].lower()
    python = [each for each in project["classifiers"] if re.search(r":: 3\.\d+$", each)]
    assert f"Programming Language :: Python :: {project['requires-python'][2:]}" in python


def test_the_container_gets_what_the_package_needs_and_runs_fw_without_rights() -> None:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.split(None, 1) for line in text.splitlines() if re.match("[A-Z]", line)]
    copied = [path for word, rest in lines if word == "COPY" for path in rest.split()[:-1]]
    assert [path for path in copied if not (ROOT / path).exists()] == []
    needed = {*SETUPTOOLS["package-dir"].values(), "pyproject.toml", PROJECT["project"]["readme"]}
    assert needed | set(PROJECT["project"]["license-files"]) <= set(copied)
    sent = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    assert sent == set(copied)
    [extras] = [rest for word, rest in lines if word == "ARG" and rest.startswith("EXTRAS")]
    known = PROJECT["project"]["optional-dependencies"]
    assert set(extras.partition("=")[2].split(",")) <= set(known)
    assert [rest for word, rest in lines if word in ("USER", "ENTRYPOINT")] == ["fw", '["fw"]']


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
