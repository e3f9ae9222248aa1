"""Installing a plugin changes no result of a recipe that does not name it, whatever it does to
the process."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sites
import torch
import toys
from sites import products
from test_executor import Heard

from fw.core.execution.executor import Outcome
from fw.core.execution.local import run_here, run_in_workers
from fw.core.execution.place import Place
from fw.core.execution.stage import execute
from fw.core.files.sealed import SEAL
from fw.core.machine.isolation import stock_state
from fw.core.plan.assembly import plan
from fw.core.plan.graph import Plan
from fw.core.recipe.loading import validate
from fw.core.recipe.source import parse
from fw.core.store.store import Store
from fw.registry import LocalPlugin, add_files

TINY = Path(__file__).parent / "tiny.yaml"
CPU = torch.device("cpu")

HOSTILE = """
    import random
    from pathlib import Path

    import numpy
    import torch

    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_float32_matmul_precision("medium")
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(3)
    torch.set_grad_enabled(False)
    torch.manual_seed(1)
    numpy.random.seed(2)
    random.seed(3)
    (Path(__file__).parent / "was-imported").touch()
"""


def ambient() -> dict[str, Any]:
    """The global state that could find its way into results."""
    return {
        "dtype": torch.get_default_dtype(),
        "device": torch.empty(0).device,
        "precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.get_deterministic_debug_mode(),
        "threads": torch.get_num_threads(),
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "torch": torch.get_rng_state().tolist(),
        "numpy": repr(np.random.get_state()),  # noqa: NPY002
        "python": random.getstate(),
    }


PLUGIN = LocalPlugin(
    Path("/nowhere/upsetting.py"),
    """
import random
from typing import ClassVar

import numpy
import torch
import toys
from fw.core.types import Annotation
from fw.registry import hookimpl


def upset():
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_float32_matmul_precision("medium")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_num_threads(3)
    torch.set_grad_enabled(False)
    torch.manual_seed(1)
    numpy.random.seed(2)
    random.seed(3)


class Careless(toys.Coin):
    "An annotator that leaves its mark on the process."

    name: ClassVar[str] = "careless"

    def annotate(self, data, job):
        found = super().annotate(data, job)
        upset()
        return found


class Global(toys.Coin):
    "An annotator that draws from the global generators, and relies on every default."

    name: ClassVar[str] = "global"

    def annotate(self, data, job):
        assert torch.zeros(1).dtype == torch.float32
        coins = torch.from_numpy(numpy.random.randint(2, size=data.count))
        drawn = torch.randint(2, (data.count,)) + coins
        tossed = (drawn + torch.tensor([random.randint(0, 1) for _ in range(data.count)])) % 2
        return Annotation(super().annotate(data, job).spec, tossed)


@hookimpl
def fw_components():
    return [Careless, Global]
""",
)


def upset() -> None:
    """What a careless component does to the process."""
    PLUGIN.load().upset()


@pytest.fixture
def calm() -> Iterator[None]:
    """Whatever a test does to the process, the next one does not see it."""
    with stock_state(0, CPU, 1):
        yield


def planned(*sets: str) -> Plan:
    registry = toys.registry()
    add_files(registry, [PLUGIN])
    source = parse(toys.RECIPE, "r.yaml")
    source.set(sets)
    return plan(validate(source, registry))


def settings(out: Path) -> Place:
    Store(out / "store").create()
    return Place(out / "store", "cpu", threads=1, checkpoint_seconds=20, plugins=(PLUGIN,))


def here(found: Plan, out: Path) -> Outcome:
    return run_here(found, (), settings(out), Heard(), lambda: False)


def test_installing_a_hostile_plugin_changes_no_bit_of_a_recipe_that_does_not_name_it(
    tmp_path: Path,
) -> None:
    """Real distributions, in processes of their own: a stage after the other, and side by side
    in two workers."""
    words: list[str | Path] = [
        "--set",
        "train.steps=12",
        "--set",
        "tracker=null",
        "--arm",
        "self_1.5",
    ]
    words += ["--device", "cpu"]
    done = sites.fw("run", TINY, *words, "--out", tmp_path / "without", "--jobs", "1")
    assert done.code == 0, done.err
    site = tmp_path / "site"
    site.mkdir()
    sites.install(site, "aaa_hostile", HOSTILE + sites.GUIDANCE.format(name="hostile"))
    for jobs in ("1", "2"):
        command = [
            sys.executable,
            "-m",
            "fw.core",
            "run",
            TINY,
            *words,
            "--out",
            tmp_path / jobs,
            "--jobs",
            jobs,
        ]
        environment = {**os.environ, "PYTHONPATH": str(site)}
        ended = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=240, check=False
        )
        assert ended.returncode == 0, ended.stderr
        (site / "was-imported").unlink()
        assert products(tmp_path / jobs) == products(tmp_path / "without") != {}
        assert manifests(tmp_path / jobs) == manifests(tmp_path / "without")
        assert results(tmp_path / jobs) == results(tmp_path / "without")


def manifests(out: Path) -> dict[str, Any]:
    """The manifests, up to the seconds and the memory that stages took."""
    found = {
        file.parent.name: json.loads(file.read_text())
        for file in (out / "store").glob("*/manifest.json")
    }
    taken = dict.fromkeys(("seconds", "memory", SEAL))
    return {stage: {**manifest, **taken} for stage, manifest in found.items()}


def results(out: Path) -> dict[str, Any]:
    """run.json, up to seconds and memory."""
    found = json.loads((out / "tiny/latest/run.json").read_text())
    for arm in found["arms"].values():
        arm["seconds"] = None
    del found["environment"]["peak memory"]
    return found


def test_a_component_that_upsets_its_process_changes_no_stage_after_it(
    tmp_path: Path, calm: None
) -> None:
    alone = planned("arms.global={annotator: global}")
    together = planned("arms.careless={annotator: careless}", "arms.global={annotator: global}")
    assert here(alone, tmp_path / "alone") == Outcome()
    assert here(together, tmp_path / "together") == Outcome()
    expected, found = products(tmp_path / "alone"), products(tmp_path / "together")
    assert {name: found[name] for name in expected} == expected
    assert len(found) > len(expected)
    assert (
        run_in_workers(together, (), [settings(tmp_path / "w")], Heard(), lambda: False)
        == Outcome()
    )
    assert products(tmp_path / "w") == found


def test_a_stage_does_not_see_the_state_that_it_is_started_in(tmp_path: Path, calm: None) -> None:
    found = planned("arms.global={annotator: global}")
    assert here(found, tmp_path / "stock") == Outcome()
    upset()
    before = ambient()
    assert here(found, tmp_path / "upset") == Outcome()
    assert ambient() == before
    assert products(tmp_path / "upset") == products(tmp_path / "stock")


def test_after_a_stage_the_process_is_what_it_was_whatever_became_of_the_stage(
    tmp_path: Path, calm: None
) -> None:
    torch.set_default_dtype(torch.bfloat16)
    torch.set_float32_matmul_precision("high")
    torch.set_num_threads(2)
    before = ambient()
    found = planned("arms.careless={annotator: careless}", "arms.broken={annotator: broken}")
    assert len(here(found, tmp_path).failed) == 1
    assert ambient() == before


def test_components_do_not_share_global_randomness_with_stages_before_them(
    tmp_path: Path, calm: None
) -> None:
    """The same stage gives the same bits whether it runs first or last."""
    found = planned("arms.global={annotator: global}", "arms.coin={annotator: coin}")
    first = found.arms["global"].annotate
    assert first is not None
    assert here(found, tmp_path / "all") == Outcome()
    execute(found.stages[first], settings(tmp_path / "one"), Heard(), lambda: False)
    name = f"{first}/annotation.safetensors"
    assert products(tmp_path / "one")[name] == products(tmp_path / "all")[name]


def test_the_stock_state_is_torchs_own_and_seeded(calm: None) -> None:
    seen = []
    for _ in range(2):
        upset()
        with stock_state(7, CPU, 2):
            inside = ambient()
        assert ambient() != inside
        seen.append(inside)
    assert seen[0] == seen[1]
    assert inside["dtype"] == torch.float32
    assert inside["device"] == CPU
    assert inside["precision"] == "highest"
    assert (inside["deterministic"], inside["threads"], inside["gradients"]) == (0, 2, True)
    with stock_state(8, CPU, 2):
        other = ambient()
    assert all(other[which] != inside[which] for which in ("torch", "numpy", "python"))
    with torch.inference_mode(), stock_state(0, CPU, 1):
        assert not torch.is_inference_mode_enabled()


@pytest.mark.skipif(
    not hasattr(torch.backends, "fp32_precision"), reason="torch before 2.9 has no such settings"
)
def test_precision_that_was_set_per_backend_is_put_aside_and_comes_back(calm: None) -> None:
    backends: Any = torch.backends
    backends.cuda.matmul.fp32_precision = "tf32"
    with pytest.raises(RuntimeError):
        torch.get_float32_matmul_precision()  # what makes this case a special one
    with stock_state(0, CPU, 1):
        assert torch.get_float32_matmul_precision() == "highest"
    assert backends.cuda.matmul.fp32_precision == "tf32"
    torch.set_float32_matmul_precision("highest")


def test_sampling_again_does_not_see_a_hostile_plugin_either(tmp_path: Path, calm: None) -> None:
    recipe = sites.toy_recipe(tmp_path)
    with sites.site(tmp_path / "site") as site:
        done = sites.fw("run", recipe, "--out", tmp_path / "runs", "--device", "cpu", "--jobs", "1")
        assert done.code == 0, done.err
        sites.install(site, "aaa_hostile", HOSTILE + sites.GUIDANCE.format(name="hostile"))
        words = ("--arm", "self_1.5", "-n", "6", "-o", tmp_path / "grid.png", "--device", "cpu")
        done = sites.fw("sample", tmp_path / "runs/toy/latest", *words)
        assert done.code == 0, done.err
        assert (site / "was-imported").exists()
        expected = (tmp_path / "runs/toy/latest/samples-self_1.5.png").read_bytes()
        assert (tmp_path / "grid.png").read_bytes() == expected
