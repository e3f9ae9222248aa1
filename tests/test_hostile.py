"""Hostile and damaged input: every command ends with an exit code and a sentence of bounded length,
soon."""

from __future__ import annotations

import json
import math
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sites
import toys
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sites import Answer, fw

from fw.core.cli import ending
from fw.core.errors import RecipeError
from fw.core.recipe.model import ARM_CHARACTERS, ARMS
from fw.core.recipe.source import (
    BYTES,
    CHARACTERS,
    DEPTH,
    ENTRIES,
    LENGTH,
    PROBLEMS,
    parse,
    read,
    text_of,
)

BUDGET = settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
LONGEST = (PROBLEMS + 1) * (CHARACTERS + 10)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the toys installed, and a finished run of them."""
    folder = tmp_path_factory.mktemp("hostile")
    with sites.site(folder / "site"):
        arm = "  self_2.0: {guidance: {name: selfish, scale: 2.0}}\n"
        sites.write(folder / "toy.yaml", toys.RECIPE + arm)
        done = fw(
            "run", folder / "toy.yaml", "--out", folder / "runs", "--device", "cpu", "--jobs", "1"
        )
        assert done.code == 0, done.err
        yield folder


@pytest.fixture
def run(place: Path, tmp_path: Path) -> Path:
    """A copy of that run which a test may damage; its store is beside it."""
    shutil.copytree(place / "runs", tmp_path / "runs")
    return next((tmp_path / "runs/toy").glob("seed0-*"))


def refused(answer: Answer, *words: str) -> None:
    """It ended as the user's fault, in a message that has these words."""
    assert answer.code == 2, answer
    assert "Traceback" not in answer.err
    assert "fault of fw" not in answer.err
    assert 0 < len(answer.err) <= LONGEST
    for word in words:
        assert word in answer.err


# recipes


def spoilt(text: str, at: int, piece: str, cut: int) -> str:
    at %= len(text) + 1
    return text[:at] + piece + text[at + cut :]


pieces = st.sampled_from(
    [
        *[
            "\x00",
            "\x1b[2J",
            "\ufeff",
            "\u202e",
            "\t",
            "\n",
            "{",
            "}",
            "[",
            "]",
            ": ",
            "- ",
            "? ",
            "|",
            "&a ",
            "*a",
            "!x ",
        ],
        *[
            "9" * 99,
            "9" * 101,
            "-1",
            ".nan",
            ".inf",
            "1e999",
            "null",
            "{}",
            "[]",
            "x" * 300,
            "x" * 11_000,
        ],
        *[
            "[" * 60,
            "{a: " * 60,
            "[" + "1," * 11_000 + "]",
            "'" + "\\" * 9 + "'",
            "\n  x: {}" * 1100,
            "\n  \u00e9: {}",
        ],
    ]
)


@BUDGET
@given(at=st.integers(0, 2000), piece=pieces | st.text(max_size=20), cut=st.integers(0, 40))
def test_a_spoilt_recipe_is_fine_or_refused_in_few_words(
    place: Path, at: int, piece: str, cut: int
) -> None:
    file = place / "spoilt.yaml"
    file.write_text(spoilt(toys.RECIPE, at, piece, cut), encoding="utf-8", errors="replace")
    answer = fw("validate", file)
    if answer.code:
        refused(answer, "spoilt.yaml")


@BUDGET
@given(st.binary(max_size=300) | st.text().map(lambda text: text.encode("utf-16")))
@example(b"\xff\xfe\x00\x00")
@example(toys.RECIPE.encode("utf-16-be"))
def test_any_bytes_are_refused_as_a_recipe_in_few_words(place: Path, data: bytes) -> None:
    file = place / "bytes.yaml"
    file.write_bytes(data)
    refused(fw("validate", file), "bytes.yaml")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_another_encoding_is_named_with_the_way_out(place: Path, encoding: str) -> None:
    file = place / "foreign.yaml"
    file.write_bytes(toys.RECIPE.encode(encoding))
    refused(fw("validate", file), encoding[:6].upper(), "recipes are UTF-8", "iconv -f")


def test_a_mark_before_utf8_is_no_part_of_the_recipe(place: Path) -> None:
    file = place / "marked.yaml"
    file.write_bytes(toys.RECIPE.encode("utf-8-sig"))
    assert fw("validate", file).code == 0
    assert text_of(file) == toys.RECIPE


def test_bytes_that_are_not_utf8_are_told_with_their_line(place: Path) -> None:
    file = place / "latin.yaml"
    file.write_bytes(toys.RECIPE.encode() + "# caf\u00e9\n".encode("latin-1"))
    refused(fw("validate", file), "latin.yaml:17: ", "0xe9")


MANY = {
    "bytes": "#" * BYTES + "\nfw: 1",
    "entries": "\n".join(f"key{number}: 1" for number in range(ENTRIES)),
    "entries in one list": f"a: [{'1,' * (LENGTH + 1)}]",
    "levels": "[" * (DEPTH + 2),
    "characters in one text": f"a: {'x' * (LENGTH + 1)}",
    "digits": f"a: {'9' * 101}",
}


@pytest.mark.parametrize("what", MANY)
def test_what_is_too_large_for_a_recipe_is_refused_with_the_bound(
    tmp_path: Path, what: str
) -> None:
    (tmp_path / "large.yaml").write_text(MANY[what], encoding="utf-8")
    with pytest.raises(
        RecipeError, match=rf"large\.yaml(:\d+)?: too large for a recipe: .*{what}"
    ) as caught:
        read(tmp_path / "large.yaml")
    assert len(str(caught.value)) < 300


def test_what_is_just_within_the_bounds_is_read(tmp_path: Path) -> None:
    for text in (
        f"a: [{'1,' * LENGTH}]",
        f"a: {'x' * LENGTH}",
        f"a: {'9' * 100}",
        "a: " + "[" * 48 + "]" * 48,
    ):
        assert parse(text, "r").data["a"]


COSTS = """
    import resource
    import sys
    import time
    from pathlib import Path

    from fw.core.errors import FwError
    from fw.core.recipe.loading import load

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    try:
        load(Path(sys.argv[1]))
    except FwError:
        pass
    before, memory = time.process_time(), peak()
    for file in sys.argv[2:]:
        try:
            load(Path(file))
        except FwError as error:
            print(len(str(error)), file=sys.stderr)
    print(time.process_time() - before, peak() - memory)
"""


def test_no_recipe_costs_much_to_refuse(tmp_path: Path) -> None:
    """Of ten megabytes no more is read than the bound; the memory of the worst is counted, and not
    the time."""
    worst = {
        "list": f"a: [{'1,' * 5_000_000}]",
        "arms": f"{toys.RECIPE}\n" + "".join(f"  a{number}: {{}}\n" for number in range(100_000)),
        "unknown": "fw: 1\n" + "".join(f"key{number}: 1\n" for number in range(14_000)),
        "words": "a: " + "x " * 240_000,
    }
    files = []
    for name, text in worst.items():
        files.append(tmp_path / f"{name}.yaml")
        files[-1].write_text(text, encoding="utf-8")
    code = sites.write(tmp_path / "costs.py", COSTS)
    command = [sys.executable, code, tmp_path / "nothing.yaml", *files]
    ended = subprocess.run(
        list(map(str, command)), capture_output=True, encoding="utf-8", check=True
    )
    _, memory = map(float, ended.stdout.split())
    assert memory < 200
    assert len(ended.stderr.split()) == len(worst)
    assert max(map(int, ended.stderr.split())) <= LONGEST


def test_of_very_many_faults_the_first_are_told_and_the_others_counted(place: Path) -> None:
    file = place / "faulty.yaml"
    file.write_text(
        toys.RECIPE + "".join(f"key{number}: 1\n" for number in range(500)), encoding="utf-8"
    )
    answer = fw("validate", file)
    refused(answer, "... and 450 more")
    assert len(answer.err.splitlines()) == PROBLEMS + 1


def test_a_long_value_is_not_printed_whole(place: Path) -> None:
    file = place / "long.yaml"
    text = toys.RECIPE.replace("baseline: plain", f"baseline: {'x' * 9000}")
    file.write_text(text, encoding="utf-8")
    answer = fw("validate", file)
    refused(answer, "long.yaml:12: baseline: ")
    assert len(answer.err) < CHARACTERS + 100


def test_control_characters_of_a_recipe_are_written_out(place: Path) -> None:
    file = place / "control.yaml"
    file.write_text(toys.RECIPE + '"a\\e[2J\\nb": 1\n', encoding="utf-8")
    answer = fw("validate", file)
    refused(answer, r"a\x1b[2J\nb: unknown key")
    assert "\x1b" not in answer.err


def test_names_of_arms_fit_into_the_names_of_files(place: Path) -> None:
    for length, code in ((ARM_CHARACTERS, 0), (ARM_CHARACTERS + 1, 2)):
        file = sites.write(place / "names.yaml", f"{toys.RECIPE}  {'a' * length}: {{}}\n")
        assert fw("validate", file).code == code
    longest = "a" * ARM_CHARACTERS
    for name in (f"samples-{longest}.png", f"heatmap-{longest}.json"):
        (place / name).touch()
    refused(fw("validate", file), "at most 242 characters")


def test_more_arms_than_anybody_compares_are_refused(place: Path) -> None:
    arms = "".join(f"  a{number}: {{}}\n" for number in range(ARMS))
    refused(
        fw("validate", sites.write(place / "arms.yaml", toys.RECIPE + arms)),
        "arms: ",
        "at most 1000",
    )


@pytest.mark.parametrize(
    "setting",
    [
        *[
            f"a{'.a' * 2000}=1",
            f"train{'.a' * 40}={'[' * 20}{']' * 20}",
            f"seed={'9' * 5000}",
            f"x={'[' * 5000}",
        ],
        *[
            f"name={'x' * 100_000}",
            f"{'x' * 100_000}",
            "arms.\x1b[2J=1",
            "seed=\x00",
            "=",
            ".=1",
            "train=&a [*a]",
        ],
    ],
    ids=range(11),
)
def test_a_hostile_set_is_refused(place: Path, setting: str) -> None:
    answer = fw("validate", place / "toy.yaml", "--set", setting)
    refused(answer, "--set")
    assert "\x1b" not in answer.err


def test_an_unknown_component_hints_at_plugins_in_files_unless_one_was_given_or_a_name_is_near(
    place: Path,
) -> None:
    setting = ("--set", "arms.plain.guidance=mystery")
    hint = "--plugin FILE.py"
    refused(fw("validate", place / "toy.yaml", *setting), "no guidance named 'mystery'", hint)
    plugin = sites.write(place / "mine.py", sites.GUIDANCE.format(name="mine"))
    given = fw("validate", place / "toy.yaml", *setting, "--plugin", plugin)
    refused(given, "no guidance named 'mystery'")
    assert hint not in given.err
    near = fw("validate", place / "toy.yaml", "--set", "arms.plain.guidance=selfih")
    refused(near, "did you mean 'selfish'?")
    assert hint not in near.err


# what a run left


def commands(run: Path, picture: Path) -> Iterator[tuple[str | Path, ...]]:
    yield "compare", run
    yield "plot", run, "--x", "guidance.0.scale", "-o", picture
    yield "sample", run, "--arm", "self_1.5", "-n", "2", "-o", picture, "--device", "cpu"
    yield "heatmap", run, "--arm", "self_1.5", "-n", "20", "-o", picture, "--device", "cpu"


def said_sensibly(answer: Answer) -> None:
    if answer.code:
        refused(answer)


def inside(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """The places in a JSON document."""
    yield path
    entries = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, entry in entries:
        yield from inside(entry, (*path, key))


def replaced(value: Any, path: tuple, by: Any) -> Any:
    """The document with the entry at a place replaced, or taken away where `by` is Ellipsis."""
    if not path:
        return by if by is not ... else {}
    copy = dict(value) if isinstance(value, dict) else list(value)
    if by is ... and len(path) == 1:
        del copy[path[0]]
    else:
        copy[path[0]] = replaced(value[path[0]], path[1:], by)
    return copy


oddities = st.sampled_from(
    [
        *[
            ...,
            None,
            True,
            0,
            -1,
            10**400,
            1.5,
            math.nan,
            math.inf,
            -math.inf,
            1e308,
            "",
            "x" * 9000,
            "\x1b[2J",
            "$\\x$",
        ],
        *[[], {}, [1], {"a": 1}, [[[]]], {"plain": {}}, {"plain": None}, {"mean": None}, "\ud800"],
    ]
)


@BUDGET
@given(data=st.data())
def test_a_damaged_run_file_is_shown_or_refused_and_never_breaks(
    place: Path, data: st.DataObject
) -> None:
    [source] = (place / "runs/toy").glob("seed0-*/run.json")
    whole = json.loads(source.read_text(encoding="utf-8"))
    at = data.draw(st.sampled_from(list(inside(whole))))
    damaged = replaced(whole, at, data.draw(oddities))
    folder = place / "damaged"
    folder.mkdir(exist_ok=True)
    shutil.copyfile(source.with_name("recipe.resolved.yaml"), folder / "recipe.resolved.yaml")
    (folder / "run.json").write_text(json.dumps(damaged), encoding="utf-8")
    said_sensibly(fw("compare", folder))
    said_sensibly(
        fw("plot", folder, "--x", "guidance.0.scale", "--y", "gap", "-o", place / "plot.png")
    )


@pytest.mark.parametrize(
    "data",
    [
        *[
            b"",
            b"{",
            b"\x00" * 100,
            b"null",
            b"[]",
            b'"x"',
            b"{}",
            b'{"recipe": 3}',
            b"[" * 100_000,
            b"NaN",
            b"\xff\xfe{",
        ],
        *[
            b'{"recipe": "x", "arms": {}}',
            b'{"recipe": "x", "arms": null}',
            b'{"recipe": "x"}',
            b"9" * 5000,
        ],
    ],
)
def test_a_run_file_that_is_none_is_refused_and_made_anew(
    run: Path, data: bytes, tmp_path: Path
) -> None:
    (run / "run.json").write_bytes(data)
    for words in list(commands(run, tmp_path / "x.png"))[:2]:
        refused(fw(*words))


def test_a_run_file_that_never_ends_is_not_read_for_ever() -> None:
    if Path("/dev/zero").exists():
        limit = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        refused(fw("compare", "/dev/zero"), "no readable run.json")
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - limit < 1_000_000


def test_a_damaged_run_file_is_written_anew_by_its_recipe(run: Path, place: Path) -> None:
    (run / "run.json").write_text('{"recipe": "toy", "arms": {"plain": 3}}', encoding="utf-8")
    done = fw("run", place / "toy.yaml", "--out", run.parents[1], "--device", "cpu", "--jobs", "1")
    assert done.code == 0, done.err
    assert fw("compare", run).code == 0


@BUDGET
@given(at=st.integers(0, 5000), piece=pieces, cut=st.integers(0, 500))
@example(at=0, piece="", cut=10**6)
@example(at=0, piece="arms: 3\n", cut=10**6)
@example(at=0, piece="arms: {plain: 3}\n", cut=10**6)
@example(at=0, piece="arms: {self_1.5: {guidance: 3}}\n", cut=10**6)
def test_a_damaged_resolved_recipe_is_refused(place: Path, at: int, piece: str, cut: int) -> None:
    [source] = (place / "runs/toy").glob("seed0-*")
    folder = place / "runs/toy/copied"
    folder.mkdir(exist_ok=True)
    shutil.copyfile(source / "run.json", folder / "run.json")
    text = (source / "recipe.resolved.yaml").read_text(encoding="utf-8")
    (folder / "recipe.resolved.yaml").write_text(spoilt(text, at, piece, cut), encoding="utf-8")
    for words in list(commands(folder, place / "x.png"))[1:]:
        said_sensibly(fw(*words))


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff\xfe", b"null", b'{"files": 3}', b'{"files": {"x": {"sha256": 3}}}']
)
def test_a_damaged_manifest_is_told_and_the_stage_is_done_again(
    run: Path, place: Path, data: bytes
) -> None:
    for manifest in (run.parents[1] / "store").glob("*/manifest.json"):
        manifest.write_bytes(data)
    for words in list(commands(run, place / "x.png"))[2:]:
        refused(fw(*words))
    done = fw("run", place / "toy.yaml", "--out", run.parents[1], "--device", "cpu", "--jobs", "1")
    assert done.code == 0, done.err


@pytest.mark.parametrize("gone", ["run.json", "recipe.resolved.yaml", ".", "../../store"])
def test_what_was_deleted_is_said_to_be_missing(run: Path, tmp_path: Path, gone: str) -> None:
    path = (run / gone).resolve()
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    for words in commands(run, tmp_path / "x.png"):
        said_sensibly(fw(*words))
    assert any(fw(*words).code == 2 for words in commands(run, tmp_path / "x.png"))


@pytest.mark.parametrize(
    "output", ["folder.png", "no/x.png", f"{'x' * 300}.png", "x.txt", "file/x.png"]
)
def test_a_picture_that_cannot_be_written_is_the_arguments_fault(
    run: Path, tmp_path: Path, output: str
) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").touch()
    for words in list(commands(run, tmp_path / output))[1:]:
        refused(fw(*words), "-o ")


# what nobody foresaw


def raising(error: BaseException) -> Answer:
    def command() -> None:
        raise error

    def show(*_: object) -> None:
        command()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fw.core.run.finished.read_results", show)
        return fw("compare", "x")


def test_an_unforeseen_exception_is_one_sentence_and_its_traceback_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    answer = raising(ZeroDivisionError("surprise"))
    [trace] = tmp_path.glob("fw-traceback-*.txt")
    assert answer.code == 1
    assert answer.err.startswith("this is a fault of fw, not of yours: ZeroDivisionError: surprise")
    assert str(trace) in answer.err
    assert len(answer.err.splitlines()) == 1
    assert "raise error" in trace.read_text(encoding="utf-8")
    monkeypatch.setenv(ending.TRACEBACK, "1")
    assert "raise error" in raising(ZeroDivisionError("surprise")).err


def test_an_unforeseen_exception_without_a_place_for_its_traceback_is_still_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    answer = raising(ZeroDivisionError("surprise"))
    assert (answer.code, len(answer.err.splitlines())) == (1, 1)
    assert "FW_TRACEBACK=1" in answer.err


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OSError(28, "No space left on device", "/x/y"), 1, ["/x/y", "free some space"]),
        (BrokenPipeError(32, "Broken pipe"), 1, ["connection"]),
        (MemoryError(), 1, ["memory is full"]),
        (RecursionError("maximum recursion depth exceeded"), 1, ["nested too deeply"]),
        (KeyboardInterrupt(), 130, ["interrupted"]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_what_the_machine_does_not_let_happen_is_one_sentence(
    error: BaseException, code: int, words: list[str]
) -> None:
    answer = raising(error)
    assert answer.code == code
    assert len(answer.err.splitlines()) == 1
    for word in words:
        assert word in answer.err
    assert ending.CONTINUES not in answer.err  # `compare` keeps no work


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(28, "No space left on device", "/x/y"), 1),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError(), 1),
    ],
)
def test_a_run_that_is_cut_short_says_that_the_same_command_continues(
    place: Path, tmp_path: Path, error: BaseException, code: int
) -> None:
    def stop(*_: object) -> None:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(tmp_path))
        patch.setattr("fw.core.run.run.conclude", stop)
        words = (
            "run",
            place / "toy.yaml",
            "--out",
            tmp_path / "runs",
            "--device",
            "cpu",
            "--jobs",
            "1",
        )
        answer = fw(*words)
    assert answer.code == code
    assert answer.err.splitlines()[-1] == ending.CONTINUES
    assert "Traceback" not in answer.err
    done = fw(*words)
    assert done.code == 0
    assert "start " not in done.err


def test_a_stage_that_fails_ends_with_how_to_go_on(place: Path, tmp_path: Path) -> None:
    failing = ("--set", "arms.self_1.5.guidance={name: mine, scale: 1.5}")
    source = sites.GUIDANCE.format(name="mine").replace(
        "return good / 2", "raise ValueError('no\\x1b[2J\\nt')"
    )
    plugin = sites.write(tmp_path / "mine.py", source)
    words = ("--out", tmp_path / "runs", "--device", "cpu", "--jobs", "1", "--plugin", plugin)
    answer = fw("run", place / "toy.yaml", *failing, *words)
    assert answer.code == 1
    assert answer.err.splitlines()[-1] == ending.CONTINUES
    assert "\x1b" not in answer.err + answer.out
    [report] = (tmp_path / "runs/toy").glob("seed0-*/report.md")
    assert "\x1b" not in report.read_text(encoding="utf-8")


@pytest.mark.parametrize("gone", ["store", "toy", "."])
def test_a_folder_that_is_deleted_while_a_run_works_in_it_is_named(
    place: Path, tmp_path: Path, gone: str
) -> None:
    deleting = f"import shutil; shutil.rmtree({str(tmp_path / 'runs' / gone)!r}); return good / 2"
    source = sites.GUIDANCE.format(name="mine").replace("return good / 2", deleting)
    plugin = sites.write(tmp_path / "mine.py", source)
    failing = ("--set", "arms.self_1.5.guidance={name: mine, scale: 1.5}", "--plugin", plugin)
    words = ("--out", tmp_path / "runs", "--device", "cpu", "--jobs", "1")
    answer = fw("run", place / "toy.yaml", *failing, *words)
    assert answer.code == 1
    assert str(tmp_path / "runs") in answer.err
    assert "Traceback" not in answer.err
    assert "fault of fw" not in answer.err
    assert answer.err.splitlines()[-1] == ending.CONTINUES
    assert fw("run", place / "toy.yaml", *words).code == 0


@pytest.mark.parametrize("path", ["/", "/nothing", "/tmp", "nothing"])
@pytest.mark.parametrize(
    "words",
    [
        ("compare", "RUN"),
        ("plot", "RUN", "--x", "a"),
        ("sample", "RUN", "--arm", "a"),
        ("reproduce", "RUN"),
        ("reproduce", "RUN", "--again"),
    ],
)
def test_what_is_no_run_is_refused_by_its_path(path: str, words: tuple[str, ...]) -> None:
    answer = fw(*(path if word == "RUN" else word for word in words))
    assert answer.code == 2
    assert answer.err.startswith(f"{path}: ")


def test_a_run_is_no_file_where_its_models_are_wanted(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    answer = fw("sample", str(tmp_path / "run.json"), "--arm", "a")
    assert answer.code == 2
    assert "run.json: not a run folder" in answer.err
