"""What can go wrong, and the exit code that says whose fault it is: 1 a stage's, 2 the user's
input."""

from collections.abc import Sequence


class FwError(Exception):
    """A problem that the user gets as one message, without a traceback."""

    exit_code = 2


class RecipeError(FwError):
    """Everything that is wrong with a recipe, all at once."""

    def __init__(self, problems: Sequence[str]):
        super().__init__("\n".join(problems))
        self.problems = list(problems)


class MissingFile(FwError):
    """A data folder or weights file that a component needs is not there, or is something else."""


class StageFailed(FwError):
    """A stage raised; what finished before it is kept."""

    exit_code = 1


class Damaged(StageFailed):
    """A product in the store is not as it was stored."""

    def __init__(self, stage: str, reason: str):
        super().__init__(f"{stage} is damaged in the store, {reason}")
        self.stage = stage
        self.reason = reason


class PutOff(FwError):
    """Another process is at what was to be done: it is tried again later."""

    exit_code = 1

    def __init__(self, reason: str, holder: str):
        super().__init__(reason, holder)  # both, so that it can be sent to another process
        self.reason = reason
        self.holder = holder
        """Who is at it, in words."""

    def __str__(self) -> str:
        return self.reason


class Held(PutOff):
    """Another process has the lease."""


class LeaseLost(PutOff):
    """Another process has taken the lease over, because this one showed no life for too long."""


class Unreachable(FwError):
    """A server does not answer, and may do so later: a run does not end because of it."""

    exit_code = 1


class OutOfOrder(FwError):
    """The disk, the memory or another part of the machine let a command down; what finished before
    it is kept."""

    exit_code = 1


class Interrupted(FwError):
    """Ctrl-C, SIGTERM or SIGHUP: the work so far is checkpointed."""

    exit_code = 130
