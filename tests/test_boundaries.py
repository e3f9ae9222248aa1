"""What a component hands over is checked where it crosses: one line that names the component,
and other arms go on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import sites
import torch
import toys
from saying import says
from sites import fw
from test_executor import Heard
from torch import Tensor, nn

from fw.core.errors import StageFailed
from fw.core.execution.executor import Outcome
from fw.core.execution.local import run_here
from fw.core.execution.place import Place
from fw.core.kinds import boundaries
from fw.core.plan.assembly import plan
from fw.core.plan.graph import Plan
from fw.core.recipe.loading import validate
from fw.core.recipe.source import parse
from fw.core.store.store import Store
from fw.core.types import Annotation, ConditionSpec, ImageSet
from fw.registry import Provider

NAN = float("nan")


class Bad(toys.Dots):
    """A dataset that breaks its promises."""

    name: ClassVar[str] = "bad"
    fault: str

    def load(self, split: Any) -> ImageSet:
        good = super().load(split)
        images, labels = good.images, good.labels
        assert labels is not None
        return {
            "floats": ImageSet(images.float(), labels, 2),
            "flat": ImageSet(images[:, 0], labels, 2),
            "large": ImageSet(images.repeat(1, 1, 2, 2), labels, 2),
            "none": ImageSet(images[:0], labels[:0], 2),
            "array": ImageSet(images.numpy(), labels, 2),
            "short labels": ImageSet(images, labels[:-1], 2),
            "int32 labels": ImageSet(images, labels.int(), 2),
            "no labels": ImageSet(images),
            "three labels": ImageSet(images, labels + 1, 2),
            "three classes": ImageSet(images, labels, 3),
            "bad test": good if split == "train" else ImageSet(images.float(), labels, 2),
        }[self.fault]


class Twisted(toys.Pool):
    """Features with a fault."""

    def __init__(self, fault: str):
        super().__init__(2)
        self.fault = fault

    def forward(self, images: Tensor) -> Any:
        features = super().forward(images)
        match self.fault:
            case "nan":
                return torch.where(
                    torch.arange(len(features))[:, None] < 3, features.new_tensor(NAN), features
                )
            case "inf":
                return features / 0
            case "images":
                return features.view(-1, 1, 2, 2)
            case "one":
                return features.mean(0, keepdim=True)
            case "no columns":
                return features[:, :0]
        return features.tolist()


class Crooked(toys.Mean):
    """An encoder whose features have a fault."""

    name: ClassVar[str] = "crooked"
    fault: str

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        return Twisted(self.fault)


def classes(values: Any, size: int = 2, bank: Tensor | None = None) -> Annotation:
    return Annotation(ConditionSpec("class", size), values, bank)


class Careless(toys.Coin):
    """Class conditions with a fault."""

    name: ClassVar[str] = "careless"
    fault: str

    def annotate(self, data: Any, job: Any) -> Annotation:
        good = torch.arange(data.count) % 2
        return {
            "too few": classes(good[:-1]),
            "too large": classes(good + 1),
            "negative": classes(-good),
            "floats": classes(good.float()),
            "columns": classes(good[:, None]),
            "none": classes(good[:0]),
            "a list": classes(good.tolist()),
            "bank": classes(good, bank=good + 5),
            "empty bank": classes(good, bank=good[:0]),
            "vectors": Annotation(ConditionSpec("vector", 1), good.float()[:, None]),
        }[self.fault]


class Vague(toys.Coin):
    """Vector conditions with a fault."""

    name: ClassVar[str] = "vague"
    form: ClassVar[str] = "vector"
    fault: str

    def annotate(self, data: Any, job: Any) -> Annotation:
        good = torch.ones(data.count, 3)
        values: Any = {
            "narrow": good[:, :2],
            "double": good.double(),
            "nan": good * NAN,
            "flat": good[:, 0],
        }
        return Annotation(ConditionSpec("vector", 3), values[self.fault])


class Wrong(toys.Free):
    """A worse prediction with a fault."""

    name: ClassVar[str] = "wrong"
    fault: str

    def worse(self, model: Any, x: Tensor, sigma: float, condition: Any, good: Tensor) -> Any:
        return {"flat": good.flatten(1), "one": good[:1], "number": 0.5, "nan": good * NAN}[
            self.fault
        ]


class Lost(toys.Euler):
    """Samples with a fault."""

    name: ClassVar[str] = "lost"
    fault: str

    def sample(self, denoise: Any, noise: Tensor, generators: Any) -> Any:
        good = super().sample(denoise, noise, generators)
        return {
            "half": good[: len(good) // 2],
            "larger": good.repeat(1, 1, 2, 2),
            "list": list(good),
            "nan": torch.where(torch.arange(len(good))[:, None, None, None] == 1, NAN, good),
            "inf": good / 0,
        }[self.fault]


class Vain(toys.Gap):
    """Scores with a fault."""

    name: ClassVar[str] = "vain"
    fault: str

    def compare(self, prepared: Any, fake: Tensor, wanted: Tensor | None = None) -> dict[str, Any]:
        key = f"gap_{self.space.name}"
        faults: Mapping[str, dict[str, Any]] = {
            "other": {"gap": 1.0},
            "more": {key: 1.0, "gap": 1.0},
            "none": {},
            "nan": {key: NAN},
            "tensor": {key: torch.tensor(1.0)},
            "rows": {key: torch.ones(9, 9)},
            "text": {key: "good"},
        }
        return faults[self.fault]


class Straight(toys.Linear):
    """A backbone whose network is not what fw calls."""

    name: ClassVar[str] = "straight"
    fault: str

    def build(self, shape: tuple[int, int, int], condition: ConditionSpec | None) -> Any:
        class Base(toys.LinearNetwork):
            pass

        class Plain(Base):
            def forward(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
                return x

        class Keywords(Base):
            def forward(self, x: Tensor, t: Tensor, *, condition: Any = None) -> Tensor:
                return x

        class Several(Base):
            def forward(self, x: Tensor, *rest: Any) -> Any:
                return x, x

        class Mean(Base):
            def forward(self, x: Tensor, *rest: Any) -> Tensor:
                return super().forward(x, *rest).mean(dim=(2, 3), keepdim=True)

        made = {"plain": Plain, "keywords": Keywords, "several": Several, "mean": Mean}
        return made[self.fault](condition) if self.fault in made else self.fault


def registry() -> Any:
    found = toys.registry()
    found.add(Provider("bad"), [Bad, Crooked, Careless, Vague, Wrong, Lost, Vain, Straight])
    return found


DATA = "dataset={{name: bad, fault: {}}}"
ENCODER = "arms.bad={{encoder: {{name: crooked, fault: {}}}}}"
CLASSES = "arms.bad={{annotator: {{name: careless, fault: {}}}}}"
VECTORS = "arms.bad={{annotator: {{name: vague, fault: {}}}}}"
WORSE = "arms.bad={{guidance: {{name: wrong, scale: 2, fault: {}}}}}"
SAMPLER = "arms.bad={{sampler: {{name: lost, fault: {}}}}}"
NETWORK = "arms.bad={{model: {{name: straight, fault: {}}}}}"
METRIC = "metrics=[{{name: gap, space: flat}}, {{name: vain, space: mean, fault: {}}}]"

IMAGES = "not torch.uint8 (N, 1, 4, 4)"
FEATURES = "not torch.float32 (20, D)"

SAID = {
    (DATA, "dataset bad: "): {
        "floats": f"train images ... torch.float32 (20, 1, 4, 4) ... {IMAGES}",
        "flat": f"train images ... torch.uint8 (20, 4, 4) ... {IMAGES}",
        "large": f"train images ... torch.uint8 (20, 1, 8, 8) ... {IMAGES}",
        "none": f"train images ... torch.uint8 (0, 1, 4, 4) ... {IMAGES}",
        "array": f"train images ... ndarray ... {IMAGES}",
        "short labels": "train labels ... torch.int64 (19,) ... not torch.int64 (20,)",
        "int32 labels": "train labels ... torch.int32 (20,) ... not torch.int64 (20,)",
        "no labels": "train ... no labels ... promised 2",
        "three labels": "train labels ... 1 to 2 of 2 classes ... promised 2",
        "three classes": "train labels ... 0 to 1 of 3 classes ... promised 2",
    },
    (ENCODER, "encoder crooked: "): {
        "nan": "features of 3 of 20 images ... not finite",
        "inf": "features of 20 of 20 images ... not finite",
        "images": "features of 20 images ... torch.float32 (20, 1, 2, 2) ... not torch.float32",
        "one": f"features of 20 images ... torch.float32 (1, 4) ... {FEATURES}",
        "a list": f"features of 20 images ... list ... {FEATURES}",
        "no columns": "features of 20 images ... torch.float32 (20, 0) ... not torch.float32",
    },
    (NETWORK, "backbone straight: "): {
        "plain": (
            "forward(x: 'Tensor', t: 'Tensor', c: 'Tensor') ... by position ... write forward(x, "
            "noise, "
        ),
        "keywords": "forward(x: 'Tensor', t: 'Tensor', *, condition: 'Any'",
        "a word": "build() ... str ... torch.nn.Module",
    },
    (NETWORK, "the network "): {
        "several": "Several ... a tuple ... torch.float32 (8, 1, 4, 4) ... one tensor",
        "mean": "Mean ... torch.float32 (8, 1, 1, 1) ... torch.float32 (8, 1, 4, 4)",
    },
    (CLASSES, "annotator careless: "): {
        "too few": "19 conditions for 20 images",
        "too large": "conditions ... 1 to 2 ... 0..1",
        "negative": "conditions ... -1 to 0 ... 0..1",
        "floats": "conditions ... torch.float32 (20,) ... not torch.int64 (N,)",
        "columns": "conditions ... torch.int64 (20, 1) ... not torch.int64 (N,)",
        "none": "conditions ... empty",
        "a list": "conditions ... a list ... not torch.int64 (N,)",
        "bank": "bank ... 5 to 6 ... 0..1",
        "empty bank": "bank ... empty",
        "vectors": "vector ... promised class",
    },
    (VECTORS, "annotator vague: "): {
        "narrow": "conditions ... torch.float32 (20, 2) ... not torch.float32 (N, 3)",
        "double": "conditions ... torch.float64 (20, 3) ... not torch.float32 (N, 3)",
        "flat": "conditions ... torch.float32 (20,) ... not torch.float32 (N, 3)",
        "nan": "conditions ... not all finite",
    },
    (WORSE, "guidance wrong: worse() "): {
        "flat": "torch.float32 (250, 16) ... torch.float32 (250, 1, 4, 4)",
        "one": "torch.float32 (1, 1, 4, 4) ... torch.float32 (250, 1, 4, 4)",
        "number": "a float ... torch.float32 (250, 1, 4, 4)",
    },
    (WORSE, "sampler euler: "): {"nan": "250 of 250 samples ... not finite ... guidance 'wrong'"},
    (SAMPLER, "sampler lost: "): {
        "half": "torch.float32 (125, 1, 4, 4) ... torch.float32 (250, 1, 4, 4)",
        "larger": "torch.float32 (250, 1, 8, 8) ... torch.float32 (250, 1, 4, 4)",
        "list": "a list ... torch.float32 (250, 1, 4, 4)",
        "nan": "1 of 250 samples ... not finite ... diverged",
        "inf": "250 of 250 samples ... not finite",
    },
    (METRIC, "metric vain: "): {
        "other": "scored gap and promised gap_mean",
        "more": "scored gap_mean, gap and promised gap_mean",
        "none": "scored nothing and promised gap_mean",
        "nan": "gap_mean is nan",
        "tensor": "gap_mean is tensor(1.)",
        "rows": "gap_mean is tensor([[1.",
        "text": "gap_mean is 'good'",
    },
}


def planned(*sets: str) -> Plan:
    source = parse(toys.RECIPE, "r.yaml")
    source.set(sets)
    return plan(validate(source, registry()))


def executed(found: Plan, root: Path) -> Outcome:
    Store(root).create()
    return run_here(
        found, (), Place(root, "cpu", threads=1, checkpoint_seconds=20), Heard(), lambda: False
    )


@pytest.mark.parametrize(
    ("naming", "fault", "said"),
    [
        (naming, fault, f"{begin} ... {said}")
        for (naming, begin), faults in SAID.items()
        for fault, said in faults.items()
    ],
    ids=lambda value: value.replace("{}", "")[:20],
)
def test_what_breaks_its_promise_ends_its_stages_in_one_line_that_names_it(
    naming: str, fault: str, said: str, tmp_path: Path
) -> None:
    found = planned(naming.format(fault))
    outcome = executed(found, tmp_path)
    assert outcome.failed
    for reason in outcome.failed.values():
        assert says(reason, said)
        assert len(reason.splitlines()) == 1
        assert len(reason) < 500
    if "arms.bad" in naming:
        [failed] = outcome.failed
        others = {
            stage
            for name, arm in found.arms.items()
            if name != "bad"
            for stage in found.needed(arm)
        }
        assert failed not in others
        assert all(Store(tmp_path).status(stage).state == "done" for stage in others)


def test_a_fault_in_the_test_split_is_found_where_that_is_read(tmp_path: Path) -> None:
    outcome = executed(planned(DATA.format("bad test")), tmp_path)
    assert {stage.partition("-")[0] for stage in outcome.failed} == {"encode"}
    [reason] = set(outcome.failed.values())
    assert says(
        reason, f"dataset bad: ... test images ... torch.float32 (20, 1, 4, 4) ... {IMAGES}"
    )


def test_features_of_samples_are_checked_too(tmp_path: Path) -> None:
    """A space that copes with real images only."""

    class Delicate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, images: Tensor) -> Tensor:
            features = images.float().flatten(1)
            return features if len(images) == 20 else features * NAN

    class Choosy(toys.Mean):
        name: ClassVar[str] = "choosy"

        def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
            return Delicate()

    found = registry()
    found.add(Provider("choosy"), [Choosy])
    source = parse(toys.RECIPE, "r.yaml")
    source.set(["metrics=[{name: gap, space: choosy}]"])
    outcome = executed(plan(validate(source, found)), tmp_path)
    assert {stage.partition("-")[0] for stage in outcome.failed} == {"features"}
    [reason] = set(outcome.failed.values())
    assert says(reason, "encoder choosy: ... features of 6 of 6 images ... not finite")


def test_what_keeps_its_promises_passes() -> None:
    dots = toys.Dots()
    data = dots.load("train")
    assert boundaries.checked_images(dots, data, "train") is data
    bare = toys.Dots(labelled=False)
    assert boundaries.checked_images(bare, bare.load("test"), "test").labels is None
    features = torch.zeros(3, 2)
    assert boundaries.checked_features(toys.Mean(), features, 3) is features
    annotation = classes(torch.tensor([0, 1, 1]), bank=torch.tensor([1]))
    assert boundaries.checked_annotation(toys.Coin(), annotation, 3) is annotation
    vectors = Annotation(ConditionSpec("vector", 2), torch.zeros(3, 2))
    assert boundaries.checked_annotation(Vague(fault="nan"), vectors, 3) is vectors
    scores = {"gap_mean": float("inf")}
    assert boundaries.checked_scores(toys.Gap(space=toys.Mean()), scores) is scores
    assert boundaries.checked_scores(toys.Gap(space=toys.Mean()), {"gap_mean": np.float64(1)}) == {
        "gap_mean": 1.0
    }
    with pytest.raises(StageFailed, match=r"labels .* 0 to 1 of 2 classes.* promised 0"):
        boundaries.checked_images(bare, data, "train")


def test_networks_that_fw_can_call_pass() -> None:
    class Starred(toys.LinearNetwork):
        def forward(self, *given: Any, **named: Any) -> Tensor:
            return super().forward(*given, **named)

    class Called(toys.LinearNetwork):
        def __call__(self, x: Tensor, noise: Tensor, *rest: Any) -> Tensor:
            return x

        def forward(self, x: Tensor) -> Tensor:
            return x

    class Decorated(toys.LinearNetwork):
        @torch.no_grad()
        def forward(self, *given: Any) -> Tensor:
            return super().forward(*given)

    class Narrow(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    patched = Narrow()
    patched.forward = lambda x, *rest: x  # type: ignore[method-assign]
    plain = toys.LinearNetwork(None)
    networks: list[Any] = [plain, Starred(None), Called(None), Decorated(None), patched]
    networks += [nn.DataParallel(plain), torch.compile(plain, backend="eager")]
    for network in networks:
        assert boundaries.checked_network(toys.Linear(), network) is network
        x = torch.zeros(2, 1, 4, 4)
        assert network(x, torch.zeros(2), None, None, None).shape == x.shape


def test_an_exception_of_many_lines_is_one_line_and_its_traceback_is_kept(tmp_path: Path) -> None:
    class Verbose(toys.Coin):
        name: ClassVar[str] = "verbose"

        def annotate(self, data: Any, job: Any) -> Annotation:
            raise RuntimeError("one\n\n  two\n" + "x" * 1000)

    found = registry()
    found.add(Provider("verbose"), [Verbose])
    source = parse(toys.RECIPE, "r.yaml")
    source.set(["arms.bad={annotator: verbose}"])
    [reason] = executed(plan(validate(source, found)), tmp_path).failed.values()
    [trace] = tmp_path.glob("annotate-*.partial/traceback.txt")
    assert reason == f"RuntimeError: one two ... (traceback in {trace})"
    assert "x" * 1000 in trace.read_text()


def test_a_run_with_a_faulty_arm_ends_with_1_and_the_arms_beside_it(tmp_path: Path) -> None:
    """From the command line, where the faulty component is a plugin's."""
    sites.toy_recipe(tmp_path)
    text = sites.GUIDANCE.format(name="mine").replace("return good / 2", "return good.flatten(1)")
    mine = sites.write(tmp_path / "my.py", text)
    with sites.site(tmp_path / "site"):
        words = (
            "--plugin",
            mine,
            "--set",
            "arms.bad={guidance: {name: mine, scale: 2}}",
            "--out",
            tmp_path / "runs",
        )
        done = fw("run", tmp_path / "toy.yaml", *words, "--device", "cpu", "--jobs", "1")
    assert done.code == 1
    lines = [line for line in done.err.splitlines() if "mine" in line]
    assert says(lines[-1], "sample bad: guidance mine: worse() ... torch.float32 (250, 16)")
    assert "Traceback" not in done.err
    report = (tmp_path / "runs/toy/latest/report.md").read_text()
    assert "| self_1.5 | " in report
    assert "| bad | failed |" in report
