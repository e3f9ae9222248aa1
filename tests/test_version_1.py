"""Plugins made for version 1 of the API: they run as their forms for version 2 do, and that is
said.

To be deleted with core/kinds/version_1.py.
"""

from __future__ import annotations

import json
import textwrap
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import sites
import torch
from sites import fw
from torch import Tensor

from fw.core.kinds import ConditionalProbe, FeatureProbe, LogitProbe, Metric, Probe, TokenProbe
from fw.core.testing import violations
from fw.core.types import Reference
from fw.plugins.metrics.fd import FD
from fw.registry import LocalPlugin, Registry, add_files, discover

BEFORE = '''
    from typing import ClassVar, Literal

    import torch
    from pydantic import Field, field_validator

    from fw.core.conditioning import INITIAL_STD, ConditionEmbedding, TokenEmbedding
    from fw.core.kinds import Encoder, Metric, Probe
    from fw.core.types import Examples, Reference
    from fw.registry import hookimpl


    class Middle(Metric):
        """The distance between medians."""

        name: ClassVar[str] = "middle"
        space: Encoder = Field("flat", validate_default=True)

        @property
        def keys(self):
            return {"middle": "lower"}

        def compare(self, reference: Reference, fake):
            real = reference.train.median(dim=0).values
            return {"middle": float((real - fake.median(dim=0).values).norm())}


    class Doubled(Middle):
        """Twice that distance."""

        name: ClassVar[str] = "doubled"

        @property
        def keys(self):
            return {"doubled": "lower"}

        def compare(self, reference: Reference, fake):
            return {"doubled": 2 * super().compare(reference, fake)["middle"]}


    class Obeys(Metric):
        """The share of samples that are as bright as their class."""

        name: ClassVar[str] = "obeys"
        reads_conditions: ClassVar[bool] = True
        space: Encoder = Field("flat", validate_default=True)

        @property
        def keys(self):
            return {"obeys": "higher"}

        def compare(self, reference: Reference, fake):
            bright = fake.mean(dim=1) > reference.train[reference.conditions >= 0].mean()
            hit = bright == (reference.asked == 1)
            return {"obeys": float(hit.double().mean() + 0 * fake.sum())}  # NaN stays NaN


    class Spread(Probe):
        """The standard deviation of features."""

        name: ClassVar[str] = "spread"
        power: float = 2.0

        @field_validator("sigma")
        @classmethod
        def _little(cls, sigma):
            assert sigma < 0.5
            return sigma

        @property
        def keys(self):
            return {f"spread{self.power}_{self.protocol}": "lower"}

        def score(self, train: Examples, test: Examples, job):
            return {key: float(test.features.std() ** self.power) for key in self.keys}


    class Corner(Probe):
        """The mean of the first position."""

        name: ClassVar[str] = "corner"
        reads: ClassVar[Literal["features", "tokens", "logits", "errors"]] = "tokens"
        of: Literal["model"] = Field("model", description="a model")

        @property
        def keys(self):
            return {f"corner_{self.protocol}": "lower"}

        def score(self, train: Examples, test: Examples, job):
            return {key: float(test.features[:, 0].mean()) for key in self.keys}


    class Sure(Probe):
        """The largest logit."""

        name: ClassVar[str] = "sure"
        reads: ClassVar[Literal["features", "tokens", "logits", "errors"]] = "logits"
        of: Literal["model"] = "model"
        blocks: None = None

        @property
        def keys(self):
            return {f"sure_{self.protocol}": "higher"}

        def score(self, train: Examples, test: Examples, job):
            return {key: float(test.features.amax()) + test.named for key in self.keys}


    class Gives(Probe):
        """How far apart the predictions for two classes are."""

        name: ClassVar[str] = "gives"
        reads = "errors"
        of: Literal["model"] = "model"

        @property
        def keys(self):
            return {"gives": "higher"}

        def score(self, train: Examples, test: Examples, job):
            x = test.features.to(job.device)
            labels = (torch.full((len(x),), label) for label in (0, 1))
            one, other = (test.told.denoise(x, 0.5, each) for each in labels)
            return {"gives": float((one - other).norm()) + int(train.features.sum())}


    @hookimpl
    def fw_components():
        return [Middle, Doubled, Obeys, Spread, Corner, Sure, Gives]
'''

CHANGED = {
    "from fw.core.conditioning": "from fw.core.diffusion.conditioning",
    "import Encoder, Metric, Probe": (
        "import ConditionalProbe, Encoder, FeatureProbe, LogitProbe, Metric, TokenProbe"
    ),
    "from fw.registry import hookimpl\n": "from fw.registry import hookimpl\n\n    FW_API = 2\n",
    "def compare(self, reference: Reference, fake):": (
        "def compare(self, reference, fake, wanted=None):"
    ),
    "(reference.asked == 1)": "(wanted == 1)",
    "class Spread(Probe)": "class Spread(FeatureProbe)",
    "class Corner(Probe)": "class Corner(TokenProbe)",
    "class Sure(Probe)": "class Sure(LogitProbe)",
    "class Gives(Probe)": "class Gives(ConditionalProbe)",
    '        reads: ClassVar[Literal["features", "tokens", "logits", "errors"]] = "tokens"\n': "",
    '        reads: ClassVar[Literal["features", "tokens", "logits", "errors"]] = "logits"\n': "",
    '        reads = "errors"\n': "",
}
"""What docs/plugins.md says is to be changed."""


def after() -> str:
    text = BEFORE
    for old, new in CHANGED.items():
        assert old in text
        text = text.replace(old, new)
    return text


RECIPE = """\
fw: 1
name: old
dataset: dots
encoder: {name: mean, cells: 2}
annotator: labels
model: {name: unet, channels: [8], groups: 4}
process: edm
train: {steps: 3, batch: 8, warmup: 1}
sampler: {name: heun, steps: 2}
samples: {count: 6, seeds: 2}
metrics: [middle, doubled, obeys]
probes:
  - spread
  - {name: spread, of: model, blocks: [mid], sigma: 0.1}
  - corner
  - sure
  - gives
baseline: plain
arms:
  plain: {annotator: null}
  clusters: {annotator: {name: halves, clusters: 2}}
  labels: {}
  joint: {model: {name: jdm, channels: [8], groups: 4}}
"""

NOTICE = (
    "it was made for plugin API 1; this fw has plugin API 2, and the next will refuse the plugin"
)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    with sites.site(tmp_path / "site") as folder:
        yield folder


def ran(recipe: Path, out: Path, *words: str | Path) -> tuple[dict[str, Any], str]:
    """What each arm scored, and what was said."""
    done = fw("run", recipe, "--out", out, "--device", "cpu", *words)
    assert done.code == 0, done.err
    arms = json.loads((out / "old/latest/run.json").read_text())["arms"]
    scores = {name: (arm["metrics"], arm.get("probes", {})) for name, arm in arms.items()}
    return scores, " ".join(done.err.split())


@pytest.mark.parametrize("packaged", [False, True], ids=["file", "package"])
def test_metrics_and_probes_for_version_1_score_as_those_for_version_2_and_that_is_said(
    site: Path, packaged: bool
) -> None:
    """As a file here, and as a package in worker processes."""
    recipe = sites.write(site.parent / "r.yaml", RECIPE)
    new = sites.write(site.parent / "new.py", after())
    wanted, unsaid = ran(recipe, site.parent / "new", "--jobs", "1", "--plugin", new)
    if packaged:
        sites.install(site, "old", BEFORE)
        found, said = ran(recipe, site.parent / "old", "--jobs", "2")
    else:
        old = sites.write(site.parent / "old.py", BEFORE)
        found, said = ran(recipe, site.parent / "old", "--jobs", "1", "--plugin", old)
    assert found == wanted
    metrics, probes = found["labels"]
    assert set(metrics) == {"middle", "doubled", "obeys"}
    assert metrics["doubled"]["values"] == [2 * value for value in metrics["middle"]["values"]]
    assert metrics["obeys"]["floor"] == 1
    assert set(probes) == {"spread2.0_model_mid_s0.1", "corner_model", "gives"}
    assert set(found["clusters"][1]) == {*probes, "spread2.0_encoder"}
    assert "sure_model" in found["joint"][1]
    assert (said.count(NOTICE), unsaid.count(NOTICE)) == (1, 0)


def admitted(text: str) -> Registry:
    registry = discover()
    add_files(registry, [LocalPlugin(Path("/nowhere/old.py"), textwrap.dedent(text))])
    return registry


def test_their_fields_and_so_their_keys_are_what_they_were(site: Path) -> None:
    registry = admitted(BEFORE)
    read = {"blocks": None, "sigma": 0.05, "draws": 4, "version": 1}
    fields = {
        "spread": {"of": "encoder", "power": 2.0, **read},
        "corner": {"of": "model", **read},
        "sure": {"of": "model", **read},
        "gives": {"of": "model", **read},
    }
    bases = {
        "spread": FeatureProbe,
        "corner": TokenProbe,
        "sure": LogitProbe,
        "gives": ConditionalProbe,
    }
    for name, expected in fields.items():
        probe = registry.get("probe", name)()
        assert isinstance(probe, Probe)
        assert isinstance(probe, bases[name])
        identity = probe.identity()
        assert identity.pop("--plugin") == probe.file_hash
        assert identity == {"name": name, **expected}


def test_a_metric_of_version_1_keeps_the_contract_that_its_own_tests_check(site: Path) -> None:
    metric = admitted(BEFORE).get("metric", "obeys").model_validate({"space": "flat"}, context=None)
    assert not [line for line in violations(metric) if "another process" not in line]


def test_one_that_says_2_and_is_written_for_1_is_refused_with_both_named(site: Path) -> None:
    sites.install(site, "mine", BEFORE + "\n    FW_API = 2\n")
    [broken] = discover().broken
    assert broken.reason.startswith(
        "Middle is written for plugin API 1, and the plugin says 2 (docs/plugins.md"
    )


def test_a_class_in_a_function_may_use_the_types_of_that_function() -> None:
    Mode = Literal["mild", "strict"]

    class Local(Metric):
        name: ClassVar[str] = "local"
        mode: Mode = "mild"

        @property
        def keys(self) -> dict[str, str]:
            return {"local": "lower"}

        def compare(
            self, prepared: Any, fake: Tensor, wanted: Tensor | None = None
        ) -> dict[str, float]:
            return {}

    assert Local.model_fields["mode"].annotation == Mode


# What is inherited


class Halves:
    """A mixin for version 1."""

    def compare(self, reference, fake):
        return {"half": float(fake.mean()) / 2}


def test_a_metric_may_get_its_old_compare_from_a_mixin_or_override_a_built_ins() -> None:
    class Half(Halves, Metric):  # type: ignore[misc]
        name: ClassVar[str] = "half"

        @property
        def keys(self) -> Mapping[str, str]:
            return {"half": "lower"}

    class Nearer(FD):
        name: ClassVar[str] = "nearer"

        def compare(self, reference, fake):  # type: ignore[override]
            return {"fd": float((reference.train.mean() - fake.mean()).abs())}

    reference = Reference(torch.zeros(4, 2), torch.ones(4, 2))
    fake = torch.full((3, 2), 2.0)
    half: Any = Half(space="pca")
    nearer: Any = Nearer(space="pca")
    assert half.compare(half.prepare(reference), fake, None) == {"half": 1.0}
    assert nearer.compare(nearer.prepare(reference), fake, None) == {"fd": 2.0}
    assert Half._api == Nearer._api == 1


def test_a_probe_for_version_1_that_reads_something_else_than_its_base_is_refused() -> None:
    class Common(Probe):
        def score(self, train, test, job):
            return {"x": 0.0}

    with pytest.raises(TypeError, match=r"probe Late reads tokens.*subclass TokenProbe"):

        class Late(Common):
            reads: ClassVar[str] = "tokens"


def test_a_plugin_may_call_a_field_api() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        class Remote(Metric):
            name: ClassVar[str] = "remote"
            api: str = "https"

        assert "api" in Remote.model_fields
