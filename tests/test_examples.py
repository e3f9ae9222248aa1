"""The packages in docs/examples are what they say: they install, keep their tests, and run
beside the built-ins."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tokenize
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

ROOT = Path(__file__).parents[1]
EXAMPLES = {folder.name: folder for folder in sorted((ROOT / "docs/examples").glob("fw-*"))}
COMPONENT_FILES = {
    "fw-sharpen": ["fw_sharpen.py"],
    "fw-timm-gmm": ["fw_timm_gmm/gmm.py", "fw_timm_gmm/timm_encoder.py"],
    "fw-joint": ["fw_joint/joint_unet.py", "fw_joint/own_classifier.py"],
}
PROVIDED = {
    "fw-sharpen": {"guidance sharpen"},
    "fw-timm-gmm": {"annotator gmm", "encoder timm"},
    "fw-joint": {"backbone joint_unet", "guidance own_classifier"},
}
OPPONENTS = {
    "fw-sharpen": ("sharpen_1.5", "unconditional"),
    "fw-timm-gmm": ("timm_gmm", "dino_kmeans"),
    "fw-joint": ("joint_3.0", "joint_1.0"),
}
"""Arms that only the new components tell apart."""

TINY = (
    *(
        "samples.count=20",
        "train.steps=6",
        "train.warmup=2",
        "sampler.steps=4",
        "encoder.steps=3",
        "tracker=null",
    ),
    "metrics=[{name: fd, space: {name: classifier, steps: 3}}]",
)

every_example = pytest.mark.parametrize("name", EXAMPLES)


class Site(NamedTuple):
    """Copies of the packages, and an environment in which they are installed."""

    source: Path
    environment: Mapping[str, str]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("examples")
    for name, example in EXAMPLES.items():
        shutil.copytree(
            example,
            folder / name,
            ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"),
        )
    offline = [
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--disable-pip-version-check",
    ]
    packages = [str(folder / name) for name in EXAMPLES]
    finished(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            *offline,
            "--target",
            str(folder / "site"),
            *packages,
        ],
        folder,
    )
    return Site(folder, {**os.environ, "PYTHONPATH": str(folder / "site")})


def finished(command: list[str], folder: Path, environment: Mapping[str, str] | None = None) -> str:
    """What a command that succeeds prints."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def fw(site: Site, name: str, *words: str) -> str:
    return finished(
        [str(Path(sys.executable).with_name("fw")), *words], site.source / name, site.environment
    )


def code_lines(file: Path) -> int:
    """Lines with code: no blank ones, no comments, no docstrings."""
    text = file.read_text("utf-8")
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, documented) and ast.get_docstring(node) is not None
        for line in range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)
    }
    silent = (
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    )
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in silent
        for line in range(token.start[0], token.end[0] + 1)
    }
    return len(lines - docstrings)


def test_every_example_is_tested_here() -> None:
    assert set(EXAMPLES) == set(COMPONENT_FILES) == set(PROVIDED) == set(OPPONENTS)


def test_their_components_are_found_under_an_api_version_that_they_state(site: Site) -> None:
    code = (
        "from fw.registry import installed; registry = installed(); assert not registry.broken, "
        "registry.broken\n"
        "for (kind, name), by in registry.providers.items(): print(by.distribution, kind, name)"
    )
    printed = finished([sys.executable, "-c", code], site.source, site.environment)
    found = [line.split(" ", 1) for line in printed.splitlines()]
    for name, folder in EXAMPLES.items():
        assert {component for distribution, component in found if distribution == name} == PROVIDED[
            name
        ]
        [module] = [*folder.glob("fw_*.py"), *folder.glob("fw_*/__init__.py")]
        assert "\nFW_API = 2\n" in module.read_text("utf-8")


@every_example
def test_its_own_tests_pass(name: str, site: Site) -> None:
    pytest_here = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    printed = finished(pytest_here, site.source / name, site.environment)
    assert re.search(r"\d+ passed", printed)
    assert not re.search(r"skipped|failed|xfailed", printed)


@every_example
def test_its_recipe_is_fine_and_runs_it_beside_what_comes_with_fw(name: str, site: Site) -> None:
    assert "recipe.yaml: fine" in fw(site, name, "validate", "recipe.yaml")
    recipe = yaml.safe_load((EXAMPLES[name] / "recipe.yaml").read_text("utf-8"))
    used = set(names(recipe))
    assert {each.split()[1] for each in PROVIDED[name]} <= used
    assert {"sharpen": "self_guidance", "timm_gmm": "dino", "joint": "kmeans"}[
        recipe["name"]
    ] in used
    assert recipe["samples"]["seeds"] == 3


def names(part: Any) -> list[str]:
    """The components that a part of a recipe names."""
    if isinstance(part, dict):
        return [name for value in part.values() for name in names(value)]
    return (
        [name for value in part for name in names(value)] if isinstance(part, list) else [str(part)]
    )


@every_example
def test_its_recipe_runs_from_end_to_end(name: str, site: Site, tmp_path: Path) -> None:
    tiny = [word for change in TINY for word in ("--set", change)]
    fw(
        site,
        name,
        "run",
        "recipe.yaml",
        *tiny,
        "--out",
        str(tmp_path),
        "--device",
        "cpu",
        "--jobs",
        "1",
    )
    [folder] = tmp_path.glob("*/latest")
    result = json.loads((folder / "run.json").read_text("utf-8"))
    assert {arm["status"] for arm in result["arms"].values()} == {"finished"}
    assert {plugin["distribution"] for plugin in result["plugins"].values()} == {"fw", name}
    new, plain = (
        result["arms"][arm]["metrics"]["fd_classifier"]["values"] for arm in OPPONENTS[name]
    )
    assert new != plain


@every_example
def test_the_components_files_are_as_short_as_the_page_says(name: str) -> None:
    page = " ".join((EXAMPLES[name] / "README.md").read_text("utf-8").split())
    for file in COMPONENT_FILES[name]:
        lines = code_lines(EXAMPLES[name] / file)
        assert lines < 40, f"{file} has {lines} lines of code"
        assert f"[{file}]({file}) ({lines} lines of code)" in page, (
            f"{file} has {lines} lines of code"
        )


@every_example
def test_the_page_measures_the_arms_of_the_recipe(name: str) -> None:
    recipe = yaml.safe_load((EXAMPLES[name] / "recipe.yaml").read_text("utf-8"))
    page = (EXAMPLES[name] / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| (\S+) \| \d", page, re.MULTILINE)
    assert list(recipe["arms"]) == [row for row in dict.fromkeys(rows) if row in recipe["arms"]]
    assert "fw run recipe.yaml" in page
    assert "2 CPU cores" in " ".join(page.split())
