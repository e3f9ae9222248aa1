"""The command line of `fw status`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fw.core.cli import completing
from fw.core.cli.answers import answer
from fw.core.cli.arguments import DEFAULT_OUT

CLEARED = "\x1b[2J\x1b[H"
"""Has a terminal forget what it shows, and begin at its top."""


def status(
    runs: Annotated[
        Path,
        typer.Argument(
            help="a runs folder", metavar="RUNS", autocompletion=completing.runs_folders
        ),
    ] = DEFAULT_OUT,
    watch: Annotated[
        bool, typer.Option("--watch", help="say it every two seconds, until Ctrl-C")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="answer with one JSON document")] = False,
) -> None:
    """Say what is running on a runs folder, queued, stalled or failed, and how far it is."""
    import json
    import sys
    import time

    from fw.core.commands.status import status as look
    from fw.core.errors import FwError
    from fw.core.machine.streams import unread

    if watch and as_json:
        raise FwError("--watch and --json: name one")
    if as_json:
        print(json.dumps(look(runs).facts(), indent=1))
        return
    try:
        while True:
            lines = list(look(runs).lines())
            if watch and sys.stdout.isatty():
                print(CLEARED, end="")
            for line in lines:
                answer(line)
            if not watch:
                return
            sys.stdout.flush()
            time.sleep(2)
            if unread(1):
                return
    except KeyboardInterrupt:
        if not watch:
            raise
