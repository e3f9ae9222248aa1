"""What can go wrong, and the exit code that says whose fault it is: 1 a stage's, 2 the user's input."""

from collections.abc import Sequence
from pathlib import Path


class FwError(Exception):
    """A problem that is told to the user in one message, without a traceback."""

    exit_code = 2


class RecipeError(FwError):
    """Everything that is wrong with a recipe, all at once."""

    def __init__(self, problems: Sequence[str]):
        super().__init__("\n".join(problems))
        self.problems = list(problems)


class MissingFile(FwError):
    """A data folder or weights file that a component needs is not there, or is not what it should be."""


class StageFailed(FwError):
    """A stage raised; what finished before it is kept."""

    exit_code = 1


class OutOfOrder(FwError):
    """The disk, the memory or another part of the machine let a command down; what finished before
    it is kept."""

    exit_code = 1


class Interrupted(FwError):
    """Ctrl-C or SIGTERM: the work so far is checkpointed."""

    exit_code = 130


def unlockable(folder: Path, error: Exception) -> FwError:
    """What to raise where a file system is read-only, full, or knows no locks."""
    reason = getattr(error, "strerror", None) or error
    return FwError(f"cannot lock files in {folder} ({reason}); choose a folder where fw may write with --out")
