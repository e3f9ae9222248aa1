"""What the types cannot say: capabilities, label-freeness, and what fits together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

from fw.core.diffusion.taps import attention_layers, misnamed
from fw.core.kinds import Backbone, Guidance, Joint
from fw.core.kinds.capabilities import ABOUT_CONDITIONS, remedy
from fw.core.learning.parts.augmentation import check_takes
from fw.core.learning.splitting import unsplit
from fw.core.messages.secrets import secret_places
from fw.core.recipe.arm import Arm
from fw.core.recipe.averages import rough_averages, unmade_averages
from fw.core.recipe.comparisons import comparisons
from fw.core.recipe.effect import without_effect
from fw.core.recipe.fairness import unfair
from fw.core.recipe.finding import Finding, location_in_arm, location_of_section, misfit
from fw.core.recipe.label_free import label_cautions
from fw.core.recipe.model import Recipe
from fw.core.recipe.sampling import across_samplers, off_the_data
from fw.core.recipe.shortages import cautions, shortages
from fw.core.recipe.starting import anew, other_process, unfit_start
from fw.core.recipe.suiting import unsuited

RESERVED = frozenset({"store", "mlartifacts"})


def faults(recipe: Recipe) -> Iterator[Finding]:
    """Everything that makes the recipe impossible or dishonest to run."""
    if recipe.name in RESERVED:
        yield Finding(
            ("name",),
            f"the runs folder keeps other things under '{recipe.name}'; choose another name",
        )
    if recipe.baseline not in recipe.arms:
        yield Finding(
            ("baseline",), f"no arm named '{recipe.baseline}' (known: {', '.join(recipe.arms)})"
        )
    yield from question_faults(recipe)
    yield from sweep_faults(recipe)
    for key, count in Counter(key for metric in recipe.metrics for key in metric.keys).items():
        if count > 1:
            yield Finding(
                ("metrics",), f"two metrics report '{key}'; take one away or change its space"
            )
    for index, metric in enumerate(recipe.metrics):
        for need in sorted(metric.requires - recipe.dataset.provides):
            yield Finding(("metrics", index), f"{metric.name} needs {remedy(need)}")
        yield from misfit(("metrics", index), metric.space.check, recipe.dataset.shape)
        if (precision := metric.space.computes_in) != "fp32":
            yield Finding(
                ("metrics", index),
                f"the space of {metric.name} computes in {precision}, and what measures is to "
                f"compute in fp32: take away the precision of {metric.space.name}",
            )
    yield from misfit(("dataset",), lambda dataset: dataset.check(), recipe.dataset)
    yield from probe_faults(recipe)
    yield from untracked_keys(recipe)
    if recipe.latents is not None:
        yield from misfit(("latents",), recipe.latents.latent_shape, recipe.dataset.shape)
    for name in recipe.arms:
        yield from arm_faults(recipe, name)
    yield from shortages(recipe)


def question_faults(recipe: Recipe) -> Iterator[Finding]:
    """A question about arms that there are not, or about one arm twice."""
    if recipe.question is None:
        return
    for field, name in recipe.question.named:
        if name not in recipe.arms:
            known = ", ".join(recipe.arms)
            yield Finding(("question", field), f"no arm named '{name}' (known: {known})")
    compared = Counter([recipe.question.better, *(other.than for other in comparisons(recipe))])
    for name, count in compared.items():
        if count > 1:
            yield Finding(("question",), f"it names arm '{name}' twice")


def sweep_faults(recipe: Recipe) -> Iterator[Finding]:
    """A sweep whose points are no arms, or that ranks them by a score that there is not."""
    if recipe.sweep is None:
        return
    for name in recipe.sweep.points:
        if name not in recipe.arms:
            known = ", ".join(recipe.arms)
            yield Finding(("sweep", "points"), f"no arm named '{name}' (known: {known})")
    scores = [key for metric in recipe.metrics for key in metric.keys]
    if recipe.sweep.metric not in (None, *scores):
        yield Finding(
            ("sweep", "metric"),
            f"no metric reports '{recipe.sweep.metric}' (known: {', '.join(scores)})",
        )


def probe_faults(recipe: Recipe) -> Iterator[Finding]:
    """Probes that say the same, that miss labels, or that ask for what a model does not have."""
    found = Counter(key for probe in recipe.probes for key in probe.keys)
    found.update(key for metric in recipe.metrics for key in set(metric.keys) & set(found))
    for key, count in found.items():
        if count > 1:
            yield Finding(
                ("probes",), f"'{key}' is reported twice; take one away or change its fields"
            )
    for index, probe in enumerate(recipe.probes):
        at = ("probes", index)
        for need in sorted(probe.requires - recipe.dataset.provides):
            yield Finding(at, f"{probe.name} needs {remedy(need)}")
        probed = [arm for arm in map(recipe.arm, recipe.arms) if arm.probed_by(probe)]
        level = probe.level
        for least, most in sorted({arm.process.sigma_range for arm in probed if level is not None}):
            if level is not None and not least <= level <= most:
                told = f"{probe.name} reads models at sigma {level:g}"
                yield Finding(at, f"{told}, and they are trained from {most:g} to {least:g}")
        shape = recipe.diffused_shape
        for model in dict.fromkeys(arm.model for arm in probed if probe.named_blocks):
            if shape is not None and (fault := misnamed(model, shape, probe.named_blocks)):
                yield Finding(at, fault)


def untracked_keys(recipe: Recipe) -> Iterator[Finding]:
    """Scores whose names the recipe's tracker does not take: it would miss them when all the
    work is done."""
    if recipe.tracker is None:
        return
    scored = [
        ("metrics", index, f"eval/{key}")
        for index, each in enumerate(recipe.metrics)
        for key in each.keys
    ]
    scored += [
        ("probes", index, f"probe/{key}")
        for index, each in enumerate(recipe.probes)
        for key in each.keys
    ]
    if any(recipe.arm(name).train.snapshots for name in recipe.arms):
        scored += [
            ("metrics", index, f"snapshot/{key}")
            for index, each in enumerate(recipe.metrics)
            for key in each.keys
        ]
    for section, index, key in scored:
        yield from misfit((section, index), recipe.tracker.check_keys, [key])


def idle(recipe: Recipe) -> Iterator[Finding]:
    """Metrics and probes that find nothing to score in any arm."""
    arms = [recipe.arm(name) for name in recipe.arms]
    for index, metric in enumerate(recipe.metrics):
        if not any(arm.scored_by(metric) for arm in arms):
            yield Finding(
                ("metrics", index),
                f"{metric.name} reads the classes of conditions, and no arm has any",
            )
    for index, probe in enumerate(recipe.probes):
        if not any(arm.probed_by(probe) for arm in arms):
            yield Finding(("probes", index), f"no arm has {probe.subject}")


def arm_faults(recipe: Recipe, name: str) -> Iterator[Finding]:
    """What one arm's components require of each other and do not get."""
    arm = recipe.arm(name)
    overridden = recipe.arms[name].model_fields_set

    at = partial(location_in_arm, recipe, name)

    annotator = arm.annotator
    if annotator is not None and annotator.uses_features and arm.encoder is None:
        yield Finding(
            at("annotator"), f"annotator '{annotator.name}' uses features; name an encoder"
        )
    if (online := arm.online) is not None:
        least, most = arm.process.sigma_range
        if not least <= online.sigma <= most:
            told = f"annotator '{online.name}' reads features at sigma {online.sigma:g}"
            yield Finding(
                at("annotator"), f"{told}, and the model is trained from {most:g} to {least:g}"
            )
    available = recipe.available(arm)
    for section, component in arm.sections:
        missing = component.requires - available
        if "conditions" in missing:
            missing -= ABOUT_CONDITIONS
        for need in sorted(missing):
            yield Finding(at(section), f"{component.kind} '{component.name}' needs {remedy(need)}")
    asked: list[tuple[str, Callable[[Any], None], Any]] = [
        ("sampler", arm.sampler.check, arm.process.sigma_range)
    ]
    if arm.own_network in arm.siblings:
        yield Finding(at("guidance"), "the worse network would be the arm's own: nothing is worse")
    shape = recipe.diffused_shape
    for section, model in backbones(arm):
        if shape is not None:
            asked.append((section, model.check, shape))
        if annotator is not None and annotator.form not in model.conditions:
            takes = " or ".join(sorted(model.conditions)) or "no"
            yield Finding(
                at(section),
                f"backbone '{model.name}' takes {takes} conditions, not {annotator.form} ones",
            )
    if (
        arm.drawn_from is not None
        and annotator is not None
        and annotator.form not in arm.drawn_from.forms
    ):
        takes = " or ".join(sorted(arm.drawn_from.forms))
        yield Finding(
            at("prior"),
            f"prior '{arm.drawn_from.name}' draws {takes} conditions, not {annotator.form} ones",
        )
    if "prior" in overridden and arm.prior is not None and annotator is None:
        yield Finding(
            at("prior"), f"prior '{arm.prior.name}' draws conditions, and this arm has no annotator"
        )
    yield from unfit_start(recipe, name)
    rules = Counter(rule.name for rule in arm.rules)
    if rules and len(arm.rules) == len(arm.guidance):
        yield Finding(
            at("guidance"),
            "a rule puts guidance modes together, and there is none; name one beside it",
        )
    for twice in (name for name, count in rules.items() if count > 1):
        yield Finding(at("guidance"), f"rule '{twice}' is listed twice; take one away")
    if arm.conditioner is not None:
        asked.append(("encoder", arm.conditioner.check, recipe.dataset.shape))
    for objective in arm.objectives:
        if objective.target is not None:
            asked.append(("objectives", objective.target.check, recipe.dataset.shape))
        least, most = arm.process.sigma_range
        low, high = objective.interval or (least, most)
        if low >= most or high < least:
            told = f"objective '{objective.name}' takes noise levels from {low:g} to {high:g}"
            yield Finding(
                at("objectives"), f"{told}, and the model is trained from {most:g} to {least:g}"
            )
        if objective.uses_teacher and not arm.works_without_condition:
            asks = (
                f"objective '{objective.name}' looks at images without a condition, so it needs "
                f"{remedy('null')}"
            )
            yield Finding(at("objectives"), asks)
    for section, block in blocks(arm):
        if shape is not None and (fault := misnamed(arm.model, shape, [block])):
            yield Finding(at(section), fault)
    for section, check, given in asked:
        yield from misfit(location_of_section(recipe, name, section), check, given)
    yield from augmentation_faults(recipe, name)
    yield from unmade_averages(recipe, name)
    yield from memory_faults(recipe, name)
    if shape is not None:
        yield from guidance_faults(recipe, name, shape)


def augmentation_faults(recipe: Recipe, name: str) -> Iterator[Finding]:
    """What cannot go with transformed images: networks that are not given how, latents, and
    objectives that know the image as it was."""
    arm = recipe.arm(name)
    if arm.train.augment is None:
        return
    at = location_of_section(recipe, name, "train")
    for _, model in backbones(arm):
        yield from misfit(at, check_takes, model)
    if recipe.latents is not None:
        yield Finding(at, "augment transforms pixels, and this recipe diffuses latents")
    for objective in arm.objectives:
        if objective.target is not None or objective.uses_teacher:
            yield Finding(
                at,
                f"augment transforms the images, and objective '{objective.name}' compares with "
                "features of the image as it was",
            )


def memory_faults(recipe: Recipe, name: str) -> Iterator[Finding]:
    """What keeps blocks from being computed again, and a batch from being split: objectives and
    networks in which images meet."""
    arm = recipe.arm(name)
    parts = arm.train.accumulate
    at = location_of_section(recipe, name, "train")
    if arm.train.checkpointing and "taps" not in recipe.available(arm):
        yield Finding(at, f"checkpointing computes blocks again, so it needs {remedy('taps')}")
    if parts == 1:
        return
    for objective in arm.objectives:
        if not objective.per_image:
            yield Finding(
                at,
                f"accumulate splits batches, and objective '{objective.name}' compares the images "
                "of a batch: take accumulate 1, or a smaller batch",
            )
    shape, spec = recipe.diffused_shape, recipe.condition_spec(arm)
    for _, model in backbones(arm):
        if shape is not None and (fault := unsplit(model, shape, spec)):
            yield Finding(at, fault)
    if isinstance(arm.model, Joint) and arm.model.labelled % parts:
        yield Finding(
            at,
            f"accumulate splits the {arm.model.labelled} labelled images of backbone "
            f"'{arm.model.name}', too, and they do not divide into {parts} equal parts",
        )


def guidance_faults(recipe: Recipe, name: str, shape: tuple[int, int, int]) -> Iterator[Finding]:
    """Guidance modes that name what the arm's conditions or the layers of its network do not
    have."""
    arm = recipe.arm(name)
    spec = recipe.condition_spec(arm)
    at = location_in_arm(recipe, name, "guidance")
    for mode in arm.guidance:
        if isinstance(mode, Guidance) and spec is not None:
            yield from misfit(at, mode.check, spec)
    if "attention" in arm.model.provides:
        called = cache(partial(attention_layers, arm.model, shape, spec))
        for mode in arm.modes:
            yield from misfit(at, mode.check_layers, called, shape)


def blocks(arm: Arm) -> Iterator[tuple[str, str]]:
    """The blocks that are named of the arm's network, and the sections that name them."""
    yield from (
        ("objectives", objective.block)
        for objective in arm.objectives
        if objective.block is not None
    )
    if arm.online is not None and arm.online.block is not None:
        yield "annotator", arm.online.block


def backbones(arm: Arm) -> Iterator[tuple[str, Backbone]]:
    """The arm's network, and others that its guidance modes ask for."""
    yield "model", arm.model
    yield from (
        ("guidance", each.model)
        for each in arm.siblings
        if each is not None and each.model != arm.model
    )


def secrets_in(recipe: Recipe) -> Iterator[Finding]:
    """Passwords and tokens in URIs. Those of the tracker are left out of what a run writes;
    others cannot be."""
    for at in secret_places(recipe.model_dump(mode="json")):
        yield Finding(at, SECRET if at[0] == "tracker" else SECRET_ELSEWHERE)


SECRET = (
    "it holds a password or a token, which belongs into the environment; the run's files are "
    "written without it, and commands that read them need it there"
)
SECRET_ELSEWHERE = (
    "it holds a password or a token, which is written to the run's folder and to the store"
)


def warnings(recipe: Recipe) -> Iterator[Finding]:
    """What misleads, and keeps no recipe from running."""
    yield from secrets_in(recipe)
    yield from unfair(recipe)
    yield from across_samplers(recipe)
    yield from off_the_data(recipe)
    yield from without_effect(recipe)
    yield from cautions(recipe)
    yield from rough_averages(recipe)
    yield from other_process(recipe)
    yield from anew(recipe)
    yield from label_cautions(recipe)
    yield from unsuited(recipe)
    if recipe.dataset.missing is not None:
        yield Finding(("dataset",), recipe.dataset.missing)
