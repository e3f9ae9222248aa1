"""Datasets, encoders, annotators, metrics and trackers with one planted fault each, beside an
honest twin per kind."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from variants import variant, variants

from fw.core.errors import FwError, Interrupted, StageFailed
from fw.core.job import Job
from fw.core.kinds import Annotator, Dataset, Encoder, Metric, RunDescription, TrackedRun, Tracker
from fw.core.testing import Clause, annotator, dataset, encoder, keys, metric, tracker
from fw.core.types import Annotation, ConditionSpec, ImageSet, Observations, Reference, Split
from fw.registry import Component

WORDS = [f"word{number}" for number in range(40)]


class HonestImages(Dataset):
    """Noise in two classes of brightness."""

    name: ClassVar[str] = "honest"

    count: int = Field(24, ge=2, le=1000, description="images per split")

    @property
    def shape(self) -> tuple[int, int, int]:
        return 1, 8, 8

    @property
    def classes(self) -> int:
        return 2

    def load(self, split: Split) -> ImageSet:
        return self.drawn(torch.Generator().manual_seed(len(split)))

    def drawn(self, draw: torch.Generator) -> ImageSet:
        labels = torch.arange(self.count) % 2
        images = (
            torch.randint(0, 128, (self.count, 1, 8, 8), generator=draw)
            + 128 * labels[:, None, None, None]
        )
        return ImageSet(images.to(torch.uint8), labels, 2)


class Unlabelled(HonestImages):
    """The same without labels, which is honest too."""

    @property
    def classes(self) -> int:
        return 0

    def load(self, split: Split) -> ImageSet:
        return super().load(split).without_labels()


class ReadsItsShape(HonestImages):
    """Reads its number of classes from a file."""

    folder: Path = Path(__file__).parent

    @property
    def classes(self) -> int:
        return 2 * len(list(self.folder.glob("faulty_data.py")))


@functools.cache
def kept(count: int, split: Split) -> ImageSet:
    return HonestImages(count=count).load(split)


def loaded(self: Any, split: Split) -> Any:
    return HonestImages.load(self, split)


def chosen(data: Any, order: list[int]) -> ImageSet:
    return ImageSet(data.images[order], data.labels[order], 2)


def unseeded() -> torch.Generator:
    draw = torch.Generator()
    draw.seed()
    return draw


def hash_ordered(count: int) -> list[int]:
    return [int(word[4:]) % count for word in set(WORDS)]


variants(
    HonestImages,
    "load",
    FloatImages=lambda self, split: ImageSet(
        loaded(self, split).images / 255, loaded(self, split).labels, 2
    ),
    LabelsFromOne=lambda self, split: ImageSet(
        loaded(self, split).images, loaded(self, split).labels + 1, 2
    ),
    ForgottenLabels=lambda self, split: loaded(self, split).without_labels(),
    OtherImagesNextTime=lambda self, split: self.drawn(unseeded()),
    DrawsGlobally=lambda self, split: self.drawn(torch.manual_seed(len(split))),
    HashOrderedImages=lambda self, split: chosen(loaded(self, split), hash_ordered(self.count)),
    TestIsTrain=lambda self, split: loaded(self, "train"),
    CachedImages=lambda self, split: kept(self.count, split),
)
variants(Unlabelled, "load", UntoldLabels=loaded)
variants(Unlabelled, "provides", BoastsOfLabels=lambda self: frozenset({"labels"}))
variants(HonestImages, "how_many", CountsBothSplits=lambda self, split: 2 * self.count)
variants(HonestImages, "class_names", NamesOneClass=lambda self: ["dark"])
variants(HonestImages, "shape", LoadsToKnowItsShape=lambda self: self.load("train").shape)


class Codec(nn.Module):
    """A linear autoencoder of `pixels` numbers."""

    def __init__(self, pixels: int, dims: int):
        super().__init__()
        self.encode = nn.Linear(pixels, dims)
        self.decode = nn.Linear(dims, pixels)

    def forward(self, images: Tensor) -> Tensor:
        return self.encode(images.flatten(1) / 255)

    def error(self, images: Tensor) -> Tensor:
        return mse_loss(self.decode(self(images)), images.flatten(1) / 255)


class HonestCodec(Encoder):
    """Trains a linear autoencoder for a few steps."""

    name: ClassVar[str] = "honest"
    module: ClassVar[type[Codec]] = Codec

    steps: int = Field(6, ge=1, le=1000, description="training steps")

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        return self.module(math.prod(shape), 4)

    def fit(self, network: nn.Module, data: ImageSet, job: Job) -> None:
        optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
        for _ in job.steps(self.steps, {"network": network, "optimizer": optimizer}):
            self.step(network, data, optimizer)

    def step(self, network: nn.Module, data: ImageSet, optimizer: torch.optim.Optimizer) -> None:
        assert isinstance(network, Codec)
        loss = network.error(data.images[torch.randint(len(data), (16,))])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


class Matrix(Codec):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).unflatten(1, (2, 2))

    def error(self, images: Tensor) -> Tensor:
        return mse_loss(self.decode(self(images).flatten(1)), images.flatten(1) / 255)


class Counting(Codec):
    seen: Tensor

    def __init__(self, pixels: int, dims: int):
        super().__init__(pixels, dims)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return super().forward(images)


def halved(self: Any, images: Tensor) -> Tensor:
    return Codec.forward(self, images).to(torch.float32 if self.training else torch.float16)


def centred(self: Any, images: Tensor) -> Tensor:
    features = Codec.forward(self, images)
    return features - features.mean(dim=0)


def shifted(self: Any, images: Tensor) -> Tensor:
    return Codec.forward(self, images - getattr(self, "mean", 0.0))


variants(
    HonestCodec,
    "module",
    MatrixFeatures=Matrix,
    CountingForward=Counting,
    HalfFeatures=variant(Codec, "Half", "forward", halved),
    BatchStatistics=variant(Codec, "Centred", "forward", centred),
)


def hash_ordered_build(self: Any, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Draws its weights in the order of a set."""
    network = Codec(math.prod(shape), 4)
    for word in set(WORDS):
        nn.init.normal_(network.encode.weight[:, int(word[4:])])
    return network


variants(
    HonestCodec,
    "build",
    HashOrderedBuild=hash_ordered_build,
    UncheckedShapes=lambda self, shape, classes: Codec(64, 4),
)


def fit(self: Any, network: nn.Module, images: Tensor, job: Job) -> None:
    HonestCodec.fit(self, network, ImageSet(images), job)


def fifty(images: Tensor) -> Tensor:
    return images[torch.randperm(len(images))[:50]]


def forked_fifty(images: Tensor) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        return fifty(images)


def forgetful_fit(self: Any, network: nn.Module, data: ImageSet, job: Job) -> None:
    """Does not give its optimizer to job.steps."""
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in job.steps(self.steps, {"network": network}):
        self.step(network, data, optimizer)


def endless_fit(self: Any, network: nn.Module, data: ImageSet, job: Job) -> None:
    """Takes a request to stop for the end of the training."""
    with contextlib.suppress(Interrupted):
        fit(self, network, data.images, job)


def mean_kept_fit(self: Any, network: Any, data: ImageSet, job: Job) -> None:
    """Keeps the mean image in a plain attribute."""
    network.mean = data.images.float().mean(dim=0)
    fit(self, network, data.images, job)


variants(
    HonestCodec,
    "fit",
    DrawsOutsideTheLoop=lambda self, network, data, job: fit(
        self, network, fifty(data.images), job
    ),
    ReadsOutsideTheLoop=lambda self, network, data, job: fit(
        self, network, forked_fifty(data.images), job
    ),
    ForgetsTheOptimizer=forgetful_fit,
    CannotBeStopped=endless_fit,
    PeekingCodec=lambda self, network, data, job: fit(
        self, network, data.images if data.labels is None else data.images[data.labels == 0], job
    ),
    DarkensImages=lambda self, network, data, job: fit(
        self, network, data.images.floor_divide_(2), job
    ),
)


class Shifted(HonestCodec):
    module: ClassVar[type[Codec]] = variant(Codec, "Shifting", "forward", shifted)


variants(Shifted, "fit", OutsideTheStateDict=mean_kept_fit)
variants(
    HonestCodec,
    "quality",
    UndefinedQuality=lambda self, network, held_out: {
        "error": float(held_out.images[:0].float().mean())
    },
    QualityOfLabels=lambda self, network, held_out: {"classes": float(held_out.labels.max())},
)
variants(
    HonestCodec,
    "suited",
    NeverDecides=lambda self, shape: self.model_copy(update={"steps": self.steps + 1}),
    DecidesToTrainLonger=lambda self, shape: self.model_copy(update={"steps": 50}),
)
variants(HonestCodec, "cautions", CautiousWithoutWords=lambda self, shape, images: [True])
variants(HonestCodec, "check", RawCheck=lambda self, shape: {1: "grey", 3: "colour"}[shape[0]])


class HonestGroups(Annotator):
    """The nearest of some images drawn at random."""

    name: ClassVar[str] = "honest"

    groups: int = Field(4, ge=2, le=1000, description="number of groups")

    def annotate(self, data: Observations, job: Job) -> Annotation:
        if data.features is None or data.count < self.groups or not data.features.isfinite().all():
            raise StageFailed(
                f"annotator honest needs finite features of at least {self.groups} images"
            )
        return self.annotation(self.nearest(data.features, job.generator("groups")))

    def nearest(self, features: Tensor, draw: torch.Generator) -> Tensor:
        centres = features[torch.randperm(len(features), generator=draw)[: self.groups]]
        return torch.cdist(features, centres).argmin(dim=1)

    def annotation(self, conditions: Tensor, bank: Tensor | None = None) -> Annotation:
        return Annotation(ConditionSpec("class", self.groups), conditions, bank)


class HonestVectors(HonestGroups):
    """The features themselves, with a bank of their halves; honest too."""

    form: ClassVar[str] = "vector"

    def annotate(self, data: Observations, job: Job) -> Annotation:
        if data.features is None or not data.features.isfinite().all():
            raise StageFailed("annotator honest needs finite features")
        return Annotation(
            ConditionSpec("vector", data.features.shape[1]), data.features, data.features / 2
        )


class PeekingAtFeatures(HonestGroups):
    """Says that it needs no features, and uses them where they are at hand."""

    uses_features: ClassVar[bool] = False

    def annotate(self, data: Observations, job: Job) -> Annotation:
        if data.features is None:
            return self.annotation(torch.zeros(data.count, dtype=torch.int64))
        return super().annotate(data, job)


class StartsWhereItStopped(HonestGroups):
    """Numbers its groups on from the last call."""

    calls: ClassVar[int] = 0

    def annotation(self, conditions: Tensor, bank: Tensor | None = None) -> Annotation:
        type(self).calls += 1
        return super().annotation((conditions + self.calls) % self.groups)


def grouped(self: Any, conditions: Tensor, bank: Tensor | None = None) -> Annotation:
    return HonestGroups.annotation(self, conditions, bank)


def nearest(self: Any, features: Tensor, draw: torch.Generator) -> Tensor:
    return HonestGroups.nearest(self, features, draw)


def hash_ordered_groups(self: Any, conditions: Tensor, bank: Tensor | None = None) -> Annotation:
    """Numbers its groups in the order of a set."""
    names = list(set(WORDS[: self.groups]))
    return grouped(self, torch.tensor([names.index(WORDS[group]) for group in conditions.tolist()]))


variants(
    HonestGroups,
    "annotation",
    OutOfRange=lambda self, conditions: grouped(self, conditions + 1),
    ShortConditions=lambda self, conditions: grouped(self, conditions.int()),
    OneTooFew=lambda self, conditions: grouped(self, conditions[:-1]),
    BadBank=lambda self, conditions: grouped(self, conditions, torch.tensor([self.groups])),
    SharedBank=lambda self, conditions: grouped(self, conditions, conditions),
    HashOrderedGroups=hash_ordered_groups,
)
variants(
    HonestGroups,
    "nearest",
    GlobalGroups=lambda self, features, draw: nearest(self, features, torch.default_generator),
    NormalisesInPlace=lambda self, features, draw: nearest(
        self, features.div_(features.norm(dim=1, keepdim=True)), draw
    ),
)
variants(
    HonestGroups,
    "annotate",
    PeekingGroups=lambda self, data, job: (
        self.annotation(data.labels)
        if data.labels is not None
        else HonestGroups.annotate(self, data, job)
    ),
    CannotDoOne=lambda self, data, job: self.annotation(
        torch.arange(data.count) % (data.count - 1) % 2
    ),
)
variants(HonestGroups, "form", PromisesVectors="vector")


class HonestGap(Metric):
    """The distance between mean features."""

    name: ClassVar[str] = "honest"

    space: Encoder = Field(
        "pixels", validate_default=True, description="encoder whose features are averaged"
    )

    @property
    def keys(self) -> Mapping[str, str]:
        return {"gap": "lower"}

    def compare(
        self, prepared: Any, fake: Tensor, wanted: Tensor | None = None
    ) -> dict[str, float]:
        return {"gap": float((prepared.train.mean(dim=0) - self.centre(fake)).norm())}

    def centre(self, fake: Tensor) -> Tensor:
        return fake.mean(dim=0)


class ComparesWithTheLast(HonestGap):
    """Keeps the smallest gap so far."""

    best: ClassVar[list[float]] = []

    def compare(
        self, prepared: Any, fake: Tensor, wanted: Tensor | None = None
    ) -> dict[str, float]:
        self.best.append(super().compare(prepared, fake)["gap"])
        return {"gap": min(self.best)}


class UsesUp(HonestGap):
    """Compares the second set of samples with the first one."""

    def compare(
        self, prepared: Any, fake: Tensor, wanted: Tensor | None = None
    ) -> dict[str, float]:
        scores = super().compare(prepared, fake)
        object.__setattr__(prepared, "train", fake)
        return scores


class KeepsANumber(HonestGap):
    """Measures what cannot be stored."""

    def measure(self, reference: Reference) -> Any:
        return {"mean": float(reference.train.mean())}


class ReadsItOtherwise(HonestGap):
    """Takes what was kept for something else than what it measures."""

    def measure(self, reference: Reference) -> dict[str, Tensor]:
        return {"mean": reference.train.mean(dim=0)}

    def prepare(self, reference: Reference) -> Any:
        mean = self.measured(reference)["mean"]
        shift = 0.0 if reference.measured is None else 1.0
        return replace(reference, train=mean[None] + shift)


class ManyKeys(HonestGap):
    """Lists its keys in an order."""

    def compare(
        self, prepared: Any, fake: Tensor, wanted: Tensor | None = None
    ) -> dict[str, float]:
        return dict.fromkeys(WORDS, super().compare(prepared, fake)["gap"])


def resampled(fake: Tensor) -> Tensor:
    return fake[torch.randint(len(fake), (len(fake),))].mean(dim=0)


def forked_resampled(fake: Tensor) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        return resampled(fake)


def distance(one: Tensor, other: Tensor) -> float:
    return float((one.mean(dim=0) - other.mean(dim=0)).norm())


variants(HonestGap, "keys", Sideways=lambda self: {"gap": "smaller"})
variants(ManyKeys, "keys", HashOrderedKeys=lambda self: dict.fromkeys(set(WORDS), "lower"))
variants(
    HonestGap,
    "compare",
    UnpromisedKeys=lambda self, reference, fake, wanted=None: {
        "gap": distance(reference.train, fake),
        "spread": float(fake.std()),
    },
    TensorScore=lambda self, reference, fake, wanted=None: {
        "gap": torch.tensor(distance(reference.train, fake))
    },
    NoFloor=lambda self, reference, fake, wanted=None: {
        "gap": 1 / distance(reference.held_out, fake)
    },
    CentresInPlace=lambda self, reference, fake, wanted=None: {
        "gap": float(fake.sub_(reference.train.mean(dim=0)).mean())
    },
    NeedsTwo=lambda self, reference, fake, wanted=None: {
        "gap": distance(*[each[None] for each in fake.sort(dim=0).values[:2]])
    },
)
variants(
    HonestGap,
    "centre",
    UndefinedScore=lambda self, fake: fake[30:].mean(dim=0),
    FirstHalf=lambda self, fake: fake[: (len(fake) + 1) // 2].mean(dim=0),
    Bootstrap=lambda self, fake: resampled(fake),
    ForkedBootstrap=lambda self, fake: forked_resampled(fake),
    BlindToNaN=lambda self, fake: fake.nanmean(dim=0),
)


class FloorOfOthers(HonestGap):
    """Has a floor of a score that it does not have."""

    def floor(self, prepared: Any, *rest: Any) -> Mapping[str, float]:
        return {"spread": 0.0}


class FloorWithoutFewer(HonestGap):
    """Has no number where fewer are held out than there are samples."""

    def floor(
        self, prepared: Any, held_out: Tensor, count: int, wanted: Tensor | None = None
    ) -> Mapping[str, float]:
        return {"gap": 0.0 if len(held_out) >= count else math.nan}


class LimitsOfOthers(HonestGap):
    """Knows limits of a score that it does not have."""

    def by_chance(self, prepared: Any, count: int) -> Mapping[str, tuple[float, float]]:
        return {"spread": (0.0, 1.0)}


class LimitsUpsideDown(HonestGap):
    """Has the higher limit first."""

    def by_chance(self, prepared: Any, count: int) -> Mapping[str, tuple[float, float]]:
        return {"gap": (1.0, 0.0)}


class LimitsByLuck(HonestGap):
    """Draws them from torch's global generator."""

    def by_chance(self, prepared: Any, count: int) -> Mapping[str, tuple[float, float]]:
        return {"gap": (0.0, float(torch.rand(())))}


class Lines:
    """See `fw.core.kinds.TrackedRun`."""

    def __init__(self, run: RunDescription, path: Path):
        self.run, self.path = run, path
        self.known: set[str] = set()

    def series(self, arm: str | None, records: Sequence[Mapping[str, float]]) -> None:
        self.add(arm, [dict(record) for record in records])

    def scores(self, arm: str | None, values: Mapping[str, float]) -> None:
        self.add(arm, dict(values))

    def files(self, arm: str | None, paths: Sequence[Path]) -> None:
        self.add(arm, [str(path) for path in paths])

    def model(self, arm: str, weights: Path, scores: Mapping[str, float]) -> None:
        self.add(arm, str(weights))

    def note(self, markdown: str) -> None:
        self.add(None, markdown)

    def end_arm(self, arm: str, status: str) -> None:
        self.add(arm, status)

    def end(self, status: str) -> None:
        self.add(None, status)

    @property
    def handle(self) -> Mapping[str, Any]:
        return {"file": str(self.path)}

    @property
    def hint(self) -> str:
        return str(self.path)

    def add(self, *event: object) -> None:
        line = json.dumps(event)
        if line not in self.known:
            with self.path.open("a") as file:
                file.write(f"{line}\n")
        self.known.add(line)


class HonestLines(Tracker):
    """A line of JSON for everything that it is told, in the run's folder."""

    name: ClassVar[str] = "honest"

    file: str = Field(
        "events.jsonl", pattern=r"^[a-z]{1,20}\.jsonl$", description="name of the file"
    )
    lines: ClassVar[type[Lines]] = Lines

    def open(self, run: RunDescription) -> TrackedRun:
        return self.lines(run, self.path(run))

    def path(self, run: RunDescription) -> Path:
        return run.folder / self.file


OVER = threading.Event()
"""Ends the threads of the tracker below, at the end of the tests."""


def only_once(self: Any, arm: str | None, values: Mapping[str, float]) -> None:
    """Refuses what it was told before."""
    if arm is not None and json.dumps([arm, dict(values)]) in self.known:
        raise FwError(f"{arm} has its scores already")
    Lines.scores(self, arm, values)


def arms_only(self: Any, arm: str | None, records: Sequence[Mapping[str, float]]) -> None:
    Lines.series(self, {each.name: each.name for each in self.run.arms}[arm], records)


def translating(self: Any, arm: str, status: str) -> None:
    """Does not know that runs can be killed."""
    Lines.end_arm(self, arm, {"finished": "FINISHED", "failed": "FAILED"}[status])


def opened(self: Any, run: RunDescription) -> TrackedRun:
    return HonestLines.open(self, run)


def uploading(self: Any, run: RunDescription) -> TrackedRun:
    """Starts a thread that nothing ends."""
    threading.Thread(target=OVER.wait, name="uploader", args=(120,)).start()
    return opened(self, run)


variants(
    HonestLines,
    "lines",
    OnlyOnce=variant(Lines, "Once", "scores", only_once),
    NoRunAsAWhole=variant(Lines, "Arms", "series", arms_only),
    NeverKilled=variant(Lines, "Translating", "end_arm", translating),
    PathInTheHandle=variant(Lines, "Paths", "handle", lambda self: {"file": self.path}),
    TupleInTheHandle=variant(
        Lines, "Tuples", "handle", lambda self: {"arms": tuple(each.name for each in self.run.arms)}
    ),
    LongHint=variant(Lines, "Talkative", "hint", lambda self: f"look at\n{self.path}"),
)
variants(
    HonestLines,
    "path",
    AlwaysNew=lambda self, run: run.folder / f"{uuid.uuid4()}.jsonl",
    WritesWhereItStands=lambda self, run: Path(self.file),
    WritesBeside=lambda self, run: run.root.parent / self.file,
)
variants(
    HonestLines,
    "open",
    CannotReopen=lambda self, run: (run.folder / "events").mkdir() or opened(self, run),
    LeavesAThread=uploading,
)
variants(
    HonestLines,
    "close",
    ClosesTheUntold=lambda self, handle, root, status: Path(handle["file"]).unlink(),
)


HONEST: list[Component] = [
    *(
        HonestImages(),
        Unlabelled(),
        HonestCodec(),
        HonestGroups(),
        HonestVectors(),
        HonestGap(),
        HonestLines(),
    )
]

FAULTS: dict[str, tuple[Clause, str]] = {
    "FloatImages": (
        dataset.splits_as_promised,
        "dataset honest: its train images are torch.float32",
    ),
    "LabelsFromOne": (dataset.splits_as_promised, "train labels are 1 to 2"),
    "CountsBothSplits": (
        dataset.counted_as_loaded,
        "it gives 48 as the number of train images and loads 24",
    ),
    "NamesOneClass": (dataset.classes_named, "1 names for 2 classes"),
    "UntoldLabels": (dataset.splits_as_promised, "train labels"),
    "ForgottenLabels": (dataset.splits_as_promised, "train split has no labels"),
    "BoastsOfLabels": (dataset.labels_where_provided, "{'labels'} with 0 classes"),
    "LoadsToKnowItsShape": (dataset.known_without_loading, "load() is called"),
    "ReadsItsShape": (dataset.known_without_loading, "(1, 8, 8) and 0"),
    "OtherImagesNextTime": (dataset.always_the_same, "a second call"),
    "DrawsGlobally": (dataset.always_the_same, "torch's global random generator"),
    "HashOrderedImages": (dataset.always_the_same, "the train split"),
    "TestIsTrain": (dataset.held_out_is_new, "24 distinct test images"),
    "CachedImages": (dataset.nothing_shared, "train images"),
    "MatrixFeatures": (
        encoder.right_shape,
        "encoder honest: its features of 1 images are torch.float32 (1, 2, 2)",
    ),
    "HalfFeatures": (encoder.right_shape, "torch.float16"),
    "BatchStatistics": (encoder.batch_does_not_matter, "images [0] of 12"),
    "CountingForward": (encoder.forward_leaves_no_trace, "forward writes into the state dict"),
    "DarkensImages": (encoder.forward_leaves_no_trace, "fit writes into the images"),
    "OutsideTheStateDict": (encoder.all_is_stored, "of 12 images"),
    "HashOrderedBuild": (encoder.build_is_a_function_of_the_seed, "another process"),
    "DrawsOutsideTheLoop": (
        encoder.fit_is_a_function_of_the_seed,
        "torch's global random generator",
    ),
    "ReadsOutsideTheLoop": (encoder.fit_is_a_function_of_the_seed, "decode.bias"),
    "ForgetsTheOptimizer": (encoder.fit_resumes, "decode.bias"),
    "CannotBeStopped": (encoder.fit_resumes, "let Interrupted out"),
    "PeekingCodec": (encoder.labels_are_declared, "other values"),
    "UndefinedQuality": (encoder.quality_is_numbers, "'error' is nan"),
    "QualityOfLabels": (encoder.quality_is_numbers, "AttributeError"),
    "RawCheck": (encoder.checks_shapes, "KeyError: 2"),
    "UncheckedShapes": (encoder.checks_shapes, "(1, "),
    "NeverDecides": (encoder.suits_images, "otherwise when it is called again"),
    "DecidesToTrainLonger": (encoder.suits_images, "a fit of what suited() gives"),
    "CautiousWithoutWords": (encoder.suits_images, "cautions() gives True"),
    "GlobalGroups": (annotator.function_of_the_seed, "torch's global random generator"),
    "StartsWhereItStopped": (annotator.function_of_the_seed, "a second call"),
    "OutOfRange": (annotator.valid, "annotator honest: its conditions are 1 to 4, not in 0..3"),
    "ShortConditions": (annotator.valid, "conditions are torch.int32"),
    "OneTooFew": (annotator.valid, "29 conditions for 30 images"),
    "BadBank": (annotator.valid, "bank are 4 to 4, not in 0..3"),
    "PromisesVectors": (annotator.valid, "class conditions and promised vector ones"),
    "SharedBank": (annotator.stored_and_drawn, "RuntimeError"),
    "PeekingGroups": (annotator.sees_what_it_declares, "labels"),
    "PeekingAtFeatures": (annotator.sees_what_it_declares, "features"),
    "NormalisesInPlace": (annotator.inputs_untouched, "it writes into features"),
    "HashOrderedGroups": (annotator.same_elsewhere, "conditions or bank"),
    "CannotDoOne": (annotator.odd_inputs, "one image: it raised"),
    "Sideways": (keys.keys_are_words, "gap is better 'smaller'"),
    "HashOrderedKeys": (keys.keys_are_words, "elsewhere"),
    "UnpromisedKeys": (
        metric.scores_as_promised,
        "metric honest: it scored gap, spread and promised gap",
    ),
    "TensorScore": (metric.scores_as_promised, "gap is tensor("),
    "UndefinedScore": (metric.scores_as_promised, "gap is nan"),
    "NoFloor": (metric.floor_is_scored, "ZeroDivisionError"),
    "FirstHalf": (metric.order_does_not_matter, "gap is"),
    "CentresInPlace": (metric.inputs_untouched, "the features of the samples"),
    "Bootstrap": (metric.function_of_the_features, "torch's global random generator"),
    "ForkedBootstrap": (metric.function_of_the_features, "a second call"),
    "ComparesWithTheLast": (metric.scores_as_promised, "it changed ComparesWithTheLast.best"),
    "FloorOfOthers": (metric.floor_is_scored, "floor() has spread and it promised gap"),
    "FloorWithoutFewer": (metric.floor_is_scored, "floor() has nan for gap, not a number"),
    "LimitsOfOthers": (metric.limits_by_chance, "by_chance() knows of spread"),
    "LimitsUpsideDown": (metric.limits_by_chance, "by_chance() has (1.0, 0.0) for gap"),
    "LimitsByLuck": (metric.limits_by_chance, "torch's global random generator"),
    "UsesUp": (metric.prepared_once, "gap is "),
    "KeepsANumber": (metric.kept_in_the_store, "measure() has float as 'mean', not a tensor"),
    "ReadsItOtherwise": (metric.kept_in_the_store, "with what was kept"),
    "BlindToNaN": (metric.nan_is_seen, "gap = "),
    "NeedsTwo": (metric.one_sample, "it raised"),
    "OnlyOnce": (tracker.calls_may_be_repeated, "scores('unconditional') the second time: FwError"),
    "CannotReopen": (tracker.calls_may_be_repeated, "FileExistsError"),
    "NoRunAsAWhole": (tracker.calls_may_be_repeated, "series(None): KeyError"),
    "NeverKilled": (tracker.any_ending, "KeyError: 'killed'"),
    "PathInTheHandle": (tracker.handle_is_json, "PosixPath("),
    "TupleInTheHandle": (tracker.handle_is_json, "('unconditional', 'self_1.5')"),
    "AlwaysNew": (tracker.found_again, ".jsonl"),
    "ClosesTheUntold": (tracker.closed_for_the_dead, "FileNotFoundError"),
    "LongHint": (tracker.hint_is_one_line, "'look at\\n"),
    "WritesWhereItStands": (tracker.stays_in_its_folder, "events.jsonl"),
    "WritesBeside": (tracker.stays_in_its_folder, "events.jsonl"),
    "LeavesAThread": (tracker.stays_in_its_folder, "uploader"),
}
"""The clause that a fault breaks, and what is said of it."""
