"""A team of processes trains the encoder or prior that one process trains: weights, running
statistics, queues, centres and logs, of every built-in one with a loop of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from teams import together
from torch import Tensor, nn
from torch.optim import SGD

from fw.core.errors import Interrupted
from fw.core.job import Job
from fw.core.kinds import Encoder
from fw.core.learning.batch_norm import normed_together
from fw.core.learning.rows import Rows
from fw.core.machine.team import Team
from fw.core.machine.transfer import constant
from fw.core.randomness import generator, seeded
from fw.core.settings import Train
from fw.core.templates.encoder import Example
from fw.core.testing import tiny
from fw.core.types import Annotation, ConditionSpec
from fw.plugins.backbones.unet import UNet
from fw.plugins.encoders import classifier, self_supervised
from fw.plugins.encoders.byol import BYOL
from fw.plugins.encoders.classifier import Classifier
from fw.plugins.encoders.diffusion_selected import DiffusionSelected
from fw.plugins.encoders.dino import Dino
from fw.plugins.encoders.dreamteacher import DreamTeacher
from fw.plugins.encoders.mae import MAE
from fw.plugins.encoders.moco import MoCo
from fw.plugins.encoders.repfusion import RepFusion
from fw.plugins.encoders.repfusion_policy import RepFusionPolicy
from fw.plugins.encoders.simclr import SimCLR
from fw.plugins.encoders.swav import SwAV
from fw.plugins.priors.rdm import RDM

UNEVEN: dict[str, Any] = {"steps": 5, "batch": 33}
JOINT: dict[str, Any] = {**UNEVEN, "lr": 5e-4, "width": 16, "hidden": 16}
TAUGHT: dict[str, Any] = {
    **UNEVEN,
    "lr": 5e-4,
    "width": 16,
    "model": UNet(channels=(4, 8), groups=2),
    "train": Train(steps=2, batch=33, warmup=0),
}

ENCODERS: dict[str, Encoder] = {
    "simclr": SimCLR(**JOINT, dims=8),
    "simclr, photographs": SimCLR(**JOINT, dims=8, augment="photos"),
    "byol": BYOL(**JOINT, dims=8),
    "moco": MoCo(**JOINT, dims=8, queue=80),
    "dino": Dino(**JOINT, bottleneck=8, prototypes=12, solarise=0.3, clip=0.5),
    "swav": SwAV(**JOINT, dims=8, prototypes=6, freeze_prototypes=2, queue=50),
    "mae": MAE(**UNEVEN, width=16, depth=1, heads=2, decoder_width=8, augment="digits"),
    "classifier": Classifier(**UNEVEN, width=8, dims=8),
    "repfusion": RepFusion(**TAUGHT, sigma=(0.05, 0.5)),
    "repfusion_policy": RepFusionPolicy(**TAUGHT),
    "dreamteacher": DreamTeacher(**TAUGHT, sigma=(0.1, 0.5)),
    "diffusion_selected": DiffusionSelected(
        model=TAUGHT["model"],
        train=TAUGHT["train"],
        selector="learned",
        dims=8,
        steps=5,
        sigma=(0.05, 1.0),
    ),
}
CASES = (*ENCODERS, "rdm")
WHOLE = {
    "one that knows nothing of teams": Example(**UNEVEN),
    "a batch smaller than the team": SimCLR(**{**JOINT, "batch": 2}, dims=8),
}
SMOOTH = ("simclr", "byol", "moco", "dino", "mae", "classifier")
"""Losses without hard assignments, which flip on ties in single precision."""
CONTINUED = ("moco", "dino", "swav", "repfusion_policy")
OF_THREE = ("simclr", "moco", "dino", "swav", "classifier")


def fit(encoder: Encoder, job: Job) -> None:
    """Fit it, and keep what it has learned."""
    data = tiny.images(
        120, (3, 16, 16) if getattr(encoder, "augment", "") == "photos" else (1, 8, 8)
    )
    data = data if encoder.uses_labels else data.without_labels()
    with seeded(job.seed, "encode"):
        network = encoder.build(data.shape, data.classes)
    encoder.fit(network, data, job)
    keep(network.state_dict(), job)


def prior(job: Job) -> None:
    vectors = torch.randn(50, 6, generator=generator("vectors"))
    annotation = Annotation(ConditionSpec("vector", 6), vectors)
    model = RDM(**UNEVEN, width=16, depth=1, sampling_steps=10, count=20)
    keep({"bank": model.bank(annotation, job)}, job)


def keep(made: Mapping[str, Tensor], job: Job) -> None:
    job.finish()
    torch.save(made, job.folder / f"made-{job.team.rank}")


Work = Callable[[Job], None]


def works(**changes: Any) -> dict[str, Work]:
    """All trainings by their names, those of encoders with these changes."""
    changed = {name: each.model_copy(update=changes) for name, each in ENCODERS.items()}
    fits = {name: partial(fit, encoder) for name, encoder in changed.items()}
    return {**fits, "rdm": prior}


def job_in(folder: Path, team: Team | None = None, **more: Any) -> Job:
    folder.mkdir(parents=True, exist_ok=True)
    return Job(folder, seed=3, team=team or Team(), **more)


def both(work: Work, team: Team, folder: Path, turn: int) -> None:
    """Do it in one process, which members are in turn, and by the team."""
    if turn % team.size == team.rank:
        work(job_in(folder / "one"))
    work(job_in(folder / "team", team))


def stopped(work: Work, job: Job) -> None:
    """Do the first three steps."""
    steps = iter(range(4))
    job.stopping = lambda: next(steps) == 3
    with pytest.raises(Interrupted):
        work(job)


@contextmanager
def in_doubles() -> Iterator[None]:
    constant.cache_clear()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        constant.cache_clear()


@contextmanager
def down_a_plain_gradient() -> Iterator[None]:
    """Adam's steps have the size of the learning rate however small the gradient is: a bias before
    a batch norm, whose gradient is rounding alone, would go anywhere."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (self_supervised, classifier):
            patch.setattr(module, "adam", lambda weights, lr, weight_decay: SGD(weights, lr))
        yield


def of_two(team: Team, folder: Path) -> None:
    with in_doubles():
        for turn, (name, work) in enumerate(works().items()):
            both(work, team, folder / name, turn)
        for name in CONTINUED:
            work = works()[name]
            stopped(work, job_in(folder / name / "two, then one", team))
            if team.leads:
                work(job_in(folder / name / "two, then one"))
                stopped(work, job_in(folder / name / "one, then two"))
            team.wait()
            work(job_in(folder / name / "one, then two", team))
    with down_a_plain_gradient():
        for turn, (steps, name) in enumerate(product((2, 50), SMOOTH)):
            both(works(steps=steps, lr=0.05)[name], team, folder / f"{steps} steps" / name, turn)


def of_three(team: Team, folder: Path) -> None:
    with in_doubles():
        for turn, name in enumerate(OF_THREE):
            both(works(batch=34)[name], team, folder / name, turn)
        for turn, (name, encoder) in enumerate(WHOLE.items()):
            both(partial(fit, encoder), team, folder / name, turn)
        for name, norm in NORMS.items():
            torch.save(normed(norm, team), folder / f"{name}-{team.rank}")


def three_then_two(team: Team, folder: Path) -> None:
    """Processes start slowly, so those of the team of three go on as one of two."""
    of_three(team, folder / "three")
    dist.destroy_process_group()
    size, rank = (2, team.rank) if team.rank < 2 else (1, 0)
    dist.init_process_group("gloo", f"file://{folder}/meet-{size}", rank=rank, world_size=size)
    if size == 2:
        of_two(Team(rank, size), folder / "two")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teams")
    together(3, folder, three_then_two)
    return folder


@pytest.fixture
def two(done: Path) -> Path:
    return done / "two"


@pytest.fixture
def three(done: Path) -> Path:
    return done / "three"


@pytest.mark.parametrize("name", CASES)
def test_two_members_learn_what_one_process_learns(name: str, two: Path) -> None:
    same(two / name, 2)


@pytest.mark.parametrize("name", OF_THREE)
def test_three_members_with_shares_of_two_sizes_do(name: str, three: Path) -> None:
    same(three / name, 3)


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_not_shared_is_done_by_each_member_whole_to_the_bit(name: str, three: Path) -> None:
    same(three / name, 3, within=0)


@pytest.mark.parametrize("how", ["two, then one", "one, then two"])
@pytest.mark.parametrize("name", CONTINUED)
def test_a_training_goes_on_with_another_number_of_members(name: str, how: str, two: Path) -> None:
    compare(two / name / "one", two / name / how, 1e-9)


@pytest.mark.parametrize(("steps", "within"), [(2, 1e-6), (50, 1e-4)])
@pytest.mark.parametrize("name", SMOOTH)
def test_in_single_precision_smooth_losses_stay_close(
    name: str, steps: int, within: float, two: Path
) -> None:
    folder = two / f"{steps} steps" / name
    compare(folder / "one", folder / "team", within)


def same(folder: Path, members: int, within: float = 1e-9) -> None:
    """The training by one process and by a team, of which all members have the same at the end."""
    compare(folder / "one", folder / "team", within)
    first, *others = (torch.load(folder / "team" / f"made-{rank}") for rank in range(members))
    for other in others:
        assert [name for name in first if not first[name].equal(other[name])] == []


def compare(one: Path, other: Path, within: float) -> None:
    """All that is in checkpoints, the optimizer's state included, and the log."""
    names = sorted(path.name for path in one.glob("*.checkpoint"))
    assert names
    assert names == sorted(path.name for path in other.glob("*.checkpoint"))
    for name in names:
        expected, actual = (tensors(torch.load(folder / name)["state"]) for folder in (one, other))
        assert expected.keys() == actual.keys()
        for key, tensor in expected.items():
            torch.testing.assert_close(actual[key], tensor, rtol=within, atol=within, msg=key)
    expected_log, log = (lines(folder / "log.jsonl") for folder in (one, other))
    assert len(log) == len(expected_log)
    for expected_line, line in zip(expected_log, log, strict=True):
        # The spread is a root: near 0 it makes much of single precision's rounding.
        assert line.keys() == expected_line.keys()
        for key in line:
            tolerance = 1e-3 if key == "spread" and within > 1e-9 else within
            assert line[key] == pytest.approx(expected_line[key], rel=tolerance, abs=tolerance), key


def tensors(state: Any, path: str = "") -> dict[str, Tensor]:
    """Every tensor of a state by its path."""
    if isinstance(state, Tensor):
        return {path: state}
    entries = state.items() if isinstance(state, dict) else []
    return {
        name: tensor
        for key, entry in entries
        for name, tensor in tensors(entry, f"{path}.{key}").items()
    }


def lines(log: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


# Batch norm over all members


NORMS: dict[str, Callable[[], nn.Module]] = {
    "maps": lambda: nn.BatchNorm2d(4),
    "vectors": lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64, affine=False)),
    "a plain mean of all batches": lambda: nn.BatchNorm2d(4, momentum=None),
    "without running statistics": lambda: nn.BatchNorm2d(4, track_running_stats=False),
}


def normed(make: Callable[[], nn.Module], team: Team) -> list[dict[str, Tensor]]:
    """What torch's batch norm has after two batches, and that of a team: outputs and gradients of
    this member's rows, gradients of the weights, running statistics, and outputs in eval mode."""
    with seeded("norm"):
        x, factor = torch.randn(2, 7, 4, 4, 4), torch.randn(7, 64)
        weights = torch.rand(2, 4)

    def outcome(norm: nn.Module, members: Team) -> dict[str, Tensor]:
        for parameter, value in zip(norm.parameters(), weights, strict=False):
            parameter.data.copy_(value)
        own = members.rows(7)
        with normed_together(norm, members):
            for batch in x:
                rows = batch[own].clone().requires_grad_()
                output = norm(rows).flatten(1)
                (output * factor[own]).square().sum().backward()
        assert rows.grad is not None
        held = {"output": output.detach(), "gradient": rows.grad}
        if members.size == 1:
            held = {name: each[team.rows(7)] for name, each in held.items()}
        grads = {name: each.grad for name, each in norm.named_parameters() if each.grad is not None}
        sums = {f"{name}'": members.total(each) for name, each in grads.items()}
        return {**held, **sums, **norm.state_dict(), "eval": norm.eval()(x[0]).detach()}

    return [outcome(make(), members) for members in (Team(), team)]


@pytest.mark.parametrize("rank", range(3))
@pytest.mark.parametrize("name", NORMS)
def test_batch_norm_sees_the_rows_of_all_members(name: str, rank: int, three: Path) -> None:
    expected, actual = torch.load(three / f"{name}-{rank}")
    assert expected.keys() == actual.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(actual[key], tensor, rtol=1e-11, atol=1e-11, msg=key)


def test_batch_norm_of_a_team_of_one_is_torchs_and_a_teams_is_so_again_afterwards() -> None:
    norm = nn.BatchNorm2d(4)
    with normed_together(norm, Team()):
        assert "forward" not in vars(norm)
    with suppress(ZeroDivisionError), normed_together(norm, Team(0, 2)):
        assert "forward" in vars(norm)
        raise ZeroDivisionError
    assert "forward" not in vars(norm)


# The rows of a batch


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize(("count", "size"), [(7, 1), (7, 2), (7, 3), (3, 3), (8, 5)])
def test_members_have_the_rows_of_all_views_between_them(
    count: int, size: int, dim: int, views: int
) -> None:
    members = [Rows.shared(count, Team(rank, size)) for rank in range(size)]
    drawn = torch.arange(views * count).unflatten(0, (views, count))
    flat = drawn.flatten() if dim == 0 else drawn.flatten().expand(2, -1)
    owned = [rows.own(flat, dim) for rows in members]
    for rows, numbers in zip(members, owned, strict=True):
        assert rows.everywhere(numbers.shape[dim]) == views * count
    if size > 1:
        parts = [each.unflatten(dim, (views, -1)) for each in owned]
        assert torch.cat(parts, dim=dim + 1).flatten(dim, dim + 1).equal(flat)
    else:
        assert owned[0] is flat


def test_parts_of_a_mean_add_up_to_it() -> None:
    values = torch.arange(33.0)
    members = [Rows.shared(33, Team(rank, 4)) for rank in range(4)]
    parts = [rows.part(rows.own(values).mean()) for rows in members]
    assert float(sum(parts)) == pytest.approx(16)


def test_a_batch_with_fewer_images_than_members_is_not_split() -> None:
    rows = Rows.shared(2, Team(1, 3))
    assert not rows.split
    assert rows.own(torch.arange(2)).tolist() == [0, 1]
    assert rows.part(torch.tensor(5.0)) == rows.team.part(torch.tensor(5.0)) == 5
