"""What every command of `fw` does: -h, --version, exit codes, options given twice, recipes by
name."""

from __future__ import annotations

import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from sites import fw
from typer.main import get_command

from fw.core.cli import app
from fw.core.cli.ending import EXIT_CODES
from fw.core.recipe.shipped import located, shipped

ROOT = Path(__file__).parents[1]
COMMANDS: dict[str, Any] = getattr(get_command(app), "commands")  # noqa: B009


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_a_short_option_for_its_help_in_which_brackets_stay(name: str) -> None:
    short = fw(name, "-h")
    assert (short.code, short.out) == (0, fw(name, "--help").out)
    words = re.sub(r"[│\s]+", "", short.out)
    for param in COMMANDS[name].params:
        for default in re.findall(r"\[default: [^\]]+\]", getattr(param, "help", "") or ""):
            assert default.replace(" ", "") in words


def test_the_version_is_that_of_fw_torch_and_python_with_their_places() -> None:
    said = fw("--version")
    assert said.code == 0
    lines = said.out.splitlines()
    assert lines[0].startswith(f"fw {version('fw')}, in ")
    assert (Path(lines[0].partition(", in ")[2]) / "core" / "cli").is_dir()
    assert lines[1] == f"torch {version('torch')}"
    assert lines[2].startswith(f"python {platform.python_version()}, ")


def test_the_exit_codes_of_the_help_are_those_of_the_docs() -> None:
    said = " ".join(fw("-h").out.split())
    docs = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    for code, meaning in EXIT_CODES.items():
        assert f"{code} {meaning}" in said
        assert f"| {code} | {meaning}" in docs


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("run", "smoke", "--out", "a", "--out=b"), "--out"),
        (("sample", "x", "--arm", "a", "--arm", "b"), "--arm"),
        (("sample", "x", "--arm", "a", "-n", "1", "-n2"), "-n"),
        (("ui", "--browser", "--no-browser"), "--browser/--no-browser"),
    ],
)
def test_an_option_that_takes_one_value_is_not_given_twice(
    words: tuple[str, ...], option: str
) -> None:
    refused = fw(*words)
    assert refused.code == 2
    assert f"{option} is given 2 times, and takes one value: name it once" in refused.err


def test_options_that_may_be_repeated_are_all_kept_and_a_key_is_set_once() -> None:
    words = ("run", "smoke", "--dry-run", "--arm", "self_1.5", "--arm", "unconditional")
    both = fw(*words, "--set", "train.steps=3", "--set", "train.batch=8", "--out", "nowhere")
    assert both.code == 0, both.err
    assert all(f"arm {arm}:" in both.out for arm in ("self_1.5", "unconditional"))
    refused = fw("validate", "smoke", "--set", "train.steps=3", "--set", "train.steps=4")
    assert refused.code == 2
    assert "--set #2: train.steps is set by --set #1, too" in refused.err
    assert fw("plugins", "--json", "--json", "kmeans").code == 0


def test_a_recipe_that_comes_with_fw_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = fw("validate", "smoke")
    assert done.code == 0
    assert done.err.splitlines()[0] == f"recipe {shipped()['smoke']}"
    unknown = fw("validate", "smok")
    assert (unknown.code, "did you mean 'smoke'?" in unknown.err) == (2, True)
    path = fw("validate", "recipes/smoke.yaml")
    assert (path.code, "`fw recipes smoke` copies" in path.err) == (2, True)
    (tmp_path / "smoke").mkdir()  # a folder is no recipe
    assert located(Path("smoke")) == shipped()["smoke"]
    (tmp_path / "smoke").rmdir()
    (tmp_path / "smoke").write_text("fw: 1\n", encoding="utf-8")  # and a file is what was meant
    assert located(Path("smoke")) == Path("smoke")


def test_a_recipe_that_comes_with_fw_is_copied_and_nothing_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert fw("recipes", "smoke").out == "smoke.yaml\n"
    assert Path("smoke.yaml").read_bytes() == shipped()["smoke"].read_bytes()
    Path("smoke.yaml").write_text("mine", encoding="utf-8")
    again = fw("recipes", "smoke")
    assert (again.code, Path("smoke.yaml").read_text(encoding="utf-8")) == (2, "mine")
    assert "-o" in again.err
    assert fw("recipes", "smoke", "-o", "other.yaml").code == 0
    Path("folder").mkdir()
    assert fw("recipes", "smoke.yaml", "-o", "folder").out == "folder/smoke.yaml\n"
    assert "no folder nowhere" in fw("recipes", "smoke", "-o", "nowhere/x.yaml").err
    assert "did you mean 'smoke'" in fw("recipes", "smook").err


def test_a_plan_is_not_made_where_runs_cannot_lie(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    done = fw("run", "smoke", "--out", tmp_path / "runs", "--dry-run")
    assert done.code == 2
    assert done.err.endswith(f"--out: {tmp_path / 'runs'} is a file, and runs lie in a folder\n")


def test_a_folder_is_no_recipe_and_images_that_are_not_here_are_said_to_be(tmp_path: Path) -> None:
    done = fw("validate", tmp_path)
    assert done.code == 2
    assert "this is a folder, and a recipe is a file" in done.err
    images = f"dataset={{name: image_folder, root: {tmp_path}/nowhere, size: 8, channels: 1}}"
    done = fw("validate", "smoke", "--set", images, "--set", "metrics={name: fd, space: pca}")
    assert done.code == 0, done.err
    assert "nowhere/train is no folder, so that its images could not be checked" in done.out
