"""run.json and MLflow say which plugins made a result: exactly those that it uses, and what
their source was."""

from __future__ import annotations

import compileall
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sites
import toys
from mlflow import MlflowClient
from mlflow.entities import ViewType
from sites import fw

from fw.core.plan.assembly import plan
from fw.core.plan.graph import Plan
from fw.core.recipe.loading import validate
from fw.core.recipe.model import Recipe
from fw.core.recipe.source import parse
from fw.core.report import provenance
from fw.registry import Provider, discover, installed
from fw.registry.provider import root_of

LENS = """
    from typing import ClassVar

    import toys
    from fw.registry import hookimpl


    class Lens(toys.Mean):
        name: ClassVar[str] = "lens"


    @hookimpl
    def fw_components():
        return [Lens]
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    """Installed are the toys, a guidance, an encoder, and a plugin that nobody uses; beside them
    lies a toy recipe."""
    sites.toy_recipe(tmp_path)
    with sites.site(tmp_path / "site") as folder:
        sites.install(
            folder,
            "sharper",
            sites.GUIDANCE.format(name="sharper"),
            distribution="sharper-guidance",
        )
        sites.install(folder, "lenses", LENS)
        sites.install(folder, "idle", sites.GUIDANCE.format(name="idle"))
        yield folder


def recipe(*sets: str) -> Recipe:
    source = parse(toys.RECIPE, "r.yaml")
    source.set(sets)
    return validate(source, installed())


def planned(*sets: str) -> Plan:
    return plan(recipe(*sets))


SHARPER = (
    "arms.sharper={guidance: [{name: sharper, scale: 2}, {name: through, scale: 3, lens: lens}]}"
)


def test_exactly_the_plugins_that_a_recipe_uses_are_recorded_nested_ones_too(site: Path) -> None:
    assert set(provenance.record(planned())) == {"toybox"}
    nested = "arms.nested={guidance: {name: through, scale: 2, lens: lens}}"
    assert set(provenance.record(planned(nested))) == {"toybox", "lenses"}
    assert set(provenance.record(planned(SHARPER))) == {"toybox", "lenses", "sharper"}
    assert set(provenance.record(planned("metrics=[{name: gap, space: lens}]"))) == {
        "toybox",
        "lenses",
    }
    assert set(provenance.record(planned("metrics=[{name: fd, space: pca}]"))) == {
        "toybox",
        "builtin",
    }
    assert set(provenance.record(planned("encoder=lens", "annotator=coin"))) == {
        "toybox"
    }  # no stage uses the encoder


def test_a_record_holds_distribution_version_api_and_source(site: Path) -> None:
    found = provenance.record(planned(SHARPER))["sharper"]
    source = hashlib.sha256((site / "sharper.py").read_bytes()).hexdigest()
    assert found == {
        "distribution": "sharper-guidance",
        "version": "1.2",
        "api": 2,
        "source": source,
    }
    builtin = provenance.record(planned("metrics=[{name: fd, space: pca}]"))["builtin"]
    assert builtin["distribution"] == "fw"
    assert len(str(builtin["source"])) == 64


def test_run_json_and_mlflow_hold_the_record_and_a_local_plugin_s_file(site: Path) -> None:
    mine = sites.write(site.parent / "my (1).py", sites.GUIDANCE.format(name="mine"))
    out = site.parent / "runs"
    words: list[Any] = [
        "run",
        site.parent / "toy.yaml",
        "--plugin",
        mine,
        "--out",
        out,
        "--device",
        "cpu",
    ]
    for each in (SHARPER, "arms.mine={guidance: {name: mine, scale: 2}}", "tracker=mlflow"):
        words += ["--set", each]
    done = fw(*words, "--jobs", "1")
    assert done.code == 0, done.err
    found = json.loads((out / "toy/latest/run.json").read_text())
    assert set(found["plugins"]) == {"toybox", "sharper", "lenses", "my (1)"}
    assert "plugins" not in found["environment"]
    digest = hashlib.sha256(mine.read_bytes()).hexdigest()
    local = {"distribution": "my (1).py", "version": digest[:12], "api": 2, "source": digest}
    assert found["plugins"]["my (1)"] == local
    client = MlflowClient(f"sqlite:///{out}/mlflow.db")
    runs = client.search_runs([found["mlflow"]["experiment_id"]], run_view_type=ViewType.ALL)
    assert len(runs) == 1 + len(found["arms"])
    sharper = found["plugins"]["sharper"]["source"]
    for run in runs:
        tags = {key: value for key, value in run.data.tags.items() if key.startswith("fw.plugin.")}
        assert set(tags) == {
            "fw.plugin.toybox",
            "fw.plugin.sharper",
            "fw.plugin.lenses",
            "fw.plugin.my _1_",
        }
        assert tags["fw.plugin.sharper"] == f"sharper-guidance 1.2, API 2, sha256 {sharper}"
        assert tags["fw.plugin.my _1_"] == f"my (1).py {digest[:12]}, API 2, sha256 {digest}"
    parent = found["mlflow"]["parent_run_id"]
    assert "my (1).py" in {Path(file.path).name for file in client.list_artifacts(parent)}


def test_the_source_is_what_it_was_when_the_run_began(site: Path) -> None:
    """The plugin of this run edits its own file while a stage is at work."""
    text = LENS.replace("    class Lens(toys.Mean):", "    class Lens(toys.Coin):")
    edits = """
        def annotate(self, data, job):
            open(__file__, "a").write("# edited")
            return super().annotate(data, job)
"""
    text = text.replace(
        'name: ClassVar[str] = "lens"\n', f'name: ClassVar[str] = "editor"\n{edits}'
    )
    file = sites.install(site, "editor", text)
    before = hashlib.sha256(file.read_bytes()).hexdigest()
    words = (
        "--set",
        "annotator=editor",
        "--out",
        site.parent / "runs",
        "--device",
        "cpu",
        "--jobs",
        "1",
    )
    done = fw("run", site.parent / "toy.yaml", *words)
    assert done.code == 0, done.err
    assert file.read_text().endswith("# edited")
    found = json.loads((site.parent / "runs/toy/latest/run.json").read_text())
    assert found["plugins"]["editor"]["source"] == before


def test_two_plugins_of_the_same_name_are_both_recorded(site: Path) -> None:
    info = sites.install(
        site, "other", sites.GUIDANCE.format(name="other"), entry="sharper"
    ).with_name("other-1.2.dist-info")
    assert info.is_dir()
    installed.cache_clear()
    found = provenance.record(planned(SHARPER, "arms.other={guidance: {name: other, scale: 2}}"))
    assert set(found) == {"toybox", "lenses", "sharper of other", "sharper of sharper-guidance"}
    assert len(provenance.tags(found)) == 4


def test_the_hash_of_a_package_changes_with_its_source_and_its_files_names_and_with_nothing_else(
    site: Path,
) -> None:
    package = site / "packaged"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "inner/__init__.py").write_text("")
    sites.write(package / "inner/plugin.py", sites.GUIDANCE.format(name="packaged"))
    sites.install(site, "stub", "").unlink()
    (site / "stub-1.2.dist-info/entry_points.txt").write_text(
        "[fw]\npackaged = packaged.inner.plugin\n"
    )
    registry = discover()
    assert registry.broken == []
    provider = registry.providers["guidance", "packaged"]
    assert provider.root == package
    first = provider.source
    compileall.compile_dir(package, quiet=1)
    (package / "data.csv").write_text("1, 2")
    assert list(package.rglob("__pycache__"))
    assert provider.source == first
    sources = [first]
    (package / "inner/plugin.py").write_text((package / "inner/plugin.py").read_text() + "\n")
    sources.append(provider.source)
    (package / "inner/helper.py").write_text("x = 1")
    sources.append(provider.source)
    (package / "inner/helper.py").rename(package / "inner/help.py")
    sources.append(provider.source)
    assert len(set(sources)) == 4


def test_what_has_no_files_has_no_hash(tmp_path: Path) -> None:
    assert Provider("ghost").source == "?"
    assert root_of("no.such.module") is None
    assert root_of("fw.plugins.guidance.cfg") == Path(__file__).parents[1] / "plugins"
    assert root_of("json") == Path(json.__file__).parent
