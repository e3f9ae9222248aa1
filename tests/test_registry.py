"""The plugin host: real distributions on a real path are discovered, the broken ones are
isolated and explained."""

from __future__ import annotations

import json
import pickle
import random
import sys
import textwrap
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from graphlib import TopologicalSorter
from importlib import metadata
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import grimp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pluggy import HookImpl, Result
from pydantic import BaseModel, Field, ValidationError

from fw.registry import Component, Provider, Registry, UnknownComponent, discover, installed
from fw.registry.global_state import undisturbed
from fw.registry.host import Host

HEALTHY = """
    from typing import ClassVar

    from fw.core.kinds import Guidance
    from fw.registry import hookimpl


    class {name}(Guidance):
        name: ClassVar[str] = "{name}"

        def worse(self, model, x, sigma, condition, good):
            return good


    @hookimpl
    def fw_components():
        return [{name}]
"""

Install = Callable[..., None]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder on sys.path, forgotten with all that was imported from it."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for module in set(sys.modules) - before:
        if getattr(sys.modules[module], "__file__", None) and str(tmp_path) in str(
            sys.modules[module].__file__
        ):
            del sys.modules[module]


@pytest.fixture
def install(site: Path) -> Install:
    """Install a one-module distribution that registers itself as a plugin of fw."""

    def write(name: str, source: str, distribution: str | None = None) -> None:
        (site / f"{name}.py").write_text(textwrap.dedent(source))
        info = site / f"{(distribution or name).replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        info.joinpath("METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution or name}\nVersion: 1.2\n"
        )
        info.joinpath("entry_points.txt").write_text(f"[fw]\n{name} = {name}\n")

    return write


def entry_points(site: Path) -> list[metadata.EntryPoint]:
    return [
        entry
        for distribution in metadata.distributions(path=[str(site)])
        for entry in distribution.entry_points
        if entry.group == "fw"
    ]


def names(registry: Registry, kind: str = "guidance") -> list[str]:
    return [component.name for component in registry.of_kind(kind)]


def listed(registry: Registry) -> list[str]:
    """The names of the plugins that pluggy holds, less those that are blocked."""
    return [name for name, plugin in registry.host.list_name_plugin() if plugin is not None]


def test_a_plugin_is_found_by_its_entry_point_and_knows_where_it_came_from(
    site: Path, install: Install
) -> None:
    install("sharper", HEALTHY.format(name="sharper"), distribution="sharper-guidance")
    registry = discover(entry_points(site))
    assert registry.get("guidance", "sharper").__module__ == "sharper"
    assert str(registry.providers["guidance", "sharper"]) == "sharper (sharper-guidance 1.2)"
    assert registry.broken == []


def test_a_plugin_installed_beside_fw_is_found_without_being_asked_for(install: Install) -> None:
    install("sharper", HEALTHY.format(name="sharper"))
    registry = discover()
    assert "sharper" in names(registry)
    assert registry.providers["guidance", "sharper"].plugin == "sharper"


def test_the_built_ins_come_first_and_through_the_same_entry_point_group(
    site: Path, install: Install
) -> None:
    install("aaa", HEALTHY.format(name="cfg"))
    mine = [entry for entry in metadata.entry_points(group="fw") if entry.name == "builtin"]
    assert [entry.value for entry in mine] == ["fw.plugins"]
    registry = discover([*entry_points(site), *mine])
    assert registry.providers["guidance", "cfg"].distribution == "fw"
    assert [entry.provider.plugin for entry in registry.broken] == ["aaa"]


def test_every_built_in_is_healthy() -> None:
    registry = discover(
        entry for entry in metadata.entry_points(group="fw") if entry.name == "builtin"
    )
    assert registry.broken == []
    assert set(registry.kinds()) >= {
        "annotator",
        "backbone",
        "dataset",
        "encoder",
        "guidance",
        "metric",
    }


BROKEN = {
    "an import that fails": (
        "import a_library_that_is_not_installed",
        "ModuleNotFoundError: No module named 'a_library_that_is_not_installed'",
    ),
    "a line that raises": ("1 / 0", "ZeroDivisionError: division by zero"),
    "a module that does not parse": ("def fw_components(:", "SyntaxError: invalid syntax"),
    "a module that exits": ("raise SystemExit('wrong platform')", "SystemExit: wrong platform"),
    "a hook with a misspelled name": (
        HEALTHY.format(name="fine").replace("fw_components", "fw_component"),
        "unknown hook 'fw_component'",
    ),
    "a hook with arguments of its own": (
        HEALTHY.format(name="fine").replace("fw_components()", "fw_components(registry)"),
        "registry",
    ),
    "a hook that is not marked": (
        HEALTHY.format(name="fine").replace("@hookimpl", ""),
        "it has no function fw_components() marked with fw.registry.hookimpl",
    ),
    "a hook that raises": (
        HEALTHY.format(name="fine").replace("return [fine]", "raise KeyError('config')"),
        "KeyError: 'config'",
    ),
    "a hook that raises half-way": (
        HEALTHY.format(name="fine").replace(
            "return [fine]", "yield fine; raise KeyError('config')"
        ),
        "KeyError: 'config'",
    ),
    "a hook that returns nothing": (
        HEALTHY.format(name="fine").replace("return [fine]", "pass"),
        "fw_components() returned None, not a list of component classes",
    ),
    "a hook that returns a class": (
        HEALTHY.format(name="fine").replace("[fine]", "fine"),
        "fw_components() returned <class 'plugin.fine'>, not a list of component classes",
    ),
    "a component that is no class": (
        HEALTHY.format(name="fine").replace("[fine]", "[fine, fine()]"),
        "which is not a Component class",
    ),
    "a component that is a class of something else": (
        HEALTHY.format(name="fine").replace("[fine]", "[fine, dict]"),
        "fw_components() returned <class 'dict'>, which is not a Component class",
    ),
    "a component that is abstract": (
        HEALTHY.format(name="fine").replace("def worse", "def wors"),
        "fine is abstract: it does not implement worse",
    ),
    "a component without a name": (
        HEALTHY.format(name="fine").replace("name: ClassVar[str] =", "label: ClassVar[str] ="),
        "fine has no `name: ClassVar[str]`",
    ),
    "a component whose name is a field": (
        HEALTHY.format(name="fine").replace("name: ClassVar[str]", "name: str"),
        "fine has no `name: ClassVar[str]`",
    ),
    "a component with a field of an unknown type": (
        HEALTHY.format(name="fine").replace(
            "name: ClassVar", "space: 'Encodr'\n        name: ClassVar"
        ),
        "name 'Encodr' is not defined",
    ),
    "a kind": (
        HEALTHY.format(name="fine").replace("[fine]", "[fine, Guidance.__base__]"),
        "Steering sets `kind`, so it is a kind and not a component",
    ),
    "a component of no kind": (
        HEALTHY.format(name="fine").replace(
            "kinds import Guidance", "kinds import Component as Guidance"
        ),
        "fine does not subclass one of the kinds in fw.core.kinds",
    ),
    "the same name twice": (
        HEALTHY.format(name="fine").replace("[fine]", "[fine, fine]"),
        "it brings two components of kind guidance named 'fine'",
    ),
}


@pytest.mark.filterwarnings("ignore:Field name .* shadows an attribute in parent:UserWarning")
@pytest.mark.parametrize(("source", "cause"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_plugin_is_left_out_whole_and_listed_with_its_cause(
    source: str, cause: str, site: Path, install: Install
) -> None:
    install("before", HEALTHY.format(name="before"))
    install("plugin", source)
    install("zebra", HEALTHY.format(name="zebra"))
    registry = discover(entry_points(site))
    assert names(registry) == ["before", "zebra"]
    assert {provider.plugin for provider in registry.providers.values()} == {"before", "zebra"}
    [broken] = registry.broken
    assert str(broken.provider) == "plugin (plugin 1.2)"
    assert cause in broken.reason
    assert listed(registry) == ["before", "zebra"]
    [(hook, caller)] = vars(registry.host.hook).items()
    implementations = [each.plugin_name for each in caller.get_hookimpls()]
    assert (hook, implementations) == ("fw_components", ["before", "zebra"])


def test_a_plugin_whose_module_is_gone_is_listed(site: Path, install: Install) -> None:
    install("gone", "")
    (site / "gone.py").unlink()
    [broken] = discover(entry_points(site)).broken
    assert broken.reason == "ModuleNotFoundError: No module named 'gone'"


def test_an_exception_of_a_plugin_keeps_its_traceback(site: Path, install: Install) -> None:
    install("plugin", "def divide():\n    return 1 / 0\n\ndivide()")
    [broken] = discover(entry_points(site)).broken
    assert f'{site / "plugin.py"}", line 2, in divide' in broken.traceback


@pytest.mark.parametrize("importlib", ["importlib.metadata", "importlib_metadata"])
def test_a_distribution_without_metadata_does_not_stop_the_others(
    site: Path, install: Install, importlib: str
) -> None:
    __import__(
        importlib
    )  # the second takes the place of the first once something imports it, as diffusers does
    install("lacking", HEALTHY.format(name="lacking"))
    install("whole", HEALTHY.format(name="whole"))
    next(site.glob("lacking-*")).joinpath("METADATA").unlink()
    registry = discover(entry_points(site))
    assert names(registry) == ["lacking", "whole"]
    assert str(registry.providers["guidance", "lacking"]) == "lacking (? ?)"


def test_of_two_plugins_with_the_same_component_the_second_is_refused_and_both_are_named(
    site: Path, install: Install
) -> None:
    install("first", HEALTHY.format(name="sharper"), distribution="one")
    install("second", HEALTHY.format(name="sharper"), distribution="two")
    registry = discover(entry_points(site))
    assert registry.get("guidance", "sharper").__module__ == "first"
    [broken] = registry.broken
    assert str(broken.provider) == "second (two 1.2)"
    assert broken.reason == "guidance 'sharper' is already provided by first (one 1.2)"


def test_two_plugins_of_the_same_name_do_not_harm_each_other(site: Path, install: Install) -> None:
    install("plugin", HEALTHY.format(name="sharper"), distribution="one")
    install("other", HEALTHY.format(name="softer"), distribution="two")
    next(site.glob("two-*")).joinpath("entry_points.txt").write_text("[fw]\nplugin = other\n")
    registry = discover(entry_points(site))
    assert names(registry) == ["sharper", "softer"]
    assert listed(registry) == ["plugin", "plugin (two 1.2)"]


def test_plugins_that_nothing_tells_apart_have_a_number(site: Path, install: Install) -> None:
    for name in ("one", "two", "three", "four"):
        install(name, HEALTHY.format(name=name))
        [info] = site.glob(f"{name}-*")
        info.joinpath("METADATA").unlink()
        info.joinpath("entry_points.txt").write_text(f"[fw]\nplugin = {name}\n")
    registry = discover(entry_points(site))
    assert names(registry) == ["four", "one", "three", "two"]
    assert listed(registry) == ["plugin", "plugin (? ?)", "plugin (? ?) 2", "plugin (? ?) 3"]


def test_the_order_of_installation_does_not_matter(site: Path, install: Install) -> None:
    for distribution in ("two", "one", "three"):
        install(f"by_{distribution}", HEALTHY.format(name="same"), distribution=distribution)
    found = entry_points(site)
    assert discover(found) == discover(reversed(found))


def test_the_variable_limits_what_is_loaded(
    site: Path, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two", "three"):
        install(name, HEALTHY.format(name=name))
    monkeypatch.setenv("FW_PLUGINS", "three, one,")
    registry = discover(entry_points(site))
    assert names(registry) == listed(registry) == ["one", "three"]
    assert registry.host.is_blocked("two")
    assert "two" not in sys.modules
    monkeypatch.setenv("FW_PLUGINS", "")
    assert names(discover(entry_points(site))) == ["one", "three", "two"]


def test_the_variable_naming_a_plugin_that_is_not_there_is_told(
    site: Path, install: Install
) -> None:
    install("one", HEALTHY.format(name="one"))
    registry = discover(entry_points(site), allow="one,tow")
    assert names(registry) == ["one"]
    [broken] = registry.broken
    assert (broken.provider.plugin, broken.reason) == (
        "tow",
        "FW_PLUGINS names it, but it is not installed",
    )


# What pluggy sees


def test_monitoring_sees_each_plugin_called_alone_and_its_end(site: Path, install: Install) -> None:
    install("before", HEALTHY.format(name="before"))
    raising = HEALTHY.format(name="plugin").replace("return [plugin]", "raise KeyError('config')")
    install("plugin", raising)
    install("unasked", "1 / 0")
    install("zebra", HEALTHY.format(name="zebra"))
    host = Host()
    calls: list[tuple[str, list[str]]] = []
    ends: list[BaseException | None] = []

    def before(hook: str, implementations: Sequence[HookImpl], arguments: object) -> None:
        calls.append((hook, [each.plugin_name for each in implementations]))

    def after(outcome: Result[object], *call: object) -> None:
        ends.append(outcome.exception)

    host.add_hookcall_monitoring(before, after)
    registry = discover(entry_points(site), host=host)
    assert registry.host is host
    assert calls == [("fw_components", [name]) for name in ("before", "plugin", "zebra")]
    assert [type(end) for end in ends] == [type(None), KeyError, type(None)]


def test_tracing_writes_down_what_each_plugin_brings(site: Path, install: Install) -> None:
    for name in ("one", "two"):
        install(name, HEALTHY.format(name=name))
    host = Host()
    lines: list[str] = []
    host.trace.root.setwriter(lines.append)
    host.enable_tracing()
    discover(entry_points(site), host=host)
    assert [line.strip() for line in lines if "finish" in line] == [
        "finish fw_components --> [[<class 'one.one'>]] [hook]",
        "finish fw_components --> [[<class 'two.two'>]] [hook]",
    ]


def test_one_call_of_the_hook_asks_every_healthy_plugin(site: Path, install: Install) -> None:
    for name in ("one", "two"):
        install(name, HEALTHY.format(name=name))
    install("plugin", HEALTHY.format(name="plugin").replace("def worse", "def wors"))
    registry = discover(entry_points(site))
    brought = [each for components in registry.host.hook.fw_components() for each in components]
    assert set(brought) == set(registry.components.values())
    assert [each.name for each in brought] == ["two", "one"]


TWO_HOOKS = (
    HEALTHY.format(name="first")
    + """

    class second(first):
        name: ClassVar[str] = "second"


    @hookimpl(specname="fw_components")
    def more():
        return [second]
"""
)


def test_a_plugin_may_have_several_functions(site: Path, install: Install) -> None:
    install("plugin", TWO_HOOKS)
    install("other", TWO_HOOKS.replace("first", "third").replace("return [second]", "pass"))
    registry = discover(entry_points(site))
    assert names(registry) == ["first", "second"]
    [broken] = registry.broken
    assert broken.provider.plugin == "other"
    assert broken.reason == "fw_components() returned None, not a list of component classes"


def test_a_plugin_may_have_hooks_for_another_fw_if_it_says_so(site: Path, install: Install) -> None:
    optional = (
        HEALTHY.format(name="fine")
        + """

    @hookimpl(optionalhook=True)
    def fw_to_come():
        pass
    """
    )
    install("fine", optional)
    install("plugin", optional.replace("return [fine]", "return [1]"))
    registry = discover(entry_points(site))
    assert names(registry) == listed(registry) == ["fine"]
    [implementation] = registry.host.hook.fw_to_come.get_hookimpls()
    assert implementation.plugin_name == "fine"


@pytest.mark.parametrize("how", ["wrapper", "hookwrapper"])
def test_a_plugin_that_wraps_others_is_refused(site: Path, install: Install, how: str) -> None:
    wrapping = HEALTHY.format(name="plugin").replace("@hookimpl", f"@hookimpl({how}=True)")
    install("before", HEALTHY.format(name="before"))
    install("plugin", wrapping.replace("return [plugin]", "yield; raise KeyError('mine')"))
    install("zebra", HEALTHY.format(name="zebra"))
    registry = discover(entry_points(site))
    assert names(registry) == listed(registry) == ["before", "zebra"]
    [broken] = registry.broken
    assert broken.reason.startswith("its fw_components() wraps those of other plugins")


OBJECT = """
    from dataclasses import dataclass

    from fw.registry import hookimpl


    @dataclass(eq={eq})
    class Plugin:
        @hookimpl
        def fw_components(self):
            return []


    plugin = Plugin()
"""


def test_an_object_is_a_plugin_if_it_equals_itself_alone(site: Path, install: Install) -> None:
    by_value, by_identity = OBJECT.format(eq=True), OBJECT.format(eq=False)
    nothing, some = "plugin = None", "plugin = []"
    sources = {"aaa": by_value, "list": some, "none": nothing, "object": by_identity}
    for name, source in sources.items():
        install(f"{name}_module", source, distribution=name)
        info = next(site.glob(f"{name}-*"))
        info.joinpath("entry_points.txt").write_text(f"[fw]\n{name} = {name}_module:plugin\n")
    install("zebra", HEALTHY.format(name="zebra"))
    registry = discover(entry_points(site))
    assert listed(registry) == ["object", "zebra"]
    reasons = {broken.provider.plugin: broken.reason for broken in registry.broken}
    wanted = "not a module with a function fw_components() marked with fw.registry.hookimpl"
    types = {"aaa": "Plugin", "list": "list", "none": "NoneType"}
    assert reasons == {name: f"it is a {own}, {wanted}" for name, own in types.items()}


def test_a_module_that_is_installed_twice_is_one_plugin(site: Path, install: Install) -> None:
    install("plugin", HEALTHY.format(name="sharper"))
    next(site.glob("plugin-*")).joinpath("entry_points.txt").write_text(
        "[fw]\none = plugin\ntwo = plugin\n",
    )
    registry = discover(entry_points(site))
    assert listed(registry) == ["one"]
    [broken] = registry.broken
    assert broken.provider.plugin == "two"
    assert broken.reason == "it is plugin one, which is there already, under another name"


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = grimp.build_graph("fw.registry", "fw.core", "fw.plugins", cache_dir=None)
    imports = {file: graph.find_modules_directly_imported_by(file) for file in graph.modules}
    assert "fw.registry.component" in imports["fw.registry.registry"]
    TopologicalSorter(imports).prepare()  # raises CycleError


# Looking up


def test_an_unknown_name_gets_the_nearest_one_and_the_broken_plugins(
    site: Path, install: Install
) -> None:
    install("sharper", HEALTHY.format(name="sharper"))
    install("plugin", "1 / 0")
    registry = discover(entry_points(site))
    with pytest.raises(UnknownComponent) as caught:
        registry.get("guidance", "Shaper")
    assert str(caught.value) == (
        "no guidance named 'Shaper'; did you mean 'sharper'? (known: sharper); "
        "these plugins are broken: plugin (see `fw plugins`)"
    )
    with pytest.raises(UnknownComponent, match=r"^no oracle named 'x' \(known: none\)"):
        registry.get("oracle", "x")


def test_discovery_calls_each_hook_once_and_its_work_grows_with_the_number_of_plugins(
    site: Path, install: Install
) -> None:
    counted = """
        from fw.registry import hookimpl
        calls = []

        @hookimpl
        def fw_components():
            calls.append(1)
            return []
    """
    for number in range(100):
        install(f"plugin_{number:03}", counted)
    found = sorted(entry_points(site), key=lambda entry: entry.name)
    discover(found)  # imports them; what follows is fw's own work
    assert [len(sys.modules[entry.name].calls) for entry in found] == [1] * 100

    fifty, hundred = (
        python_calls(lambda: discover(found[:50])),
        python_calls(lambda: discover(found)),
    )
    assert hundred < 100 * 1500
    assert hundred < 2.2 * fifty


def python_calls(work: Callable[[], object]) -> int:
    """How many Python functions are called while `work` runs."""
    count = 0

    def profile(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    previous = sys.getprofile()
    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(previous)
    return count


def test_what_is_installed_is_discovered_once_per_process() -> None:
    assert installed() is installed()
    assert python_calls(installed) == 0


class Shape(Component):
    """A kind for these tests."""

    kind: ClassVar[str] = "shape"

    @abstractmethod
    def area(self) -> float:
        """Its area."""


class Rounding(BaseModel, frozen=True):
    """A field that is a model of its own."""

    radius: float = Field(0.0, ge=0)


class Square(Shape):
    name: ClassVar[str] = "square"
    version: ClassVar[int] = 3

    side: Annotated[float, Field(gt=0)] = 1.0
    corner: Rounding = Rounding()
    colour: Literal["red", "green"] = "red"
    label: str | None = None
    path: Path | None = None
    interval: tuple[float, float] | None = None
    tags: tuple[str, ...] = ()
    weights: dict[str, int] = Field(default_factory=dict)
    filled: bool = True

    def area(self) -> float:
        return self.side**2


class Frame(Shape):
    name: ClassVar[str] = "frame"

    inner: Shape
    others: tuple[Shape, ...] = ()
    spare: Shape | None = None

    def area(self) -> float:
        return self.inner.area() + sum(other.area() for other in self.others)


class Raising(Shape):
    name: ClassVar[str] = "raising"

    def model_post_init(self, context: object) -> None:
        raise RuntimeError("out of paper")

    def area(self) -> float:
        return 0.0


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> Registry:
    return registry_of(Square, Frame, Raising)


def registry_of(*components: type[Component]) -> Registry:
    registry = Registry()
    registry.add(Provider("tests"), components)
    return registry


def build(value: object, registry: Registry) -> Shape:
    return Shape.model_validate(value, context={"registry": registry})


def test_a_field_of_a_kind_is_given_by_name_or_by_mapping_at_any_depth(shapes: Registry) -> None:
    frame = build(
        {"name": "frame", "inner": {"name": "frame", "inner": {"name": "square", "side": "2"}}},
        shapes,
    )
    assert frame == Frame(inner=Frame(inner=Square(side=2)))
    assert (
        build({"name": "frame", "inner": "square", "others": ["square", "square"]}, shapes).area()
        == 3
    )
    assert build("square", shapes) == Square()
    assert build(Square(side=3), shapes) == Square(side=3)


def test_all_errors_of_nested_fields_are_told_at_once_with_their_full_path(
    shapes: Registry,
) -> None:
    with pytest.raises(ValidationError) as caught:
        build(
            {
                "name": "frame",
                "inner": {"name": "square", "side": -1, "corner": {"radius": "x"}, "sidee": 2},
                "others": ["square", "sqare", {"name": "frame", "inner": {"side": 1}}, 7],
                "spare": {"name": "raising"},
            },
            shapes,
        )
    told = {error["loc"]: error["msg"] for error in caught.value.errors()}
    nameless = "expected the name of a shape or a mapping with a 'name'"
    assert told == {
        ("inner", "side"): "Input should be greater than 0",
        (
            "inner",
            "corner",
            "radius",
        ): "Input should be a valid number, unable to parse string as a number",
        ("inner", "sidee"): "Extra inputs are not permitted",
        (
            "others",
            1,
        ): "no shape named 'sqare'; did you mean 'square'? (known: frame, raising, square)",
        ("others", 2, "inner"): nameless,
        ("others", 3): nameless,
        ("spare",): "shape 'raising' raised RuntimeError: out of paper while it was built",
    }


def test_a_component_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Square().side = 2.0  # type: ignore[misc]


numbers = st.floats(allow_nan=False, allow_infinity=False)
squares = st.builds(
    Square,
    side=st.floats(min_value=0, exclude_min=True, allow_nan=False, allow_infinity=False),
    corner=st.builds(
        Rounding, radius=st.floats(min_value=0, allow_nan=False, allow_infinity=False)
    ),
    colour=st.sampled_from(["red", "green"]),
    label=st.none() | st.text(),
    path=st.none() | st.sampled_from([Path("a/b.pt"), Path("/c d")]),
    interval=st.none() | st.tuples(numbers, numbers),
    tags=st.lists(st.text()).map(tuple),
    weights=st.dictionaries(st.text(), st.integers()),
    filled=st.booleans(),
)
components = st.recursive(
    squares,
    lambda inner: st.builds(
        Frame, inner=inner, others=st.lists(inner, max_size=3).map(tuple), spare=st.none() | inner
    ),
    max_leaves=4,
)


@settings(deadline=None, max_examples=100)
@given(component=components)
def test_the_spec_of_a_component_builds_the_same_component_again(component: Shape) -> None:
    registry = registry_of(Square, Frame)
    assert build(component.spec(), registry) == component
    assert build(json.loads(json.dumps(component.spec())), registry) == component


@settings(deadline=None, max_examples=100)
@given(one=components, other=components)
def test_two_components_are_equal_exactly_when_their_specs_are(one: Shape, other: Shape) -> None:
    assert (one == other) == (one.spec() == other.spec())


def test_the_identity_adds_the_version_and_the_spec_writes_out_every_default() -> None:
    assert Square().spec() == {
        "name": "square",
        "side": 1.0,
        "corner": {"radius": 0.0},
        "colour": "red",
        "label": None,
        "path": None,
        "interval": None,
        "tags": [],
        "weights": {},
        "filled": True,
    }
    assert Square().identity() == {**Square().spec(), "version": 3}


def test_the_identity_holds_the_versions_of_all_components_inside() -> None:
    square = Square().identity()
    frame = Frame(inner=Square(), others=(Square(), Frame(inner=Square()))).identity()
    assert (frame["version"], frame["inner"], frame["others"][0]) == (1, square, square)
    assert (frame["others"][1]["version"], frame["others"][1]["inner"]) == (1, square)
    assert frame["spare"] is None


def test_components_and_registries_travel_to_other_processes(shapes: Registry) -> None:
    frame = Frame(inner=Square(side=2), others=(Square(),))
    assert pickle.loads(pickle.dumps(frame)) == frame  # noqa: S301
    assert pickle.loads(pickle.dumps(shapes)) == shapes  # noqa: S301


def test_a_registry_with_plugins_travels_without_them(site: Path, install: Install) -> None:
    install("sharper", HEALTHY.format(name="sharper"))
    registry = discover(entry_points(site))
    again = pickle.loads(pickle.dumps(registry))  # noqa: S301
    assert again == registry
    assert (listed(registry), listed(again)) == (["sharper"], [])


def test_the_json_schema_of_a_kind_lists_its_components_even_where_they_nest(
    shapes: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fw.registry.lookup.installed", lambda: shapes)
    schema = Frame.model_json_schema()
    definitions = schema["$defs"]
    assert schema["properties"]["inner"]["allOf"] == [{"$ref": "#/$defs/Shape"}]
    by_name, *by_mapping = definitions["Shape"]["anyOf"]
    assert by_name == {"enum": ["frame", "raising", "square"]}
    by_mapping = [definitions[entry["$ref"].removeprefix("#/$defs/")] for entry in by_mapping]
    assert [entry["properties"]["name"]["const"] for entry in by_mapping] == by_name["enum"]
    assert all("name" in entry["required"] for entry in by_mapping)
    assert by_mapping[0]["properties"]["inner"]["allOf"] == [{"$ref": "#/$defs/Shape"}]
    assert by_mapping[2]["properties"]["corner"]["$ref"] == "#/$defs/Rounding"
    assert "Rounding" in definitions


DISTURBING = """
    import random

    import numpy
    import torch

    assert torch.ones(1).dtype == torch.float32
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_float32_matmul_precision("medium")
    torch.set_num_threads(3)
    torch.manual_seed(1)
    numpy.random.seed(2)
    random.seed(3)
"""


def test_what_plugins_do_to_the_process_on_import_reaches_neither_each_other_nor_fw(
    site: Path, install: Install
) -> None:
    def drawn() -> list[object]:
        with undisturbed():
            return [
                random.random(),
                np.random.rand(),  # noqa: NPY002
                torch.rand(1),
                torch.get_float32_matmul_precision(),
            ]

    before = drawn()
    for name in ("one", "two"):  # each asserts that it finds the process as it should be
        install(
            name, DISTURBING + textwrap.indent(textwrap.dedent(HEALTHY.format(name=name)), "    ")
        )
    install("worse", DISTURBING + "\n    1 / 0")
    registry = discover(entry_points(site))
    assert names(registry) == ["one", "two"]
    assert [entry.reason for entry in registry.broken] == ["ZeroDivisionError: division by zero"]
    assert drawn() == before
    assert (torch.ones(1).dtype, torch.ones(1).device.type) == (torch.float32, "cpu")


def test_plugins_of_which_something_is_asked_are_told_in_order_and_once(
    site: Path, install: Install
) -> None:
    both = HEALTHY.format(name="first").replace("[first]", "[first, second]")
    second = "\n    class second(first):\n        name: ClassVar[str] = 'second'\n"
    install(
        "pair",
        both.replace(
            "    @hookimpl", textwrap.indent(textwrap.dedent(second), "    ") + "\n    @hookimpl"
        ),
    )
    install("single", HEALTHY.format(name="third"))
    install("plugin", "1 / 0")
    registry = discover(entry_points(site))
    assert [provider.plugin for provider in registry.plugins()] == ["pair", "single"]
    third = registry.get("guidance", "third")
    assert str(registry.provider(third)) == "single (single 1.2)"
    assert registry.provider(Square) is None


def test_a_sub_class_of_a_component_does_not_pass_for_it(site: Path, install: Install) -> None:
    install("single", HEALTHY.format(name="third"))
    registry = discover(entry_points(site))
    third = registry.get("guidance", "third")
    assert registry.provider(type("Other", (third,), {})) is None
