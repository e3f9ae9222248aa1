"""Completion by a shell, in a real bash under a terminal where there is one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sites import GUIDANCE, write
from test_startup import HEAVY

from fw.core.catalogue.facts import known_kinds
from fw.core.catalogue.named import named
from fw.registry import installed

SMOKE = Path(__file__).parents[1] / "recipes" / "smoke.yaml"


def test_names_that_are_read_from_text_are_those_of_the_components(tmp_path: Path) -> None:
    registry = installed()
    ours = [key for key, each in registry.providers.items() if each.plugin == "builtin"]
    assert named("name") == sorted({name for _, name in ours})
    assert set(named("kind")) >= set(known_kinds(registry))
    file = write(tmp_path / "mine.py", GUIDANCE.format(name="mine"))
    assert "mine" in named("name", [file, tmp_path / "missing.py"])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as users have it: a recipe, a run, and something broken."""
    folder = tmp_path_factory.mktemp("place")
    run = folder / "runs" / "mine" / "seed0-123"
    run.mkdir(parents=True)
    shutil.copy(SMOKE, folder / "mine.yaml")
    shutil.copy(SMOKE, run / "recipe.resolved.yaml")
    (run.parent / "latest").symlink_to(run.name)
    (folder / "runs" / "store").mkdir()
    (folder / "broken.yaml").write_text("arms: [1, 2\n")
    (folder / "a b.yaml").write_text("fw: 1\n")
    return folder


def offered(*words: str, place: Path) -> tuple[list[str], str]:
    """What bash is offered for the last of the words, and what is printed beside it."""
    environment = {
        **os.environ,
        "_FW_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(("fw", *words)),
        "COMP_CWORD": str(len(words)),
    }
    program = (
        "import sys; sys.argv[0] = 'fw'; from fw.core.cli import main\n"
        f"try: main()\nfinally: print('imported', [n for n in {HEAVY} if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    *lines, imported = done.stdout.splitlines()
    assert imported == "imported []"
    return [line for line in lines if line], done.stderr


@pytest.mark.parametrize(
    ("words", "offers"),
    [
        (("val",), ["validate"]),
        (("run", "mi"), ["mine.yaml"]),
        (("run", "smo"), ["smoke"]),
        (("run", "smoke", "--arm", ""), ["unconditional", "self_1.5"]),
        (("run", "broken.yaml", "--arm", ""), []),
        (("run", "nowhere.yaml", "--set", ""), []),
        (("run", "a"), []),
        (("run", "mine.yaml", "--set", "train.s"), ["train.steps=150"]),
        (("run", "mine.yaml", "--set", "train.steps", "=", "3", "--arm", "s"), ["self_1.5"]),
        (("run", "mine.yaml", "--set", "train.steps", "=", "1"), []),
        (("run", "mine.yaml", "--out", "=", "ru"), ["runs"]),
        (("run", "mine.yaml", "--dry"), ["--dry-run"]),
        (("sample", ""), ["runs/mine/latest"]),
        (("sample", "runs/mine/"), ["runs/mine/latest", "runs/mine/seed0-123"]),
        (("sample", "runs/mine/latest", "--arm", "u"), ["unconditional"]),
        (("plugins", "self_g"), ["self_guidance"]),
        (("plugins", "--kind", "an"), ["annotator"]),
        (("recipes", "onl"), ["online_guidance"]),
    ],
)
def test_a_word_is_completed_at_once_and_in_silence(
    words: tuple[str, ...], offers: list[str], place: Path
) -> None:
    assert offered(*words, place=place) == (offers, "")


@pytest.fixture
def bash(place: Path, tmp_path: Path) -> Iterator[Any]:
    """An interactive bash whose user has installed fw's completion."""
    pexpect = pytest.importorskip("pexpect")
    if shutil.which("bash") is None:
        pytest.skip("no bash here")
    program = tmp_path / "bin" / "fw"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport sys\nfrom fw.core.cli import main\n"
        f"sys.argv[0] = 'fw'\nmain()\n"
    )
    program.chmod(0o755)
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PS1": "$ ",
        "TERM": "dumb",
        "INPUTRC": "/dev/null",
    }
    options: Any = {"env": environment, "cwd": str(place), "encoding": "utf-8", "timeout": 60}
    shell = pexpect.spawn("bash", ["--noprofile", "--norc", "-i"], **options, dimensions=(50, 200))
    shell.expect_exact("$ ")
    shell.sendline("fw --install-completion")
    shell.expect_exact("completion installed in")
    shell.expect_exact("$ ")
    shell.sendline("source ~/.bashrc; PS1='ready> '")
    shell.expect_exact("\r\nready> ")
    yield shell
    shell.close(force=True)


def test_bash_completes_what_is_typed(bash: Any) -> None:
    for typed, completed in (
        ("fw val\t", "fw validate "),
        ("fw run mi\t", "fw run mine.yaml "),
        ("fw run mine.yaml --arm se\t", "fw run mine.yaml --arm self_1.5 "),
        (
            "fw run mine.yaml --set train.steps=3 --arm un\t",
            "fw run mine.yaml --set train.steps=3 --arm unconditional ",
        ),
        ("fw sample r\t", "fw sample runs/mine/latest "),
        ("fw plugins self_g\t", "fw plugins self_guidance "),
        ("fw validate bro\t", "fw validate broken.yaml "),
        ("fw run broken.yaml --arm \t", "fw run broken.yaml --arm "),
    ):
        bash.send(typed)
        bash.send("\x01echo '\x05'\r")  # to the line's start and its end
        bash.expect(r"\r\n([^\r]*)\r\nready> ")
        assert bash.match[1] == completed
