"""All commands of `fw`, each in a file of its own, as one command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from fw.core.cli.about import show_version
from fw.core.cli.clusters import clusters
from fw.core.cli.command import Command
from fw.core.cli.compare import compare
from fw.core.cli.ending import EXIT_CODES, Commands
from fw.core.cli.export import export
from fw.core.cli.fetch import fetch
from fw.core.cli.heatmap import heatmap
from fw.core.cli.new_plugin import new_plugin
from fw.core.cli.plot import plot
from fw.core.cli.plugins import plugins
from fw.core.cli.recipes import recipes
from fw.core.cli.register import register
from fw.core.cli.reproduce import reproduce
from fw.core.cli.run import run
from fw.core.cli.sample import sample
from fw.core.cli.schema import schema
from fw.core.cli.status import status
from fw.core.cli.store import store
from fw.core.cli.sweep import sweep
from fw.core.cli.sync import sync
from fw.core.cli.ui import ui
from fw.core.cli.validate import validate
from fw.core.cli.verify import verify
from fw.core.cli.work import work

GROUPS: dict[str, tuple[Callable[..., None], ...]] = {
    "Run": (run, sweep, work, validate, fetch, recipes, schema),
    "Read a run": (compare, plot, clusters, heatmap, ui),
    "Use a run": (sample, export, register, sync),
    "Trust a run": (reproduce, verify),
    "Keep house": (status, store),
    "Plugins": (plugins, new_plugin),
}
"""The commands, under the headings and in the order of `fw --help`."""

app = typer.Typer(
    name="fw",
    cls=Commands,
    help="Composable experiments that join self-supervised learning and diffusion.",
    epilog="\n".join(
        ["Exit codes:", *(f"{code:>3}  {meaning}" for code, meaning in EXIT_CODES.items())]
    ),
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=show_version,
            is_eager=True,
            expose_value=False,
            help="Say which fw, torch and Python these are, and where, and exit.",
        ),
    ] = False,
) -> None:
    """What stands before a command's name."""


for heading, commands in GROUPS.items():
    for command in commands:
        app.command(cls=Command, rich_help_panel=heading)(command)
