"""What run.json says as tables and in one sentence, for pages and terminals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fw.core.messages.escaping import markdown as escaped


def verdict(result: Mapping[str, Any]) -> str:
    """The comparison in one sentence: the best arm's headline score against the baseline's."""
    key, baseline = result["headline"], result["baseline"]
    metrics = {name: arm["metrics"] for name, arm in result["arms"].items()}
    scored = {name: scores[key]["mean"] for name, scores in metrics.items() if key in scores}
    if baseline not in scored or len(scored) < 2:
        return f"{key}: not enough finished arms to compare."
    choose = min if result["better"][key] == "lower" else max
    best = choose((name for name in scored if name != baseline), key=lambda name: scored[name])
    ratio = scored[best] / scored[baseline] if scored[baseline] else float("nan")
    against = f"{baseline} {scored[baseline]:.3f}"
    return f"{key}: {best} {scored[best]:.3f} against {against} (x {ratio:.2f})."


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
    nothing to read of; so is that of a metric that reads conditions for arms without.
    """
    arms, keys = result["arms"], list(result["better"])
    known = result.get("probes", {})
    probes = [key for key in known if any(key in probe_scores(arm) for arm in arms.values())]
    better = {**result["better"], **known}
    arrows = {"lower": "↓", "higher": "↑"}
    headings = (f"{key} {arrows[better[key]]}" for key in (*keys, *probes))
    yield ["arm", *headings, "NFE", "seconds"]
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
        yield [name, *cells, str(arm["nfe"]), f"{arm['seconds']:.0f}"]
    yield [f"real held-out, n={real}", *numbers(floor, [*keys, *probes]), "", ""]


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
