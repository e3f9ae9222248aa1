"""What the pages show is true: their code and commands run, their tables agree with the code, their
links lead on.

One finished run of the smoke recipe, made as a user makes it, is what the commands work on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import importlib
import io
import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import annotated_types
import bits
import pytest
import typer
import yaml
from mlflow import MlflowClient
from mlflow.entities import ViewType
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fw.core.cli import app, guarded
from fw.core.files.finished import FinishedWeights
from fw.core.plan.assembly import plan
from fw.core.recipe.loading import field_model, load
from fw.core.recipe.model import Override, Recipe
from fw.core.settings import Samples, Section, Train
from fw.core.stages.annotate import Annotate
from fw.core.stages.average import AverageWeights
from fw.core.stages.base import Stage
from fw.core.stages.encode import Encode
from fw.core.stages.evaluate import Evaluate
from fw.core.stages.features import SampleFeatures
from fw.core.stages.latents import EncodeLatents
from fw.core.stages.prior import FitPrior
from fw.core.stages.probe import ApplyProbe
from fw.core.stages.reference import MeasureReference
from fw.core.stages.sample import Sample
from fw.core.stages.train import TrainDenoiser
from fw.registry import Component, Registry, installed

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "docs/tutorials").glob("*.md"),
    ]
)
RECIPES, PLUGINS = ROOT / "docs/recipes.md", ROOT / "docs/plugins.md"
SMOKE = "recipes/smoke.yaml"
STAGES: tuple[type[Stage], ...] = (
    *(Encode, Annotate, FitPrior, EncodeLatents),
    *(TrainDenoiser, AverageWeights, Sample),
    *(SampleFeatures, MeasureReference, Evaluate, ApplyProbe),
)
COMMANDS: Mapping[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


# Reading a page


@dataclass(frozen=True)
class Block:
    """A fenced block; `where` is `recipes.md:12`, its first line."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def file(self) -> str | None:
        """The path in a first line like `# fw-mine/pyproject.toml`."""
        named = re.match(r"# ([\w./-]+\.(?:py|toml|yaml))\n", self.text)
        return named[1] if named else None


@dataclass
class Command:
    """A line that a page shows being typed, with the lines that it shows in answer and the exit
    code."""

    where: str
    text: str
    answer: list[str] = field(default_factory=list)
    code: int = 0


def blocks(page: Path) -> list[Block]:
    found = re.finditer(
        r"^```(\w*)[^\n]*\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    return [
        Block(page, page.read_text("utf-8")[: match.start(2)].count("\n") + 1, match[1], match[2])
        for match in found
    ]


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def commands(block: Block) -> list[Command]:
    """In `console` blocks the lines after `$ `; in `sh` blocks all lines. `echo $?` shows the
    exit code."""
    found: list[Command] = []
    for number, line in enumerate(block.text.replace("\\\n", "").splitlines(), start=block.line):
        if block.language == "console" and not line.startswith("$ "):
            found[-1].answer.append(line)
        elif line.strip() and not line.startswith("#"):
            found.append(Command(f"{block.page.name}:{number}", line.removeprefix("$ ").strip()))
    for before, after in itertools.pairwise(found):
        if after.text == "echo $?":
            before.code = int(after.answer[0])
    return found


def page_commands(page: Path) -> list[Command]:
    return [
        each
        for block in blocks(page)
        if block.language in ("console", "sh", "bash")
        for each in commands(block)
    ]


def tables(page: Path) -> dict[str, list[list[str]]]:
    """The rows of each table, without backticks, by the table's header."""
    found: dict[str, list[list[str]]] = {}
    for table in re.findall(r"(?:^\|.*\|\n)+", prose(page), re.MULTILINE):
        header, _, *rows = [
            [cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()
        ]
        found.setdefault(" | ".join(header), []).extend(rows)
    return found


def key_table(heading: str) -> dict[str, tuple[str, str]]:
    """key -> (type, default) of the table under a heading of recipes.md."""
    section = RECIPES.read_text("utf-8").partition(f"\n### {heading}\n")[2].partition("\n#")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \| ([^|]*) \|", section, re.MULTILINE)
    return {key: (kind.replace("`", ""), default.replace("`", "")) for key, kind, default in rows}


# Doing what a page shows


@dataclass
class Workplace:
    """Where a page was tried out, and the components that it could name."""

    folder: Path
    registry: Registry


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with `recipes` and with `runs`, a finished run of the smoke recipe; and what the
    run printed."""
    folder = tmp_path_factory.mktemp("smoke")
    (folder / "recipes").symlink_to(ROOT / "recipes")
    command = [
        str(Path(sys.executable).with_name("fw")),
        "run",
        SMOKE,
        "--out",
        "runs",
        "--device",
        "cpu",
    ]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def tried(
    smoke: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Path], Workplace]:
    """Do all that a page shows, once, in a copy of the smoke run's folder."""
    done: dict[Path, Workplace] = {}

    def try_out(page: Path) -> Workplace:
        if page not in done:
            folder = tmp_path_factory.mktemp(page.stem) / "work"
            shutil.copytree(smoke[0], folder, symlinks=True)
            for other in ("self_guidance", "self_guidance_cifar10"):
                (folder / "runs" / other).symlink_to(
                    "smoke"
                )  # pages name runs that nobody made here
            done[page] = Workplace(folder, follow(page, folder))
        return done[page]

    return try_out


def follow(page: Path, folder: Path) -> Registry:
    """Write a page's files, then run its blocks in order. Returns the components that it could
    name in the end."""
    shown = blocks(page)
    for block in shown:
        if block.file:
            (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.file).write_text(block.text)
    with site(folder / "site"), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        namespace = types.ModuleType(f"page_{page.stem}")
        patch.setitem(sys.modules, namespace.__name__, namespace)
        for block in shown:
            if block.language == "python":
                exec(
                    compile("\n" * (block.line - 1) + block.text, str(page), "exec"),
                    namespace.__dict__,
                )
            elif block.language == "yaml":
                check_yaml(block, folder)
            elif block.language in ("console", "sh", "bash"):
                for command in commands(block):
                    check_command(command, {each.file for each in shown})
        return installed()


@contextlib.contextmanager
def site(folder: Path) -> Iterator[None]:
    """A folder that packages can be installed into; what was imported from it is forgotten
    afterwards."""
    before = set(sys.modules)
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        installed.cache_clear()
        try:
            yield
        finally:
            for name in set(sys.modules) - before:
                if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
                    del sys.modules[name]
            installed.cache_clear()


def install(package: str) -> None:
    """What `pip install --editable` of the page would do, without a network and into the site of
    the page."""
    offline = [
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--disable-pip-version-check",
    ]
    words = [sys.executable, "-m", "pip", "install", *offline, "--target", "site", f"./{package}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    importlib.invalidate_caches()
    installed.cache_clear()


def check_yaml(block: Block, folder: Path) -> None:
    """A recipe can be planned; anything else is YAML."""
    if block.text.startswith("fw:"):
        file = folder / f"block-{block.line}.yaml"
        file.write_text(block.text)
        recipe = load(file)
        assert plan(recipe).arms.keys() == recipe.arms.keys(), block.where
    else:
        assert yaml.safe_load(block.text), block.where


def check_command(command: Command, files: set[str | None]) -> None:
    """Run it if it is fw's, and compare what is shown of its answer, where it was run as shown."""
    words = shlex.split(command.text, comments=True)
    environment = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    words = words[len(environment) :]
    if words and words[:2] == [".venv/bin/pip", "install"]:
        install(words[-1])
    if not words or Path(words[0]).name != "fw":
        return
    words = words[1:]
    words = words[
        : next((at for at, word in enumerate(words) if word in (">", "|", "&&")), len(words))
    ]
    if words[0] in ("ui", "fetch"):  # a server, and what needs the network
        COMMANDS[words[0]].make_context(f"fw {words[0]}", words[1:])
        return
    works = words[0] in ("run", "sweep")
    as_shown = not works or "--dry-run" in words or is_quick(words, files)
    code, answer = call(words if as_shown else [*words, "--dry-run"], environment)
    assert code == command.code, f"{command.where}: `{command.text}` exited with {code}:\n{answer}"
    if as_shown:
        check_answer(command, answer)


def is_quick(words: Sequence[str], files: set[str | None]) -> bool:
    """Whether a run takes seconds: a page's own recipe, or the smoke recipe with no new
    training."""
    if words[0] == "sweep":
        return False
    if words[1] != SMOKE:
        return words[1] in files
    changes = [value for word, value in itertools.pairwise(words) if word == "--set"]
    return not {"--out", "--device"} & set(words) and all(
        change.startswith("arms.") for change in changes
    )


def call(
    words: Sequence[str], environment: Mapping[str, str] = types.MappingProxyType({})
) -> tuple[int, str]:
    """The exit code of `fw WORDS` in this process, and what it printed."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        if environment or "--plugin" in words:
            installed.cache_clear()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            try:
                code: Any = guarded(lambda: app(list(words), prog_name="fw"))
            except SystemExit as ended:
                code = ended.code
    if environment or "--plugin" in words:
        installed.cache_clear()
    return code or 0, printed.getvalue()


def check_answer(command: Command, answer: str) -> None:
    """The lines that are shown were printed, in this order; `...` stands for anything, measured
    numbers may differ."""
    printed = iter(answer.splitlines())
    for line in command.answer:
        pattern = re.compile(".*".join(map(re.escape, re.split(r" ?\.\.\. ?", measured(line)))))
        if line.strip(" .") and not any(pattern.fullmatch(measured(each)) for each in printed):
            raise AssertionError(
                f"{command.where}: `{command.text}` does not answer\n{line}\nbut\n{answer}"
            )


def measured(line: str) -> str:
    """The line with one blank for many, and with one sign for what differs from run to run:
    scores, seconds, hashes."""
    line = re.sub(r"\d+\.\d\d+|[0-9a-f]{12,}|(?<=in )\d+(?= s)", "#", line)
    if "±" in line:
        line = re.sub(r"\d+(?=\D*$)", "#", line)
    return re.sub(r"[\s─━]+", " ", line).strip()


# The tests


@every_page
def test_everything_that_a_page_shows_works(page: Path, tried: Callable[[Path], Workplace]) -> None:
    tried(page)


@every_page
def test_every_file_that_a_page_writes_down_is_used_on_it(page: Path) -> None:
    typed = " ".join(command.text for command in page_commands(page))
    code = " ".join(block.text for block in blocks(page) if block.language == "python")
    for block in blocks(page):
        if block.file and block.language == "yaml":
            assert block.file in typed + code, block.where
        elif block.file:
            assert block.file.partition("/")[0] in typed, block.where


@every_page
def test_links_and_images_lead_to_what_is_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"(https?|mailto):", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target}"
        assert file.is_relative_to(ROOT), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", prose(file), re.MULTILINE)
            slugs = [
                re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings
            ]
            assert anchor in slugs, f"{page.name}: {target}"


@every_page
def test_commands_and_options_that_a_page_mentions_exist(page: Path) -> None:
    typed = [command.text for command in page_commands(page)]
    mentioned = re.findall(r"`((?:fw|make) [^`]+)`", prose(page))
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    for text in typed + mentioned:
        if make := re.match(r"make ([a-z]+)", text):
            assert make[1] in targets, f"{page.name}: {text}"
        elif fw := re.match(r"fw ([a-z]\S*)(.*)", text):
            assert fw[1] in COMMANDS, f"{page.name}: {text}"
            for option in re.findall(r"(?<!\S)--?[a-z][a-z-]*", fw[2]):
                assert option in options(fw[1]), f"{page.name}: {text}"
        for recipe in re.findall(r"recipes/\w+\.yaml", text):
            assert (ROOT / recipe).exists(), f"{page.name}: {text}"


def options(name: str) -> list[str]:
    given = [
        option
        for parameter in COMMANDS[name].params
        for option in parameter.opts
        if option.startswith("-")
    ]
    return [*given, "--help"]


def test_the_readme_begins_with_make_run_and_make_test() -> None:
    first, second, *_ = (command.text for command in page_commands(ROOT / "README.md"))
    assert first.startswith("make run")
    assert second.startswith("make test")


def test_the_index_links_every_page() -> None:
    index = (ROOT / "docs/index.md").read_text("utf-8")
    assert [
        page.name for page in PAGES if page.name != "index.md" and f"{page.name})" not in index
    ] == []


@pytest.mark.parametrize(
    ("heading", "model"), [("The recipe", Recipe), ("train", Train), ("samples", Samples)]
)
def test_the_tables_of_keys_agree_with_the_models(heading: str, model: type[Section]) -> None:
    expected = {
        info.alias or name: (type_in_words(info), default_in_words(info))
        for name, info in model.model_fields.items()
    }
    assert key_table(heading) == expected
    assert list(key_table(heading)) == list(expected)


def type_in_words(info: FieldInfo) -> str:
    """`int ≥ 1`, `fp32 or bf16`, `encoder or null`, `list of metric`, `mapping`"""
    words = word_for(info.annotation)
    signs = {
        annotated_types.Ge: "≥",
        annotated_types.Gt: ">",
        annotated_types.Le: "≤",
        annotated_types.Lt: "<",
    }
    bounds = [
        f"{signs[type(each)]} {vars_of(each)}" for each in info.metadata if type(each) in signs
    ]
    return " ".join([words, ", ".join(bounds)]).strip()


def vars_of(bound: Any) -> Any:
    [value] = (getattr(bound, name) for name in ("ge", "gt", "le", "lt") if hasattr(bound, name))
    return value


def word_for(annotation: Any) -> str:
    origin, model = get_origin(annotation), field_model(annotation)
    if origin is Literal:
        return " or ".join(map(str, get_args(annotation)))
    optional = " or null" if type(None) in get_args(annotation) else ""
    if origin is dict or (model is not None and not issubclass(model, Component)):
        return "mapping" + optional
    if model is FinishedWeights:
        return "RUN#ARM" + optional
    several = "list of " if origin is tuple else ""
    if model is not None:
        return several + model.kind + optional
    while get_args(annotation):
        annotation = get_args(annotation)[0]
        if get_origin(annotation) is Literal:
            return several + word_for(annotation) + optional
    return several + {str: "text"}.get(annotation, annotation.__name__) + optional


def default_in_words(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    if isinstance(info.default, BaseModel):
        return "its defaults"
    if isinstance(info.default, tuple) and info.default:
        return str(list(info.default))
    return {"None": "null", "()": "none", "False": "false", "True": "true"}.get(
        repr(info.default), str(info.default)
    )


def test_the_sections_that_an_arm_may_replace_are_the_ones_listed() -> None:
    [listed] = re.findall(r"It may replace (.*?)\. ", " ".join(prose(RECIPES).split()))
    assert set(re.findall(r"`(\w+)`", listed)) == set(Override.model_fields)


def test_the_options_of_fw_run_are_the_ones_listed() -> None:
    [rows] = [rows for header, rows in tables(RECIPES).items() if header.startswith("option |")]
    assert [row[0].strip("`") for row in rows] == [
        option for option in options("run") if option != "--help"
    ]


def test_the_index_lists_every_command() -> None:
    [rows] = [
        rows
        for header, rows in tables(ROOT / "docs/index.md").items()
        if header.startswith("command |")
    ]
    assert sorted(row[0].strip("`").split()[1] for row in rows) == sorted(COMMANDS)


def test_stages_have_the_keys_inputs_and_files_that_the_page_lists() -> None:
    [rows] = [rows for header, rows in tables(RECIPES).items() if header.startswith("stage |")]
    listed = {row[0]: [re.findall(r"[\w.*-]+", cell) for cell in row[1:]] for row in rows}
    assert set(listed) == {stage.kind for stage in STAGES}
    for stage in STAGES:
        keyed = [each for each in dataclasses.fields(stage) if not each.metadata.get("unkeyed")]
        reads = [each.metadata["role"] or each.name for each in keyed if each.metadata.get("input")]
        made_of = [
            each.metadata.get("name") or each.name
            for each in keyed
            if not each.metadata.get("input")
        ]
        made_of = [
            name for name in made_of if name != "seed" or stage is not EncodeLatents
        ]  # it has no randomness
        files = list(stage.files)
        assert [sorted(cell) for cell in listed[stage.kind]] == [
            sorted(made_of),
            sorted(reads),
            sorted(files),
        ]


def test_stages_make_the_files_that_they_say_and_no_others(smoke: tuple[Path, str]) -> None:
    for stage in plan(load(ROOT / SMOKE)).stages.values():
        manifest = json.loads(
            (smoke[0] / "runs/store" / stage.id / "manifest.json").read_text("utf-8")
        )
        for name in manifest["files"]:
            assert any(fnmatch.fnmatch(name, pattern) for pattern in stage.files), (
                f"{stage.id}: {name}"
            )
        sometimes = {"log.jsonl", "annotation.safetensors", "quality.json", "training.pt"}
        sometimes |= {name for name in stage.files if name.startswith(("snapshot-", "average-"))}
        for pattern in set(stage.files) - sometimes:
            assert any(fnmatch.fnmatch(name, pattern) for name in manifest["files"]), (
                f"{stage.id}: no {pattern}"
            )


def test_a_run_folder_holds_the_files_that_the_page_lists(smoke: tuple[Path, str]) -> None:
    [rows] = [rows for header, rows in tables(RECIPES).items() if header.startswith("file |")]
    found = {
        path.name
        for path in (smoke[0] / "runs/smoke/latest").iterdir()
        if not path.name.startswith(".")
    }
    assert found == {row[0].strip("`") for row in rows} | {"samples-self_1.5.png"}


def test_the_plugins_of_the_page_were_run_and_recorded(tried: Callable[[Path], Workplace]) -> None:
    place = tried(PLUGINS)
    result = json.loads((place.folder / "runs/smoke/latest/run.json").read_text("utf-8"))
    assert {"blurs", "builtin"} == result["plugins"].keys()
    assert result["plugins"]["blurs"]["distribution"] == "blurs.py"
    assert result["arms"]["deblurred"]["status"] == "finished"
    assert str(place.registry.providers["guidance", "unsharp"]) == "unsharp (fw-unsharp 0.1.0)"


def test_the_page_links_the_reference_of_every_kind() -> None:
    linked = set(re.findall(r"\(kinds/(\w+)\.md\)", PLUGINS.read_text("utf-8")))
    assert linked == {file.stem for file in (ROOT / "docs/kinds").iterdir()}


def test_the_arm_that_sharpens_shares_the_training_and_changes_the_samples(
    tried: Callable[[Path], Workplace],
) -> None:
    [run] = (tried(PLUGINS).folder / "runs/smoke").glob("*/plugins/sharpen.py")
    arms = json.loads((run.parents[1] / "run.json").read_text("utf-8"))["arms"]
    assert arms["sharp"]["train_key"] == arms["unconditional"]["train_key"]
    assert arms["sharp"]["nfe"] == arms["unconditional"]["nfe"]
    assert (
        arms["sharp"]["metrics"]["fd_pca"]["values"]
        != arms["unconditional"]["metrics"]["fd_pca"]["values"]
    )


def test_the_smoke_recipe_makes_what_it_has_made_for_users_bit_for_bit(
    smoke: tuple[Path, str],
) -> None:
    golden = json.loads(bits.GOLDEN.read_text("utf-8"))
    if golden["arithmetic"] != bits.arithmetic():
        pytest.skip(
            f"recorded with {golden['arithmetic']}, and this machine has {bits.arithmetic()}"
        )
    assert bits.products(smoke[0] / "runs/store") == golden["products"]


SPACES = ("classifier", "pca")


def test_the_smoke_recipe_finishes_every_arm_with_a_floor_and_a_spread(
    smoke: tuple[Path, str],
) -> None:
    folder, printed = smoke
    result = json.loads((folder / "runs/smoke/latest/run.json").read_text("utf-8"))
    assert list(result["arms"]) == ["unconditional", "self_1.5"]
    for name, arm in result["arms"].items():
        assert arm["status"] == "finished"
        assert name in printed
        keys = {f"fd{what}_{space}" for what in ("", "_infinity", "_ratio") for space in SPACES}
        assert set(arm["metrics"]) == set(result["better"]) == keys
        for score in arm["metrics"].values():
            assert len(score["values"]) == result["samples"]["seeds"] == 3
            assert min(score["values"]) < score["mean"] < max(score["values"])
            assert score["std"] > 0
            assert 0 < score["floor"] < score["mean"]
    plain, guided = result["arms"].values()
    assert guided["nfe"] == 2 * plain["nfe"] == 2 * 12
    assert guided["train_key"] != plain["train_key"]
    assert 0 < guided["annotation"]["nmi"] < 1
    qualities = {entry["encoder"]: entry["quality"] for entry in result["evaluators"].values()}
    assert qualities["classifier"]["accuracy"] > 0.5
    builtin = result["plugins"].pop("builtin")
    assert (builtin["distribution"], builtin["version"]) == ("fw", result["versions"]["fw"])
    assert result["plugins"] == {}
    assert load(folder / "runs/smoke/latest/recipe.resolved.yaml") == load(ROOT / SMOKE)


def test_the_smoke_run_is_one_mlflow_run_with_a_child_per_arm(smoke: tuple[Path, str]) -> None:
    folder, _ = smoke
    result = json.loads((folder / "runs/smoke/latest/run.json").read_text("utf-8"))
    client = MlflowClient(f"sqlite:///{folder}/runs/mlflow.db")
    runs = client.search_runs([result["mlflow"]["experiment_id"]], run_view_type=ViewType.ALL)
    assert {run.info.status for run in runs} == {"FINISHED"}
    parent = client.get_run(result["mlflow"]["parent_run_id"])
    children = {run.info.run_name: run for run in runs if run.info.run_id != parent.info.run_id}
    assert children.keys() == result["arms"].keys()
    for name, child in children.items():
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        for key, score in result["arms"][name]["metrics"].items():
            assert child.data.metrics[f"eval/{key}"] == pytest.approx(score["mean"])


# The plan of the house


def rooms() -> list[str]:
    """The rooms of core as the linter knows them, from the lowest up."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    [layers] = [
        contract["layers"] for contract in contracts if contract.get("containers") == ["fw.core"]
    ]
    return [room for layer in reversed(layers) for room in sorted(layer.split(" | "))]


def test_the_design_lists_the_rooms_of_core_in_the_order_in_which_they_build_on_each_other() -> (
    None
):
    [rows] = [
        rows
        for header, rows in tables(ROOT / "docs/design.md").items()
        if header.startswith("room |")
    ]
    assert [room for row in rows for room in row[0].split(", ")] == rooms()


def test_every_room_is_a_folder_or_a_file_and_the_index_names_each_folder() -> None:
    core = ROOT / "core"
    folders = {path.name for path in core.iterdir() if path.is_dir() and path.name != "__pycache__"}
    files = {path.stem for path in core.glob("*.py")} - {"__init__", "__main__", "conditioning"}
    assert folders | files == set(rooms())
    text = (ROOT / "docs/index.md").read_text("utf-8")
    assert [name for name in sorted(folders) if f"(../core/{name})" not in text] == []
