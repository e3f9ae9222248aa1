"""What the machine does not let happen, in plain words: the errors here are real ones wherever they
can be."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import sites
import torch

from fw.core.errors import FwError, OutOfOrder
from fw.core.messages.plain import FULL, GONE, LIMIT, NO_LOCKS, plain, writing

LIMITED = """
    import resource
    import sys

    import torch
    from safetensors.torch import save_file

    from fw.core.messages.plain import plain

    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    big = {"a": torch.zeros(100_000)}
    for write in (torch.save, save_file):
        try:
            write(big, sys.argv[1])
        except Exception as error:
            print(plain(error, sys.argv[1]))
"""


def test_a_limit_on_the_size_of_files_is_called_that_and_not_by_what_torch_makes_of_it(
    tmp_path: Path,
) -> None:
    code = sites.write(tmp_path / "limited.py", LIMITED)
    command = [sys.executable, str(code), f"{tmp_path}/weights"]
    said = subprocess.run(
        command, capture_output=True, encoding="utf-8", check=True
    ).stdout.splitlines()
    assert len(said) == 2
    for line in said:
        assert line.startswith(f"{tmp_path}/weights: ")
        assert "ulimit -f" in line


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="it is a disk that is always full")
def test_a_full_disk_is_called_that_whoever_meets_it() -> None:
    full = Path("/dev/full")
    for write in (
        lambda: full.write_text("x", encoding="utf-8"),
        lambda: torch.save({"a": torch.zeros(9)}, full),
    ):
        with pytest.raises(OutOfOrder) as caught, writing(full):
            write()
        assert str(caught.value).startswith("/dev/full: ")
        assert FULL in str(caught.value)
        assert caught.value.exit_code == 1


def test_a_path_of_the_user_that_cannot_be_written_is_an_argument_that_is_wrong(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    for path, remedy in (
        (tmp_path, "it is a folder"),
        (tmp_path / "file/x", "is a file, not a folder"),
        (tmp_path / ("x" * 300), "choose a shorter one"),
        (tmp_path / "no/x", GONE),
    ):
        with pytest.raises(FwError, match=r"^-o /") as caught, writing(path, "-o"):
            path.write_text("x", encoding="utf-8")
        assert remedy in str(caught.value)
        assert str(path) in str(caught.value)
        assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("[enforce fail at inline_container.cc:659] . unexpected pos 64 vs 0"), FULL),
        (RuntimeError("[enforce fail at inline_container.cc:659] . unexpected pos 64 vs 0"), LIMIT),
        (OSError(errno.ENOLCK, "No locks available"), NO_LOCKS),
        (
            NotImplementedError(
                "FileSystem does not appear to support flock; use SoftFileLock instead"
            ),
            NO_LOCKS,
        ),
        (OSError(errno.EROFS, "Read-only file system", "/x/locks/a.lock"), "/x/locks/a.lock: "),
        (
            OSError(errno.ENOSPC, "No space left on device", "/x/from", None, "/x/to"),
            "/x/to: the disk is full",
        ),
        (OSError(errno.EIO, "Input/output error"), "broken"),
        (Exception("(sqlite3.OperationalError) database or disk is full"), FULL),
        (
            Exception("Error while serializing: I/O error: No space left on device (os error 28)"),
            FULL,
        ),
        (
            RuntimeError(
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            ),
            "memory is full",
        ),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
            "GPU's memory is full",
        ),
        (MemoryError(), "memory is full"),
        (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
        (OSError(errno.EXDEV, "Invalid cross-device link", "/x"), "/x: Invalid cross-device link"),
    ],
)
def test_known_errors_are_said_in_plain_words(error: BaseException, said: str) -> None:
    assert said in (plain(error) or "")


@pytest.mark.parametrize(
    "error", [ValueError("x"), KeyError("disk"), RuntimeError("size mismatch"), OSError("odd")]
)
def test_other_errors_are_left_to_others(error: BaseException) -> None:
    assert plain(error) is None
    with pytest.raises(type(error)), writing(Path("x")):
        raise error


def test_a_working_directory_that_is_gone_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here").rmdir()
    with pytest.raises(FileNotFoundError) as caught:
        os.getcwd()  # noqa: PTH109  what Path.absolute asks
    assert "the folder that the command was started in" in (plain(caught.value) or "")
