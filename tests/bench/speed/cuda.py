"""On a GPU: images per second, share of the card's matrix rate, and peak memory of training and
sampling; and a comparison of two arms, start to end. Written ready to run; not measured yet.

Networks are compiled and compute in bf16. Times are CUDA events around steps that follow the
compilation; seconds of compiling are beside them. The card's rate is that of a large bf16 product,
measured in the same call, so that a shared or throttled card is compared with itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import fw.recipes
from bench.speed import counted
from bench.speed.guidance import DDPM_UNET
from bench.speed.row import Goal, Row
from fw.core.diffusion.compiled import compile_network
from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.generate import Drawing, generate
from fw.core.job import Job, Silent
from fw.core.kinds import Backbone
from fw.core.learning.train import train
from fw.core.settings import Train
from fw.core.types import ImageSet
from fw.plugins.backbones.dit import DiT
from fw.plugins.processes.ddpm import DDPM
from fw.plugins.samplers.dpmpp import DPMSolverPP

SHAPES = Path(next(iter(fw.recipes.__path__))) / "self_guidance_shapes.yaml"

GEMM = 8192
"""Rows and columns of the matrices whose product says what the card can do."""

WARM = 20
"""Steps that are not timed: the first ones compile."""

MOST_MINUTES = 7
"""All of it."""


@dataclass(frozen=True)
class Trial:
    name: str
    backbone: Backbone
    shape: tuple[int, int, int]
    goal: float
    """Share of the card's rate in training, of the sheet's goals for an H200 at 790 TFLOP/s."""


TRIALS = (
    Trial("DDPM's U-Net", DDPM_UNET, (3, 32, 32), 0.30),
    Trial("DiT-S/2", DiT(size="S"), (4, 32, 32), 0.28),
    Trial("DiT-B/2", DiT(size="B"), (4, 32, 32), 0.40),
)


@dataclass(frozen=True)
class Size:
    trials: tuple[Trial, ...] = TRIALS
    batch: int = 256
    steps: int = 100
    """Of training, WARM of them not timed."""
    images: int = 1024
    """Sampled at once, by 20 steps of dpmpp."""
    recipe: bool = True


def rows(size: Size = Size()) -> Iterator[Row]:
    """None without a GPU."""
    if not torch.cuda.is_available():
        return
    rate = matrix_rate()
    product = f"a bf16 product of {GEMM}x{GEMM}"
    yield Row(product, torch.cuda.get_device_name(), rate / 1e12, "TFLOP/s")
    for trial in size.trials:
        yield training(trial, size, rate)
        yield sampling(trial, size, rate)
    if size.recipe:
        yield comparison()


def training(trial: Trial, size: Size, rate: float) -> Row:
    """The share of the card's rate that images times three forward passes make."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4096, *trial.shape), generator=draw, dtype=torch.uint8)
    data = ImageSet(images)
    settings = Train(steps=size.steps, batch=size.batch, precision="bf16", compile=True)
    fresh()
    clock, began = Events(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        job = Job(Path(folder), device=torch.device("cuda"), reporter=clock)
        train(trial.backbone, DDPM(), data, None, settings, job)
    per_second = size.batch / clock.seconds_per_step()
    share = 3 * forward(trial) * per_second / rate
    counts = {
        "images per s": per_second,
        "peak GiB": torch.cuda.max_memory_allocated() / 2**30,
        "all steps, with compiling, s": time.monotonic() - began,
    }
    what = f"training {trial.name}, batch {size.batch}"
    goal = Goal(trial.goal, least=True)
    return Row(what, "the bf16 product", share, "of its rate", goal, counts=counts)


def sampling(trial: Trial, size: Size, rate: float) -> Row:
    device = torch.device("cuda")
    network = trial.backbone.build(trial.shape, None).eval().requires_grad_(False)
    network = network.to(memory_format=torch.channels_last).to(device)
    compile_network(network, print)
    model = NetworkDenoiser(network, DDPM(), bf16=True)
    drawing = Drawing(trial.shape, DPMSolverPP(), (), 0)

    def draw() -> None:
        list(generate(model, [], drawing, None, 0, range(size.images), batch=size.images))

    fresh()
    began = time.monotonic()
    draw()
    torch.cuda.synchronize()
    first = time.monotonic() - began
    seconds = min(elapsed(draw) for _ in range(3))
    per_second = size.images / seconds
    share = forward(trial) * drawing.sampler.nfe * per_second / rate
    counts = {
        "images per s": per_second,
        "peak GiB": torch.cuda.max_memory_allocated() / 2**30,
        "first time, with compiling, s": first,
    }
    what = f"sampling {size.images} images of {trial.name}, dpmpp {drawing.sampler.nfe}"
    return Row(what, "the bf16 product", share, "of its rate", counts=counts)


def comparison() -> Row:
    """recipes/self_guidance_shapes.yaml with two arms and a fifth of its steps, as a user runs
    it."""
    sets = (
        "arms={unconditional: {annotator: null}, "
        "self_1.5: {guidance: {name: self_guidance, scale: 1.5}}}",
        "train.steps=1200",
        "train.warmup=100",
        "encoder.steps=600",
        "samples.count=2000",
        "tracker=null",
    )
    with tempfile.TemporaryDirectory(prefix="speed-") as out:
        words = ["run", str(SHAPES), "--device", "cuda", "--jobs", "2", "--out", out]
        words += [word for each in sets for word in ("--set", each)]
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "fw.core", *words], capture_output=True, text=True, check=False
        )
        spent = time.monotonic() - began
        if done.returncode:
            raise RuntimeError(done.stderr)
        [record] = Path(out).glob("self_guidance_shapes/latest/run.json")
        arms = json.loads(record.read_text(encoding="utf-8"))["arms"]
    counts = {
        f"{name}, fd_classifier": arm["metrics"]["fd_classifier"]["mean"]
        for name, arm in arms.items()
    }
    what = "`fw run` of self_guidance_shapes, two arms, a fifth of its steps"
    return Row(what, "", spent, "s by the clock", Goal(60 * MOST_MINUTES), counts=counts)


def matrix_rate() -> float:
    """FLOP/s of a large product of random bf16 matrices."""
    left, right = (torch.randn(GEMM, GEMM, device="cuda").bfloat16() for _ in range(2))

    def products() -> None:
        for _ in range(20):
            left @ right

    products()
    return 20 * 2 * GEMM**3 / min(elapsed(products) for _ in range(3))


def forward(trial: Trial) -> int:
    """FLOPs of one image through the network."""
    with FakeTensorMode(), torch.inference_mode():
        network = trial.backbone.build(trial.shape, None).eval()
        return counted.flops(lambda: network(torch.randn(1, *trial.shape), torch.zeros(1)))


@dataclass
class Events(Silent):
    """A reporter that notes on the device when steps were done, without a wait."""

    ends: list[torch.cuda.Event] = field(default_factory=list)

    def progress(self, label: str, done: int, total: int) -> None:
        self.ends.append(event())

    def seconds_per_step(self) -> float:
        torch.cuda.synchronize()
        timed = self.ends[WARM:]
        return timed[0].elapsed_time(timed[-1]) / 1000 / (len(timed) - 1)


def elapsed(work: Callable[[], object]) -> float:
    """Seconds on the device."""
    began = event()
    work()
    ended = event()
    torch.cuda.synchronize()
    return began.elapsed_time(ended) / 1000


def event() -> torch.cuda.Event:
    noted = torch.cuda.Event(enable_timing=True)
    noted.record()
    return noted


def fresh() -> None:
    """Nothing of an earlier trial counts in the peak."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
