"""Whether the nodes of a cluster can do a run's stages: each sees the store, and has the same
software.

A stage says nothing of where it runs, and its key nothing of the code that computes it. So a node
with another folder under the store's path would lose work, and one with another fw would store
other results under the same keys.
"""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import fw.core as core
import fw.registry as registry
from fw.core.files.durable import write_text
from fw.core.report.environment import version_of
from fw.core.store.store import Store
from fw.registry import Provider, installed

PATIENCE = 60.0
"""Seconds until a network folder must show on one machine what another has written there: NFS
keeps what it knows of a folder for up to a minute."""

WORD = "word"

SAID = ("python", "torch")
"""Software that may differ, with a warning: it decides the last bits of results."""


@dataclass(frozen=True)
class Visit:
    """What a node has to find: a word in a file of the store, and this software."""

    folder: Path
    word: str
    software: Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """What a node says when it is visited; a reason where it cannot be used."""

    reason: str
    software: Mapping[str, str]


@contextlib.contextmanager
def prepared(store: Path, plugins: Iterable[str]) -> Iterator[Visit]:
    """A visit to be sent to nodes. The file stays for nodes that join later."""
    word = secrets.token_hex(16)
    folder = store / f".cluster-{word[:8]}"
    folder.mkdir()
    try:
        write_text(folder / WORD, word)
        needed = {*SAID, "fw", *plugins}
        known = {name: text for name, text in software().items() if name in needed}
        yield Visit(folder, word, known)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def answer(visit: Visit, node: str) -> Answer:
    """What a node says, which is visited; also in a file that the visitor looks for."""
    reason = unfit(visit)
    if not reason:
        try:
            write_text(visit.folder / node, visit.word)
        except OSError as error:
            reason = f"cannot write to the store {visit.folder.parent}: {error.strerror}"
    return Answer(reason, software())


def returned(visit: Visit, node: str) -> bool:
    """Whether what the node wrote is here."""
    return eventually(lambda: holds(visit.folder / node, visit.word))


def unfit(visit: Visit) -> str:
    """Why stages cannot be done on this node; empty if they can."""
    if not holds(visit.folder / WORD, visit.word):
        return (
            f"does not see the store {visit.folder.parent} of this run: every node has to have the "
            "same folder under this path; name one that they share with --out"
        )
    for name, version in visit.software.items():
        have = software().get(name, "no such thing")
        if name not in SAID and have != version:
            return f"has {name}: {have}, and the run {version}; install the same on every node"
    return ""


def differences(visit: Visit, have: Mapping[str, str]) -> str:
    """What of the software that may differ is other on a node; empty if nothing is."""
    differing = [name for name in SAID if have.get(name) != visit.software.get(name)]
    return ", ".join(
        f"{name} {have.get(name)} for {visit.software.get(name)}" for name in differing
    )


@cache
def software() -> dict[str, str]:
    """What decides results in this process, by name: versions, and digests of the sources."""
    source = "".join(
        Provider("fw", root=Path(each.__path__[0])).source for each in (core, registry)
    )
    return {
        "python": platform.python_version(),
        "torch": version_of("torch") or "none",
        "fw": f"{version_of('fw')}, source {source}",
        **{plugin(each): described(each) for each in installed().plugins()},
    }


def plugin(provider: Provider) -> str:
    return f"plugin {provider.plugin}"


def described(provider: Provider) -> str:
    return f"{provider.distribution} {provider.version}, source {provider.source[:12]}"


def arrived(store: Path, stage: str) -> bool:
    """Wait for a product that another node has published."""
    return eventually(lambda: Store(store).present(stage), store)


def eventually(found: Callable[[], bool], folder: Path | None = None) -> bool:
    """Whether it is so before the patience ends. Listing a folder makes NFS look again."""
    until = time.monotonic() + PATIENCE
    while not found():
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
        if folder is not None:
            with contextlib.suppress(OSError):
                os.listdir(folder)  # noqa: PTH208  # its effect is wanted
    return True


def holds(file: Path, word: str) -> bool:
    try:
        return file.read_text(encoding="utf-8") == word
    except (OSError, ValueError):
        return False
