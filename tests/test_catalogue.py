"""`fw plugins`: what is installed is told in full, as text and as JSON, with snippets that work
as they stand."""

from __future__ import annotations

import io
import json
import sys
import textwrap
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
import toys
from pydantic import BaseModel, Field, create_model
from pydantic.fields import FieldInfo
from rich.console import Console

from fw.core.catalogue import check
from fw.core.catalogue.example import ExampleRefused, NoExample, example
from fw.core.catalogue.facts import component_facts, find, kind_facts, known_kinds, summary
from fw.core.catalogue.view import Request, answer
from fw.core.catalogue.words import bounds_in_words, inline, type_in_words
from fw.core.cli import app, guarded
from fw.core.kinds import Encoder, Guidance
from fw.core.recipe.model import Recipe
from fw.core.recipe.source import parse
from fw.registry import Component, Provider, Registry, api, installed

BUILT_IN = [component for (_, _), component in sorted(installed().components.items())]

HEADER = """
    from typing import ClassVar
    from pydantic import Field
    from fw.core.kinds import Dataset, Guidance
    from fw.registry import Component, hookimpl
"""
SHARPER = """
    class Sharper(Guidance):
        '''Worse is what went before. It has [brackets].

        A second paragraph,
        in two lines.
        '''

        name: ClassVar[str] = "sharper"
        evaluations: ClassVar[int] = 0
        sizes: tuple[int, ...] = Field((1, 2), min_length=1, description="some [lo, hi] sizes")

        def worse(self, model, x, sigma, condition, good):
            return 0.9 * good


    @hookimpl
    def fw_components():
        print("this is not an answer")
        return [Sharper]
"""

Fw = Callable[..., tuple[int, str, str]]
Install = Callable[[str, str], None]


@pytest.fixture
def fw(capfd: pytest.CaptureFixture[str]) -> Fw:
    """The exit code of a command, and what it printed on standard output and on standard error."""

    def call(*words: str) -> tuple[int, str, str]:
        if "--plugin" in words:
            installed.cache_clear()
        capfd.readouterr()
        try:
            code: Any = guarded(lambda: app(list(words), prog_name="fw"))
        except SystemExit as ended:
            code = ended.code
        return code or 0, *capfd.readouterr()

    return call


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install one-module distributions beside fw, and forget them afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def write(name: str, source: str) -> None:
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(HEADER) + textwrap.dedent(source))
        info = tmp_path / f"{name}-1.2.dist-info"
        info.mkdir()
        info.joinpath("METADATA").write_text(
            f"Metadata-Version: 2.1\nName: fw-{name}\nVersion: 1.2\n"
        )
        info.joinpath("entry_points.txt").write_text(f"[fw]\n{name} = {name}\n")
        installed.cache_clear()

    yield write
    installed.cache_clear()
    for module in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[module], "__file__", "")):
            del sys.modules[module]


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Path]:
    """A plugin in one file, to be added with --plugin."""
    file = tmp_path / "local_sharper.py"
    file.write_text(textwrap.dedent(HEADER) + textwrap.dedent(SHARPER))
    installed.cache_clear()
    yield file
    installed.cache_clear()


def test_the_table_has_a_line_per_component_and_names_each_kind_once(fw: Fw) -> None:
    code, printed, _ = fw("plugins")
    rows = [
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in printed.splitlines()
        if line.startswith("│")
    ]
    kinds = [row[0] for row in rows if row[0]]
    assert code == 0
    assert kinds == sorted({component.kind for component in BUILT_IN})
    assert [row[1] for row in rows] == [component.name for component in BUILT_IN]
    assert {row[2] for row in rows} == {"builtin"}
    fid = next(row for row in rows if row[1] == "fid")
    assert fid[3] == "Frechet inception distance (arXiv 1706.08500)."


def test_a_kind_limits_the_table_and_an_unknown_one_is_told_the_known(fw: Fw) -> None:
    _, printed, _ = fw("plugins", "--kind", "guidance")
    assert "self_guidance" in printed
    assert "kmeans" not in printed
    code, printed, said = fw("plugins", "--kind", "gidance")
    assert (code, printed) == (2, "")
    assert said.startswith(
        "--kind gidance: there is no such kind (known: annotator, autoencoder, backbone,"
    )


def test_broken_and_outdated_plugins_stand_below_the_table(
    fw: Fw, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("sharper", "\n    FW_API = 1\n" + SHARPER)
    install("shattered", "1 / 0")
    monkeypatch.setattr(api, "API", 2)
    code, printed, _ = fw("plugins")
    assert code == 0
    assert (
        "\noutdated: sharper (fw-sharper 1.2): it was made for plugin API 1; this fw has plugin "
        "API 2" in printed
    )
    assert (
        printed.splitlines()[-1]
        == "broken: shattered (fw-shattered 1.2): ZeroDivisionError: division by zero"
    )


def test_a_broken_plugin_is_shown_with_its_traceback(fw: Fw, install: Install) -> None:
    install("shattered", "\n\nwidth = 1 / 0")
    code, printed, _ = fw("plugins", "shattered")
    assert code == 0
    assert "broken: shattered (fw-shattered 1.2): ZeroDivisionError: division by zero" in printed
    assert "width = 1 / 0" in printed


def test_the_name_of_a_plugin_lists_what_it_brings(fw: Fw, install: Install) -> None:
    install("mine", SHARPER)
    _, printed, _ = fw("plugins", "mine")
    assert "sharper" in printed
    assert "cfg" not in printed


def test_a_component_is_shown_with_all_its_text_its_fields_and_where_it_comes_from(
    fw: Fw, install: Install
) -> None:
    install("mine", SHARPER)
    _, printed, _ = fw("plugins", "sharper")
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert lines[:3] == [
        "guidance sharper",
        "plugin mine (fw-mine 1.2), API 1",
        "class mine.Sharper, version 1",
    ]
    assert (
        "  Worse is what went before. It has [brackets].\n\n  A second paragraph,\n  in two "
        "lines.\n" in printed
    )
    assert "│ sizes │ tuple of int │ length >= 1 │ [1, 2] │ some [lo, hi] sizes │" in lines
    assert "requires nothing, with these defaults" in lines
    assert (
        "  guidance:\n    name: sharper\n    scale: 1.0\n    interval: null\n    sizes: [1, 2]\n"
        in printed
    )


def test_a_name_that_several_kinds_share_shows_them_all_and_a_kind_chooses(fw: Fw) -> None:
    _, both, _ = fw("plugins", "ddpm")
    assert "process ddpm\n" in both
    assert "sampler ddpm\n" in both
    _, one, _ = fw("plugins", "ddpm", "--kind", "process")
    assert "process ddpm\n" in one
    assert "sampler ddpm\n" not in one


def test_an_unknown_name_gets_the_nearest_ones_and_the_broken_plugins(
    fw: Fw, install: Install
) -> None:
    install("shattered", "1 / 0")
    code, printed, said = fw("plugins", "kmaens")
    assert (code, printed) == (2, "")
    assert "there is no component, kind or plugin named 'kmaens'; did you mean 'kmeans'" in said
    assert "these plugins are broken: shattered" in said
    assert "there is no guidance named 'kmeans'" in fw("plugins", "kmeans", "--kind", "guidance")[2]


def test_a_kind_is_shown_with_the_methods_to_write_before_those_that_have_a_default(fw: Fw) -> None:
    _, printed, _ = fw("plugins", "sampler")
    to_write, _, optional = printed.partition("methods that have a default:")
    assert "Integrates from noise to images" in to_write
    assert (
        "  @property nfe(self) -> int\n      Denoiser evaluations per sample, without guidance.\n"
        in to_write
    )
    assert "sample(self, denoise: Denoise, noise: Tensor, draws: Draws) -> Tensor" in to_write
    assert "  check(self, sigma_range: tuple[float, float]) -> None\n" in optional
    assert "  preflight(self) -> None\n" in optional
    assert "__hash__" not in printed
    assert "dpmpp" in optional


@pytest.mark.parametrize("kind", sorted(known_kinds(installed())))
def test_the_methods_to_write_are_the_abstract_ones(kind: str) -> None:
    cls = known_kinds(installed())[kind]
    methods = kind_facts(cls)["methods"]
    required = [method["name"] for method in methods if method["required"]]
    assert set(required) == cls.__abstractmethods__
    assert required == [method["name"] for method in methods][: len(required)]
    assert all(method["docs"] for method in methods if method["required"])


def test_kinds_of_fw_are_known_where_no_plugin_brings_one() -> None:
    assert set(known_kinds(Registry())) == {*installed().kinds()}
    assert find(Registry(), "tracker").kind is installed().kind_classes["tracker"]


COMPONENT_KEYS = (
    "kind name plugin class summary docs version fields requires provides no_example snippet"
)


def test_json_is_one_document_with_the_same_keys_for_a_list_and_for_a_name(
    fw: Fw, install: Install
) -> None:
    install("mine", SHARPER)
    install("shattered", "1 / 0")
    everything, one, kind, broken = (
        json.loads(fw("plugins", *words, "--json")[1])
        for words in ([], ["sharper"], ["guidance"], ["shattered"])
    )
    assert (
        [*everything]
        == [*one]
        == [*kind]
        == [*broken]
        == ["api", "kind", "components", "plugins", "broken"]
    )
    assert everything["api"] == api.API
    assert [each["plugin"] for each in everything["plugins"]] == ["builtin", "mine"]
    assert [each["plugin"] for each in everything["broken"]] == ["shattered"]
    assert {each["name"] for each in everything["components"]} == {
        each.name for each in BUILT_IN
    } | {"sharper"}
    assert all([*each] == COMPONENT_KEYS.split() for each in everything["components"])
    assert [each["name"] for each in one["components"]] == ["sharper"]
    assert set(one["plugins"][0]) == {"plugin", "distribution", "version", "api", "source"}
    assert one["components"][0]["fields"][-1] == {
        "name": "sizes",
        "type": "tuple of int",
        "bounds": ["length >= 1"],
        "default": [1, 2],
        "required": False,
        "description": "some [lo, hi] sizes",
    }
    assert kind["kind"]["kind"] == "guidance"
    assert broken["components"] == []
    assert "1 / 0" in broken["broken"][0]["traceback"]


def test_what_plugins_print_does_not_get_into_the_answer(fw: Fw, local: Path) -> None:
    _, printed, said = fw("plugins", "sharper", "--plugin", str(local), "--json")
    [component] = json.loads(printed)["components"]
    assert component["plugin"] == "local_sharper"
    assert "this is not an answer" in said


@pytest.mark.parametrize("component", BUILT_IN, ids=lambda each: f"{each.kind}-{each.name}")
def test_the_snippet_of_a_built_in_is_the_component_itself_in_a_recipe(
    component: type[Component],
) -> None:
    told = component_facts(component, installed())
    written = parse(told["snippet"], "snippet").data
    [(section, value)] = written.items()
    info = Recipe.model_fields[section]
    part = create_model("Part", **{section: (info.annotation, info)})  # type: ignore[call-overload]
    read = getattr(part.model_validate(written), section)
    assert read == ((example(component),) if isinstance(read, tuple) else example(component))
    [value] = value if isinstance(value, list) else [value]
    assert list(value) == ["name", *component.model_fields]


@pytest.mark.parametrize("component", BUILT_IN, ids=lambda each: f"{each.kind}-{each.name}")
def test_every_built_in_can_be_made_and_says_what_each_field_is(component: type[Component]) -> None:
    told = component_facts(component, installed())
    assert told["no_example"] is None
    assert told["requires"] == sorted(example(component).requires)
    assert told["provides"] == sorted(example(component).provides)
    assert told["summary"]
    assert all(field["description"] for field in told["fields"])


def one_component(component: type[Component]) -> dict[str, Any]:
    registry = Registry()
    registry.add(Provider("mine"), [component])
    return component_facts(component, registry)


class Demanding(toys.Dots):
    """Cannot be guessed."""

    name: ClassVar[str] = "demanding"
    folder: Path
    depth: int = Field(ge=1, examples=[3])


def test_required_fields_without_an_example_are_placeholders_and_leave_capabilities_open() -> None:
    facts = one_component(Demanding)
    lines = facts["snippet"].splitlines()
    assert "  folder: ...  # required: path" in lines
    assert "  depth: 3  # required; this is an example" in lines
    assert parse(facts["snippet"], "snippet").data["dataset"]["folder"] == "..."
    assert (facts["requires"], facts["provides"]) == (None, None)
    assert (
        facts["no_example"]
        == "no example of the required folder; give one with Field(examples=[...])"
    )
    with pytest.raises(NoExample):
        example(Demanding)


class Contrary(toys.Free):
    """Refuses its own example."""

    name: ClassVar[str] = "contrary"
    depth: int = Field(ge=1, examples=[0])


class Moody(toys.Free):
    """Does not say what it requires."""

    name: ClassVar[str] = "moody"

    @property
    def requires(self) -> frozenset[str]:
        raise RuntimeError("not today")


def test_a_component_that_raises_while_it_is_described_is_described_without() -> None:
    with pytest.raises(ExampleRefused, match="depth: Input should be greater than or equal to 1"):
        example(Contrary)
    assert "depth: Input should be" in one_component(Contrary)["no_example"]
    assert one_component(Moody)["no_example"] == "asking for it raised RuntimeError: not today"
    assert one_component(Moody)["requires"] is None


class Drawn(toys.Free):
    """Makes a default of another field."""

    name: ClassVar[str] = "drawn"
    depth: int = 3
    sizes: tuple[int, ...] = Field(default_factory=lambda fields: (fields["depth"],))


def test_defaults_that_factories_make_are_shown() -> None:
    assert {field["name"]: field["default"] for field in one_component(Drawn)["fields"]}[
        "sizes"
    ] == [3]
    assert "  sizes: [3]" in one_component(Drawn)["snippet"].splitlines()


def test_the_capabilities_are_those_of_the_defaults() -> None:
    assert component_facts(installed().get("guidance", "self_guidance"), installed())[
        "requires"
    ] == [
        "conditions",
        "label_free",
        "null",
    ]
    assert component_facts(installed().get("backbone", "unet"), installed())["provides"] == ["taps"]


OWN_KIND = """
    from abc import abstractmethod


    class Lens(Component):
        '''Bends light.'''

        kind: ClassVar[str] = "lens"

        @abstractmethod
        def bend(self, angle: float = 0.5) -> "float":
            '''Radians in, radians out.'''


    class Thick(Lens):
        '''Bends a lot.'''

        name: ClassVar[str] = "thick"

        def bend(self, angle: float = 0.5) -> float:
            return 2 * angle
"""
LOOKS = """
    class Look(Guidance):
        '''Looks through a lens.'''

        name: ClassVar[str] = "look"
        through: Lens = Field("thick", validate_default=True)

        def worse(self, model, x, sigma, condition, good):
            return good
"""


def hook(*names: str) -> str:
    return f"\n    @hookimpl\n    def fw_components():\n        return [{', '.join(names)}]\n"


def test_a_kind_of_a_plugins_own_is_shown_as_the_value_of_a_field(fw: Fw, install: Install) -> None:
    install("optics", OWN_KIND + LOOKS + hook("Thick", "Look"))
    _, printed, _ = fw("plugins", "thick")
    assert "  through:  # a field of guidance look\n    name: thick\n" in printed
    _, printed, _ = fw("plugins", "lens")
    assert "Bends light." in printed
    assert "  bend(self, angle: float = 0.5) -> float\n      Radians in, radians out.\n" in printed
    assert "│ lens │ thick │ optics │ Bends a lot." in printed
    _, printed, _ = fw("plugins", "look")
    assert (
        "  guidance:\n    name: look\n    scale: 1.0\n    interval: null\n    through: thick\n"
        in printed
    )
    assert (
        json.loads(fw("plugins", "look", "--json")[1])["components"][0]["fields"][-1]["type"]
        == "lens"
    )


def test_a_kind_that_no_field_takes_is_shown_all_the_same(fw: Fw, install: Install) -> None:
    install("optics", OWN_KIND + hook("Thick"))
    assert (
        "  lens:  # a field whose type is this kind\n    name: thick\n" in fw("plugins", "thick")[1]
    )


Count = Annotated[int, Field(ge=1)]


class Hue(Enum):
    RED = "red"
    BLUE = "blue"


class Nested(BaseModel):
    depth: int = 1


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int, "int"),
        (str, "text"),
        (float | None, "float or null"),
        (None | Path | int, "path or int or null"),
        (Literal["conv", "vit"], "one of conv, vit"),
        (Literal["a", "1", 1] | None, "one of a, '1', 1 or null"),
        (Encoder, "encoder"),
        (Encoder | None, "encoder or null"),
        (tuple[Guidance, ...], "tuple of guidance"),
        (tuple[Annotated[int, Field(ge=1)], ...], "tuple of int"),
        (tuple[float, float] | None, "tuple of (float, float) or null"),
        (list[str], "list of text"),
        (frozenset[int], "frozenset of int"),
        (dict[str, float], "mapping of text to float"),
        (Hue, "one of red, blue"),
        (Nested, "mapping"),
        (Any, "anything"),
    ],
)
def test_types_in_words(annotation: Any, words: str) -> None:
    assert type_in_words(annotation) == words


@pytest.mark.parametrize(
    ("annotation", "info", "words"),
    [
        (int, Field(ge=1), [">= 1"]),
        (float, Field(gt=0, lt=1), ["> 0", "< 1"]),
        (int, Field(ge=8, multiple_of=4), [">= 8", "multiple of 4"]),
        (float | None, Field(None, le=2), ["<= 2"]),
        (
            tuple[Count, ...],
            Field(min_length=1, max_length=3),
            ["length >= 1", "length <= 3", "each >= 1"],
        ),
        (tuple[Count, Count], Field(), ["each >= 1"]),
        (
            dict[Annotated[str, Field(min_length=2)], Count],
            Field(),
            ["keys length >= 2", "values >= 1"],
        ),
        (Annotated[int, Field(gt=3)] | None, Field(None), ["> 3"]),
        (str, Field(pattern="^[a-f]+$"), ["matches ^[a-f]+$"]),
        (bool, Field(False), []),
    ],
)
def test_bounds_in_words(annotation: Any, info: FieldInfo, words: list[str]) -> None:
    made = create_model("Made", value=(annotation, info))
    assert bounds_in_words(made.model_fields["value"]) == words


@pytest.mark.parametrize(
    "value",
    [None, True, 0.1, 1e-20, "1", "null", "a, b", "two\nlines", [], [1, {"a": "x: y"}], "x" * 300],
)
def test_values_in_one_line_are_read_back_as_they_were(value: Any) -> None:
    assert "\n" not in inline(value)
    assert parse(f"key: {inline(value)}", "line").data == {"key": value}


@pytest.mark.parametrize(
    ("docs", "sentence"),
    [
        ("One thing. Another.", "One thing."),
        ("Wrapped\nhere. Then\nmore.", "Wrapped here."),
        ("No full stop\n\nA second paragraph.", "No full stop"),
        (
            "As e.g. Ho et al. (arXiv 2006.11239) do it. Then more.",
            "As e.g. Ho et al. (arXiv 2006.11239) do it.",
        ),
        ("Version 1.5 of it. 3 more.", "Version 1.5 of it."),
        (
            "By X (arXiv 1, eq. 3. No. 4), see eq. 5. More.",
            "By X (arXiv 1, eq. 3. No. 4), see eq. 5.",
        ),
        ("", ""),
    ],
)
def test_the_summary_is_the_first_sentence(docs: str, sentence: str) -> None:
    assert summary(docs) == sentence


# --check


MIXING = """
    class Sharper(Guidance):
        '''Mixes the images of a batch.'''

        name: ClassVar[str] = "sharper"
        evaluations: ClassVar[int] = 0

        def worse(self, model, x, sigma, condition, good):
            return good.mean(dim=0, keepdim=True).expand_as(good)
"""


def test_check_tells_of_each_component_whether_it_is_sound(fw: Fw, local: Path) -> None:
    code, printed, _ = fw("plugins", "--check", "cfg")
    assert (code, printed) == (0, "ok       guidance cfg\n")
    code, printed, _ = fw("plugins", "--check", "--plugin", str(local))
    assert (code, printed) == (0, "ok       guidance sharper\n")


def test_check_fails_with_a_line_per_violated_clause(fw: Fw, local: Path) -> None:
    local.write_text(
        textwrap.dedent(HEADER) + textwrap.dedent(MIXING + hook("Sharper")), encoding="utf-8"
    )
    code, printed, _ = fw("plugins", "--check", "--plugin", str(local))
    first, *reasons = printed.splitlines()
    assert code == 1
    assert first == "failed   guidance sharper"
    assert reasons
    assert all(reason.startswith("         guidance sharper: ") for reason in reasons)
    code, printed, _ = fw("plugins", "sharper", "--check", "--plugin", str(local), "--json")
    [told] = json.loads(printed)["checks"]
    assert code == 1
    assert told.pop("reasons") == [reason.split(": ", 1)[1] for reason in reasons]
    assert told == {
        "kind": "guidance",
        "name": "sharper",
        "plugin": "local_sharper",
        "status": "failed",
    }


def test_check_skips_what_lacks_its_files_or_examples(
    fw: Fw, install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, printed, _ = fw("plugins", "--check", "cifar10")
    assert code == 0
    assert printed.startswith("skipped  dataset cifar10: dataset cifar10 expects the file")
    install("mine", SHARPER.replace("Field((1, 2), ", "Field("))
    code, printed, _ = fw("plugins", "--check", "sharper")
    assert code == 1
    assert (
        printed.splitlines()[1]
        .strip()
        .startswith("guidance sharper: no example of the required sizes; give one with")
    )


def test_check_fails_for_broken_plugins_unless_something_else_was_asked_for(
    fw: Fw, install: Install
) -> None:
    install("shattered", "1 / 0")
    code, printed, _ = fw("plugins", "--check", "shattered")
    assert code == 1
    assert printed == (
        "failed   plugin shattered\n         plugin shattered: ZeroDivisionError: division by "
        "zero\n"
    )
    assert fw("plugins", "--check", "--kind", "process")[0] == 0


def test_what_refuses_its_own_defaults_or_raises_in_preflight_fails() -> None:
    class Grumpy(toys.Free):
        """Raises where it should say what is missing."""

        name: ClassVar[str] = "grumpy"

        def preflight(self) -> None:
            raise KeyError("weights")

    registry = Registry()
    registry.add(Provider("mine"), [Contrary, Grumpy])
    found = find(registry)
    told = list(check.verdicts(found, registry, Console(stderr=True)))
    assert [each["status"] for each in told] == ["failed", "failed"]
    assert "it refuses its own defaults or examples: depth" in told[0]["reasons"][0]
    assert told[1]["reasons"] == ["it raised KeyError: 'weights' before a run"]


@pytest.mark.parametrize("columns", [20, 60, 100])
def test_no_sentence_is_cut_however_narrow_the_terminal(columns: int) -> None:
    stream = io.StringIO()
    narrow = Console(file=stream, width=columns, force_terminal=True, color_system=None)
    for request in (Request(), Request("unet"), Request("ddpmpp")):
        assert answer(request, installed(), narrow)
    assert "\N{HORIZONTAL ELLIPSIS}" not in stream.getvalue()  # what rich cuts ends in one
