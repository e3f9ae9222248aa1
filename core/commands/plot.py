"""`fw plot`: a score against one key of the recipe, from the arms of a finished run that differ
in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fw.core.commands.target import check_target
from fw.core.errors import FwError
from fw.core.messages.plain import writing
from fw.core.report.figures import save_sweep_figure
from fw.core.report.series import lines
from fw.core.report.tables import figure_keys
from fw.core.run.finished import FinishedRun

DEFAULT_SCORES = 4


def plot(run: FinishedRun, key: str | None, wanted: Sequence[str], output: Path) -> None:
    """Write the figure of the scores `wanted`, of the first ones in the report if none is named."""
    check_target(output)
    result = run.results()
    keys = list(dict.fromkeys(wanted)) or figure_keys(result, DEFAULT_SCORES)
    for each in keys:
        if each not in result["better"]:
            raise FwError(
                f"--y {each}: no such score in {run.path} (known: {', '.join(result['better'])})"
            )
    drawn = lines(result, run.sections(result), key)
    with writing(output, "-o"):
        save_sweep_figure(drawn, result["arms"], keys, result["baseline"], output)
