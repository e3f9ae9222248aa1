"""Errors of the machine in plain words: which file, why, and what would help.

Python, torch, safetensors and SQLite each have words of their own for a full disk. The exit code
says whose fault it is: 2 where the user gave a file that cannot be written, 1 where the machine is
full or broken.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from fw.core.errors import FwError, OutOfOrder

FULL = "the disk is full: free some space"
LIMIT = "a file may not grow that large here (`ulimit -f`): raise the limit"
NO_LOCKS = (
    "this file system has no file locks, as some network folders have none: choose another folder "
    "with --out"
)
NOT_WRITABLE = "it cannot be written to: choose another folder, or change who may write there"
LOCALE = (
    "a file's name has letters that the locale cannot write: set LC_ALL=C.UTF-8 (or another UTF-8 "
    "locale)"
)
GONE = "it is not there, or not any more: was it moved or deleted meanwhile?"

WORKING = "the folder that the command was started in"
"""What is gone if an error gives no file: Python looked for its working directory."""

REMEDIES = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: "the quota of this user is used up: free some space",
    errno.EFBIG: LIMIT,
    errno.EROFS: NOT_WRITABLE,
    errno.EACCES: (
        "it may not be read or written by this user: choose another, or change its permissions"
    ),
    errno.EPERM: (
        "it may not be read or written by this user: choose another, or change its permissions"
    ),
    errno.ENOENT: GONE,
    errno.ESTALE: GONE,
    errno.ENOTDIR: "a part of the path is a file, not a folder: choose another path",
    errno.EEXIST: "a file is in the way: choose another path, or remove it",
    errno.EISDIR: "it is a folder, not a file: choose another path",
    errno.ENAMETOOLONG: "the name is too long for this file system: choose a shorter one",
    errno.ELOOP: "its links lead in a circle: choose another path",
    errno.EMFILE: "too many files are open: raise the limit (`ulimit -n`), or use fewer --jobs",
    errno.ENFILE: "too many files are open on this machine: close some programs",
    errno.EAGAIN: "the machine has no more threads or processes to give: use fewer --jobs",
    errno.ENOMEM: "the memory is full: use fewer --jobs, or smaller batches",
    errno.ENOLCK: NO_LOCKS,
    errno.ENOTSUP: NO_LOCKS,
    errno.EIO: "the disk or the way to it is broken",
    errno.EBUSY: "another program holds it",
    errno.ETXTBSY: "another program holds it",
}

PATH_ERRORS = {
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ELOOP,
}
"""Errors of the path that the user gave, and not of the machine."""

WORDS = (
    (
        r"unexpected pos \d+ vs \d+|PytorchStreamWriter failed writing|file write failed|iostream "
        r"error",
        f"{FULL}; or {LIMIT}",
    ),
    (r"No space left on device|os error 28|database or disk is full", FULL),
    (r"Disk quota exceeded|os error 122", REMEDIES[errno.EDQUOT]),
    (r"File too large|os error 27\b", LIMIT),
    (r"readonly database|Read-only file system|os error 30\b", NOT_WRITABLE),
    (r"does not appear to support flock|No locks available", NO_LOCKS),
    (
        r"CUDA out of memory|CUDA error: out of memory",
        "the GPU's memory is full: use smaller batches or models",
    ),
    (
        r"DefaultCPUAllocator|can't allocate memory|Cannot allocate memory|bad_alloc",
        REMEDIES[errno.ENOMEM],
    ),
    (r"can't start new thread", REMEDIES[errno.EAGAIN]),
    (r"surrogates not allowed", LOCALE),
)
"""Patterns of libraries' own error messages, and what they mean."""


def plain(error: BaseException, path: Path | None = None) -> str | None:
    """One sentence about an error of the machine; None if the error is another one.

    `path`: the file or the folder that was worked on, for errors that do not give one.
    """
    reason = cause(error)
    place = path_of(error) or path or (WORKING if isinstance(error, FileNotFoundError) else None)
    return f"{place}: {reason}" if place and reason else reason


def cause(error: BaseException) -> str | None:
    text = str(error)
    if isinstance(error, MemoryError):
        return REMEDIES[errno.ENOMEM]
    if isinstance(error, RecursionError):
        return "something is nested too deeply: write it flatter"
    for pattern, meaning in WORDS:
        if re.search(pattern, text):
            return meaning
    if not isinstance(error, OSError) or error.errno is None:
        return None
    remedy = REMEDIES.get(error.errno)
    reason = error.strerror or os.strerror(error.errno)
    return f"{reason[:1].lower()}{reason[1:]}: {remedy}" if remedy else reason


def path_of(error: BaseException) -> str | None:
    """The path that an OSError is about; for a rename, the new one."""
    if not isinstance(error, OSError):
        return None
    name = error.filename2 if error.filename2 is not None else error.filename
    if isinstance(name, bytes):
        return os.fsdecode(name)
    return str(name) if isinstance(name, str | os.PathLike) else None


@contextlib.contextmanager
def writing(path: Path, option: str = "") -> Iterator[None]:
    """Errors while a file or a folder is written become one sentence about it; see `plain`.

    `option`: the option of the command line that gave it, such as `-o`.
    """
    try:
        yield
    except FwError:
        raise
    except Exception as error:
        if (reason := plain(error, path)) is None:
            raise
        users = option and isinstance(error, OSError) and error.errno in PATH_ERRORS
        raise (FwError if users else OutOfOrder)(f"{option} {reason}".strip()) from error
