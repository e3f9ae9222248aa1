"""A team of processes trains the network that one process trains: weights and log, of every kind of
condition, objective and model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch.distributed as dist
from teams import one_of, together
from torch import Tensor, nn

from fw.core.errors import Interrupted
from fw.core.job import Job
from fw.core.kinds import Backbone, Objective, Online, Process
from fw.core.learning.parts.objectives import Objectives
from fw.core.learning.parts.online import OnlineGrouping
from fw.core.learning.parts.part import Part
from fw.core.learning.train import train
from fw.core.machine.team import Team
from fw.core.settings import Train
from fw.core.types import Annotation, ConditionSpec, ImageSet
from fw.plugins.annotators.online import OnlineClusters
from fw.plugins.backbones.ddpmpp import DDPMPP
from fw.plugins.backbones.dit import DiT
from fw.plugins.backbones.unet import UNet
from fw.plugins.encoders.pixels import Pixels
from fw.plugins.joint.hybvit import HybViT
from fw.plugins.joint.jdm import JDM
from fw.plugins.objectives.contrastive import Contrastive
from fw.plugins.objectives.dispersive import Dispersive
from fw.plugins.objectives.repa import REPA
from fw.plugins.processes.ddpm import DDPM
from fw.plugins.processes.flow import Flow

COUNT, CLASSES, VECTOR = 120, 5, 6


@dataclass(frozen=True)
class Case:
    """A training, of which an online annotator or objectives may be part."""

    backbone: Backbone
    process: Process = field(default_factory=DDPM)
    settings: Mapping[str, Any] | None = None
    conditions: str | None = None
    """`class`, `some` (a quarter has none), `vector`, or none."""
    objectives: tuple[Objective, ...] = ()
    online: Online | None = None


class Normed(Backbone):
    """Two convolutions with a batch norm between them: the images of a batch meet."""

    name: ClassVar[str] = "normed"

    def build(self, shape: tuple[int, int, int], condition: ConditionSpec | None) -> nn.Module:
        return NormedNetwork()


class NormedNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.SiLU(),
            nn.Conv2d(4, 1, 3, padding=1),
        )

    def forward(self, x: Tensor, *_: object, **__: object) -> Tensor:
        made: Tensor = self.layers(x)
        return made


UNET: dict[str, Any] = {"channels": [8, 16], "groups": 4}
DIT: dict[str, Any] = {"depth": 2, "width": 32, "heads": 2, "patch": 2}

CASES = {
    "unet": Case(UNet(**UNET), settings={"flip": True}),
    "unet, classes": Case(UNet(**UNET), conditions="class"),
    "unet, some classes": Case(UNet(**UNET), conditions="some"),
    "unet, vectors": Case(UNet(**UNET), conditions="vector"),
    "unet, three parts": Case(UNet(**UNET), settings={"accumulate": 3}, conditions="class"),
    "dit, classes": Case(DiT(**DIT), Flow(), conditions="class"),
    "dit, vectors, blocks computed twice": Case(
        DiT(**DIT), Flow(), {"checkpointing": True}, conditions="vector"
    ),
    "ddpmpp, augmented": Case(
        DDPMPP(width=8, multipliers=(1, 1), layers=1, attention=()), settings={"augment": 0.5}
    ),
    "batch norm": Case(Normed()),
    "dispersive": Case(DiT(**DIT), objectives=(Dispersive(),)),
    "contrastive": Case(DiT(**DIT), objectives=(Contrastive(),)),
    "repa": Case(DiT(**DIT), objectives=(REPA(encoder=Pixels(), interval=(0.2, 2.0)),)),
    "repa, three parts": Case(
        DiT(**DIT), settings={"accumulate": 3}, objectives=(REPA(encoder=Pixels()),)
    ),
    "repa, shuffled": Case(DiT(**DIT), objectives=(REPA(encoder=Pixels(), shuffled=True),)),
    "jdm": Case(JDM(weight=0.1, head_dropout=0, **UNET), conditions="class"),
    "jdm, some classes": Case(
        JDM(weight=0.1, head_dropout=0, labelled=7, **UNET), conditions="some"
    ),
    "hybvit": Case(HybViT(**{**DIT, "depth": 3}), conditions="class"),
    "online": Case(
        UNet(**UNET),
        settings={"cond_drop": 0.15},
        online=OnlineClusters(clusters=5, queue=64, freeze=2, start=0.4, epsilon=0.5),
    ),
}


def trained(case: Case, job: Job, **more: Any) -> dict[str, Tensor]:
    """All weights at the end, with those of the parts."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (COUNT, 1, 8, 8), generator=generator, dtype=torch.uint8)
    settings = Train(**{"steps": 5, "batch": 33, "warmup": 1, **(case.settings or {}), **more})
    objectives = Objectives(
        case.objectives, [images.flatten(1)[:, :9] / 255.0 for _ in case.objectives]
    )
    online = None if case.online is None else OnlineGrouping(case.online)
    parts: list[Part] = [objectives, *([] if online is None else [online])]
    data = ImageSet(images)
    network = train(case.backbone, case.process, data, annotation(case), settings, job, parts)
    job.finish()
    states: dict[str, Mapping[str, Any]] = {"": network.state_dict()}
    for part in parts:
        states |= {
            name: each.state_dict() for name, each in part.state.items() if "optimizer" not in name
        }
    return {f"{at} {name}": each for at, state in states.items() for name, each in state.items()}


def annotation(case: Case) -> Annotation | None:
    generator = torch.Generator().manual_seed(1)
    classes = torch.randint(CLASSES, (COUNT,), generator=generator)
    if case.conditions == "vector":
        vectors = torch.randn(COUNT, VECTOR, generator=generator)
        return Annotation(ConditionSpec("vector", VECTOR), vectors)
    if case.conditions == "some":
        classes = torch.where(torch.arange(COUNT) % 4 == 0, classes, -1)
    return None if case.conditions is None else Annotation(ConditionSpec("class", CLASSES), classes)


def log(folder: Path, split: bool = False) -> list[dict[str, float]]:
    """The log; of a batch in parts without ratios of gradients, which are the means of theirs."""
    lines = (folder / "log.jsonl").read_text("utf-8").splitlines()
    return [
        {key: value for key, value in json.loads(line).items() if not split or "ratio" not in key}
        for line in lines
    ]


def far(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


def far_logs(one: list[dict[str, float]], other: list[dict[str, float]]) -> float:
    assert [each.keys() for each in one] == [each.keys() for each in other]
    pairs = [(a[key], b[key]) for a, b in zip(one, other, strict=True) for key in a]
    return max(abs(a - b) / max(1.0, abs(a)) for a, b in pairs)


def jobs(team: Team, folder: Path, name: str) -> tuple[Job, Job]:
    """One of a process alone, one of the team."""
    places = folder / name / "alone", folder / name / "team"
    if team.leads:
        for place in places:
            place.mkdir(parents=True)
    team.wait()
    alone, shared = places
    return Job(alone, seed=3), Job(shared, seed=3, team=team, checkpoint_seconds=1e9)


def in_double(team: Team, folder: Path) -> dict[str, tuple[float, float]]:
    """How far weights and logs are from those of one process, after five steps."""
    torch.set_default_dtype(torch.float64)
    differences = {}
    for name, case in CASES.items():
        alone, shared = jobs(team, folder, name)
        made = trained(case, shared)
        sums = [float(each.sum()) for each in made.values()]
        assert team.most(sums) == sums  # members agree in bits
        if team.leads:
            expected = trained(case, alone)
            split = (case.settings or {}).get("accumulate", 1) > 1
            logs = log(alone.folder, split), log(shared.folder, split)
            differences[name] = (far(expected, made), far_logs(*logs))
    return differences


def in_single(team: Team, folder: Path) -> dict[int, float]:
    """How far weights are in single precision, by steps."""
    differences = {}
    for steps in (2, 50):
        alone, shared = jobs(team, folder, f"single {steps}")
        made = trained(CASES["unet, classes"], shared, steps=steps)
        if team.leads:
            differences[steps] = far(trained(CASES["unet, classes"], alone, steps=steps), made)
    return differences


def stopped_after(job: Job, steps: int, case: Case) -> None:
    """Train in this job, which is asked to stop before it has done more steps."""
    asked: list[int] = []

    def stopping() -> bool:
        asked.append(1)
        return len(asked) > steps

    job.stopping = stopping
    with pytest.raises(Interrupted):
        trained(case, job)
    job.stopping = lambda: False


def resumed(team: Team, folder: Path) -> dict[str, tuple[float, float]]:
    """How far those are, and their logs, that changed the number of processes on the way."""
    torch.set_default_dtype(torch.float64)
    case = CASES["unet, some classes"]
    differences: dict[str, tuple[float, float]] = {}
    for name in ("2 to 1", "1 to 2"):
        alone, shared = jobs(team, folder, name)
        first = Job(shared.folder, seed=3)
        if name == "1 to 2":
            if team.leads:
                stopped_after(first, 2, case)
            team.wait()
            made = trained(case, shared)
        else:
            stopped_after(shared, 2 if team.leads else 5, case)  # one member's wish is enough
            made = trained(case, first) if team.leads else {}
        if team.leads:
            expected = trained(case, alone)
            drift = far_logs(log(alone.folder), log(shared.folder))
            differences[name] = (far(expected, made), drift)
        team.wait()
    _, shared = jobs(team, folder, "2 to 3")
    stopped_after(shared, 2, case)
    return differences


def exchanged(team: Team, folder: Path) -> dict[str, Any]:
    """How often and how many bytes trainings of 11 and of 12 steps exchange, by what it is."""
    bytes_: dict[str, list[int]] = {}

    def counting(name: str, exchange: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*words: Any, **more: Any) -> Any:
            sent = words[-1] if name == "all_gather" else words[0]
            bytes_.setdefault(f"{name} {sent.dtype}", []).append(sent.nbytes)
            return exchange(*words, **more)

        return counted

    for name in ("all_reduce", "all_gather"):
        setattr(dist, name, counting(name, getattr(dist, name)))
    steps = {}
    for case in ("dit, classes", "dispersive"):
        counts = []
        for number in (11, 12):  # of which the last, and every tenth, are logged
            bytes_.clear()
            job = Job(folder / f"{case} {number}", seed=3, team=team, checkpoint_seconds=1e9)
            job.folder.mkdir()
            trained(CASES[case], job, steps=number, batch=128)
            counts.append({what: (len(each), sum(each)) for what, each in bytes_.items()})
        steps[case] = counts
    return steps


def in_pairs(team: Team, folder: Path) -> dict[str, Any]:
    return {
        "single": in_single(team, folder),
        "resumed": resumed(team, folder),
        "double": in_double(team, folder),
    }


def in_threes(team: Team, folder: Path) -> dict[str, float]:
    """The same for three processes, and what two have begun."""
    torch.set_default_dtype(torch.float64)
    differences = {}
    for name in ("dispersive", "jdm, some classes", "online"):
        alone, shared = jobs(team, folder, name)
        made = trained(CASES[name], shared, batch=32)
        if team.leads:
            differences[name] = far(trained(CASES[name], alone, batch=32), made)
    begun = Job(folder.parent / "two" / "2 to 3" / "team", seed=3, team=team)
    made = trained(CASES["unet, some classes"], begun)
    if team.leads:
        (folder / "alone").mkdir()
        expected = trained(CASES["unet, some classes"], Job(folder / "alone", seed=3))
        differences["2 to 3"] = far(expected, made)
    return differences


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("teams")
    return folder, together(2, folder / "two", in_pairs)[0]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_what_one_does_in_double_precision(
    name: str, two: tuple[Path, dict[str, Any]]
) -> None:
    weights, logged = two[1]["double"][name]
    assert weights < 1e-9
    assert logged < 1e-9


def test_in_single_precision_they_drift_apart_by_rounding_alone(
    two: tuple[Path, dict[str, Any]],
) -> None:
    differences = two[1]["single"]
    assert differences[2] < 1e-6
    assert differences[50] < 1e-4


@pytest.mark.parametrize("change", ["2 to 1", "1 to 2"])
def test_a_training_continues_on_another_number_of_processes(
    change: str, two: tuple[Path, dict[str, Any]]
) -> None:
    weights, logged = two[1]["resumed"][change]
    assert weights < 1e-9
    assert logged < 1e-9


def test_three_processes_train_the_same_and_go_on_with_what_two_have_begun(
    two: tuple[Path, dict[str, Any]],
) -> None:
    differences = together(3, two[0] / "three", in_threes)[0]
    assert differences.keys() == {"dispersive", "jdm, some classes", "online", "2 to 3"}
    assert max(differences.values()) < 1e-9


def test_each_of_64_ranks_sends_its_gradients_once_a_step_and_what_objectives_compare(
    tmp_path: Path,
) -> None:
    steps = one_of(64, tmp_path, exchanged)
    network = CASES["dit, classes"].backbone.build((1, 8, 8), ConditionSpec("class", CLASSES))
    weights = sum(each.numel() for each in network.parameters())
    eleven, twelve = steps["dit, classes"]
    gradients, hosts = "all_reduce torch.float32", "all_reduce torch.float64"
    a_step = {what: (twelve[what][0] - n, twelve[what][1] - b) for what, (n, b) in eleven.items()}
    assert a_step[gradients] == (1, 4 * weights)
    assert a_step[hosts][0] == 2  # what is due before it, and which weights have a gradient
    eleven, twelve = steps["dispersive"]
    a_step = {what: (twelve[what][0] - n, twelve[what][1] - b) for what, (n, b) in eleven.items()}
    image, tokens, width = 64, 16, 32
    rows = 2  # 128 / 64
    assert a_step["all_gather torch.float32"] == (4, rows * 4 * (tokens * width + 2 * image + 1))
    assert a_step["all_gather torch.int64"] == (1, rows * 8)


def kept_by_all(team: Team, folder: Path) -> str:
    """What a plugin may do that knows nothing of teams: every member makes the same file."""
    job = Job(folder, team=team)

    def write(path: Path) -> None:
        path.write_text("the same", encoding="utf-8")
        team.wait()  # all are at it
        assert path.exists()

    for number in range(20):
        job.keep(f"{number}.txt", write)
    team.wait()
    return "".join(str(job.kept(f"{number}.txt") is not None) for number in range(20))


def test_members_that_make_the_same_file_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    assert together(2, tmp_path, kept_by_all) == ["True" * 20] * 2
    assert not list(tmp_path.glob("*.writing"))
