"""report.md, and the note on a tracker's page: what run.json says, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from fw.core.diffusion.spread import FINE
from fw.core.messages.escaping import markdown as escaped
from fw.core.report.basis import basis
from fw.core.report.series import SWEEP, drawable
from fw.core.report.snapshots import snapshots_section
from fw.core.report.tables import (
    differences,
    label_free,
    markdown_table,
    quality_table,
    sampler_table,
    title_of,
    verdict,
)
from fw.core.stages.annotate import AGREEMENT
from fw.core.stages.latents import LATENTS
from fw.core.stages.prior import PRIORS

SECTIONS = (LATENTS, AGREEMENT, PRIORS)
"""The sections that are of stages, in the order of the report."""

PROBES = (
    "Scores that end with `encoder` or `model`, or begin with `joint`, are of probes: how well "
    "that part of the arm recognises held-out images, one number each. A cell is empty where the "
    "arm has nothing of the kind to read."
)

LABELS = (
    "An arm is label-free if no component in it is given labels, and none brings weights that were "
    "trained with any. What only scores it does not count."
)


SAMPLERS = (
    "What each way of sampling makes of Gaussian data with this standard deviation where the "
    "network is exact, without guidance and clamps: the standard deviation of samples in units of "
    f"the data's (1 is right), that of detail {FINE} times finer, and by what factor errors of the "
    "network's output become errors of the samples."
)


def markdown(result: Mapping[str, Any]) -> str:
    """report.md"""
    samples, arms = result["samples"], result["arms"]
    sampled = [name for name, arm in arms.items() if arm["status"] == "finished"]
    parts = [
        f"# {escaped(title_of(result))}",
        *map(escaped, verdict(result)),
        markdown_table(result),
        f"Mean ± standard deviation over {spread(result)}, {samples['count']} images each. "
        "`real held-out` is the floor: what as many new real images would score in the place of "
        "samples, by n that no model was trained on. NFE: network evaluations per image. seconds: "
        "the arm's own stages, also those that it shares with other arms.",
        *by_chance(result),
        *([bullets(compared)] if (compared := basis(result)) else []),
        *decisions(result),
        *([PROBES] if result.get("probes") else []),
        *([f"![sweep]({SWEEP})"] if drawable(result) else []),
        *(["![arms](arms.png)"] if sampled else []),
        *snapshots_section(result),
    ]
    judged = [entry for entry in result["evaluators"].values() if entry["quality"]]
    if judged:
        listed = escaped("; ".join(map(evaluator, judged)))
        remark = "They may use labels; label-free arms do not."
        parts.append(f"Evaluators, on held-out images: {listed}. {remark}")
    if samplers := sampler_table(arms):
        parts += [f"## Samplers\n\n{SAMPLERS}", samplers]
    for section in SECTIONS:
        qualities = {name: arm[section.name] for name, arm in arms.items() if arm.get(section.name)}
        if qualities:
            parts += [f"## {section.title}\n\n{section.about}", quality_table(qualities)]
    if classes := result.get("classes"):
        named = ", ".join(f"{number} = {escaped(name)}" for number, name in enumerate(classes))
        parts.append(f"## Classes\n\n{named}")
    if free := label_free(result):
        reasons = [f"{name}: {known['why']}" for name, known in labels(arms) if known["why"]]
        about = "\n\n".join([escaped(free), LABELS, *([bullets(reasons)] if reasons else [])])
        parts.append(f"## Labels\n\n{about}")
    if peaks := result.get("environment", {}).get("peak memory"):
        parts.append(
            f"Peak memory of a process, mapped files left out: {escaped('; '.join(peaks))}."
        )
    if warnings := result.get("warnings"):
        parts.append(f"## Warnings\n\n{bullets(warnings)}")
    partly = [f"{name}: {remark}" for name, arm in arms.items() for remark in acts(arm)]
    if partly:
        remark = "Where it does not act in all calls of the model."
        parts.append(f"## Guidance\n\n{remark}\n\n{bullets(partly)}")
    errors = [f"{name}: {arm['error']}" for name, arm in arms.items() if "error" in arm]
    if errors:
        parts.append(f"## Failed\n\n{bullets(errors)}")
    if sampled:
        pictures = [*filter(None, [whose_images(result)]), *map(picture, sampled)]
        parts.append("## Samples\n\n" + "\n\n".join(pictures))
    return "\n\n".join(parts) + "\n"


def spread(result: Mapping[str, Any]) -> str:
    """What the table's standard deviations are over."""
    seeds, repeats = result["samples"]["seeds"], result.get("repeats", 1)
    if repeats == 1:
        return f"{seeds} sampling seeds of one training"
    return f"{repeats} training seeds, each the mean of its {seeds} sampling seeds"


def whose_images(result: Mapping[str, Any]) -> str:
    """Which training of an arm its pictures are of; empty where there is one."""
    if result.get("repeats", 1) == 1:
        return ""
    return (
        f"Images and curves are those of each arm's first training, from seed {result['seed']}; "
        "`fw sample --training SEED` draws images of another."
    )


def decisions(result: Mapping[str, Any]) -> list[str]:
    """What is compared with what, and by what rule it is decided."""
    if not (table := differences(result)):
        return []
    verdict = result["verdict"]
    about = f"Differences in {escaped(verdict['key'])}, where {verdict['better']} is better."
    return ["## Verdict", f"{about} {verdict['rule']}", table]


def by_chance(result: Mapping[str, Any]) -> list[str]:
    """Between what values the scores of new images lie, where it is known: of any arm, because all
    are measured by one ruler."""
    scores = [entry for arm in result["arms"].values() for entry in arm["metrics"].items()]
    ranges = {key: score["by_chance"] for key, score in scores if "by_chance" in score}
    if not ranges:
        return []
    listed = "; ".join(
        f"{escaped(key)} {low:.3f} to {high:.3f}" for key, (low, high) in ranges.items()
    )
    return [f"95 of 100 sets of as many new real images would have: {listed}."]


def note(result: Mapping[str, Any]) -> str:
    """The report in short, in Markdown, for a tracker's page."""
    parts = [
        *map(escaped, verdict(result)),
        markdown_table(result),
        *filter(None, [label_free(result)]),
    ]
    if result["warnings"]:
        parts += ["Warnings:", bullets(result["warnings"])]
    return "\n\n".join(parts)


def labels(arms: Mapping[str, Any]) -> list[tuple[str, Mapping[str, str]]]:
    """What is known of each arm's labels; nothing of a run from before fw knew it."""
    return [(name, arm["label_free"]) for name, arm in arms.items() if arm.get("label_free")]


def evaluator(entry: Mapping[str, Any]) -> str:
    """How good one feature space is."""
    scores = ", ".join(f"{key} {value:.3f}" for key, value in entry["quality"].items())
    return f"{entry['encoder']}: {scores}"


def acts(arm: Mapping[str, Any]) -> list[str]:
    """`cfg acts in 12 of 18 calls`, of each guidance mode of an arm that does not act in all of
    them."""
    return [
        f"{mode['name']} acts in {mode['acts']} of {mode['calls']} calls"
        for mode in arm.get("guidance", ())
        if mode["acts"] < mode["calls"]
    ]


def picture(arm: str) -> str:
    """An arm's name and its grid of samples."""
    return f"{escaped(arm)}\n\n![{escaped(arm)}](samples-{quote(arm, errors='replace')}.png)"


def bullets(texts: Iterable[str]) -> str:
    return "\n".join(f"* {escaped(text)}" for text in texts)
