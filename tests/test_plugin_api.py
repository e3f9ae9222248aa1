"""Which plugins fw takes: their API version, what can be told of a class, and kinds that plugins
define themselves."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Optional

import pytest
import sites
import toys
from pydantic import ConfigDict, Field
from sites import fw

from fw.core.errors import RecipeError
from fw.core.kinds import Encoder, Guidance
from fw.core.plan.assembly import plan
from fw.core.plan.graph import Plan
from fw.core.recipe.loading import validate
from fw.core.recipe.source import parse
from fw.registry import (
    Component,
    LocalPlugin,
    Provider,
    Registry,
    UnfitPlugin,
    add_files,
    api,
    discover,
    installed,
)

MINE = sites.GUIDANCE.format(name="mine")
ARM = "arms.mine={guidance: {name: mine, scale: 1.5}}"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    """A folder on sys.path with the toys and a healthy plugin; beside it lies a toy recipe."""
    sites.toy_recipe(tmp_path)
    with sites.site(tmp_path / "site") as folder:
        sites.install(folder, "healthy", sites.GUIDANCE.format(name="healthy"))
        yield folder


def stated(version: str | None) -> str:
    return MINE.replace("FW_API = 2", "" if version is None else f"FW_API = {version}")


# The version of the API


@pytest.mark.parametrize(("version", "taken"), [(None, 1), ("1", 1), ("2", 2)])
def test_a_plugin_that_states_a_version_or_none_is_taken(
    site: Path, version: str | None, taken: int
) -> None:
    sites.install(site, "mine", stated(version))
    registry = discover()
    assert registry.broken == []
    assert registry.providers["guidance", "mine"].api == taken


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("3", "it was made for plugin API 3, and this fw has plugin API 2: update fw"),
        (
            "0",
            "it was made for plugin API 0, and this fw has plugin API 2: update the plugin "
            "(docs/plugins.md",
        ),
        ("'1'", "FW_API is '1', not a whole number such as 2"),
        ("1.0", "FW_API is 1.0, not a whole number such as 2"),
        ("True", "FW_API is True, not a whole number such as 2"),
        ("None", "FW_API is None, not a whole number such as 2"),
    ],
)
def test_a_plugin_for_another_version_is_listed_with_both_versions_and_the_rest_works(
    site: Path, version: str, said: str
) -> None:
    sites.install(site, "mine", stated(version))
    [broken] = discover().broken
    assert (broken.provider.plugin, broken.traceback) == ("mine", "")
    assert broken.reason.startswith(said)
    listed = fw("plugins")
    assert listed.code == 0
    assert "FW_API is" in listed.out or "plugin API" in listed.out
    recipe = site.parent / "toy.yaml"
    assert fw("validate", recipe, "--set", "arms.a={guidance: healthy}").code == 0
    refused = fw("validate", recipe, "--set", ARM)
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)
    assert "no guidance named 'mine'" in refused.err
    assert "these plugins are broken: mine (see `fw plugins`)" in refused.err


@pytest.mark.parametrize("version", [None, "1"])
def test_a_plugin_for_the_last_version_works_once_more_and_that_is_said_once(
    site: Path, version: str | None
) -> None:
    sites.install(site, "mine", stated(version))
    sites.install(site, "new", sites.GUIDANCE.format(name="new"))
    said = (
        "plugin mine (mine 1.2): it was made for plugin API 1; this fw has plugin API 2, and the "
        "next will refuse the"
    )
    recipe, out = site.parent / "toy.yaml", site.parent / "runs"
    modes = (
        "arms.mine={guidance: [{name: mine, scale: 2}, {name: mine, scale: 3}, {name: new, scale: "
        "3}]}"
    )
    checked = fw("validate", recipe, "--set", modes)
    assert (checked.code, checked.out.count(said)) == (0, 1)
    done = fw("run", recipe, "--set", modes, "--out", out, "--device", "cpu", "--jobs", "1")
    assert done.code == 0, done.err
    assert " ".join(done.err.split()).count(said) == 1
    assert (out / "toy/latest/report.md").read_text().count(said) == 1
    assert "plugin new" not in checked.out
    assert "plugin healthy" not in checked.out  # the recipe does not use it


def test_the_last_version_but_one_is_refused(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sites.install(site, "mine", stated("1"))
    monkeypatch.setattr(api, "API", 3)
    monkeypatch.setattr(api, "OLDEST", 2)
    told = {broken.provider.plugin: broken.reason for broken in discover().broken}
    assert told["mine"].startswith(
        "it was made for plugin API 1, and this fw has plugin API 3: update the plugin"
    )


def test_a_local_plugin_is_held_to_the_same(site: Path) -> None:
    recipe, mine = site.parent / "toy.yaml", sites.write(site.parent / "my.py", stated(None))
    checked = fw("validate", recipe, "--set", ARM, "--plugin", mine)
    assert checked.code == 0
    assert checked.out.count("plugin my (my.py ") == 1
    assert (
        "made for plugin API 1; this fw has plugin API 2, and the next will refuse the plugin"
        in checked.out
    )
    sites.write(mine, stated("3"))
    refused = fw("validate", recipe, "--set", ARM, "--plugin", mine)
    assert refused.code == 2
    assert (
        refused.err
        == f"--plugin {mine}: it was made for plugin API 3, and this fw has plugin API 2: "
        "update fw\n"
    )


# What can be told of a class


class Unchanged(Guidance):
    """Says nothing against anything."""

    name: ClassVar[str] = "unchanged"

    def worse(self, model: Any, x: Any, sigma: Any, condition: Any, good: Any) -> Any:
        return good


class ListDefault(Unchanged):
    steps: Any = [1, 2]  # noqa: RUF012


class DictDefault(Unchanged):
    weights: dict[str, float] = Field({})


class FunctionField(Unchanged):
    transform: Optional[Callable[[int], int]] = None  # noqa: UP045


class BareFunctionField(Unchanged):
    transform: Callable | None = None


class ClassField(Unchanged):
    classes: tuple[type[int], ...] = ()


class BareClassField(Unchanged):
    one: type = int


class SetField(Unchanged):
    layers: frozenset[str] = frozenset({"a", "b"})


class ArbitraryField(Unchanged):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    lock: toys.Pool | None = None


class Loose(Unchanged):
    model_config = ConfigDict(extra="ignore")


class Thawed(Unchanged):
    model_config = ConfigDict(frozen=False)


class OwnKind(Unchanged):
    kind: ClassVar[str] = "guidance"


class Guidance2(Component):
    """Another class of the same kind."""

    kind: ClassVar[str] = "guidance"


class Impostor(Guidance2):
    name: ClassVar[str] = "impostor"


UNFIT: Mapping[type[Component], str] = {
    ListDefault: (
        "the default of ListDefault.steps can be changed in place: write a tuple or default_factory"
    ),
    DictDefault: (
        "the default of DictDefault.weights can be changed in place: write a tuple or "
        "default_factory"
    ),
    FunctionField: (
        "FunctionField.transform cannot be written in a recipe or stored as JSON: its type is "
    ),
    BareFunctionField: (
        "BareFunctionField.transform cannot be written in a recipe or stored as JSON: its type is "
    ),
    ClassField: "ClassField.classes cannot be written in a recipe or stored as JSON: its type is ",
    BareClassField: (
        "BareClassField.one cannot be written in a recipe or stored as JSON: its type is <class "
        "'type'>"
    ),
    SetField: "SetField.layers is a set, whose order differs from run to run: write a tuple",
    ArbitraryField: "ArbitraryField.scale cannot be written in a recipe or stored as JSON",
    Loose: "Loose changes model_config's extra: every component has extra='forbid'",
    Thawed: "Thawed changes model_config's frozen: every component has frozen=True",
    OwnKind: (
        "OwnKind sets `kind`, so it is a kind and not a component: subclass a kind without setting "
        "it"
    ),
    Impostor: (
        f"Impostor is of another kind that is also called 'guidance': {__name__}.Guidance2, "
        "not fw.core.kinds.guidance.Steering"
    ),
}


@pytest.mark.parametrize(
    ("component", "said"), UNFIT.items(), ids=[each.__name__ for each in UNFIT]
)
def test_a_class_that_recipes_cannot_hold_is_refused_with_the_field_and_the_remedy(
    component: type[Component], said: str
) -> None:
    registry = toys.registry()
    with pytest.raises(UnfitPlugin) as caught:
        registry.add(Provider("theirs"), [Unchanged, component])
    assert str(caught.value).startswith(said)
    assert registry == toys.registry()


def test_of_a_plugin_alone_two_classes_of_the_same_kind_name_are_refused() -> None:
    with pytest.raises(
        UnfitPlugin, match="Impostor is of another kind that is also called 'guidance'"
    ):
        Registry().add(Provider("theirs"), [Unchanged, Impostor])


def test_what_a_hook_returned_is_told_on_one_line(site: Path) -> None:
    sites.install(
        site,
        "mine",
        MINE.replace("[mine]", '[type("Odd", (), {"__repr__": lambda self: "a\\n\\nb"})()]'),
    )
    [broken] = discover().broken
    assert broken.reason == "fw_components() returned a b, which is not a Component class"


# Kinds of plugins


BLUR = """
    from abc import abstractmethod
    from typing import ClassVar

    from pydantic import Field

    from fw.core.kinds import Guidance
    from fw.registry import Component, hookimpl


    class Blur(Component):
        '''Makes images unsharp.'''

        kind: ClassVar[str] = "blur"

        @abstractmethod
        def blur(self, x): ...


    class Box(Blur):
        '''A running mean.'''

        name: ClassVar[str] = "box"
        width: int = Field(3, ge=1)

        def blur(self, x):
            return x / self.width


    class Blurry(Guidance):
        '''The blurred image is worse.'''

        name: ClassVar[str] = "blurry"
        blur: Blur = Field("box", validate_default=True)
        more: dict[str, Blur] = Field(default_factory=dict)

        def worse(self, model, x, sigma, condition, good):
            return self.blur.blur(good)


    @hookimpl
    def fw_components():
        return [Box, Blurry]
"""

GAUSSIAN = """
    from typing import ClassVar

    from blurs import Blur
    from fw.registry import hookimpl


    class Gaussian(Blur):
        '''A bell.'''

        name: ClassVar[str] = "gaussian"
        version: ClassVar[int] = 1
        radius: float = 1.0

        def blur(self, x):
            return x * 0.9


    @hookimpl
    def fw_components():
        return [Gaussian]
"""


@pytest.fixture
def blurs(site: Path) -> Path:
    """Two plugins: one defines a kind, the other provides a component of it."""
    sites.install(site, "blurs", BLUR)
    sites.install(site, "gaussians", GAUSSIAN)
    installed.cache_clear()
    assert installed().broken == []
    return site


def planned(*sets: str) -> Plan:
    source = parse(toys.RECIPE, "r.yaml")
    source.set(sets)
    return plan(validate(source, installed()))


def told(*sets: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        planned(*sets)
    return caught.value.problems


def mode_of(found: Plan) -> Any:
    return found.arms["blurred"].arm.guidance[0]


def test_a_plugin_may_define_a_kind_and_another_may_provide_a_component_of_it(blurs: Path) -> None:
    plain = mode_of(planned("arms.blurred={guidance: {name: blurry, scale: 2}}"))
    assert plain.blur.spec() == {"name": "box", "width": 3}
    nested = "arms.blurred={guidance: {name: blurry, scale: 2, blur: {name: gaussian, radius: 2}}}"
    assert mode_of(planned(nested)).blur.spec() == {"name": "gaussian", "radius": 2.0}
    assert [component.name for component in installed().of_kind("blur")] == ["box", "gaussian"]
    out = blurs.parent / "runs"
    words = ("--set", nested, "--arm", "blurred", "--out", out, "--device", "cpu")
    done = fw("run", blurs.parent / "toy.yaml", *words, "--jobs", "1")
    assert done.code == 0, done.err
    resolved = out / "toy/latest/recipe.resolved.yaml"
    assert fw("validate", resolved).code == 0
    assert '"gaussian"' in fw("schema").out
    drawn = fw(
        "sample",
        out / "toy/latest",
        "--arm",
        "blurred",
        "-o",
        blurs.parent / "g.png",
        "--device",
        "cpu",
    )
    assert drawn.code == 0, drawn.err


@pytest.mark.parametrize("where", ["blur: {}", "more: {{one: {}}}"])
def test_spec_and_version_of_a_nested_component_are_in_the_keys(
    blurs: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keys(nested: str) -> set[str]:
        field = where.format(nested)
        return set(
            planned("arms.blurred={guidance: {name: blurry, scale: 2, " + field + "}}").stages
        )

    first = keys("{name: gaussian, radius: 2}")
    assert keys("{name: gaussian, radius: 2}") == first
    others = [keys("{name: gaussian, radius: 3}")]
    monkeypatch.setattr(installed().get("blur", "gaussian"), "version", 2)
    others.append(keys("{name: gaussian, radius: 2}"))
    for other in others:
        assert sorted(stage.partition("-")[0] for stage in first - other) == [
            "evaluate",
            "features",
            "sample",
        ]


def test_errors_name_the_kind_and_the_line(blurs: Path) -> None:
    line = toys.RECIPE.count("\n")
    recipe = toys.RECIPE + "  blurred: {guidance: {name: blurry, scale: 2, blur: boxx}}\n"
    with pytest.raises(RecipeError) as caught:
        validate(parse(recipe, "r.yaml"), installed())
    [problem] = caught.value.problems
    place = f"r.yaml:{line + 1}: arms.blurred.guidance.blur"
    assert problem == f"{place}: no blur named 'boxx'; did you mean 'box'? (known: box, gaussian)"
    prefix = "arms.blurred={guidance: {name: blurry, scale: 2, blur: "
    [problem] = told(prefix + "3}}")
    assert "expected the name of a blur or a mapping with a 'name'" in problem
    [problem] = told(prefix + "{name: box, width: 0}}}")
    assert "guidance.blur.width: input should be greater than or equal to 1" in problem
    [problem] = told(prefix + "{name: box, widht: 2}}}")
    assert "unknown key; did you mean 'width'? (known: name, width)" in problem


def test_without_the_plugin_that_provides_it_the_component_is_missing_and_nothing_else(
    site: Path,
) -> None:
    sites.install(site, "blurs", BLUR)
    installed.cache_clear()
    [problem] = told("arms.blurred={guidance: {name: blurry, scale: 2, blur: gaussian}}")
    assert "no blur named 'gaussian' (known: box)" in problem


def test_without_the_plugin_that_defines_the_kind_its_provider_is_broken_and_says_why(
    site: Path,
) -> None:
    sites.install(site, "gaussians", GAUSSIAN)
    [broken] = discover().broken
    assert broken.reason == "ModuleNotFoundError: No module named 'blurs'"


def test_a_component_of_another_kind_of_the_same_name_does_not_pass_for_one(site: Path) -> None:
    """Two plugins define kinds called blur; only one provides components, so neither is refused
    when it is loaded."""
    sites.install(site, "blurs", BLUR)
    alone = BLUR.replace("[Box, Blurry]", "[Blurry]").replace('"blurry"', '"other"')
    sites.install(site, "others", alone)
    installed.cache_clear()
    assert installed().broken == []
    [problem] = told("arms.blurred={guidance: {name: other, scale: 2}}")
    assert "'box' is of another kind that is also called 'blur'" in problem


def test_a_local_plugin_may_define_a_kind(site: Path) -> None:
    registry = toys.registry()
    add_files(registry, [LocalPlugin(Path("/nowhere/blurs.py"), textwrap.dedent(BLUR))])
    source = parse(toys.RECIPE, "r.yaml")
    source.set(["arms.blurred={guidance: {name: blurry, scale: 2}}"])
    mode: Any = validate(source, registry).arm("blurred").guidance[0]
    assert mode.identity()["blur"]["--plugin"] == mode.identity()["--plugin"] == mode.file_hash


def test_a_component_may_hold_any_kind_and_tells_what_is_in_it() -> None:
    class Holder(Unchanged):
        name: ClassVar[str] = "holder"
        one: Encoder
        some: tuple[Encoder, ...]
        named: dict[str, Encoder]

    registry = toys.registry()
    registry.add(Provider("theirs"), [Holder])
    written = {
        "one": "mean",
        "some": ["flat", {"name": "mean", "cells": 3}],
        "named": {"a": "taught", "b": "flat"},
    }
    holder = Holder.model_validate(written, context={"registry": registry})
    assert [each.name for each in holder.within()] == [
        "holder",
        "mean",
        "flat",
        "mean",
        "taught",
        "flat",
    ]
    inside = holder.identity()
    assert inside["named"]["a"] == {"name": "taught", "cells": 1, "version": 1}
    assert inside["some"][1] == {"name": "mean", "cells": 3, "version": 1}
    assert (
        Holder.model_validate(
            {key: holder.spec()[key] for key in written}, context={"registry": registry}
        )
        == holder
    )
