"""What is installed: every package, every data file, nothing at the top level but `fw`, and
light to import."""

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import bare
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
IN_PYTHON = """
import json
import numpy
import torch
from pathlib import Path

import fw.core
from fw.core.api import load
from fw.core.stages.grid import save_grid

done = load("runs/smoke/latest")
arm = done.arm("self_1.5")
images = arm.sample(4)
exported = numpy.load("samples.npz")["arr_0"]
save_grid(images, Path("again.png"))
same = [
    torch.equal(images, arm.samples()[:4]),
    (exported == images.permute(0, 2, 3, 1).numpy()).all(),  # grey, three times
    Path("again.png").read_bytes() == Path("grid.png").read_bytes(),
]
scores = done.scores.query("score == 'fd_pca'").groupby("arm").value.mean()
print(fw.core.__file__)
print("equal" if all(same) else same)
print(json.dumps(scores.to_dict()))
"""
"""What a script does with a run: the images of Python, of `fw sample` and of `fw export`."""

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
    return bare.wheel(tmp_path_factory.mktemp("wheel"))


def test_a_wheel_holds_every_file_and_nothing_at_the_top_level_but_fw(wheel: Path) -> None:
    inside = {Path(name) for name in zipfile.ZipFile(wheel).namelist()}
    info = f"fw-{PROJECT['project']['version']}.dist-info"
    assert {path for path in inside if path.parts[0] != info} == {
        Path("fw", path) for path in files("*")
    }
    assert Path(info, "licenses", "LICENSE") in inside


def test_a_wheel_in_a_bare_environment_runs_the_smoke_recipe_and_is_used_from_python(
    wheel: Path, tmp_path: Path
) -> None:
    python = bare.environment(wheel, tmp_path / "bare")
    words = [word for change in SHRUNK for word in ("--set", change)]

    def said(*command: str | Path) -> str:
        done = subprocess.run(
            [python.with_name("fw"), *command] if command[0] != "-c" else [python, "-I", *command],
            cwd=tmp_path,
            env=bare.surroundings(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    said("run", "smoke", *words, "--jobs", "1", "--device", "cpu")
    run = tmp_path / "runs/smoke/latest"
    result = json.loads((run / "run.json").read_text())
    assert {arm["status"] for arm in result["arms"].values()} == {"finished"}
    assert (run / "report.html").exists()
    said("sample", run, "--arm", "self_1.5", "-n", "4", "-o", "grid.png")
    said("export", run, "--arm", "self_1.5", "--seed", "0", "-n", "4", "--to", "samples.npz")
    where, drawn, scored = said("-c", IN_PYTHON).splitlines()
    assert Path(where).is_relative_to(tmp_path / "bare")
    assert drawn == "equal"
    means = {name: arm["metrics"]["fd_pca"]["mean"] for name, arm in result["arms"].items()}
    assert json.loads(scored) == pytest.approx(means)


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
