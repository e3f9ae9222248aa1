"""What a run found: run.json, a table, a figure and a page of Markdown, always rebuilt from the store."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from fw.core.messages.escaping import markdown as shown
from fw.core.plan.graph import ArmPlan, Plan
from fw.core.recipe.effect import acting
from fw.core.recipe.model import Recipe
from fw.core.report import provenance
from fw.core.stages.annotate import AGREEMENT
from fw.core.stages.evaluate import Evaluate
from fw.core.stages.latents import LATENTS
from fw.core.stages.prior import PRIORS
from fw.core.store.store import Store

SECTIONS = (LATENTS, AGREEMENT, PRIORS)
"""The parts of the report that are of stages, in its order."""

PROBES = (
    "Scores that end with `encoder` or `model`, or begin with `joint`, are of probes: how well that part of the arm "
    "recognises held-out images, one number each. A cell is empty where the arm has nothing of the kind to read."
)
PACKAGES = (
    "fw",
    "torch",
    "diffusers",
    "lightly",
    "faiss-cpu",
    "scikit-learn",
    "torchmetrics",
    "torch-fidelity",
    "mlflow",
)


def collect(
    recipe: Recipe, plan: Plan, made_by: provenance.Record, store: Store, failed: Mapping[str, str]
) -> dict[str, Any]:
    """Everything that run.json says, from the finished stages in the store."""
    return {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "baseline": recipe.baseline,
        "headline": headline(recipe),
        "samples": recipe.samples.model_dump(),
        "better": {key: better for metric in recipe.metrics for key, better in metric.keys.items()},
        **probed_keys(recipe),
        "arms": {name: collect_arm(plan, arm, store, failed) for name, arm in plan.arms.items()},
        "evaluators": evaluators(plan, store),
        "plugins": made_by,
        "versions": versions(),
        "environment": environment(plan, store),
    }


def probed_keys(recipe: Recipe) -> dict[str, Any]:
    """The keys that probes may report, of a recipe that has any."""
    keys = {key: better for probe in recipe.probes for key, better in probe.keys.items()}
    return {"probes": keys} if keys else {}


def headline(recipe: Recipe) -> str:
    """The key that the comparison is about: the first one of the first metric."""
    return next(iter(recipe.metrics[0].keys))


def collect_arm(plan: Plan, arm: ArmPlan, store: Store, failed: Mapping[str, str]) -> dict[str, Any]:
    """One arm's entry; scores appear as soon as their stages are finished."""
    own = arm.stages()
    finished = [stage for stage in own if store.present(stage)]
    broken = [stage for stage in plan.needed(arm) if stage in failed]
    metrics: dict[str, Any] = {}
    real: dict[str, int] = {}
    for stage in arm.evaluate:
        if stage in finished:
            result = json.loads((store.path(stage) / "scores.json").read_text(encoding="utf-8"))
            metrics |= {key: summary(values, result["floor"].get(key)) for key, values in result["scores"].items()}
            real = result["real"]
    entry: dict[str, Any] = {
        "status": "finished" if len(finished) == len(own) else "failed" if broken else "pending",
        "metrics": metrics,
        "real_images": real,
        "nfe": arm.nfe,
        "seconds": round(sum(store.manifest(stage)["seconds"] for stage in finished), 1),
        "train_key": arm.train,
        "sample_key": arm.sample,
    }
    if arm.sample in finished:
        entry["nfe"] = json.loads((store.path(arm.sample) / "info.json").read_text(encoding="utf-8"))["nfe"]
    for stage in finished:
        if (section := plan.stages[stage].section) is not None:
            entry[section.name] = json.loads((store.path(stage) / "quality.json").read_text(encoding="utf-8"))
    probed = [stage for stage in finished if plan.stages[stage].columns]
    if probed:
        found = [json.loads((store.path(stage) / "scores.json").read_text(encoding="utf-8")) for stage in probed]
        entry["probes"] = {key: value for each in found for key, value in each["scores"].items()}
    if arm.arm.modes:
        entry["guidance"] = [{"name": mode.name, "acts": acts, "calls": of} for mode, acts, of in acting(arm.arm)]
    if broken:
        entry["error"] = failed[broken[0]]
    return entry


def summary(values: Sequence[float], floor: float | None) -> dict[str, Any]:
    """Mean and standard deviation (ddof 1) over the sampling seeds, infinite where a score is; no
    floor is None."""
    if not all(map(math.isfinite, values)):
        return {"mean": sum(values), "std": math.inf, "values": list(values), "floor": floor}
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    try:
        mean = statistics.fmean(values)
    except OverflowError:  # their sum is no float, and their mean is
        mean = statistics.mean(values)
    return {"mean": mean, "std": std, "values": list(values), "floor": floor}


def evaluators(plan: Plan, store: Store) -> dict[str, Any]:
    """How good the feature spaces are in which arms are scored, by encoder."""
    spaces = {stage.space.id: stage.space for stage in plan.stages.values() if isinstance(stage, Evaluate)}
    found = {}
    for stage, space in sorted(spaces.items()):
        file = store.path(stage) / "quality.json"
        if store.present(stage):
            quality = json.loads(file.read_text(encoding="utf-8"))
            found[stage] = {"encoder": space.encoder.name, "quality": quality}
    return found


def versions() -> dict[str, str]:
    """Versions of what decides results, as far as it is installed."""
    return {name: version for name in PACKAGES if (version := version_of(name))}


def version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def environment(plan: Plan, store: Store) -> dict[str, Any]:
    finished = [stage for stage in plan.stages if store.present(stage)]
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "devices": sorted({store.manifest(stage)["device"] for stage in finished}),
    }


def stage_warnings(plan: Plan, store: Store) -> list[str]:
    """What finished stages had to warn of, in the order of the plan."""
    finished = [stage for stage in plan.stages.values() if store.present(stage.id)]
    return [f"{stage.title}: {text}" for stage in finished for text in store.manifest(stage.id).get("warnings", ())]


def indistinct(result: Mapping[str, Any]) -> list[str]:
    """Arms that were sampled in different ways and came out the same, in every score of every sampling seed."""
    arms = {name: arm for name, arm in result["arms"].items() if arm["status"] == "finished" and arm["metrics"]}
    groups: list[list[str]] = []
    for name in arms:
        for group in groups:
            if same_scores(arms[group[0]], arms[name]):
                group.append(name)
                break
        else:
            groups.append([name])
    return [
        f"arms {' and '.join(group)} have exactly equal scores in all sampling seeds ({equal_scores(arms[group[0]])}): "
        "the model ignores its condition, or guidance never acted"
        for group in groups
        if len({arms[name]["sample_key"] for name in group}) > 1
    ]


def same_scores(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two arms agree in whatever both are scored by, sampling seed by sampling seed."""
    common = one["metrics"].keys() & other["metrics"].keys()
    return bool(common) and all(one["metrics"][key]["values"] == other["metrics"][key]["values"] for key in common)


def equal_scores(arm: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {score['mean']:.3f}" for key, score in arm["metrics"].items())


def bullets(texts: Iterable[str]) -> str:
    return "\n".join(f"* {shown(text)}" for text in texts)


def rows(result: Mapping[str, Any]) -> Iterator[list[str]]:
    """The table: a header, one row per arm, and the floor as the last row.

    A probe's column is there as soon as one arm has a score, and empty for arms that it has nothing to read of; so is
    that of a metric that reads conditions for arms without.
    """
    keys = list(result["better"])
    probes = [key for key in result.get("probes", {}) if any(key in of(arm) for arm in result["arms"].values())]
    better = {**result["better"], **result.get("probes", {})}
    arrows = {"lower": "↓", "higher": "↑"}
    yield ["arm", *(f"{key} {arrows[better[key]]}" for key in (*keys, *probes)), "NFE", "seconds"]
    floor: dict[str, float] = {}
    real = 0
    for name, arm in result["arms"].items():
        cells = []
        for key in keys:
            score = arm["metrics"].get(key)
            missing = "" if arm["status"] == "finished" else arm["status"]
            cells.append(f"{score['mean']:.3f} ± {score['std']:.3f}" if score else missing)
            if score:
                if score["floor"] is not None:
                    floor[key] = score["floor"]
                real = arm["real_images"]["held_out"]
        cells += [f"{of(arm)[key]:.3f}" if key in of(arm) else "" for key in probes]
        yield [name, *cells, str(arm["nfe"]), f"{arm['seconds']:.0f}"]
    floors = [f"{floor[key]:.3f}" if key in floor else "" for key in (*keys, *probes)]
    yield [f"real held-out, n={real}", *floors, "", ""]


def acts(arm: Mapping[str, Any]) -> list[str]:
    """`cfg acts in 12 of 18 calls`, of each guidance mode of an arm that does not act in all of them."""
    return [
        f"{mode['name']} acts in {mode['acts']} of {mode['calls']} calls"
        for mode in arm.get("guidance", ())
        if mode["acts"] < mode["calls"]
    ]


def of(arm: Mapping[str, Any]) -> Mapping[str, float]:
    """What probes found of an arm."""
    return arm.get("probes", {})


def markdown_table(result: Mapping[str, Any]) -> str:
    header, *body = rows(result)
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *body]
    cells = [line if number == 1 else map(shown, line) for number, line in enumerate(lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def verdict(result: Mapping[str, Any]) -> str:
    """The comparison in one sentence: the best arm's headline score against the baseline's."""
    key, baseline = result["headline"], result["baseline"]
    scored = {name: arm["metrics"][key]["mean"] for name, arm in result["arms"].items() if key in arm["metrics"]}
    if baseline not in scored or len(scored) < 2:
        return f"{key}: not enough finished arms to compare."
    choose = min if result["better"][key] == "lower" else max
    best = choose((name for name in scored if name != baseline), key=lambda name: scored[name])
    ratio = scored[best] / scored[baseline] if scored[baseline] else float("nan")
    return f"{key}: {best} {scored[best]:.3f} against {baseline} {scored[baseline]:.3f} (x {ratio:.2f})."


def quality_table(arms: Mapping[str, Mapping[str, float]]) -> str:
    """A row per arm and a column per score."""
    keys = list(dict.fromkeys(key for quality in arms.values() for key in quality))
    lines = ["| arm | " + " | ".join(map(shown, keys)) + " |", "|---|" + "---:|" * len(keys)]
    for name, quality in arms.items():
        cells = [shown(name), *(f"{quality[key]:.3f}" if key in quality else "" for key in keys)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def markdown(result: Mapping[str, Any]) -> str:
    """report.md"""
    samples = result["samples"]
    parts = [
        f"# {shown(result['recipe'])}, seed {result['seed']}",
        shown(verdict(result)),
        markdown_table(result),
        f"Mean ± standard deviation over {samples['seeds']} sampling seeds of {samples['count']} images each, one "
        "training seed. `real held-out` scores real images that no model was trained on in the place of samples: "
        "the floor. Frechet distances grow as images get fewer, so that floor is high where n is small. NFE: network "
        "evaluations per image. seconds: the arm's own stages, also those that it shares with other arms.",
        *([PROBES] if result.get("probes") else []),
        "![arms](arms.png)",
    ]
    judged = [entry for entry in result["evaluators"].values() if entry["quality"]]
    if judged:
        said = (f"{e['encoder']}: " + ", ".join(f"{k} {v:.3f}" for k, v in e["quality"].items()) for e in judged)
        listed = shown("; ".join(said))
        parts.append(f"Evaluators, on held-out images: {listed}. They may use labels; label-free arms do not.")
    for what, heading in SECTIONS:
        arms = {name: arm[what] for name, arm in result["arms"].items() if arm.get(what)}
        if arms:
            parts += [heading, quality_table(arms)]
    if classes := result.get("classes"):
        parts.append("## Classes\n\n" + ", ".join(f"{number} = {shown(name)}" for number, name in enumerate(classes)))
    if warnings := result.get("warnings"):
        parts.append("## Warnings\n\n" + bullets(warnings))
    partly = [f"{name}: {told}" for name, arm in result["arms"].items() for told in acts(arm)]
    if partly:
        parts.append("## Guidance\n\nWhere it does not act in all calls of the model.\n\n" + bullets(partly))
    errors = [f"{name}: {arm['error']}" for name, arm in result["arms"].items() if "error" in arm]
    if errors:
        parts.append("## Failed\n\n" + bullets(errors))
    sampled = [name for name, arm in result["arms"].items() if arm["status"] == "finished"]
    pictures = (f"{shown(name)}\n\n![{shown(name)}](samples-{quote(name, errors='replace')}.png)" for name in sampled)
    parts.append("## Samples\n\n" + "\n\n".join(pictures))
    return "\n\n".join(parts) + "\n"


def note(result: Mapping[str, Any]) -> str:
    """The report in short, in Markdown, for a tracker's page."""
    parts = [shown(verdict(result)), markdown_table(result)]
    if result["warnings"]:
        parts += ["Warnings:", bullets(result["warnings"])]
    return "\n\n".join(parts)
