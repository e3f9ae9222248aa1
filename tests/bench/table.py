"""Scores as rows of Markdown: Frechet distances, precision and the price, as mean and standard
deviation over training seeds where there are several."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

LEGEND = (
    "FD in the classifier's space (in PCA space), precision, and network evaluations per image; "
    "means over the sampling seeds"
)


@dataclass(frozen=True)
class Scores:
    """One training, sampled in one way; each number is a mean over the sampling seeds."""

    fd_classifier: float
    fd_pca: float
    precision: float
    nfe: int


def legend(runs: int) -> str:
    spread = f", ± standard deviation over {runs} training seeds" if runs > 1 else ""
    return f"{LEGEND}{spread}."


def cell(runs: Sequence[Scores]) -> str:
    """`0.242 (0.061), 0.78, NFE 10`, each with its spread where there are several runs."""
    distance, in_pca = (
        over(runs, read, 3) for read in (lambda each: each.fd_classifier, lambda each: each.fd_pca)
    )
    price = " to ".join(map(str, sorted({each.nfe for each in runs})))
    return f"{distance} ({in_pca}), {over(runs, lambda each: each.precision, 2)}, NFE {price}"


def over(runs: Sequence[Scores], read: Callable[[Scores], float], digits: int) -> str:
    """The mean of a score over runs and, of several, its standard deviation (ddof 1)."""
    values = [read(each) for each in runs]
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
