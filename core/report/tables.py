"""What run.json says as tables and in sentences, for pages and terminals."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fw.core.messages.escaping import markdown as escaped

ARROWS = {"lower": "↓", "higher": "↑"}


def title_of(result: Mapping[str, Any]) -> str:
    """`self_guidance, seeds 0 to 2`"""
    first, repeats = result["seed"], result.get("repeats", 1)
    seeds = result.get("seeds") or list(range(first, first + repeats))
    if len(seeds) == 1:
        return f"{result['recipe']}, seed {first}"
    between = seeds == list(range(seeds[0], seeds[0] + len(seeds)))
    listed = f"{seeds[0]} to {seeds[-1]}" if between else ", ".join(map(str, seeds))
    return f"{result['recipe']}, seeds {listed}"


def figure_keys(result: Mapping[str, Any], most: int) -> list[str]:
    """The scores that a figure shows; of a run from before there was a choice, the first ones."""
    return list(result.get("in_figures") or result["better"])[:most]


def verdict(result: Mapping[str, Any]) -> list[str]:
    """The sentences that answer the run's question; of a run from before there were any, where to
    get them."""
    if (known := result.get("verdict")) is not None:
        return list(known["sentences"])
    return [f"{result['headline']}: run the recipe again for a verdict; nothing is done twice."]


def differences(result: Mapping[str, Any]) -> str:
    """The verdict's comparisons as a table in Markdown; empty where there are none."""
    header = "| arm | than | as | difference | 95 % interval | p | adjusted | decision |"
    lines = [
        "| " + " | ".join(map(escaped, cells(each))) + " |"
        for each in result.get("verdict", {}).get("comparisons", ())
    ]
    return "\n".join([header, "|---|---|---|---:|---|---:|---:|---|", *lines]) if lines else ""


def cells(one: Mapping[str, Any]) -> Iterator[str]:
    """The row of a comparison; empty where one training says nothing."""
    yield from (one["arm"], one["than"], one["role"])
    spread = f" ± {one['spread']:.2g}" if one["spread"] is not None and not one["interval"] else ""
    yield f"{one['difference']:+.4g}{spread}"
    yield "{:+.4g} to {:+.4g}".format(*one["interval"]) if one["interval"] else ""
    yield from ("" if one[key] is None else f"{one[key]:.2g}" for key in ("p", "adjusted"))
    yield one["decision"]


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
    headings = (f"{key} {ARROWS[better[key]]}" for key in (*keys, *probes))
    differ = len({arm.get("sampler") for arm in arms.values()}) > 1
    yield ["arm", *headings, *(["sampler"] if differ else []), "NFE", "seconds"]
    for name, arm in arms.items():
        row = [cell(arm, key) for key in keys]
        row += [probed(arm, key) for key in probes]
        if differ:
            row.append(arm.get("sampler", ""))
        yield [name, *row, str(arm["nfe"]), f"{arm['seconds']:.0f}"]
    rest = ["", "", ""] if differ else ["", ""]
    yield ["real held-out", *numbers(floors(arms), [*keys, *probes]), *rest]


def floors(arms: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """What real images score, by key: equal in all arms that have a floor."""
    scores = [entry for arm in arms.values() for entry in arm["metrics"].items()]
    return {key: score["floor"] for key, score in scores if score["floor"] is not None}


def cell(arm: Mapping[str, Any], key: str) -> str:
    """An arm's score, or why it has none."""
    if (score := arm["metrics"].get(key)) is None:
        return "" if arm["status"] == "finished" else str(arm["status"])
    return f"{score['mean']:.3f} ± {score['std']:.3f}"


def probe_scores(arm: Mapping[str, Any]) -> Mapping[str, float]:
    return arm.get("probes", {})


def probed(arm: Mapping[str, Any], key: str) -> str:
    """What a probe says of an arm: over several trainings their mean and standard deviation."""
    values = arm.get("probe_trainings", {}).get(key, {}).values()
    shown = ", ".join(numbers(probe_scores(arm), [key]))
    return f"{shown} ± {statistics.stdev(values):.3f}" if len(values) > 1 else shown


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
