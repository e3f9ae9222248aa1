"""The kinds: one small abstract class for everything that a recipe names, each in a file of its
own.

A component subclasses its kind, sets `name`, declares its fields and writes the abstract methods;
the rest has a default. What it needs of the rest of an arm, and what it brings, are words of
kinds/capabilities.py.
"""

from __future__ import annotations

from fw.core.kinds.annotator import Annotator
from fw.core.kinds.autoencoder import Autoencoder, Code
from fw.core.kinds.backbone import Backbone
from fw.core.kinds.dataset import Dataset
from fw.core.kinds.denoiser import Denoise, Denoiser
from fw.core.kinds.encoder import Encoder
from fw.core.kinds.guidance import Guidance, Sibling, Steering
from fw.core.kinds.interval import Interval, lowest_first
from fw.core.kinds.joint import Joint, JointNetwork, Move, Read, Steerable
from fw.core.kinds.metric import Metric
from fw.core.kinds.network import (
    Attend,
    Augmentable,
    Changed,
    InDiffusers,
    Network,
    Portable,
    Repeated,
    Tapped,
    mixing,
    scaled_dot_product,
)
from fw.core.kinds.objective import Look, Objective, Seen
from fw.core.kinds.online import Grouping, Online
from fw.core.kinds.prior import Prior
from fw.core.kinds.probe import (
    ConditionalProbe,
    FeatureProbe,
    Glance,
    LogitProbe,
    Probe,
    ProbeInNoise,
    Reader,
    Reading,
    TokenProbe,
)
from fw.core.kinds.process import Coefficients, Process
from fw.core.kinds.rule import Rule
from fw.core.kinds.sampler import Recorder, Sampler
from fw.core.kinds.supervision import Brought, brought_by
from fw.core.kinds.table import Kind
from fw.core.kinds.tracker import ArmDescription, RunDescription, TrackedRun, Tracker
from fw.core.kinds.version_1 import READERS
from fw.registry import Component

READERS.update(features=FeatureProbe, tokens=TokenProbe, logits=LogitProbe, errors=ConditionalProbe)

TABLE: tuple[Kind, ...] = (
    Kind("dataset", Dataset, "dataset: $component"),
    Kind("autoencoder", Autoencoder, "latents: $component"),
    Kind("encoder", Encoder, "encoder: $component"),
    Kind("annotator", Annotator, "annotator: $component"),
    Kind("online", Online, "annotator: $component", template=False),
    Kind("prior", Prior, "prior: $component"),
    Kind("process", Process, "process: $component"),
    Kind("backbone", Backbone, "model: $component"),
    Kind("joint", Joint, "model: $component", contract=("backbone", "joint")),
    Kind("objective", Objective, "objectives: {name: $component, weight: 0.5}"),
    Kind("guidance", Guidance, "guidance: {name: $component, scale: 1.5}"),
    Kind("rule", Rule, "guidance: [{name: autoguidance, scale: 2}, $component]"),
    Kind("sampler", Sampler, "sampler: $component"),
    Kind("metric", Metric, "metrics: [$component]"),
    Kind("probe", Probe, "probes: [$component]"),
    Kind("tracker", Tracker, "tracker: $component"),
)
"""All there is to know of the kinds: contracts, templates and pages of the reference follow from
it."""


def kind_of(component: type[Component]) -> Kind | None:
    """The row of a component's class, the most special one; None of a kind that a plugin
    brought."""
    return next((row for row in reversed(TABLE) if issubclass(component, row.type)), None)


__all__ = [
    "TABLE",
    "Annotator",
    "ArmDescription",
    "Attend",
    "Augmentable",
    "Autoencoder",
    "Backbone",
    "Brought",
    "Changed",
    "Code",
    "Coefficients",
    "ConditionalProbe",
    "Dataset",
    "Denoise",
    "Denoiser",
    "Encoder",
    "FeatureProbe",
    "Glance",
    "Grouping",
    "Guidance",
    "InDiffusers",
    "Interval",
    "Joint",
    "JointNetwork",
    "Kind",
    "LogitProbe",
    "Look",
    "Metric",
    "Move",
    "Network",
    "Objective",
    "Online",
    "Portable",
    "Prior",
    "Probe",
    "ProbeInNoise",
    "Process",
    "Read",
    "Reader",
    "Reading",
    "Recorder",
    "Repeated",
    "Rule",
    "RunDescription",
    "Sampler",
    "Seen",
    "Sibling",
    "Steerable",
    "Steering",
    "Tapped",
    "TokenProbe",
    "TrackedRun",
    "Tracker",
    "brought_by",
    "kind_of",
    "lowest_first",
    "mixing",
    "scaled_dot_product",
]
