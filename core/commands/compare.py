"""`fw compare`: finished runs side by side, on a terminal, as CSV, JSON or a page."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from fw.core.files.durable import write_text
from fw.core.files.strict import strict
from fw.core.kinds import Tracker
from fw.core.messages.console import say
from fw.core.messages.plain import writing
from fw.core.messages.secrets import hide
from fw.core.report.beside import Difference, Group, differences, groups, keys, rows, unlike
from fw.core.report.joined import Run
from fw.core.report.runfile import read_results
from fw.core.report.scores import Scored, by_metrics
from fw.core.report.tables import verdict
from fw.core.report.terminal import show, show_table
from fw.core.report.wording import change, number
from fw.core.run.finished import FinishedRun


def read(name: str, tracker: Callable[[], Tracker], root: Path) -> tuple[str, Run]:
    """What a run says and where it was read: in its folder, or where the tracker has it. FwError
    if there is none of the name."""
    if not Path(name).exists() and (file := tracker().fetch(name, root)) is not None:
        try:
            return hide(name), read_results(file)
        finally:
            shutil.rmtree(file.parent, ignore_errors=True)
    return name, FinishedRun(Path(name)).results()


def compare(runs: Sequence[tuple[str, Run]], console: Console) -> None:
    """Print them: one table and the verdict of each; runs of one recipe from several seeds are
    one."""
    found = groups(runs)
    if len(found) == 1:
        show(found[0].run, console)
        return
    show_table("", rows(found), console)
    for group in found:
        say(console, f"{group.label}: {', '.join(group.sources)}")
        for sentence in verdict(group.run):
            say(console, f"    {sentence}")
    for sentence in across(found):
        say(console, sentence)
    for reason in not_comparable(found):
        say(console, f"warning: {reason}; scores marked * are not comparable", style="yellow")


def across(found: Sequence[Group]) -> Iterator[str]:
    """What arms of one name differ by between the runs, in the first one's headline."""
    for one in headline_differences(found):
        pair = one.compared
        yield (
            f"{pair.arm} {one.group} against {found[0].mark}: {pair.decision}, {one.key} "
            f"{number(pair.mean)} against {number(pair.mean_of_than)}, {change(pair)}."
        )


def headline_differences(found: Sequence[Group]) -> list[Difference]:
    return differences(found, found[0].run["headline"])


def not_comparable(found: Sequence[Group]) -> list[str]:
    return [reason for key in keys(found) for reason in unlike(key, found)]


def as_html(runs: Sequence[tuple[str, Run]], path: Path) -> None:
    """The same as a page that opens anywhere."""
    from fw.core.report.page.compared import page

    found = groups(runs)
    with writing(path, "--html"):
        write_text(path, page(found, list(across(found)), not_comparable(found)))


def as_json(runs: Sequence[tuple[str, Run]]) -> str:
    """All that the runs say, joined, with what arms differ by between them."""
    found = groups(runs)
    document = {
        "runs": [{"mark": each.mark, "sources": each.sources, **each.run} for each in found],
        "differences": [
            {"run": each.group, "key": each.key, **asdict(each.compared)}
            for each in headline_differences(found)
        ],
        "not_comparable": not_comparable(found),
    }
    return strict(document)


def as_csv(runs: Sequence[tuple[str, Run]]) -> str:
    """A line for each score of each training and sampling seed, for a program or a notebook."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for group in groups(runs):
        writer.writerows(lines(group))
    return text.getvalue()


COLUMNS = ("run", "recipe", *Scored._fields)


def lines(group: Group) -> Iterator[tuple[Any, ...]]:
    yield from ((group.mark, group.run["recipe"], *scored) for scored in by_metrics(group.run))
