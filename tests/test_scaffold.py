"""`fw new-plugin`: what it writes is clean, tested, installable and usable as it is, for every
kind.

The packages of all kinds are written once, and each tool is run once over all of them.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from fw.core import kinds, templates
from fw.core.cli import app, guarded
from fw.core.commands import new_plugin as scaffold
from fw.core.plan.assembly import plan
from fw.core.recipe.loading import load
from fw.registry import Registry, discover, installed
from fw.registry.api import API

ROOT = Path(__file__).parents[1]
KINDS = templates.names()
PART_OF = {"joint": "backbone", "rule": "guidance"}
"""Kinds whose components are of another kind, and stand where those do."""

PACKAGES = {f"fw-new-{kind}": kind for kind in KINDS}
ODD = {
    "x": "joint",
    "aa-0_b": "encoder",
    "fw-" + "a" * 37: "dataset",
    "zz": "guidance",
    "fw-example": "tracker",
}
"""Names at the limits, and names that are sorted before and behind fw's."""

every_kind = pytest.mark.parametrize("kind", KINDS)

RECIPE = """
fw: 1
name: toy
dataset: digits
encoder: pixels
annotator: {name: kmeans, clusters: 3, nredo: 1}
model: {name: unet, channels: [4, 8], groups: 2}
process: edm
train: {steps: 3, batch: 8, warmup: 1}
sampler: {name: dpmpp, steps: 2, clip: null}
samples: {count: 6, seeds: 3}
metrics: [{name: fd, space: {name: pca, dims: 2}}]
baseline: conditional
arms:
  conditional: {}
  unconditional: {annotator: null}
"""


# Writing, installing and running


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a new package of every kind, and some with odd names."""
    folder = tmp_path_factory.mktemp("written")
    for name, kind in (PACKAGES | ODD).items():
        scaffold.new_plugin(name, kind, folder)
    return folder


@pytest.fixture(scope="module")
def site(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages as pip installs them."""
    site = tmp_path_factory.mktemp("site")
    offline = [
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--disable-pip-version-check",
    ]
    copies = shutil.copytree(written, tmp_path_factory.mktemp("build") / "copies")
    packages = [str(copies / name) for name in PACKAGES]
    done = run("python", "-m", "pip", "install", *offline, "--target", str(site), *packages)
    assert done.returncode == 0, done.stderr
    return site


@pytest.fixture
def beside(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """What is installed once the packages are."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(site))
    installed.cache_clear()
    yield installed()
    for name in set(sys.modules) - before:
        if str(site) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    installed.cache_clear()


def run(*words: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run one of the programs that are installed beside Python."""
    program = str(Path(sys.executable).with_name(words[0]))
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **variables}
    return subprocess.run(
        [program, *words[1:]],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def fw(*words: str | Path) -> tuple[int, str, str]:
    """The exit code of `fw WORDS` in this process, and what it wrote to standard output and
    error."""
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            code: Any = guarded(lambda: app([str(word) for word in words], prog_name="fw"))
        except SystemExit as ended:
            code = ended.code
    return code or 0, out.getvalue(), error.getvalue()


def block(package: Path, language: str, heading: str) -> str:
    """The fenced block below a heading of the package's README."""
    text = (package / "README.md").read_text("utf-8").partition(f"\n## {heading}\n")[2]
    return text.partition(f"```{language}\n")[2].partition("```")[0]


def recipe_with(written: Path, *chosen: str) -> dict[str, Any]:
    """The toy recipe with the lines that the packages' READMEs show."""
    lines = [block(written / f"fw-new-{kind}", "yaml", "Use") for kind in chosen]
    return yaml.safe_load(RECIPE) | {
        key: value for line in lines for key, value in yaml.safe_load(line).items()
    }


# The templates


def test_every_kind_has_a_template_a_line_for_recipes_and_a_word_in_the_help() -> None:
    assert {"dataset", "joint"} <= set(KINDS) == {row.name for row in kinds.TABLE if row.template}
    command = typer.main.get_command(app).commands["new-plugin"]  # type: ignore[attr-defined]
    [option] = [each for each in command.params if each.name == "kind"]
    assert re.split(", | or ", option.help) == KINDS


@every_kind
def test_a_template_is_a_healthy_plugin_of_this_api_and_no_built_in(kind: str) -> None:
    module = import_module(f"fw.core.templates.{kind}")
    assert module.FW_API == API
    [component] = module.fw_components()
    assert (component.name, component.__name__, component.__module__) == (
        "example",
        "Example",
        module.__name__,
    )
    assert issubclass(component, getattr(kinds, kind.capitalize()))
    assert component not in installed().components.values()


@every_kind
def test_every_field_of_a_template_says_what_it_is(kind: str) -> None:
    [component] = import_module(f"fw.core.templates.{kind}").fw_components()
    for name, info in component.model_fields.items():
        assert info.description, name
        assert not info.is_required(), name
        assert info.metadata or info.annotation not in (int, float, str), f"{name} has no bounds"


# What is written


@pytest.mark.parametrize("name", [*PACKAGES, *ODD])
def test_a_package_is_complete_named_throughout_and_clean(name: str, written: Path) -> None:
    package, module = written / name, name.replace("-", "_")
    files = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    own = {f"{module}.py", f"tests/test_{module}.py"}
    assert files == {".github/workflows/ci.yml", ".gitignore", "README.md", "pyproject.toml", *own}
    for file in files:
        text = (package / file).read_text("utf-8")
        assert "templates" not in text, file
        assert not re.search(r"\$\w", text), file
        assert name == "fw-example" or not re.search(r"\bexample\b", text, re.IGNORECASE), file
    for words in (("check",), ("format", "--check")):
        done = run("ruff", *words, "--no-cache", cwd=package)
        assert done.returncode == 0, done.stdout


def test_the_types_hold_whether_or_not_mypy_sees_fw(
    written: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    wrong = tmp_path_factory.mktemp("wrong") / "wrong.py"
    wrong.write_text("from fw_new_guidance import NewGuidance\n\nNewGuidance().scale.upper()\n")
    folders = [written / name for name in PACKAGES | ODD]
    modules = [*(path for folder in folders for path in folder.glob("**/*.py")), wrong]
    assert len(modules) == 2 * len(folders) + 1
    found: list[list[str]] = []
    for path in ([ROOT / "tests/typing", *folders], folders):
        config = str(written / "fw-new-guidance/pyproject.toml")
        arguments = ["--config-file", config, "--no-error-summary", *map(str, modules)]
        cache = str(written / "mypy_cache")
        done = run("mypy", *arguments, MYPYPATH=":".join(map(str, path)), MYPY_CACHE_DIR=cache)
        found.append((done.stdout + done.stderr).splitlines())
    [[error], unseen] = found
    assert '"float" has no attribute "upper"' in error
    assert unseen == []


def test_the_tests_of_all_packages_pass_unchanged(written: Path) -> None:
    folders = [str(written / name / "tests") for name in PACKAGES]
    path = os.pathsep.join(str(written / name) for name in PACKAGES)
    done = run("pytest", "-q", "-p", "no:cacheprovider", *folders, cwd=written, PYTHONPATH=path)
    assert done.returncode == 0, done.stdout[-4000:]
    assert int(re.findall(r"(\d+) passed", done.stdout)[-1]) >= 2 * len(PACKAGES)


def test_the_steps_of_the_workflow_are_the_commands_of_the_readme_and_each_succeeds(
    written: Path, tmp_path: Path
) -> None:
    package = shutil.copytree(written / "fw-new-guidance", tmp_path / "copy")
    workflow = yaml.safe_load((package / ".github/workflows/ci.yml").read_text("utf-8"))
    first, *steps = [step["run"] for step in workflow["jobs"]["check"]["steps"] if "run" in step]
    needs, installs = first.splitlines()
    assert re.fullmatch(r': "\$\{FW:\?.*\}"', needs)
    assert installs == 'python -m pip install "${FW}" --editable ".[test]"'
    assert steps == block(package, "sh", "Check").splitlines()
    assert [step.split()[0] for step in steps] == ["ruff", "ruff", "mypy", "pytest"]
    for step in steps:
        done = run(*step.split(), cwd=package, MYPY_CACHE_DIR=str(written / "mypy_cache"))
        assert done.returncode == 0, step + done.stdout + done.stderr


def test_the_test_extra_installs_what_the_steps_run(written: Path) -> None:
    project = tomllib.loads((written / "fw-new-guidance/pyproject.toml").read_text("utf-8"))[
        "project"
    ]
    extra = {
        re.split("[<>=]", requirement)[0]
        for requirement in project["optional-dependencies"]["test"]
    }
    assert extra == {check.split()[0] for check in scaffold.CHECKS}
    assert project["dependencies"] == []


# What is installed


def test_every_installed_package_appears_with_its_component(site: Path) -> None:
    found = [
        entry for each in metadata.distributions(path=[str(site)]) for entry in each.entry_points
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        registry = discover(found)
    assert registry.broken == []
    assert {str(provider): key for key, provider in registry.providers.items()} == {
        f"new_{kind} (fw-new-{kind} 0.1.0)": (PART_OF.get(kind, kind), f"new_{kind}")
        for kind in KINDS
    }


@every_kind
def test_fw_plugins_shows_the_component(kind: str, beside: Registry) -> None:
    code, shown, _ = fw("plugins", f"new_{kind}")
    assert code == 0
    assert f"new_{kind}" in shown
    assert f"fw-new-{kind}" in shown


@every_kind
def test_the_readme_shows_a_line_that_a_recipe_may_have(
    kind: str, written: Path, beside: Registry, tmp_path: Path
) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe_with(written, kind)))
    recipe = load(file)
    assert f"new_{kind}" in recipe.to_yaml()
    assert plan(recipe).arms


@pytest.mark.parametrize(
    "chosen",
    [
        [kind for kind in KINDS if kind not in (*PART_OF, "objective")],
        ["joint", "rule", "sampler", "tracker"],
        [
            "objective",
            "tracker",
        ],  # on a network that has blocks to read, which the template's has not
    ],
    ids=["all but joint, rule and objective", "joint and rule", "objective"],
)
def test_a_recipe_of_new_components_runs_from_end_to_end(
    chosen: list[str], written: Path, beside: Registry, tmp_path: Path
) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe_with(written, *chosen)))
    words = ("run", file, "--out", tmp_path / "runs", "--device", "cpu", "--jobs", "1")
    code, _, said = fw(*words)
    assert code == 0, said
    folder = tmp_path / "runs/toy/latest"
    result = json.loads((folder / "run.json").read_text())
    assert {arm["status"] for arm in result["arms"].values()} == {"finished"}
    used = {"new_" + kind for kind in chosen}
    assert used - {"new_tracker"} <= set(result["plugins"])
    logged = (folder / "events.jsonl").read_text()
    statuses = [
        event for event in map(json.loads, logged.splitlines()) if event["what"] == "status"
    ]
    assert [event["value"] for event in statuses] == ["finished"] * 3
    assert fw(*words)[0] == 0
    assert (folder / "events.jsonl").read_text() == logged


# What is refused


REFUSED: Mapping[str, tuple[tuple[str, ...], str]] = {
    "capitals": (("Fw-Sharpen",), "'Fw-Sharpen' cannot name a package"),
    "a blank": (("fw sharpen",), "cannot name a package"),
    "no name": (("",), "cannot name a package"),
    "a digit first": (("3d",), "cannot name a package"),
    "a dash last": (("fw-",), "cannot name a package"),
    "a dot": (("fw.sharpen",), "cannot name a package"),
    "a path": (("../sharpen",), "cannot name a package"),
    "a line break last": (("sharpen\n",), "cannot name a package"),
    "another alphabet": (("schärfe",), "cannot name a package"),
    "too long": (("a" * 41,), "at most 40"),
    "a keyword": (("lambda",), "'lambda' is a keyword"),
    "a keyword as a class": (("fw-none",), "'None' is a keyword"),
    "fw": (("fw",), "the module would be called fw"),
    "the folder of the tests": (("tests",), "the module would be called tests"),
    "setuptools' script": (("setup",), "the module would be called setup"),
    "a module of Python": (("json",), "the module would be called json"),
    "a library": (("torch",), "the module would be called torch"),
    "a class that the module imports": (("fw-tensor",), "the class would be called Tensor"),
    "the kind": (("fw-guidance",), "the class would be called Guidance"),
    "a class of Python": (("fw-exception",), "the class would be called Exception"),
    "an installed component": (("fw-cfg",), "there is a guidance 'cfg' already, from builtin (fw"),
    "an installed component by option": (
        ("sharpen", "--component", "cfg"),
        "there is a guidance 'cfg' already",
    ),
    "a component with a digit first": (("fw-3d",), "'3d' cannot name a component"),
    "a component with a dash": (("sharpen", "--component", "a-b"), "'a-b' cannot name a component"),
}


@pytest.mark.parametrize(("words", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_a_name_that_does_not_do_is_refused_in_one_line(
    words: tuple[str, ...], reason: str, tmp_path: Path
) -> None:
    code, out, error = fw("new-plugin", *words, "--kind", "guidance", "--into", tmp_path)
    assert (code, out) == (2, "")
    assert reason in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_name_of_another_kind_may_be_used_again(tmp_path: Path) -> None:
    assert fw("new-plugin", "fw-cfg", "--kind", "sampler", "--into", tmp_path)[0] == 0


def test_an_unknown_kind_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    code, _, error = fw("new-plugin", "fw-sharpen", "--kind", "guide", "--into", tmp_path)
    assert (code, error.strip()) == (
        2,
        f"there is no kind 'guide'; --kind is one of {', '.join(KINDS)}",
    )


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    there = tmp_path / "fw-sharpen"
    there.mkdir()
    assert fw("new-plugin", "fw-sharpen", "--kind", "guidance", "--into", tmp_path)[0] == 0
    before = {path: path.read_bytes() for path in there.rglob("*") if path.is_file()}
    code, _, error = fw("new-plugin", "fw-sharpen", "--kind", "sampler", "--into", tmp_path)
    assert (code, error.count("\n")) == (2, 1)
    assert f"{there} is there already" in error
    assert {path: path.read_bytes() for path in there.rglob("*") if path.is_file()} == before


def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for into in (tmp_path / "file", tmp_path / "file/below"):
        code, _, error = fw("new-plugin", "fw-sharpen", "--kind", "guidance", "--into", into)
        assert (code, error.count("\n")) == (2, 1)
        assert "cannot write to" in error


def test_it_says_what_it_wrote_and_three_commands_that_come_next(tmp_path: Path) -> None:
    into = tmp_path / "my plugins"
    code, out, error = fw(
        "new-plugin", "fw-sharpen", "--kind", "guidance", "--into", into, "--component", "crisp"
    )
    assert (code, error) == (0, "")
    *wrote, _, change, install, test = out.splitlines()
    assert {Path(line.removeprefix("wrote ")) for line in wrote} == {
        path for path in into.rglob("*") if path.is_file()
    }
    assert change.strip() == f"cd '{into}/fw-sharpen'"
    assert install.strip() == block(into / "fw-sharpen", "sh", "Install").splitlines()[0]
    assert test.strip() in scaffold.CHECKS
    project = tomllib.loads((into / "fw-sharpen/pyproject.toml").read_text("utf-8"))["project"]
    assert project["entry-points"]["fw"] == {"crisp": "fw_sharpen"}
    assert 'name: ClassVar[str] = "crisp"' in (into / "fw-sharpen/fw_sharpen.py").read_text("utf-8")
