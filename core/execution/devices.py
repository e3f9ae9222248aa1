"""The device that `--device` names, and one device per job."""

from __future__ import annotations

import torch

from fw.core.errors import FwError


def known_device(name: str) -> torch.device:
    """What `--device` names, if fw runs on it; whether it is here is another question."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise FwError(f"--device {name}: no such device; use auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise FwError(f"--device {name}: fw runs on cpu and cuda; use auto, cpu, cuda or cuda:N")
    return device


def checked_device(name: str) -> str:
    """The device that `--device` asks for, if it is here."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    device = known_device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise FwError(f"--device {name}: torch sees {count} CUDA devices here; use --device cpu")
    return name


def devices(device: str, jobs: int, ranks: int = 1) -> list[str]:
    """One device per job, the first of its team's: CUDA devices in turn, or the one that was asked
    for."""
    if device == "cuda":
        return [f"cuda:{number * ranks % torch.cuda.device_count()}" for number in range(jobs)]
    return [device] * jobs


def known_ranks(ranks: str) -> int | None:
    """What `--ranks` says: how many in all, or None for `auto`."""
    if ranks == "auto":
        return None
    nodes, each = divided(ranks)
    return nodes * each


def known_nodes(ranks: str) -> int:
    """How many nodes `--ranks` spreads them over."""
    return 1 if ranks == "auto" else divided(ranks)[0]


def divided(ranks: str) -> tuple[int, int]:
    """The nodes, and the ranks on each: of `8` one node, of `2x8` two."""
    nodes, cross, each = ranks.rpartition("x")
    numbers = [nodes, each] if cross else ["1", each]
    if not all(each.isdecimal() and int(each) >= 1 for each in numbers):
        raise FwError(
            f"--ranks {ranks}: it is a number from 1 on, or auto, or on a cluster nodes and the "
            "ranks of each, such as 2x8"
        )
    return int(numbers[0]), int(numbers[1])


def check_teams(device: str, jobs: int, ranks: int) -> None:
    """FwError unless every rank of every team has a GPU of its own, or all run on the CPU."""
    if ranks == 1 or device == "cpu":
        return
    if device != "cuda":
        raise FwError(
            f"--ranks {ranks}: every rank takes a GPU of its own, and --device {device} is one; "
            "use --device cuda"
        )
    count = torch.cuda.device_count()
    if jobs * ranks > count:
        raise FwError(
            f"--ranks {ranks} with {jobs} jobs side by side takes {jobs * ranks} GPUs, and torch "
            f"sees {count} here: --jobs {max(1, count // ranks)} --ranks {min(ranks, count)} fit"
        )
