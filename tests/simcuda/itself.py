"""`python -m simcuda.itself`: what simulated devices refuse and count, and what fw promises of a
GPU that no recipe shows. Prints the name of each check; the first that fails ends it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from simcuda.run import install, simulated
from simcuda.waits import WAITS

GPU = torch.device("cuda:1")


@contextlib.contextmanager
def refused(*words: str) -> Iterator[None]:
    """What happens inside is refused, in a sentence with these words."""
    with pytest.raises((RuntimeError, TypeError)) as caught:
        yield
    assert all(word in str(caught.value) for word in words), caught.value


@contextlib.contextmanager
def waits(count: int) -> Iterator[None]:
    """The host waits so often in here."""
    before = WAITS.anywhere.total()
    yield
    assert WAITS.anywhere.total() - before == count, WAITS.anywhere


def check_devices_do_not_mix() -> None:
    here, there, cpu = (torch.ones(3, device=device) for device in (GPU, "cuda:0", "cpu"))
    with refused("cuda:0", "cuda:1"):
        here + there
    with refused("on the cpu"):
        here + cpu
    with refused("on the cpu"):
        cpu.add_(here)
    with refused("on the cpu"):
        cpu[here.long()]
    with refused("numpy"):
        here.numpy()
    with refused("generator"):
        torch.rand(3, device=GPU, generator=torch.Generator())
    assert (here + torch.tensor(1.0)).device == GPU
    assert torch.equal((here + there.to(GPU)).cpu(), torch.full((3,), 2.0))


def check_the_current_device_is_what_says_cuda() -> None:
    with torch.cuda.device(GPU):
        assert torch.ones(1, device="cuda").device == GPU
    assert torch.ones(1).cuda().device == torch.device("cuda:0")


def check_rows_that_do_not_fit_are_fetched_ahead_and_the_host_never_waits() -> None:
    from fw.core.machine import tables

    table = torch.arange(40).view(20, 2)
    pieces, numbers = [table[:3], table[3:11], table[11:]], torch.tensor([19, 0, 3, 3, 10])
    assert tables.Table(pieces).to(GPU).there
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "SHARE", 0)
        afar = tables.Table(pieces).to(GPU)
    assert not afar.there
    with waits(0):
        at_once = afar.take(numbers)
        afar.ahead(numbers.flip(0))
        ahead = afar.take(numbers.flip(0))
    assert at_once.device == ahead.device == GPU
    assert torch.equal(at_once.cpu(), table[numbers])
    assert torch.equal(ahead.cpu(), table[numbers.flip(0)])


def check_waits_are_counted() -> None:
    numbers, pinned = torch.ones(4, device=GPU), torch.ones(4).pin_memory()
    with waits(0):
        numbers * 2 + torch.randn(4, device=GPU)
        pinned.to(GPU, non_blocking=True)
    for waiting in (
        numbers.sum().item,
        numbers.cpu,
        numbers.tolist,
        numbers.nonzero,
        lambda: bool(numbers.any()),
        lambda: numbers[numbers > 0],
        lambda: torch.ones(4).to(GPU),
        lambda: torch.ones(4).to(GPU, non_blocking=True),  # not pinned
        lambda: pinned.to(GPU),
        lambda: torch.tensor([1.0], device=GPU),
        torch.cuda.synchronize,
    ):
        with waits(1):
            waiting()


def check_what_is_on_its_way_is_not_there_yet() -> None:
    numbers = torch.ones(4, device=GPU)
    copy = numbers.to("cpu", non_blocking=True)
    assert copy.isnan().all()
    torch.cuda.synchronize()
    assert torch.equal(copy, torch.ones(4))


def check_global_generators_are_given_back_on_every_gpu() -> None:
    from fw.core.randomness import seed_torch, seeded
    from fw.registry.global_state import undisturbed

    for context in (seeded("words"), undisturbed()):
        before = [state.clone() for state in torch.cuda.get_rng_state_all()]
        with context:
            seed_torch("other words")
            torch.rand(3, device=GPU)
            torch.manual_seed(0)
        assert all(map(torch.equal, before, torch.cuda.get_rng_state_all()))


def check_a_stage_leaves_the_other_gpus_alone() -> None:
    from fw.core.machine.isolation import stock_state
    from fw.registry.global_state import SDP_KERNELS

    before = [state.clone() for state in torch.cuda.get_rng_state_all()]
    torch.backends.cuda.enable_cudnn_sdp(False)
    with stock_state(0, GPU, 1):
        assert torch.cuda.current_device() == 1
        kernels = (getattr(torch.backends.cuda, f"{name}_sdp_enabled")() for name in SDP_KERNELS)
        assert all(kernels)
        torch.rand(3, device="cuda")
    assert torch.cuda.current_device() == 0
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert all(map(torch.equal, before, torch.cuda.get_rng_state_all()))


def check_many_values_are_logged_with_one_wait() -> None:
    from fw.core.job import Job

    with tempfile.TemporaryDirectory() as folder:
        job = Job(Path(folder), device=GPU)
        for step in range(10):
            job.log(step, {"loss": torch.tensor(0.5).to(GPU), "rate": 0.1, "step": step})
        with waits(1):
            job.finish()
        lines = Path(folder, "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert lines[9] == '{"step": 9, "loss": 0.5, "rate": 0.1}'


def check_batches_are_collected_with_few_waits() -> None:
    from fw.core.machine import transfer

    batches = [torch.full((8, 4), float(number)) for number in range(40)]
    with waits(1):
        sent = [transfer.sent(each, GPU) for each in batches]
        made = list(transfer.collected(sent))
    assert torch.equal(torch.cat(made), torch.cat(batches))
    transfer.AT_ONCE, usual = 20 * 8 * 4 * 4, transfer.AT_ONCE
    with waits(2):
        made = list(transfer.collected(sent))
    transfer.AT_ONCE = usual
    assert torch.equal(torch.cat(made), torch.cat(batches))


def check_large_images_are_encoded_by_as_many_as_memory_takes() -> None:
    from fw.core.diffusion import generate

    generate.MOST_AT_ONCE["cuda"], few = 1000, generate.MOST_AT_ONCE["cuda"]
    sizes = [generate.reading_size((3, side, side), GPU) for side in (32, 256, 4096)]
    generate.MOST_AT_ONCE["cuda"] = few
    assert sizes == [1000, 80, 1]  # of 80 GiB


def check_a_training_that_was_stopped_goes_on_with_the_same_bits() -> None:
    from fw.core.errors import Interrupted
    from fw.core.job import Job
    from fw.core.learning.state import state_of
    from fw.core.learning.train import train
    from fw.core.settings import Train
    from fw.core.testing import tiny
    from fw.core.testing.stopping import Stop

    def trained(job: Job) -> Any:
        settings = Train(steps=6, batch=8, warmup=1)
        data = tiny.images(20).without_labels()
        return state_of(train(tiny.TinyBackbone(), tiny.TinyProcess(), data, None, settings, job))

    with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as halves:
        expected = trained(Job(Path(whole), device=GPU))
        with contextlib.suppress(Interrupted):
            trained(Job(Path(halves), device=GPU, stopping=Stop(at=4)))
        assert Path(halves, "train.checkpoint").exists()
        continued = trained(Job(Path(halves), device=GPU))
    assert all(torch.equal(continued[name], each) for name, each in expected.items())


def check_a_training_on_images_that_do_not_fit_has_the_same_bits() -> None:
    from fw.core.job import Job
    from fw.core.learning.state import state_of
    from fw.core.learning.train import train
    from fw.core.machine import tables
    from fw.core.settings import Train
    from fw.core.testing import tiny

    def trained() -> Any:
        settings, data = Train(steps=4, batch=8, warmup=1), tiny.images(20).without_labels()
        with tempfile.TemporaryDirectory() as folder:
            job = Job(Path(folder), device=GPU)
            return state_of(
                train(tiny.TinyBackbone(), tiny.TinyProcess(), data, None, settings, job)
            )

    expected = trained()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "SHARE", 0)
        found = trained()
    assert all(torch.equal(found[name], each) for name, each in expected.items())


def check_networks_for_sampling_are_laid_out_for_a_gpu() -> None:
    from fw.core.machine.transfer import placed

    weight = placed(torch.nn.Conv2d(4, 8, 3), GPU).weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    weight = placed(torch.nn.Conv2d(4, 8, 3), torch.device("cpu")).weight
    assert weight.is_contiguous()


if __name__ == "__main__":
    simulated("simcuda.itself")
    install()
    torch.cuda.init()
    for name, check in list(globals().items()):
        if name.startswith("check_"):
            print(name, flush=True)
            check()
