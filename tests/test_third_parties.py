"""Twelve broken plugins beside a healthy one: fw works, each is explained in a line, and only
who names one suffers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import sites
from sites import GUIDANCE, fw

from fw.core.testing import ContractViolated, check
from fw.registry import discover, installed

HEADER = """
    from typing import Any, ClassVar

    import torch
    import toys
    from pydantic import ConfigDict, Field
    from torch import nn

    from fw.core.kinds import Annotator, Encoder, Guidance
    from fw.registry import hookimpl


    class Theirs({base}):
        '''Of a third party.'''

        name: ClassVar[str] = "{name}"
        {body}


    @hookimpl
    def fw_components():
        return [Theirs]
"""
WORSE = "def worse(self, model, x, sigma, condition, good):\n            "


def theirs(name: str, body: str, base: str = "Guidance") -> str:
    return HEADER.format(name=name, base=base, body=body)


SHAPELESS = """
        @property
        def shape(self):
            return {}["size"]
"""

LISTED = {
    "p01_import_error": ("import nowhere", "ModuleNotFoundError: No module named 'nowhere'"),
    "p02_wrong_hook": (
        GUIDANCE.format(name="p02").replace("fw_components", "fw_component"),
        "unknown hook 'fw_component'",
    ),
    "p03_duplicate": (
        GUIDANCE.format(name="cfg"),
        "guidance 'cfg' is already provided by builtin (fw ",
    ),
    "p04_abstract": (
        theirs("p04", "scale: float = 2.0"),
        "Theirs is abstract: it does not implement worse",
    ),
    "p05_wrong_kind": (
        theirs("p05", 'kind: ClassVar[str] = "gudance"\n        ' + WORSE + "return good"),
        "Theirs sets `kind`, so it is a kind and not a component",
    ),
    "p06_mutable_default": (
        theirs("p06", "steps: list[int] = [1, 2]\n        " + WORSE + "return good"),
        "the default of Theirs.steps can be changed in place: write a tuple or default_factory",
    ),
    "p07_not_serialisable": (
        theirs(
            "p07",
            "model_config = ConfigDict(arbitrary_types_allowed=True)\n        "
            "draw: torch.Generator | None = None\n        " + WORSE + "return good",
        ),
        "cannot be written in a recipe or stored as JSON",
    ),
    "p08_too_new": (
        GUIDANCE.format(name="p08") + "\n    FW_API = 7\n",
        "it was made for plugin API 7, and this fw has plugin API 2: update fw",
    ),
}

LOADED = {
    "p09_raises": theirs(
        "p09",
        "def model_post_init(self, context):\n            raise OSError('out\\n  of paper')",
        "toys.Free",
    ),
    "p09_raises_later": theirs(
        "p09_later",
        "def build(self, shape, condition):\n            raise OSError('out\\n  of ink')",
        "toys.Linear",
    ),
    "p10_nan": theirs("p10", WORSE + "return good * float('nan')"),
    "p11_wrong_shape": theirs("p11", WORSE + "return good.mean(0)"),
    "p12_hidden_state": theirs(
        "p12",
        "calls: ClassVar[list] = []\n\n        "
        + WORSE
        + "self.calls.append(1)\n            return good / len(self.calls)",
    ),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """All of them, the healthy one and the toys, installed at once; beside them lies a toy
    recipe."""
    place = tmp_path_factory.mktemp("third-parties")
    sites.toy_recipe(place)
    with sites.site(place / "site") as folder:
        for name, source in {
            **{name: source for name, (source, _) in LISTED.items()},
            **LOADED,
        }.items():
            sites.install(folder, name, source)
        sites.install(folder, "healthy", GUIDANCE.format(name="healthy"))
        yield folder


def test_what_discovery_can_refuse_is_listed_with_its_cause_in_one_line_each(site: Path) -> None:
    registry = discover()
    told = {broken.provider.plugin: broken.reason for broken in registry.broken}
    assert told.keys() == LISTED.keys()
    for name, (_, cause) in LISTED.items():
        assert cause in told[name]
        assert len(told[name].splitlines()) == 1
    assert {provider.plugin for provider in registry.plugins()} == {
        "builtin",
        "toybox",
        "healthy",
        *LOADED,
    }


def test_fw_plugins_works_and_shows_them(site: Path) -> None:
    shown = fw("plugins")
    assert shown.code == 0
    assert "healthy" in shown.out
    for name in LISTED:
        assert name in shown.out
    as_json = fw("plugins", "--json")
    assert as_json.code == 0
    broken = {entry["plugin"]: entry["reason"] for entry in json.loads(as_json.out)["broken"]}
    assert broken.keys() == LISTED.keys()


def test_a_recipe_of_built_ins_and_the_healthy_plugin_runs_beside_them(site: Path) -> None:
    out = site.parent / "healthy-runs"
    words = (
        "--set",
        "arms.healthy={guidance: {name: healthy, scale: 2}}",
        "--set",
        "sampler={name: heun, steps: 2}",
    )
    done = fw(
        "run",
        site.parent / "toy.yaml",
        *words,
        "--set",
        "process=edm",
        "--out",
        out,
        "--device",
        "cpu",
        "--jobs",
        "1",
    )
    assert done.code == 0, done.err
    found = json.loads((out / "toy/latest/run.json").read_text())
    assert {arm["status"] for arm in found["arms"].values()} == {"finished"}
    assert set(found["plugins"]) == {"builtin", "toybox", "healthy"}


@pytest.mark.parametrize("name", ["p02", "p04", "p05", "p06", "p07", "p08"])
def test_who_names_a_refused_one_is_told_so_with_the_line(site: Path, name: str) -> None:
    done = fw("validate", site.parent / "toy.yaml", "--set", f"arms.theirs={{guidance: {name}}}")
    assert done.code == 2
    [line] = done.err.splitlines()
    assert line.startswith(f"--set #1: arms.theirs.guidance: no guidance named '{name}'")
    assert line.endswith(f"these plugins are broken: {', '.join(LISTED)} (see `fw plugins`)")


def test_one_that_raises_when_it_is_made_is_told_with_the_recipes_line(site: Path) -> None:
    recipe = site.parent / "raising.yaml"
    recipe.write_text(
        (site.parent / "toy.yaml").read_text() + "  theirs:\n    guidance: {name: p09, scale: 2}\n"
    )
    done = fw("validate", recipe)
    assert done.code == 2
    line = recipe.read_text().count("\n")
    assert done.err == (
        f"{recipe}:{line}: arms.theirs.guidance: guidance 'p09' raised OSError: out of paper while "
        "it was built\n"
    )


@pytest.mark.parametrize(
    ("naming", "said"),
    [
        ("model: p09_later", "train p09_later, halves of mean: OSError: out of ink (traceback in "),
        (
            "guidance: {name: p10, scale: 2}",
            "sample theirs: sampler euler: 250 of 250 samples are not finite: what guidance 'p10' "
            "called worse was not",
        ),
        (
            "guidance: {name: p11, scale: 2}",
            "sample theirs: guidance p11: worse() returned torch.float32 (1, 4, 4) for ",
        ),
    ],
)
def test_one_that_fails_at_work_ends_its_arm_in_one_line_and_the_others_finish(
    site: Path, naming: str, said: str, tmp_path: Path
) -> None:
    words = (
        "--set",
        "arms.theirs={" + naming + "}",
        "--out",
        tmp_path,
        "--device",
        "cpu",
        "--jobs",
        "1",
    )
    done = fw("run", site.parent / "toy.yaml", *words)
    assert done.code == 1
    *_, last, count, remedy = done.err.splitlines()
    assert remedy.endswith("the same command continues from there")
    assert last.startswith(said)
    assert count.endswith("stages that needed it were not tried; the others are finished and kept")
    found = json.loads((tmp_path / "toy/latest/run.json").read_text())["arms"]
    assert {
        name: arm["status"] for name, arm in found.items() if name != "theirs"
    } == dict.fromkeys(("plain", "self_1.0", "self_1.5"), "finished")
    assert found["theirs"]["status"] == "failed"


def test_one_whose_property_raises_while_a_recipe_is_checked_is_named_without_a_traceback(
    site: Path,
) -> None:
    plugin = sites.write(
        site.parent / "shapeless.py", theirs("shapeless", SHAPELESS, base="toys.Dots")
    )
    done = fw(
        "validate", site.parent / "toy.yaml", "--plugin", plugin, "--set", "dataset=shapeless"
    )
    assert done.code == 2
    assert done.err.startswith(f"dataset 'shapeless' raised KeyError: 'size' ({plugin}:")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("p10", "worse() returns a finite prediction"),
        ("p11", "worse() returned torch.float32"),
        ("p12", "it changed"),
    ],
)
def test_the_contract_kit_finds_what_no_one_can_see_from_outside(
    site: Path, name: str, said: str
) -> None:
    installed.cache_clear()
    with pytest.raises(ContractViolated) as caught:
        check(installed().get("guidance", name)())
    first, *lines = str(caught.value).splitlines()
    assert first.startswith(f"guidance '{name}' breaks ")
    assert any(said in line for line in lines), caught.value


def test_the_contract_kit_has_nothing_against_the_healthy_one(site: Path) -> None:
    installed.cache_clear()
    check(installed().get("guidance", "healthy")())
