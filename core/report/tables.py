"""What run.json says as tables and in one sentence, for pages and terminals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fw.core.messages.escaping import markdown as escaped


def verdict(result: Mapping[str, Any]) -> str:
    """The comparison in one sentence: the best arm's headline score against the baseline's, by the
    sampler that is best for it; and in a second one how these two differ in their samplers."""
    key, baseline, arms = result["headline"], result["baseline"], result["arms"]
    metrics = {name: arm["metrics"] for name, arm in arms.items()}
    scored = {name: scores[key]["mean"] for name, scores in metrics.items() if key in scores}
    if baseline not in scored or len(scored) < 2:
        return f"{key}: not enough finished arms to compare."
    chances = [name for name in (result.get("baselines") or [baseline]) if name in scored]
    if len(chances) == len(scored):  # nothing is compared but samplers
        chances = [baseline]
    choose = min if result["better"][key] == "lower" else max
    best = choose((name for name in scored if name not in chances), key=lambda name: scored[name])
    against = choose(chances, key=lambda name: scored[name])
    ratio = scored[best] / scored[against] if scored[against] else float("nan")
    compared = f"{best} {scored[best]:.3f} against {against} {scored[against]:.3f}"
    return f"{key}: {compared} (x {ratio:.2f})." + sampled_otherwise(arms[best], arms[against])


def sampled_otherwise(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What to mind where two arms have different samplers."""
    how, otherwise = one.get("sampler"), other.get("sampler")
    if how == otherwise:
        return ""
    return (
        f" Their samplers differ: {how}, NFE {one['nfe']}, against {otherwise}, NFE {other['nfe']}."
    )


def label_free(result: Mapping[str, Any]) -> str | None:
    """Which arms have seen no labels, in one line; None for a run from before fw knew it."""
    names: dict[str, list[str]] = {"yes": [], "no": [], "unknown": []}
    for name, arm in result["arms"].items():
        if known := arm.get("label_free"):
            names[known["value"]].append(name)
    words = {"yes": "Label-free", "no": "not label-free", "unknown": "not known"}
    parts = [f"{words[value]}: {', '.join(arms)}" for value, arms in names.items() if arms]
    return f"{'; '.join(parts)}." if parts else None


def rows(result: Mapping[str, Any]) -> Iterator[list[str]]:
    """The comparison as a table: a header, one row per arm, and the floor as the last row.

    A probe's column is there as soon as one arm has a score, and empty for arms that it has
    nothing to read of; so is that of a metric that reads conditions for arms without. Samplers have
    a column where they differ.
    """
    arms, keys = result["arms"], list(result["better"])
    known = result.get("probes", {})
    probes = [key for key in known if any(key in probe_scores(arm) for arm in arms.values())]
    better = {**result["better"], **known}
    arrows = {"lower": "↓", "higher": "↑"}
    headings = (f"{key} {arrows[better[key]]}" for key in (*keys, *probes))
    differ = len({arm.get("sampler") for arm in arms.values()}) > 1
    yield ["arm", *headings, *(["sampler"] if differ else []), "NFE", "seconds"]
    floor: dict[str, float] = {}
    real = 0
    for name, arm in arms.items():
        cells = []
        for key in keys:
            score = arm["metrics"].get(key)
            missing = "" if arm["status"] == "finished" else arm["status"]
            cells.append(f"{score['mean']:.3f} ± {score['std']:.3f}" if score else missing)
            if score:
                if score["floor"] is not None:
                    floor[key] = score["floor"]
                real = arm["real_images"]["held_out"]
        cells += numbers(probe_scores(arm), probes)
        if differ:
            cells.append(arm.get("sampler", ""))
        yield [name, *cells, str(arm["nfe"]), f"{arm['seconds']:.0f}"]
    rest = ["", "", ""] if differ else ["", ""]
    yield [f"real held-out, n={real}", *numbers(floor, [*keys, *probes]), *rest]


def probe_scores(arm: Mapping[str, Any]) -> Mapping[str, float]:
    return arm.get("probes", {})


def numbers(scores: Mapping[str, float], keys: Iterable[str]) -> list[str]:
    """A cell per key, empty where there is no such score."""
    return [f"{scores[key]:.3f}" if key in scores else "" for key in keys]


def markdown_table(result: Mapping[str, Any]) -> str:
    """The comparison in Markdown."""
    header, *body = rows(result)
    rule = ["---"] + ["---:"] * (len(header) - 1)
    lines = [map(escaped, header), rule, *(map(escaped, line) for line in body)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def quality_table(arms: Mapping[str, Mapping[str, float]]) -> str:
    """A row per arm and a column per score."""
    keys = list(dict.fromkeys(key for quality in arms.values() for key in quality))
    lines = ["| arm | " + " | ".join(map(escaped, keys)) + " |", "|---|" + "---:|" * len(keys)]
    for name, quality in arms.items():
        lines.append(f"| {' | '.join([escaped(name), *numbers(quality, keys)])} |")
    return "\n".join(lines)


def sampler_table(arms: Mapping[str, Mapping[str, Any]]) -> str:
    """A row for each way of sampling, with what it makes of Gaussian data, and its arms; empty
    where nothing is known of any."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for name, arm in arms.items():
        if (exact := arm.get("spread")) is not None:
            cells = [arm["sampler"], f"{exact['data']:g}"]
            cells += [within(exact[key], exact["standard_error"]) for key in ("whole", "detail")]
            rows.setdefault((*cells, f"{exact['gain']:.2g}"), []).append(name)
    header = [
        "| sampler | data | spread | detail | errors | arms |",
        "|---|---:|---:|---:|---:|---|",
    ]
    lines = [
        f"| {' | '.join(map(escaped, [*cells, ', '.join(names)]))} |"
        for cells, names in rows.items()
    ]
    return "\n".join([*header, *lines]) if lines else ""


def within(value: float, error: float) -> str:
    return f"{value:.3f} ± {error:.3f}" if error else f"{value:.3f}"
