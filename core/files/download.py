"""Files and archives that are fetched from the web: aside, continued where they were cut off, and
at their place when their sums are right."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fw.core.errors import FwError, Unreachable
from fw.core.files.durable import aside, put
from fw.registry import Advance, Download

TIMEOUT = 30.0
"""Seconds without a word from a server after which it counts as gone."""

CHUNK = 2**18
"""Bytes that are read at once."""


@dataclass(frozen=True)
class WebFile(Download):
    """A file with a web address. With a sum, a try that was cut off is continued; without one it
    begins anew, because nobody would notice that the file has changed in between."""

    sha256: str = ""
    """Its beginning is enough."""
    md5: str = ""
    known_size: int | None = None

    def there(self) -> bool:
        return self.place.is_file()

    def size(self) -> int | None:
        return self.known_size if self.known_size is not None else size_of(self.source)

    def bring(self, advance: Advance) -> None:
        self.receive(self.place, advance)

    def receive(self, path: Path, advance: Advance) -> None:
        """Fetch the file to a path."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = aside(path)
        if not (self.sha256 or self.md5):
            temporary.unlink(missing_ok=True)
        received(self.source, temporary, advance)
        if reason := self.mismatch(temporary):
            temporary.unlink()
            raise FwError(f"{self.source} is not the expected file: {reason}; it was removed again")
        put(temporary, path)

    def mismatch(self, path: Path) -> str | None:
        """What is wrong with the sums of a file; None if nothing is."""
        for kind, expected in (("sha256", self.sha256), ("md5", self.md5)):
            if expected and not (digest := digest_of(path, kind)).startswith(expected):
                return f"its {kind} is {digest}, and should be {expected}"
        return None


@dataclass(frozen=True)
class WebArchive(WebFile):
    """An archive whose top folder has the name of `place` and becomes it. Its sum is that of the
    archive, which is removed then, unless it is the user's. Files that are there are left as they
    are."""

    members: tuple[str, ...] = ()
    """Files in it that have to be there."""

    @property
    def archive(self) -> Path:
        """Where it lies packed, if the user has brought it here."""
        return self.place.parent / self.source.rpartition("/")[2]

    @property
    def fetched(self) -> Path:
        """Where it lies packed, once it was fetched: of a name that no user gives a file."""
        return self.archive.with_name(f".fetched-{self.archive.name}")

    def there(self) -> bool:
        return all((self.place / member).is_file() for member in self.members or ("",))

    def size(self) -> int | None:
        here = self.archive.is_file() or self.fetched.is_file()
        return 0 if here else super().size()

    def bring(self, advance: Advance) -> None:
        if self.archive.is_file():
            if reason := self.mismatch(self.archive):
                raise FwError(f"{self.archive} is not the expected file: {reason}; remove it")
            self.unpack(self.archive)
            return
        if not self.fetched.is_file():  # else it was stopped while it was unpacked
            self.receive(self.fetched, advance)
        self.unpack(self.fetched)
        self.fetched.unlink()

    def unpack(self, archive: Path) -> None:
        beside = aside(self.place)
        shutil.rmtree(beside, ignore_errors=True)
        options: dict[str, Any] = {} if archive.suffix == ".zip" else {"filter": "data"}
        try:
            shutil.unpack_archive(archive, beside, **options)
        except (shutil.ReadError, ValueError, EOFError) as error:
            raise FwError(f"{archive} cannot be unpacked: {error}") from error
        folder = beside / self.place.name
        paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
        move_missing(folder, self.place, [str(path.relative_to(folder)) for path in paths])
        shutil.rmtree(beside)


def move_missing(folder: Path, place: Path, names: Iterable[str]) -> None:
    """Move files of a folder to another one, into which they belong by their names; those that are
    there are kept."""
    for name in names:
        if not (place / name).exists():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            put(folder / name, place / name)


def received(url: str, path: Path, advance: Advance) -> None:
    """Append to a file what it lacks. Where the server breaks off, it is asked again as long as
    that brings the file further. Errors: Unreachable, with what has come kept; FwError."""
    had = -1
    while True:
        have = path.stat().st_size if path.exists() else 0
        with opened(url, have) as answer:
            begins = answer.status == http.client.PARTIAL_CONTENT
            total = whole_size(answer)
            if have and not begins:  # the server knows no parts
                advance(-have if had >= 0 else 0)
                have = 0
            elif had < 0:
                advance(have)
            now, broke = append(answer, path, have, advance)
        if now == total or (total is None and not broke):
            return
        if total is not None and now > total:
            path.unlink()
            raise FwError(f"{url} gave {now} bytes, and had said {total}: it was removed again")
        if now <= had:
            raise Unreachable(
                f"{url} was cut off at {now} of {total or 'so many'} bytes; the same command "
                "continues"
            )
        had = now


def append(answer: Any, path: Path, have: int, advance: Advance) -> tuple[int, bool]:
    """Write what a server sends behind the first bytes of a file. Returns how many there are then,
    and whether the connection broke."""
    with path.open("r+b" if have else "wb") as file:
        file.seek(have)
        file.truncate()
        while True:
            try:
                chunk = answer.read1(CHUNK)
            except (http.client.HTTPException, ConnectionError, TimeoutError):
                return file.tell(), True
            if not chunk:
                return file.tell(), False
            file.write(chunk)
            advance(len(chunk))


def size_of(url: str) -> int | None:
    """What a server says, asked for the file, whose content is not read."""
    with opened(url) as answer:
        return whole_size(answer)


def whole_size(answer: Any) -> int | None:
    """Of a whole file, whether or not a part of it is sent; None if the server does not say."""
    of_parts = answer.headers.get("Content-Range", "").rpartition("/")[2]
    words = of_parts or answer.headers.get("Content-Length", "")
    return int(words) if words.isdecimal() else None


@contextmanager
def opened(url: str, have: int = 0) -> Iterator[Any]:
    """A server's answer, from a byte on. The environment's proxies are used, as urllib does."""
    headers = {"User-Agent": "fw", **({"Range": f"bytes={have}-"} if have else {})}
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), None, TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            with opened(url) as whole:  # there is no more, or it is another file by now
                yield whole
            return
        gone = error.code >= http.client.INTERNAL_SERVER_ERROR
        raise (Unreachable if gone else FwError)(
            f"{url} cannot be fetched: the server says {error.code} {error.reason}"
        ) from error
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as no:
        cause = getattr(no, "reason", None) or no
        reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        raise Unreachable(f"{url} cannot be reached: {reason}") from no
    except ValueError as error:
        raise FwError(f"{url} cannot be fetched: {error}") from error
    with answer:
        yield answer


def digest_of(path: Path, kind: str) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, kind).hexdigest()
