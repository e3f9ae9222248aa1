"""Datasets, encoders, annotators, metrics and trackers with one planted fault each, beside an honest twin per kind."""

from __future__ import annotations

import functools
import json
import math
import threading
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from fw.core.errors import FwError, Interrupted, StageFailed
from fw.core.job import Job
from fw.core.kinds import Annotator, Dataset, Encoder, Metric, RunDescription, TrackedRun, Tracker
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
        images = torch.randint(0, 128, (self.count, 1, 8, 8), generator=draw) + 128 * labels[:, None, None, None]
        return ImageSet(images.to(torch.uint8), labels, 2)


class Unlabelled(HonestImages):
    """The same without labels, which is honest too."""

    @property
    def classes(self) -> int:
        return 0

    def load(self, split: Split) -> ImageSet:
        return super().load(split).without_labels()


class FloatImages(HonestImages):
    """Images in 0..1."""

    def load(self, split: Split) -> ImageSet:
        data = super().load(split)
        return ImageSet(data.images / 255, data.labels, 2)


class LabelsFromOne(HonestImages):
    """Counts its classes from 1."""

    def load(self, split: Split) -> ImageSet:
        data = super().load(split)
        assert data.labels is not None
        return ImageSet(data.images, data.labels + 1, 2)


class UntoldLabels(Unlabelled):
    """Hands out labels and says that there are no classes."""

    def load(self, split: Split) -> ImageSet:
        return HonestImages.load(self, split)


class ForgottenLabels(HonestImages):
    """Promises classes and hands out no labels."""

    def load(self, split: Split) -> ImageSet:
        return super().load(split).without_labels()


class BoastsOfLabels(Unlabelled):
    """Provides labels and has no classes."""

    @property
    def provides(self) -> frozenset[str]:
        return frozenset({"labels"})


class CountsBothSplits(HonestImages):
    """Tells of the images of both splits."""

    def how_many(self, split: Split) -> int:
        return sum(len(self.load(each)) for each in ("train", "test"))


class NamesOneClass(HonestImages):
    """Names the first of its two classes."""

    @property
    def class_names(self) -> Sequence[str]:
        return ["dark"]


class LoadsToKnowItsShape(HonestImages):
    """Looks at its images to tell their shape."""

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.load("train").shape


class ReadsItsShape(HonestImages):
    """Reads its number of classes from a file."""

    folder: Path = Path(__file__).parent

    @property
    def classes(self) -> int:
        return 2 * len(list(self.folder.glob("faulty_data.py")))


class OtherImagesNextTime(HonestImages):
    """Draws its images anew on every call, from a generator of its own."""

    def load(self, split: Split) -> ImageSet:
        draw = torch.Generator()
        draw.seed()
        return self.drawn(draw)


class DrawsGlobally(HonestImages):
    """Seeds torch's global generator to be the same each time."""

    def load(self, split: Split) -> ImageSet:
        torch.manual_seed(len(split))
        return self.drawn(torch.default_generator)


class HashOrderedImages(HonestImages):
    """Orders its images by a set of strings."""

    def load(self, split: Split) -> ImageSet:
        data = super().load(split)
        order = torch.tensor([int(word[4:]) % self.count for word in set(WORDS)])
        assert data.labels is not None
        return ImageSet(data.images[order], data.labels[order], 2)


class TestIsTrain(HonestImages):
    """Has no split at all."""

    def load(self, split: Split) -> ImageSet:
        return super().load("train")


class CachedImages(HonestImages):
    """Hands out the tensors that it keeps."""

    def load(self, split: Split) -> ImageSet:
        return kept(self.count, split)


@functools.cache
def kept(count: int, split: Split) -> ImageSet:
    return HonestImages(count=count).load(split)


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


class MatrixFeatures(HonestCodec):
    """A matrix of features per image."""

    class Matrix(Codec):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images).unflatten(1, (2, 2))

        def error(self, images: Tensor) -> Tensor:
            return mse_loss(self.decode(self(images).flatten(1)), images.flatten(1) / 255)

    module: ClassVar[type[Codec]] = Matrix


class HalfFeatures(HonestCodec):
    """Features in half precision."""

    class Half(Codec):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images).to(torch.float32 if self.training else torch.float16)

    module: ClassVar[type[Codec]] = Half


class BatchStatistics(HonestCodec):
    """Centres the features of each batch."""

    class Centred(Codec):
        def forward(self, images: Tensor) -> Tensor:
            features = super().forward(images)
            return features - features.mean(dim=0)

    module: ClassVar[type[Codec]] = Centred


class CountingForward(HonestCodec):
    """Counts the images that it has seen, in a buffer."""

    class Counting(Codec):
        seen: Tensor

        def __init__(self, pixels: int, dims: int):
            super().__init__(pixels, dims)
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, images: Tensor) -> Tensor:
            self.seen += len(images)
            return super().forward(images)

    module: ClassVar[type[Codec]] = Counting


class OutsideTheStateDict(HonestCodec):
    """Keeps the mean image in a plain attribute."""

    class Shifted(Codec):
        mean: Tensor | float = 0.0

        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images - self.mean)

    module: ClassVar[type[Codec]] = Shifted

    def fit(self, network: nn.Module, data: ImageSet, job: Job) -> None:
        network.mean = data.images.float().mean(dim=0)
        super().fit(network, data, job)


class HashOrderedBuild(HonestCodec):
    """Draws its weights in the order of a set."""

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        network = Codec(math.prod(shape), 4)
        for word in set(WORDS):
            nn.init.normal_(network.encode.weight[:, int(word[4:])])
        return network


class DrawsOutsideTheLoop(HonestCodec):
    """Chooses its images before the loop, from torch's global generator."""

    def fit(self, network: nn.Module, data: ImageSet, job: Job) -> None:
        super().fit(network, ImageSet(data.images[torch.randperm(len(data))[:50]]), job)


class ReadsOutsideTheLoop(HonestCodec):
    """The same, but puts the global generator back."""

    def fit(self, network: nn.Module, data: ImageSet, job: Job) -> None:
        with torch.random.fork_rng(devices=[]):
            chosen = torch.randperm(len(data))[:50]
        super().fit(network, ImageSet(data.images[chosen]), job)


class ForgetsTheOptimizer(HonestCodec):
    """Does not give its optimizer to job.steps."""

    def fit(self, network: nn.Module, data: ImageSet, job: Job) -> None:
        optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
        for _ in job.steps(self.steps, {"network": network}):
            self.step(network, data, optimizer)


class CannotBeStopped(HonestCodec):
    """Takes a request to stop for the end of the training."""

    def fit(self, network: nn.Module, data: ImageSet, job: Job) -> None:
        try:
            super().fit(network, data, job)
        except Interrupted:
            return


class PeekingCodec(HonestCodec):
    """Trains on the first class where it is told which one that is."""

    def fit(self, network: nn.Module, data: ImageSet, job: Job) -> None:
        chosen = data.images if data.labels is None else data.images[data.labels == 0]
        super().fit(network, ImageSet(chosen), job)


class DarkensImages(HonestCodec):
    """Preprocesses the training images in place."""

    def fit(self, network: nn.Module, data: ImageSet, job: Job) -> None:
        data.images.floor_divide_(2)
        super().fit(network, data, job)


class UndefinedQuality(HonestCodec):
    """A quality that is the mean of nothing."""

    def quality(self, network: nn.Module, held_out: ImageSet) -> dict[str, float]:
        return {"error": float(held_out.images[:0].float().mean())}


class QualityOfLabels(HonestCodec):
    """Takes it for granted that there are labels."""

    def quality(self, network: nn.Module, held_out: ImageSet) -> dict[str, float]:
        return {"classes": float(held_out.labels.max())}  # type: ignore[union-attr]


class RawCheck(HonestCodec):
    """Lets a KeyError out of check()."""

    def check(self, shape: tuple[int, int, int]) -> None:
        {1: "grey", 3: "colour"}[shape[0]]


class UncheckedShapes(HonestCodec):
    """Takes images of 64 pixels and does not say so."""

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        return Codec(64, 4)


class HonestGroups(Annotator):
    """The nearest of some images drawn at random."""

    name: ClassVar[str] = "honest"

    groups: int = Field(4, ge=2, le=1000, description="number of groups")

    def annotate(self, data: Observations, job: Job) -> Annotation:
        if data.features is None or data.count < self.groups or not data.features.isfinite().all():
            raise StageFailed(f"annotator honest needs finite features of at least {self.groups} images")
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
        return Annotation(ConditionSpec("vector", data.features.shape[1]), data.features, data.features / 2)


class GlobalGroups(HonestGroups):
    """Draws from torch's global generator."""

    def nearest(self, features: Tensor, draw: torch.Generator) -> Tensor:
        return super().nearest(features, torch.default_generator)


class OutOfRange(HonestGroups):
    """Counts its groups from 1."""

    def annotation(self, conditions: Tensor, bank: Tensor | None = None) -> Annotation:
        return super().annotation(conditions + 1)


class ShortConditions(HonestGroups):
    """Conditions in 32 bits."""

    def annotation(self, conditions: Tensor, bank: Tensor | None = None) -> Annotation:
        return super().annotation(conditions.int())


class OneTooFew(HonestGroups):
    """Loses the last image."""

    def annotation(self, conditions: Tensor, bank: Tensor | None = None) -> Annotation:
        return super().annotation(conditions[:-1])


class BadBank(HonestGroups):
    """A bank with a group that is none."""

    def annotation(self, conditions: Tensor, bank: Tensor | None = None) -> Annotation:
        return super().annotation(conditions, torch.tensor([self.groups]))


class SharedBank(HonestGroups):
    """A bank in the memory of the conditions, which safetensors does not store."""

    def annotation(self, conditions: Tensor, bank: Tensor | None = None) -> Annotation:
        return super().annotation(conditions, conditions)


class PromisesVectors(HonestGroups):
    """Says that it makes vectors."""

    form: ClassVar[str] = "vector"


class PeekingGroups(HonestGroups):
    """Takes the labels where they are at hand."""

    def annotate(self, data: Observations, job: Job) -> Annotation:
        return super().annotate(data, job) if data.labels is None else self.annotation(data.labels)


class PeekingAtFeatures(HonestGroups):
    """Says that it needs no features, and uses them where they are at hand."""

    uses_features: ClassVar[bool] = False

    def annotate(self, data: Observations, job: Job) -> Annotation:
        if data.features is None:
            return self.annotation(torch.zeros(data.count, dtype=torch.int64))
        return super().annotate(data, job)


class NormalisesInPlace(HonestGroups):
    """Scales the features that it is given."""

    def nearest(self, features: Tensor, draw: torch.Generator) -> Tensor:
        features /= features.norm(dim=1, keepdim=True)
        return super().nearest(features, draw)


class StartsWhereItStopped(HonestGroups):
    """Numbers its groups on from the last call."""

    calls: ClassVar[int] = 0

    def annotation(self, conditions: Tensor, bank: Tensor | None = None) -> Annotation:
        type(self).calls += 1
        return super().annotation((conditions + self.calls) % self.groups)


class HashOrderedGroups(HonestGroups):
    """Numbers its groups in the order of a set."""

    groups: int = Field(20, ge=2, le=40, description="number of groups")

    def annotation(self, conditions: Tensor, bank: Tensor | None = None) -> Annotation:
        names = list(set(WORDS[: self.groups]))
        return super().annotation(torch.tensor([names.index(WORDS[group]) for group in conditions.tolist()]))


class CannotDoOne(HonestGroups):
    """Stumbles over a single image."""

    def annotate(self, data: Observations, job: Job) -> Annotation:
        return self.annotation(torch.tensor([0, 1])[torch.arange(data.count) % (data.count - 1) % 2])


class HonestGap(Metric):
    """The distance between mean features."""

    name: ClassVar[str] = "honest"

    space: Encoder = Field("pixels", validate_default=True, description="encoder whose features are averaged")

    @property
    def keys(self) -> Mapping[str, str]:
        return {"gap": "lower"}

    def compare(self, reference: Reference, fake: Tensor) -> dict[str, float]:
        return {"gap": float((reference.train.mean(dim=0) - self.centre(fake)).norm())}

    def centre(self, fake: Tensor) -> Tensor:
        return fake.mean(dim=0)


class Sideways(HonestGap):
    """Says that smaller is better in its own words."""

    @property
    def keys(self) -> Mapping[str, str]:
        return {"gap": "smaller"}


class HashOrderedKeys(HonestGap):
    """Lists its keys in the order of a set."""

    @property
    def keys(self) -> Mapping[str, str]:
        return dict.fromkeys(set(WORDS), "lower")

    def compare(self, reference: Reference, fake: Tensor) -> dict[str, float]:
        return dict.fromkeys(WORDS, super().compare(reference, fake)["gap"])


class UnpromisedKeys(HonestGap):
    """Scores more than it promised."""

    def compare(self, reference: Reference, fake: Tensor) -> dict[str, float]:
        return {**super().compare(reference, fake), "spread": float(fake.std())}


class TensorScore(HonestGap):
    """A score that is a tensor."""

    def compare(self, reference: Reference, fake: Tensor) -> Any:
        return {"gap": (reference.train.mean(dim=0) - fake.mean(dim=0)).norm()}


class UndefinedScore(HonestGap):
    """The mean of a part that is empty when there are few samples."""

    def centre(self, fake: Tensor) -> Tensor:
        return fake[30:].mean(dim=0)


class NoFloor(HonestGap):
    """Divides by the distance to the held-out images."""

    def compare(self, reference: Reference, fake: Tensor) -> dict[str, float]:
        real = (reference.held_out.mean(dim=0) - fake.mean(dim=0)).norm()
        return {"gap": super().compare(reference, fake)["gap"] / float(real)}


class FirstHalf(HonestGap):
    """Looks at the first half of the samples."""

    def centre(self, fake: Tensor) -> Tensor:
        return fake[: (len(fake) + 1) // 2].mean(dim=0)


class CentresInPlace(HonestGap):
    """Subtracts the mean of the real images from the samples that it is given."""

    def compare(self, reference: Reference, fake: Tensor) -> dict[str, float]:
        fake -= reference.train.mean(dim=0)
        return {"gap": float(fake.mean(dim=0).norm())}


class Bootstrap(HonestGap):
    """Resamples with torch's global generator."""

    def centre(self, fake: Tensor) -> Tensor:
        return fake[torch.randint(len(fake), (len(fake),))].mean(dim=0)


class ForkedBootstrap(HonestGap):
    """The same, but puts the generator back."""

    def centre(self, fake: Tensor) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            return fake[torch.randint(len(fake), (len(fake),))].mean(dim=0)


class ComparesWithTheLast(HonestGap):
    """Keeps the smallest gap so far."""

    best: ClassVar[list[float]] = []

    def compare(self, reference: Reference, fake: Tensor) -> dict[str, float]:
        self.best.append(super().compare(reference, fake)["gap"])
        return {"gap": min(self.best)}


class BlindToNaN(HonestGap):
    """Skips what is not a number."""

    def centre(self, fake: Tensor) -> Tensor:
        return fake.nanmean(dim=0)


class NeedsTwo(HonestGap):
    """Compares the first sample with the second."""

    def compare(self, reference: Reference, fake: Tensor) -> dict[str, float]:
        first, second = fake.sort(dim=0).values[:2]
        return {"gap": float((first - second).norm())}


class HonestLines(Tracker):
    """A line of JSON for everything that it is told, in the run's folder."""

    name: ClassVar[str] = "honest"

    file: str = Field("events.jsonl", pattern=r"^[a-z]{1,20}\.jsonl$", description="name of the file")

    def open(self, run: RunDescription) -> TrackedRun:
        return Lines(run, run.folder / self.file)


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


class OnlyOnce(HonestLines):
    """Refuses what it was told before."""

    class Once(Lines):
        def scores(self, arm: str | None, values: Mapping[str, float]) -> None:
            if arm is not None and json.dumps([arm, dict(values)]) in self.known:
                raise FwError(f"{arm} has its scores already")
            super().scores(arm, values)

    def open(self, run: RunDescription) -> TrackedRun:
        return self.Once(run, run.folder / self.file)


class CannotReopen(HonestLines):
    """Makes its folder anew."""

    def open(self, run: RunDescription) -> TrackedRun:
        (run.folder / "events").mkdir()
        return super().open(run)


class NoRunAsAWhole(HonestLines):
    """Knows arms only."""

    class Arms(Lines):
        def series(self, arm: str | None, records: Sequence[Mapping[str, float]]) -> None:
            super().series({each.name: each.name for each in self.run.arms}[arm], records)  # type: ignore[index]

    def open(self, run: RunDescription) -> TrackedRun:
        return self.Arms(run, run.folder / self.file)


class NeverKilled(HonestLines):
    """Does not know that runs can be killed."""

    class Translating(Lines):
        def end_arm(self, arm: str, status: str) -> None:
            super().end_arm(arm, {"finished": "FINISHED", "failed": "FAILED"}[status])

    def open(self, run: RunDescription) -> TrackedRun:
        return self.Translating(run, run.folder / self.file)


class PathInTheHandle(HonestLines):
    """A handle that is no JSON."""

    class Paths(Lines):
        @property
        def handle(self) -> Mapping[str, Any]:
            return {"file": self.path}

    def open(self, run: RunDescription) -> TrackedRun:
        return self.Paths(run, run.folder / self.file)


class TupleInTheHandle(HonestLines):
    """A handle that JSON changes."""

    class Tuples(Lines):
        @property
        def handle(self) -> Mapping[str, Any]:
            return {"arms": tuple(each.name for each in self.run.arms)}

    def open(self, run: RunDescription) -> TrackedRun:
        return self.Tuples(run, run.folder / self.file)


class AlwaysNew(HonestLines):
    """Opens another run each time."""

    def open(self, run: RunDescription) -> TrackedRun:
        return Lines(run, run.folder / f"{uuid.uuid4()}.jsonl")


class LongHint(HonestLines):
    """Explains at length where to look."""

    class Talkative(Lines):
        @property
        def hint(self) -> str:
            return f"look at\n{self.path}"

    def open(self, run: RunDescription) -> TrackedRun:
        return self.Talkative(run, run.folder / self.file)


class WritesWhereItStands(HonestLines):
    """Writes into the working directory."""

    def open(self, run: RunDescription) -> TrackedRun:
        return Lines(run, Path(self.file))


class ClosesTheUntold(HonestLines):
    """Takes for granted that a run was told something before its process died."""

    def close(self, handle: Mapping[str, Any], root: Path, status: str) -> None:
        Path(handle["file"]).unlink()


class WritesBeside(HonestLines):
    """Writes beside the runs folder."""

    def open(self, run: RunDescription) -> TrackedRun:
        return Lines(run, run.root.parent / self.file)


OVER = threading.Event()
"""Ends the threads of the tracker below, at the end of the tests."""


class LeavesAThread(HonestLines):
    """Starts a thread that nothing ends."""

    def open(self, run: RunDescription) -> TrackedRun:
        threading.Thread(target=OVER.wait, name="uploader", args=(120,)).start()
        return super().open(run)


HONEST: list[Component] = [
    *(HonestImages(), Unlabelled(), HonestCodec(), HonestGroups(), HonestVectors(), HonestGap(), HonestLines())
]

IMAGES = "Both splits are uint8 images of its shape, with labels exactly where it promises classes"
KNOWN = "Shape and classes are known without loading, and where its files are not there"
SAME_IMAGES = "load() gives the same images and labels again, whatever was loaded before, and in another process"
FEATURES = "forward() maps any number of uint8 images to as many finite features, float32 (B, D)"
TRACELESS = "forward() leaves the state dict and the images alone, and fit() the images and labels"
FIT = "fit() gives the same for the same job, and neither moves nor reads global generators outside job.steps"
RESUMED = "A fit that is stopped half-way and continued in the same folder gives the same bits"
QUALITY = "quality() gives finite numbers by name, and no labels are needed without uses_labels"
SHAPES = "check() raises nothing but ValueError, and what it lets pass can be built and encoded"
CONDITIONS = "annotate() gives one valid condition per image, on the CPU"
SAME_CONDITIONS = (
    "annotate() gives the same for the same seed, whatever was done before and whatever global generators hold"
)
UNDECLARED = "Labels without uses_labels and features without uses_features change nothing"
ODD = "One image, two images and equal images give valid conditions or an FwError"
KEYS = "Its keys are words, the same on every call, each with `lower` or `higher`"
SCORES = "compare() gives a number for each of its keys, for features of any number and size"
SAME_SCORES = (
    "compare() gives the same for the same features, whatever was done before and whatever global generators hold"
)
REPEATED = "Every call may be made twice, for the run and for an arm, and all of them again when it is opened again"
INSIDE = "It writes nothing outside the run's root, and leaves no thread that keeps the process from ending"

FAULTS: dict[type[Component], str] = {
    FloatImages: f"{IMAGES}: dataset honest: its train images are torch.float32",
    LabelsFromOne: f"{IMAGES}: dataset honest: its train labels are 1 to 2 of 2 classes",
    CountsBothSplits: "A number of images that it tells beforehand is that of the images it loads: it tells of",
    NamesOneClass: "Its classes have one name each, or none has: 1 names for 2 classes",
    UntoldLabels: f"{IMAGES}: dataset honest: its train labels are 0 to 1 of 2 classes; it promised 0",
    ForgottenLabels: f"{IMAGES}: dataset honest: its train split has no labels",
    BoastsOfLabels: "It provides `labels` exactly if it has classes: it provides {'labels'} with 0 classes",
    LoadsToKnowItsShape: f"{KNOWN}: load() is called for them",
    ReadsItsShape: f"{KNOWN}: (1, 8, 8) and 0 are not what they are with them",
    OtherImagesNextTime: f"{SAME_IMAGES}: a second call gives another result",
    DrawsGlobally: f"{SAME_IMAGES}: it draws from torch's global random generator",
    HashOrderedImages: f"{SAME_IMAGES}: the train split is another one there",
    TestIsTrain: "The test split holds images that the train split does not: all 24 distinct test images",
    CachedImages: "they share no memory: the train images of two calls are the same memory",
    MatrixFeatures: f"{FEATURES}: encoder honest: its features of 1 images are torch.float32 (1, 2, 2)",
    HalfFeatures: f"{FEATURES}: encoder honest: its features of 1 images are torch.float16",
    BatchStatistics: "An image's features do not depend on what else is in the batch, nor on the order: in batches of",
    CountingForward: f"{TRACELESS}: forward changed seen in eval mode",
    DarkensImages: f"{TRACELESS}: fit writes into the images",
    OutsideTheStateDict: "All that fitting found is in the state dict: loaded into a fresh network",
    HashOrderedBuild: "another process builds another network",
    DrawsOutsideTheLoop: f"{FIT}: it draws from torch's global random generator",
    ReadsOutsideTheLoop: f"{FIT}: a second fit with the same seed ends with other values of decode.bias",
    ForgetsTheOptimizer: f"{RESUMED}: the continued fit ends with other values of decode.bias",
    CannotBeStopped: f"{RESUMED}: it goes on when job.steps or job.track stops it",
    PeekingCodec: "Without uses_labels, labels change nothing: fitted with labels at hand it ends with other values",
    UndefinedQuality: f"{QUALITY}: 'error' is nan",
    QualityOfLabels: f"{QUALITY}: it raised AttributeError",
    RawCheck: f"{SHAPES}: it raised KeyError: 2",
    UncheckedShapes: f"{SHAPES}: check() takes images (1, ",
    GlobalGroups: f"{SAME_CONDITIONS}: it draws from torch's global random generator",
    StartsWhereItStopped: f"{SAME_CONDITIONS}: a second call gives another result",
    OutOfRange: f"{CONDITIONS}: annotator honest: its conditions are 1 to 4, not in 0..3",
    ShortConditions: f"{CONDITIONS}: annotator honest: its conditions are torch.int32",
    OneTooFew: f"{CONDITIONS}: annotator honest: it made 29 conditions for 30 images",
    BadBank: f"{CONDITIONS}: annotator honest: its bank are 4 to 4, not in 0..3",
    PromisesVectors: f"{CONDITIONS}: annotator honest: it made class conditions and promised vector ones",
    SharedBank: "What it makes can be stored, read back and drawn from: it raised RuntimeError",
    PeekingGroups: f"{UNDECLARED}: labels that it does not declare change the conditions",
    PeekingAtFeatures: f"{UNDECLARED}: features that it does not declare change the conditions",
    NormalisesInPlace: "it writes into features",
    HashOrderedGroups: "annotate() gives the same in another process: conditions or bank are other ones",
    CannotDoOne: f"{ODD}: one image: it raised",
    Sideways: f"{KEYS}: gap is better 'smaller'",
    HashOrderedKeys: f"{KEYS}: they are other ones, or in another order, elsewhere",
    UnpromisedKeys: f"{SCORES}: metric honest: it scored gap, spread and promised gap",
    TensorScore: f"{SCORES}: metric honest: its gap is tensor(",
    UndefinedScore: f"{SCORES}: metric honest: its gap is nan, not a number",
    NoFloor: "compare() scores the held-out images themselves, for the floor: it raised ZeroDivisionError",
    FirstHalf: "The order of the samples does not change the scores: gap is",
    CentresInPlace: "compare() does not write into the features: it writes into the features of the samples",
    Bootstrap: f"{SAME_SCORES}: it draws from torch's global random generator",
    ForkedBootstrap: f"{SAME_SCORES}: a second call gives another result",
    ComparesWithTheLast: "it changed ComparesWithTheLast.best",
    BlindToNaN: "Features that are not a number are not scored as if they were: gap = ",
    NeedsTwo: "A single sample is scored, or refused with an FwError: it raised ValueError",
    OnlyOnce: f"{REPEATED}: scores('unconditional') the second time: FwError: unconditional has its scores already",
    CannotReopen: f"{REPEATED}: it raised FileExistsError",
    NoRunAsAWhole: f"{REPEATED}: series(None): KeyError: None",
    NeverKilled: "Runs and arms end as finished, failed or killed: it raised KeyError: 'killed'",
    PathInTheHandle: "Its handle is JSON, as run.json keeps it: {'file': PosixPath(",
    TupleInTheHandle: "Its handle is JSON, as run.json keeps it: {'arms': ('unconditional', 'self_1.5')} is read",
    AlwaysNew: "A run that is opened again with its handle has the same handle: it is the same run: {",
    ClosesTheUntold: "A run whose process died can be closed, also twice, and is the same run when it is "
    "opened again: it raised FileNotFoundError",
    LongHint: "Its hint is one line that says where to look: it is 'look at\\n",
    WritesWhereItStands: f"{INSIDE}: it wrote events.jsonl",
    WritesBeside: f"{INSIDE}: it wrote events.jsonl",
    LeavesAThread: f"{INSIDE}: these threads are still there after end(): uploader",
}
"""What the kit has to say about each."""
