"""What stores of earlier versions have otherwise, and how it is brought up to date: a step is a
function. What an older store lacks hinders no run; a step saves runs to come the trouble."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from filelock import FileLock, Timeout

from fw.core.errors import Held
from fw.core.files.sealed import SEAL
from fw.core.store.store import INPUTS, LEASES, Store

LOCK = ".lock"


@dataclass(frozen=True)
class Step:
    """From one version to the next."""

    before: str
    after: str
    about: str
    find: Callable[[Store], list[str]]
    """What of a store is as it was before, by name."""
    mend: Callable[[Store, str], bool]
    """Bring one of them up to date; False if it cannot be done now."""


def locks(store: Store) -> list[str]:
    """Files that processes of fw 0.1 locked, where leases are now."""
    return sorted(path.name for path in (store.root / LEASES).glob(f"*{LOCK}"))


def drop_lock(store: Store, name: str) -> bool:
    """Remove the file, unless a process of fw 0.1 holds it."""
    path = store.root / LEASES / name
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError):
        return False
    path.unlink(missing_ok=True)
    lock.release()
    return True


def unsealed(store: Store) -> list[str]:
    """Products whose manifests do not say of which products they were made, and have those still
    beside them."""
    return sorted(stage for stage in store.stages() if inputs_unsaid(store, stage))


def inputs_unsaid(store: Store, stage: str) -> list[str]:
    """The inputs of such a product; none if its manifest says them, or there are none."""
    if not store.readable(stage):
        return []
    manifest = store.manifest(stage)
    inputs = list((manifest.get("payload") or {}).get("inputs", {}).values())
    older = INPUTS not in manifest and SEAL not in manifest
    return inputs if older and all(map(store.readable, inputs)) else []


def say_inputs(store: Store, stage: str) -> bool:
    with contextlib.suppress(Held), store.lease(stage):
        store.adopt(stage, inputs_unsaid(store, stage))
        return True
    return False


STEPS = (
    Step("0.1", "0.2", "locks of files, in whose place leases are", locks, drop_lock),
    Step("0.1", "0.2", "manifests without digests of inputs", unsealed, say_inputs),
)
"""All of them, in their order."""


def migrate(store: Store) -> Iterator[str]:
    """Take every step that a store needs; a sentence about each."""
    for step in STEPS:
        names = step.find(store)
        done = [name for name in names if step.mend(store, name)]
        if names:
            version = f"{step.before} to {step.after}"
            yield f"{version}: {step.about}: {len(done)} of {len(names)} brought up to date"
        if left := len(names) - len(done):
            yield f"{left} are in use by another process; the same command later does them"
