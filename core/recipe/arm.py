"""One row of a comparison, and the facts about it that other modules go by; each is derived here
and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from fw.core.kinds import (
    Annotator,
    Backbone,
    Brought,
    Encoder,
    Guidance,
    Joint,
    Metric,
    Objective,
    Online,
    Prior,
    Probe,
    Process,
    Rule,
    Sampler,
    Sibling,
    Steering,
    brought_by,
)
from fw.core.kinds.supervision import strongest_of
from fw.core.settings import Ema, Section, Train
from fw.registry import Component


class LabelFree(NamedTuple):
    """Whether nothing in an arm has seen labels, and if not, or if nobody says it, why."""

    value: Literal["yes", "no", "unknown"]
    why: str = ""

    def __str__(self) -> str:
        return f"{self.value} ({self.why})" if self.why else self.value


class Arm(Section):
    """The sections of an arm, every one in place."""

    encoder: Encoder | None
    annotator: Annotator | None
    prior: Prior | None
    model: Backbone
    process: Process
    train: Train
    ema: Ema | None = None
    objectives: tuple[Objective, ...]
    guidance: tuple[Steering, ...]
    sampler: Sampler

    @property
    def conditioner(self) -> Encoder | None:
        """The encoder whose features become conditions; None where the annotator looks at none."""
        return self.encoder if self.annotator is not None and self.annotator.uses_features else None

    @property
    def drawn_from(self) -> Prior | None:
        """The prior of the conditions; None where there are none, or where it is that of the
        annotator."""
        return self.prior if self.annotator is not None else None

    @property
    def online(self) -> Online | None:
        """The annotator, if it finds the conditions while the model learns."""
        return self.annotator if isinstance(self.annotator, Online) else None

    @property
    def joint(self) -> Joint | None:
        """The model, if it also recognises."""
        return self.model if isinstance(self.model, Joint) else None

    @property
    def takes_conditions(self) -> bool:
        """Whether the network is given conditions; a joint model reads them off the image."""
        return self.annotator is not None and self.joint is None

    @property
    def knows_null(self) -> bool:
        """Whether a network that takes conditions has also learned to denoise without: some were
        dropped, or some images had none."""
        partial = self.annotator is not None and self.annotator.partial
        return self.takes_conditions and (self.train.cond_drop > 0 or partial)

    @property
    def works_without_condition(self) -> bool:
        """Whether the network can be asked without a condition."""
        return self.knows_null or not self.takes_conditions

    @property
    def has_classes(self) -> bool:
        """Whether the conditions are classes."""
        return self.annotator is not None and self.annotator.form == "class"

    @property
    def classes_are_labels(self) -> bool:
        """Whether these are the data set's own classes, which have names."""
        annotator = self.annotator
        made_of_labels = annotator is not None and annotator.uses_labels and not annotator.control
        return self.has_classes and made_of_labels

    @property
    def modes(self) -> list[Guidance]:
        """The guidance modes that are on, without the rules that put them together."""
        return [mode for mode in self.guidance if isinstance(mode, Guidance) and mode.scale != 1]

    @property
    def rules(self) -> list[Rule]:
        return [rule for rule in self.guidance if isinstance(rule, Rule)]

    @property
    def siblings(self) -> list[Sibling | None]:
        """For each entry of `guidance` the network that it asks for, or None; a mode that is off
        asks for none. It starts from new weights, and snapshots of its training are kept only to
        choose an average of them."""
        wanted = [
            entry.sibling(self.model, self.train.from_new_weights)
            if isinstance(entry, Guidance) and entry.scale != 1
            else None
            for entry in self.guidance
        ]
        return [
            each._replace(train=each.train.without_snapshots)
            if each is not None and each.ema is None
            else each
            for each in wanted
        ]

    @property
    def own_network(self) -> Sibling:
        """What images are drawn of, in the terms of a sibling."""
        train = self.train if self.sampled_width else self.train.without_snapshots
        return Sibling(self.model, train, self.sampled_width)

    @property
    def sampled_width(self) -> float | None:
        """The relative width of the average that images are drawn of; None is that of
        `train.ema`."""
        return None if self.ema is None else self.ema.samples

    @property
    def probed_width(self) -> float | None:
        """The same of the network that probes read."""
        return None if self.ema is None else self.ema.probes

    @property
    def nfe(self) -> int:
        """Network evaluations per image, as far as the fields say."""
        return self.sampler.nfe * (1 + sum(mode.evaluations for mode in self.modes))

    @property
    def sections(self) -> Iterator[tuple[str, Component]]:
        """The components that the arm really uses, by their sections; an encoder counts only if the
        annotator looks at features."""
        single = {
            "encoder": self.conditioner,
            "annotator": self.annotator,
            "prior": self.drawn_from,
        }
        yield from (
            (section, component) for section, component in single.items() if component is not None
        )
        yield "model", self.model
        yield "process", self.process
        yield from (("objectives", objective) for objective in self.objectives)
        yield from (("guidance", entry) for entry in self.guidance)
        yield "sampler", self.sampler

    @property
    def given_labels(self) -> list[Component]:
        """The components that are trained with the data set's labels."""
        targets = (objective.target for objective in self.objectives)
        may = (self.annotator, self.conditioner, *targets)
        return [each for each in may if each is not None and each.uses_labels]

    @property
    def brought(self) -> Iterator[tuple[str, Brought]]:
        """What supervised the weights that it is made with from before fw, by section; guidance
        modes that are off bring none."""
        acting = [
            (section, component)
            for section, component in self.sections
            if not isinstance(component, Guidance) or component in self.modes
        ]
        held = {id(part) for _, component in acting for part in component.within()}
        asked = [
            *(("objectives", objective.target) for objective in self.objectives),
            *(("guidance", sibling.model) for sibling in self.siblings if sibling is not None),
        ]
        for section, component in acting:
            yield section, brought_by(component)
        if self.train.start is not None:
            yield "train", brought_by(self.train.start)
        for section, wanted in asked:
            if wanted is not None and id(wanted) not in held:
                yield section, brought_by(wanted)

    def label_free(self, shared: Iterable[Brought] = ()) -> LabelFree:
        """Whether nothing in it has seen labels. `shared` are weights that all arms of its recipe
        share."""
        for component in self.given_labels:
            return LabelFree("no", f"{component.kind} '{component.name}' uses labels")
        brought = strongest_of([*shared, *(each for _, each in self.brought)])
        if brought.supervision.kind == "nothing":
            return LabelFree("yes")
        return LabelFree("no" if brought.supervision.kind == "labels" else "unknown", str(brought))

    @property
    def provides(self) -> frozenset[str]:
        """The capabilities (kinds/capabilities.py) that its sections have together."""
        provided = frozenset[str]().union(*(component.provides for _, component in self.sections))
        if self.works_without_condition:
            provided |= {"unconditional"}
        if self.annotator is None:
            return provided - {"logits", "steerable"}  # a joint model has nothing to recognise then
        provided |= {f"{self.annotator.form}_conditions"}
        if self.conditioner is not None:
            provided |= {"features"}
        if self.takes_conditions:
            provided |= {"told"}
        if self.knows_null:
            provided |= {"null"}
        if self.given_labels:
            provided -= {"label_free"}
        return provided

    def scored_by(self, metric: Metric) -> bool:
        """Whether it has what the metric compares."""
        return self.has_classes or not metric.reads_conditions

    def probed_by(self, probe: Probe) -> bool:
        """Whether it has what the probe reads."""
        return probe.needs <= self.provides
