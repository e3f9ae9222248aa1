"""`--plugin my.py`: a file is a plugin, its text goes with the run, and a fault in it is one
line."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import pytest
import sites
import torch
import toys
from pluggy import HookImpl
from sites import Answer, fw, products

from fw.core.plan.assembly import plan
from fw.core.plan.graph import Plan
from fw.core.recipe.loading import validate
from fw.core.recipe.source import parse
from fw.registry import Component, LocalPlugin, UnfitPlugin, add_files, discover

TINY = Path(__file__).parent / "tiny.yaml"
MINE = sites.GUIDANCE.format(name="mine")
ARM = "arms.mine={guidance: {name: mine, scale: 1.5}}"

MANY = """
    from typing import ClassVar

    import toys
    from fw.registry import hookimpl


    class Mine(toys.Free):
        name: ClassVar[str] = "mine"


    class Lens(toys.Mean):
        name: ClassVar[str] = "lens"


    class Tails(toys.Coin):
        name: ClassVar[str] = "tails"


    class Net(toys.Linear):
        name: ClassVar[str] = "net"


    class Distance(toys.Gap):
        name: ClassVar[str] = "distance"


    @hookimpl
    def fw_components():
        return [Mine, Lens, Tails, Net, Distance]
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder with a toy recipe and a plugin's file, where the toys are installed."""
    sites.toy_recipe(tmp_path)
    sites.write(tmp_path / "my.py", MINE)
    with sites.site(tmp_path / "site"):
        yield tmp_path


def run(place: Path, *words: str | Path, out: str = "runs", jobs: int = 1) -> Answer:
    how = ("--out", place / out, "--device", "cpu", "--jobs", str(jobs))
    return fw("run", place / "toy.yaml", *how, *words)


def run_file(place: Path, out: str = "runs") -> dict:
    return json.loads((place / out / "toy/latest/run.json").read_text())


# It works


def test_a_file_is_a_plugin_here_and_in_workers_with_the_same_bits_and_its_text_is_read_once(
    tmp_path: Path,
) -> None:
    """The file is spoilt as soon as it is imported; what was read of it is what worker processes
    execute."""
    text = sites.textwrap.dedent(
        MINE + "\n    from pathlib import Path\n    Path(__file__).write_text('1 / 0')\n"
    )
    for jobs in ("1", "2"):
        (tmp_path / "my.py").write_text(text)
        words = (
            "--plugin",
            tmp_path / "my.py",
            "--set",
            ARM,
            "--arm",
            "mine",
            "--out",
            tmp_path / jobs,
            "--jobs",
            jobs,
        )
        done = fw(
            "run",
            TINY,
            *words,
            "--device",
            "cpu",
            "--set",
            "train.steps=12",
            "--set",
            "tracker=null",
        )
        assert done.code == 0, done.err
        assert (tmp_path / "my.py").read_text() == "1 / 0"
        found = json.loads((tmp_path / jobs / "tiny/latest/run.json").read_text())
        assert found["arms"]["mine"]["status"] == "finished"
        assert found["plugins"]["my"]["source"] == hashlib.sha256(text.encode()).hexdigest()
        assert (tmp_path / jobs / "tiny/latest/plugins/my.py").read_text() == text
        del sys.modules[f"fw_local_{hashlib.sha256(text.encode()).hexdigest()[:12]}"]
    assert products(tmp_path / "1") == products(tmp_path / "2") != {}


def test_validate_schema_and_a_dry_run_take_the_option(place: Path) -> None:
    words = (place / "toy.yaml", "--set", ARM)
    assert "no guidance named 'mine'" in fw("validate", *words).err
    assert fw("validate", *words, "--plugin", place / "my.py").code == 0
    assert run(place, "--set", ARM, "--plugin", place / "my.py", "--dry-run").code == 0
    assert '"mine"' not in fw("schema").out
    assert '"mine"' in fw("schema", "--plugin", place / "my.py").out


def test_several_files_may_be_given(place: Path) -> None:
    other = sites.write(place / "other.py", sites.GUIDANCE.format(name="other"))
    modes = "arms.both={guidance: [{name: mine, scale: 2}, {name: other, scale: 3}]}"
    done = run(place, "--plugin", place / "my.py", "--plugin", other, "--set", modes)
    assert done.code == 0, done.err
    assert sorted(file.name for file in (place / "runs/toy/latest/plugins").iterdir()) == [
        "my.py",
        "other.py",
    ]


@pytest.mark.parametrize(
    "text", [b"\xef\xbb\xbf" + MINE.encode(), MINE.replace("\n", "\r\n").encode()]
)
def test_a_file_from_another_editor_is_taken_byte_for_byte(place: Path, text: bytes) -> None:
    (place / "my.py").write_bytes(
        text.replace(b"    from typing", b"from typing").replace(b"\n    ", b"\n")
    )
    done = run(place, "--plugin", place / "my.py", "--set", ARM)
    assert done.code == 0, done.err
    assert (place / "runs/toy/latest/plugins/my.py").read_bytes() == (place / "my.py").read_bytes()
    digest = hashlib.sha256((place / "my.py").read_bytes()).hexdigest()
    assert run_file(place)["plugins"]["my"]["source"] == digest


def test_what_a_stage_raised_shows_the_line_of_the_file(place: Path) -> None:
    sites.write(place / "my.py", MINE.replace("return good / 2", "return undefined / 2"))
    done = run(place, "--plugin", place / "my.py", "--set", ARM)
    assert done.code == 1
    [trace] = (place / "runs/store").glob("sample-*.partial/traceback.txt")
    assert "return undefined / 2" in trace.read_text()


def test_pluggy_holds_a_file_like_any_other_plugin() -> None:
    registry = discover([])
    plugins = []
    for name in ("my", "other"):
        text = sites.textwrap.dedent(sites.GUIDANCE.format(name=name))
        plugins.append(LocalPlugin(Path(f"/nowhere/{name}.py"), text))
    registry.host.set_blocked("other")
    calls: list[str] = []

    def before(hook: str, implementations: Sequence[HookImpl], arguments: object) -> None:
        calls.extend(each.plugin_name for each in implementations)

    registry.host.add_hookcall_monitoring(before, lambda *call: None)
    add_files(registry, plugins)
    listed = registry.host.list_name_plugin()
    held = {name: plugin for name, plugin in listed if isinstance(plugin, ModuleType)}
    assert calls == list(held) == ["my", f"other (other.py {plugins[1].digest[:12]})"]
    assert [plugin.__name__ for plugin in held.values()] == [each.module for each in plugins]


def test_a_text_under_two_names_is_one_plugin() -> None:
    registry, text = toys.registry(), sites.textwrap.dedent(MINE)
    add_files(registry, [LocalPlugin(Path("/nowhere/my.py"), text)])
    with pytest.raises(UnfitPlugin, match=r"^/nowhere/copy\.py: it is plugin my, which is there"):
        add_files(registry, [LocalPlugin(Path("/nowhere/copy.py"), text)])
    assert [file.path.name for file in registry.files] == ["my.py"]
    assert [name for name, _ in registry.host.list_name_plugin()] == ["my"]


# Keys


def planned(text: str, *sets: str) -> Plan:
    registry = toys.registry()
    add_files(registry, [LocalPlugin(Path("/nowhere/my.py"), sites.textwrap.dedent(text))])
    source = parse(toys.RECIPE, "r.yaml")
    source.set(sets)
    return plan(validate(source, registry))


NAMED = {
    "guidance": (
        "arms.mine={guidance: {name: mine, scale: 2}}",
        {"sample", "features", "evaluate"},
    ),
    "nested": (
        "arms.mine={guidance: {name: through, scale: 2, lens: lens}}",
        {"sample", "features", "evaluate"},
    ),
    "encoder": (
        "encoder={name: lens, cells: 2}",
        {"encode", "annotate", "train", "sample", "features", "evaluate"},
    ),
    "annotator": ("annotator=tails", {"annotate", "train", "sample", "features", "evaluate"}),
    "backbone": ("model=net", {"train", "sample", "features", "evaluate"}),
    "metric": ("metrics=[{name: distance, space: flat}]", {"evaluate"}),
}


@pytest.mark.parametrize(("naming", "kinds"), NAMED.values(), ids=NAMED.keys())
def test_one_byte_of_the_file_changes_the_keys_of_what_uses_its_components_and_no_others(
    naming: str, kinds: set[str]
) -> None:
    before, after = (
        planned(MANY, naming),
        planned(MANY.replace("import toys", "import  toys"), naming),
    )
    assert planned(MANY, naming).stages.keys() == before.stages.keys()
    gone = before.stages.keys() - after.stages.keys()
    assert {stage.partition("-")[0] for stage in gone} == kinds
    using = {
        name for name in before.arms if before.arms[name].stages() != after.arms[name].stages()
    }
    assert using == ({"mine"} if "arms.mine" in naming else using)
    assert "mine" not in before.arms or before.arms["mine"].train == after.arms["mine"].train


def test_a_file_that_the_recipe_does_not_name_changes_no_key_and_is_not_kept(place: Path) -> None:
    assert (
        planned(MANY).stages.keys()
        == plan(validate(parse(toys.RECIPE, "r.yaml"), toys.registry())).stages.keys()
    )
    assert run(place).code == 0
    before, folder = products(place / "runs"), (place / "runs/toy/latest").resolve()
    assert run(place, "--plugin", place / "my.py").code == 0
    assert products(place / "runs") == before
    assert (place / "runs/toy/latest").resolve() == folder
    assert not (folder / "plugins").exists()
    assert set(run_file(place)["plugins"]) == {"toybox"}


def test_components_that_a_file_makes_in_functions_have_its_hash_too() -> None:
    function = """
    def made():
        class Mine(toys.Free):
            name: ClassVar[str] = "mine"

        return Mine
    """
    made = MANY.replace("return [Mine,", "return [made(),") + function
    naming = NAMED["guidance"][0]
    assert planned(made, naming).stages.keys() != planned(made + "\n", naming).stages.keys()


def test_each_text_has_a_run_folder_of_its_own_with_a_copy_of_the_file(place: Path) -> None:
    kept = []
    for text in (MINE, MINE.replace("/ 2", "/ 4")):
        sites.write(place / "my.py", text)
        assert run(place, "--plugin", place / "my.py", "--set", ARM).code == 0
        folder = (place / "runs/toy/latest").resolve()
        assert (folder / "plugins/my.py").read_text() == (place / "my.py").read_text()
        kept.append(folder)
    assert kept[0] != kept[1]
    assert (kept[0] / "plugins/my.py").read_text() != (kept[1] / "plugins/my.py").read_text()
    assert len(list((place / "runs/store").glob("train-*"))) == 2  # shared by both


def test_a_component_of_a_file_travels_to_other_processes() -> None:
    registry = toys.registry()
    add_files(registry, [LocalPlugin(Path("/nowhere/my.py"), sites.textwrap.dedent(MANY))])
    component = registry.get("guidance", "mine")(scale=2.0)
    again: Component = pickle.loads(pickle.dumps(component))  # noqa: S301
    assert again == component
    assert again.identity() == component.identity()


# What is wrong with a file


FAULTS = {
    "nothing": (None, "/my.py: cannot be read: No such file or directory"),
    "a library that is not there": (
        "import nowhere",
        "/my.py:1: ModuleNotFoundError: No module named 'nowhere'",
    ),
    "a line that raises": (
        "def f():\n    return 1 / 0\n\nf()",
        "/my.py:2: ZeroDivisionError: division by zero",
    ),
    "a message of many lines": ("raise ValueError('a\\n\\nb')", "/my.py:1: ValueError: a b"),
    "no Python": ("x = 1\nclass:", "/my.py:2: SyntaxError: invalid syntax"),
    "no text": (b"\xff\xfe", "/my.py: cannot be read: 'utf-8' codec can't decode"),
    "an exit": ("raise SystemExit('no')", "/my.py:1: SystemExit: no"),
    "no hook": (
        "x = 1",
        "/my.py: it has no function fw_components() marked with fw.registry.hookimpl",
    ),
    "a hook that raises": (
        MINE.replace("return [mine]", "return [mine, other]"),
        "/my.py:22: NameError: name 'other' is not defined",
    ),
    "a name that is taken": (
        sites.GUIDANCE.format(name="cfg"),
        "/my.py: guidance 'cfg' is already provided by builtin (fw ",
    ),
    "an unfit component": (
        MINE.replace("def worse", "def wors"),
        "/my.py: mine is abstract: it does not implement",
    ),
    "a version to come": (
        MINE + "\n    FW_API = 99",
        "/my.py: it was made for plugin API 99, and this fw has plugin",
    ),
}


@pytest.mark.parametrize(("text", "said"), FAULTS.values(), ids=FAULTS.keys())
def test_a_file_that_is_no_plugin_is_refused_in_one_line(
    place: Path, text: str | bytes | None, said: str
) -> None:
    (place / "my.py").unlink()
    if text is not None:
        data = sites.textwrap.dedent(text).encode() if isinstance(text, str) else text
        (place / "my.py").write_bytes(data)
    done = fw("validate", place / "toy.yaml", "--plugin", place / "my.py")
    assert done.code == 2
    assert len(done.err.splitlines()) == 1, done.err
    assert done.err.startswith(f"--plugin {place}{said}"), done.err
    assert done.out == ""


def test_something_else_than_a_python_file_is_refused(place: Path) -> None:
    (place / "folder.py").mkdir()
    for name, said in (
        ("toy.yaml", "a local plugin is one .py file"),
        ("folder.py", "cannot be read"),
    ):
        done = run(place, "--plugin", place / name)
        assert done.code == 2
        assert said in done.err
        assert len(done.err.splitlines()) == 1


def test_a_file_that_is_given_twice_is_refused_and_so_is_another_of_the_same_name(
    place: Path,
) -> None:
    (place / "other").mkdir()
    other = sites.write(place / "other/my.py", sites.GUIDANCE.format(name="other"))
    for second in (place / "my.py", other):
        done = run(place, "--plugin", place / "my.py", "--plugin", second)
        assert done.code == 2
        assert done.err == f"--plugin {second}: a local plugin named my.py is there already\n"


def test_a_refused_file_leaves_nothing_behind() -> None:
    registry, before = toys.registry(), set(sys.modules)
    for text in ("1 / 0", "x = 1"):
        with pytest.raises(UnfitPlugin):
            add_files(registry, [LocalPlugin(Path("/nowhere/my.py"), text)])
    assert registry == toys.registry()
    assert registry.host.list_name_plugin() == []
    assert not [name for name in set(sys.modules) - before if getattr(sys.modules[name], "f", None)]


# Afterwards


def test_fw_sample_needs_the_file_again_and_says_where_its_copy_is(place: Path) -> None:
    assert run(place, "--plugin", place / "my.py", "--set", ARM).code == 0
    latest = place / "runs/toy/latest"
    for given in ([], ["--plugin", sites.write(place / "other.py", MINE.replace("/ 2", "/ 4"))]):
        done = fw(
            "sample",
            latest,
            "--arm",
            "mine",
            "-n",
            "6",
            "-o",
            place / "grid.png",
            "--device",
            "cpu",
            *given,
        )
        assert done.code == 2
        assert done.err == (
            f"{latest}: arm mine needs local plugins as they were when it was run: "
            f"add --plugin {latest}/plugins/my.py\n"
        )
    for file in (latest / "plugins/my.py", place / "my.py"):
        words = ("--arm", "mine", "-n", "6", "-o", place / "grid.png", "--device", "cpu")
        done = fw("sample", latest, *words, "--plugin", file)
        assert done.code == 0, done.err
        assert (place / "grid.png").read_bytes() == (latest / "samples-mine.png").read_bytes()


def test_an_arm_without_local_plugins_is_sampled_without_them(place: Path) -> None:
    assert run(place, "--plugin", place / "my.py", "--set", ARM).code == 0
    words = ("--arm", "plain", "-n", "6", "-o", place / "grid.png", "--device", "cpu")
    done = fw("sample", place / "runs/toy/latest", *words)
    assert done.code == 0, done.err
    wrong = fw("sample", place / "runs/toy/latest", "--arm", "plane")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert "no such arm" in wrong.err


def test_a_file_whose_component_no_stage_uses_is_kept_as_well(place: Path) -> None:
    """Without it, the resolved recipe could not be read."""
    sites.write(place / "my.py", MANY)
    words = ("--plugin", place / "my.py", "--set", "encoder=lens", "--set", "annotator=coin")
    assert run(place, *words).code == 0
    assert (place / "runs/toy/latest/plugins/my.py").exists()
    assert set(run_file(place)["plugins"]) == {"toybox"}


def test_a_run_that_was_killed_continues_with_the_file_given_again(place: Path) -> None:
    sites.write(place / "my.py", MANY)
    sets = ("model=net", "train.steps=2000", "samples.count=2")
    words: list[str] = [word for each in sets for word in ("--set", each)]
    words += ["--plugin", str(place / "my.py"), "--arm", "plain", "--device", "cpu", "--jobs", "1"]
    command = [
        sys.executable,
        "-m",
        "fw.core",
        "run",
        str(place / "toy.yaml"),
        *words,
        "--checkpoint-seconds",
        "0",
    ]
    path = os.pathsep.join([str(place / "site"), str(Path(__file__).parent)])
    process = subprocess.Popen(
        [*command, "--out", str(place / "killed")],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    reached = wait_for_step(place / "killed/store", 10)
    process.kill()
    process.wait()
    assert reached < 2000
    assert not list((place / "killed/store").glob("train-*/model.safetensors"))
    for out in ("killed", "whole"):
        done = fw("run", place / "toy.yaml", *words, "--out", place / out)
        assert done.code == 0, done.err
    assert products(place / "killed") == products(place / "whole") != {}


def wait_for_step(store: Path, step: int) -> int:
    """Until a training's checkpoint has reached the step; returns the one it has reached."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for file in store.glob("train-*.partial/train.checkpoint"):
            try:
                if (reached := torch.load(file, weights_only=True)["step"]) >= step:
                    return reached
            except (OSError, EOFError, RuntimeError):
                continue
        time.sleep(0.05)
    raise AssertionError(f"no training reached step {step} in time")


# After the run


def test_what_a_run_uses_is_known_by_its_own_copies(place: Path) -> None:
    assert run(place, "--plugin", place / "my.py", "--set", ARM).code == 0
    (place / "my.py").unlink()
    assert "not known" not in fw("store", place / "runs").out
    kept = fw("store", place / "runs", "--prune")
    assert (kept.code, "every product is used" in kept.out) == (0, True), kept.err
    [copy] = place.glob("runs/toy/seed*/plugins/my.py")
    copy.write_text("1 / 0")
    refused = fw("store", place / "runs", "--prune")
    assert refused.code == 2
    assert f"{copy}:1: ZeroDivisionError" in refused.err


ODD = """
    from typing import ClassVar

    import toys
    from fw.registry import hookimpl


    class Odd(toys.Gap):
        name: ClassVar[str] = "odd"

        def compare(self, *given):
            {raises}


    @hookimpl
    def fw_components():
        return [Odd]
"""


@pytest.mark.parametrize(
    ("raises", "reason"),
    [
        ("raise ZeroDivisionError('no news')", "no news (traceback in "),
        ("return {'gap_flat': 'far'}", "gap_flat is 'far', not a number"),
    ],
)
def test_a_stage_that_failed_is_not_said_to_be_stopped(
    place: Path, raises: str, reason: str
) -> None:
    odd = sites.write(place / "odd.py", ODD.replace("{raises}", raises))
    done = run(place, "--plugin", odd, "--set", "metrics={name: odd, space: flat}")
    assert done.code == 1, done.err
    told = fw("status", place / "runs")
    assert "stopped" not in told.out
    assert "  failed   evaluate " in told.out
    assert reason in told.out
    stages = json.loads(fw("status", place / "runs", "--json").out)["others"]
    assert {each["state"] for each in stages} == {"failed"}
    assert all(reason in each["reason"] for each in stages)
    assert "it failed: " in fw("store", place / "runs").out
