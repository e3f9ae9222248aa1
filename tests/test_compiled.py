"""Compiled networks: the same results, the same names, and no failure where torch cannot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from fw.core.diffusion import compiled
from fw.core.diffusion.compiled import compile_network, worth_compiling
from fw.core.job import Job
from fw.core.kinds import Backbone
from fw.core.learning import train as training
from fw.core.learning.parts.objectives import Objectives
from fw.core.learning.parts.part import Part
from fw.core.plan.assembly import plan
from fw.core.recipe.loading import validate
from fw.core.recipe.source import read
from fw.core.settings import Train
from fw.core.stages.sample import INFO, Sample
from fw.core.testing import tiny
from fw.plugins.backbones.ddpmpp import DDPMPP
from fw.plugins.backbones.dit import DiT
from fw.plugins.backbones.unet import UNet
from fw.plugins.joint.jdm import JDM
from fw.plugins.objectives.repa import REPA
from fw.registry import installed

TINY = Path(__file__).parent / "tiny.yaml"
CPU, GPU = torch.device("cpu"), torch.device("cuda")
DIT = DiT(depth=4, width=16, heads=2, patch=2)
UNET = UNet(channels=(8, 16), groups=4)
BACKBONES = [DIT, UNET, DDPMPP(width=8, multipliers=(1, 2)), JDM(channels=(8, 16), groups=4)]


@pytest.fixture(autouse=True)
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[CompileCounterWithBackend]:
    """Counts the graphs that are compiled; what is compiled runs as torch's own operations."""
    torch.compiler.reset()
    counter = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(compiled, "BACKEND", counter)
    yield counter
    torch.compiler.reset()


def trained(
    folder: Path, backbone: Backbone, more: tuple[Part, ...] = (), **fields: Any
) -> tuple[nn.Module, Job]:
    job = Job(folder)
    folder.mkdir(exist_ok=True)
    settings = Train(steps=3, batch=6, warmup=0, **fields)
    network = training.train(
        backbone, tiny.TinyProcess(), tiny.images(12), None, settings, job, more
    )
    job.finish()
    return network, job


def assert_near(one: nn.Module, other: nn.Module) -> None:
    """Names are equal, and nearly all weights: where a gradient is rounding alone, Adam takes a
    whole step."""
    first, second = one.state_dict(), other.state_dict()
    assert list(first) == list(second)
    gaps = torch.cat([(first[name] - second[name]).abs().flatten() for name in first])
    assert (gaps > 1e-4).float().mean() < 0.01


@pytest.mark.parametrize("backbone", BACKBONES, ids=lambda each: each.name)
def test_a_compiled_training_is_the_uncompiled_one(
    backbone: Backbone, tmp_path: Path, backend: CompileCounterWithBackend
) -> None:
    plain, _ = trained(tmp_path / "plain", backbone, compile=False)
    assert backend.frame_count == 0
    fast, job = trained(tmp_path / "fast", backbone, compile=True)
    assert backend.frame_count > 0
    assert not job.warnings
    assert_near(plain, fast)


def test_blocks_that_are_alike_are_compiled_once(
    tmp_path: Path, backend: CompileCounterWithBackend
) -> None:
    trained(tmp_path, DIT, compile=True)
    assert backend.frame_count == 1


@pytest.mark.parametrize("backbone", [DIT, UNET], ids=lambda each: each.name)
def test_an_objective_reads_the_blocks_of_a_compiled_network(
    backbone: Backbone, tmp_path: Path
) -> None:
    def log(name: str, compiled: bool) -> list[dict[str, float]]:
        parts = (Objectives([REPA(encoder="pixels", hidden=8)], [tiny.features(12)]),)
        _, job = trained(tmp_path / name, backbone, parts, compile=compiled)
        text = (job.folder / "log.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    for plain, fast in zip(log("plain", False), log("fast", True), strict=True):
        for name in ("train/repa", "train/denoising_loss", "train/grad_norm"):
            assert fast[name] == pytest.approx(plain[name], rel=1e-3)


def test_a_training_is_continued_with_and_without(tmp_path: Path) -> None:
    def until(step: int) -> Any:
        calls = iter(range(100))
        return lambda: next(calls) >= step

    whole, _ = trained(tmp_path / "whole", DIT, compile=False)
    job = Job(tmp_path / "parts", stopping=until(2))
    job.folder.mkdir()
    settings = Train(steps=3, batch=6, warmup=0, compile=True)
    arguments = (DIT, tiny.TinyProcess(), tiny.images(12), None)
    with pytest.raises(BaseException, match="stopped"):
        training.train(*arguments, settings, job)
    again = training.train(
        *arguments, settings.model_copy(update={"compile": False}), Job(tmp_path / "parts")
    )
    assert_near(whole, again)


def refuses(graph: Any, inputs: Any) -> Any:
    raise NotImplementedError("no such operation here")


def test_where_torch_cannot_compile_it_says_so_once_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = trained(tmp_path / "plain", DIT, compile=False)
    monkeypatch.setattr(compiled, "BACKEND", refuses)
    network, job = trained(tmp_path / "fast", DIT, compile=True)
    [warning] = job.warnings
    for word in ("torch.compile", "DiffusionTransformer", "no such operation", "train.compile"):
        assert word in warning
    for one, other in zip(plain.parameters(), network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_an_error_of_the_network_is_its_own() -> None:
    class Faulty(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x @ x

    network, said = Faulty(), []  # type: ignore[var-annotated]
    compile_network(network, said.append)
    with pytest.raises(Exception, match=r"mat1|shape|size"):
        network(torch.ones(2, 3))
    assert torch.equal(network(torch.eye(3)), torch.eye(3))


def test_by_default_a_network_is_compiled_on_a_gpu_where_that_pays() -> None:
    assert not worth_compiling(None, CPU, 10**6)
    assert not worth_compiling(None, GPU, 100)
    assert worth_compiling(None, GPU, 10**6)
    assert worth_compiling(True, CPU, 1)
    assert not worth_compiling(False, GPU, 10**6)


def samples(*sets: str) -> Sample:
    source = read(TINY)
    source.set(("tracker=null", "samples.count=6", "samples.seeds=1", *sets))
    found = plan(validate(source, installed()))
    return next(
        stage
        for stage in found.stages.values()
        if isinstance(stage, Sample) and stage.arm == "unconditional"
    )


def test_samples_of_a_compiled_network_are_those_of_the_uncompiled_one(
    tmp_path: Path, backend: CompileCounterWithBackend
) -> None:
    stages = [samples(), samples("train.compile=true")]
    torch.manual_seed(0)
    network = stages[0].model.build(stages[0].train.shape, None)
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.05)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    images = []
    for number, stage in enumerate(stages):
        job = Job(tmp_path / str(number))
        job.folder.mkdir()
        stage.run(job, lambda _: tmp_path)
        images.append(stage.load(job.folder)[0])
        assert (backend.frame_count > 0) == bool(number)
        assert (job.folder / INFO).exists()
    assert (images[0].int() - images[1].int()).abs().max() <= 1


@pytest.mark.parametrize("setting", ["compile=true", "compile=false", "checkpointing=true"])
def test_how_a_step_is_computed_is_in_no_key(setting: str) -> None:
    usual, other = samples(), samples(f"train.{setting}")
    assert usual.key == other.key
    assert usual.train.key == other.train.key
