"""How a command ends: one message and an exit code, whatever has happened; see fw.core.errors."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import Any

import typer.core

from fw.core.errors import FwError, Interrupted, OutOfOrder, StageFailed
from fw.core.messages.escaping import visible_lines
from fw.registry.once import one_look

TRACEBACK = "FW_TRACEBACK"
"""If this variable is 1, the traceback of an unexpected exception is printed, not written to a
file."""

EXIT_CODES = {
    0: "everything finished",
    1: "a stage failed, a check found a fault, or the machine or fw let it down",
    2: "the recipe, an argument, a plugin or a missing file is at fault",
    130: "stopped by Ctrl-C, SIGTERM or SIGHUP; the same command continues",
}
"""What they say, for `fw --help`; who raises what is in fw.core.errors."""

CONTINUING = {"run", "sweep", "work", "clusters", "fetch"}
"""Commands whose work is kept stage by stage, or byte by byte."""

CONTINUES = "nothing that was finished is lost; the same command continues from there"


class Commands(typer.core.TyperGroup):
    """The commands, with a message when one is interrupted or fails; typer would say less."""

    def invoke(self, ctx: Any) -> Any:
        failure: Exception
        try:
            with one_look():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            failure = Interrupted("interrupted")
        except (StageFailed, OutOfOrder) as error:
            failure = error
        except FwError:
            raise
        except Exception as error:
            broken_pipe = isinstance(error, OSError) and error.errno == errno.EPIPE
            failure = OutOfOrder(f"a connection broke: {error}") if broken_pipe else error
        if ctx.invoked_subcommand in CONTINUING:
            failure.add_note(CONTINUES)
        raise failure


def guarded(command: Callable[[], None]) -> int:
    """Run the command. Whatever ends it becomes one message and an exit code, not a traceback; see
    fw.core.errors."""
    try:
        command()
    except FwError as error:
        return ended(error, str(error), error.exit_code)
    except KeyboardInterrupt as error:
        return ended(error, "interrupted", Interrupted.exit_code)
    except Exception as error:
        from fw.core.messages.blame import blamed
        from fw.core.messages.plain import plain

        whose, why = blamed(error), plain(error)
        if whose is not None:
            return ended(error, f"{whose}; {why}" if why else whose, FwError.exit_code)
        return ended(error, why or unexpected(error), OutOfOrder.exit_code)
    return 0


def ended(error: BaseException, reason: str, code: int) -> int:
    """Print why a command ended, and whether the same command continues; returns the exit code."""
    from fw.core.messages.secrets import redact

    print(visible_lines(redact(reason)), file=sys.stderr)
    if CONTINUES in getattr(error, "__notes__", ()):
        print(CONTINUES, file=sys.stderr)
    return code


def unexpected(error: Exception) -> str:
    """The message for an exception that nobody foresaw: it is a fault of fw. The traceback goes to
    a file."""
    from fw.core.messages.secrets import redact
    from fw.registry.errors import in_one_line

    trace = redact("".join(traceback.format_exception(error)))
    message = f"this is a fault of fw, not of yours: {in_one_line(error)}"
    if os.environ.get(TRACEBACK, "0") not in ("", "0"):
        return f"{trace}{message}"
    try:
        with tempfile.NamedTemporaryFile(
            prefix="fw-traceback-", suffix=".txt", delete=False
        ) as file:
            file.write(trace.encode("utf-8", "backslashreplace"))
    except OSError:
        return f"{message} (set {TRACEBACK}=1 to see the traceback)"
    return f"{message} (please report it; the traceback is in {file.name})"
