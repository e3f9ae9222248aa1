"""Repositories of the Hugging Face hub, fetched by huggingface_hub, and compared with the sums that
the hub states.

huggingface_hub honours HF_ENDPOINT, HF_HOME, HF_TOKEN and proxies; what it fetches is compared with
nothing but its size.
"""

from __future__ import annotations

import glob
import hashlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fw.core.errors import FwError, Unreachable
from fw.core.files.download import digest_of, move_missing
from fw.core.files.durable import aside
from fw.registry import Advance, Download

Choice = Callable[[Sequence[str]], Sequence[str]]
"""The names of the files that are needed, of those that there are."""

STALE = 600.0
"""Seconds after which a file that nobody writes to was left behind by a process that was killed."""

LOOK = 0.3
"""Seconds between looks at how much has come."""


@dataclass(frozen=True)
class HubFile:
    """A file of a repository, and its sum: the sha256 of large ones, git's sha1 of others."""

    name: str
    size: int
    sha256: str | None
    git: str | None

    def fits(self, path: Path) -> bool:
        if path.stat().st_size != self.size:
            return False
        if self.sha256 is not None:
            return digest_of(path, "sha256") == self.sha256
        return self.git is None or git_digest(path) == self.git


@dataclass(frozen=True)
class Listing:
    """The files that are needed of a repository, at a commit."""

    commit: str
    files: tuple[HubFile, ...]


@dataclass(frozen=True)
class HubFiles(Download):
    """Files of a repository: in the hub's cache or, where `local`, in a folder of their own."""

    repository: str
    check: Callable[[], bool]
    """Whether they are there."""
    choice: Choice = lambda names: names
    kind: str = "model"
    """Or `dataset`."""
    revision: str | None = None
    folder: str = ""
    """The part of the repository that becomes `place`, where that is a folder of its own."""
    local: bool = False

    @classmethod
    def in_cache(
        cls, what: str, repository: str, check: Callable[[], bool], **rest: Any
    ) -> HubFiles:
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name

        name = repo_folder_name(repo_id=repository, repo_type=rest.get("kind", "model"))
        place = Path(constants.HF_HUB_CACHE) / name
        return cls(what, address(repository, **rest), place, repository, check, **rest)

    @classmethod
    def in_folder(
        cls, what: str, repository: str, place: Path, check: Callable[[], bool], **rest: Any
    ) -> HubFiles:
        source = address(repository, **rest)
        return cls(what, source, place, repository, check, local=True, **rest)

    def there(self) -> bool:
        return self.check()

    def size(self) -> int | None:
        return sum(file.size for file in self.listing().files)

    def bring(self, advance: Advance) -> None:
        listing = self.listing()
        target = aside(self.place) if self.local else self.place
        self.clean(target, listing)
        with watched(target, advance), in_words(self.source):
            from huggingface_hub import snapshot_download

            snapshot = Path(
                snapshot_download(
                    self.repository,
                    repo_type=self.kind,
                    revision=listing.commit if self.local else self.revision,
                    allow_patterns=[glob.escape(file.name) for file in listing.files],
                    local_dir=target if self.local else None,
                )
            )
        if not self.local and snapshot.name != listing.commit:
            raise FwError(f"{self.source} has changed while it was fetched: fetch it again")
        if wrong := removed(snapshot, listing):
            raise FwError(
                f"{self.source}: {', '.join(wrong)} came with another sum than the hub states, and "
                "was removed again"
            )
        if self.local:
            inner = f"{self.folder}/" if self.folder else ""
            names = [file.name.removeprefix(inner) for file in listing.files]
            move_missing(target / self.folder, self.place, names)
            shutil.rmtree(target)

    def listing(self) -> Listing:
        """The hub is asked. FwError if it has none of the files."""
        with in_words(self.source):
            from huggingface_hub import HfApi

            info: Any = HfApi().repo_info(
                self.repository,
                repo_type=self.kind,
                revision=self.revision,
                files_metadata=True,
            )
        inner = f"{self.folder}/" if self.folder else ""
        files = {
            each.rfilename: HubFile(
                each.rfilename,
                each.size or 0,
                each.lfs.sha256 if each.lfs else None,
                None if each.lfs else each.blob_id,
            )
            for each in info.siblings or ()
            if each.rfilename.startswith(inner)
        }
        chosen = self.choice([name.removeprefix(inner) for name in files])
        if not chosen:
            raise FwError(f"{self.source} has none of the files that are needed")
        return Listing(str(info.sha), tuple(files[inner + name] for name in chosen))

    def clean(self, target: Path, listing: Listing) -> None:
        """Remove what a killed try has left half, and files whose sums are wrong: huggingface_hub
        would take them for whole."""
        for path in target.rglob("*.incomplete"):
            if self.local or time.time() - path.stat().st_mtime > STALE:
                path.unlink(missing_ok=True)
        removed(target if self.local else target / "snapshots" / listing.commit, listing)


def removed(folder: Path, listing: Listing) -> list[str]:
    """The files of a folder whose sums are wrong; they are removed, with what they are links to."""
    wrong = [
        file.name
        for file in listing.files
        if (folder / file.name).is_file() and not file.fits(folder / file.name)
    ]
    for name in wrong:
        (folder / name).resolve().unlink()
        (folder / name).unlink(missing_ok=True)
    return wrong


def address(repository: str, kind: str = "model", **rest: Any) -> str:
    """The page of a repository, or of a folder in it."""
    from huggingface_hub import constants

    kinds = "datasets/" if kind == "dataset" else ""
    revision, folder = rest.get("revision"), rest.get("folder")
    inner = f"/tree/{revision or 'main'}/{folder or ''}".rstrip("/") if revision or folder else ""
    return f"{constants.ENDPOINT}/{kinds}{repository}{inner}"


@contextmanager
def in_words(source: str) -> Iterator[None]:
    """What huggingface_hub and the library beneath it raise, in one sentence; errors of the disk as
    they are."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise FwError(
            f"{source} is gated: accept its terms there, and set HF_TOKEN to a token of that "
            "account"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise FwError(
            f"{source} is not there, or is private: mend the name, or set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise FwError(f"{source} has no such revision") from error
    except errors.OfflineModeIsEnabled as error:
        raise FwError(
            f"{source} cannot be fetched, because HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) is set: "
            "unset it"
        ) from error
    except errors.HfHubHTTPError as error:
        code = error.response.status_code
        gone = code >= 500  # the server's own fault, which may pass
        remedy = ": set HF_TOKEN to a token that may read it" if code in (401, 403) else ""
        raise (Unreachable if gone else FwError)(
            f"{source} cannot be fetched: the server says {code}{remedy}"
        ) from error
    except OSError as error:
        if error.errno is not None and not isinstance(error, ConnectionError | TimeoutError):
            raise
        raise Unreachable(f"{source} cannot be fetched: {in_a_line(error)}") from error
    except Exception as error:  # of the library beneath, which is not always the same
        raise Unreachable(f"{source} cannot be reached: {in_a_line(error)}") from error


def in_a_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


@contextmanager
def watched(folder: Path, advance: Advance) -> Iterator[None]:
    """Say how the files below a folder grow."""
    ended, before = threading.Event(), content_size(folder)

    def look() -> None:
        known = before
        while True:
            last = ended.wait(LOOK)
            now = content_size(folder)
            advance(now - known)
            known = now
            if last:
                return

    thread = threading.Thread(target=look, name=f"growth of {folder}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def content_size(folder: Path) -> int:
    """The bytes of all files below a folder, without links; what vanishes meanwhile is not
    there."""
    total = 0
    for path in folder.rglob("*"):
        try:
            status = path.lstat()
        except OSError:
            continue
        if path.is_file() and not path.is_symlink():
            total += status.st_size
    return total


def git_digest(path: Path) -> str:
    """git's name of a file's content."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
