"""`python -m simcuda.contracts [NAME...]`: what the contracts of kinds say of GPUs, of all
built-in components, on the second of two simulated devices.

Prints a line for each component. Components whose examples need files that are not there are left
out, and named.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from typing import Any

from simcuda.run import install, simulated

SPEAKS_OF_GPUS = ("tiny.devices()", "tiny.gpus()", "OnDevice(")
"""By these in its text a clause is known that looks at a GPU where there is one."""


def main(*names: str) -> int:
    import torch

    from fw.registry import installed

    torch.cuda.set_device(1)
    failed = 0
    for component in components(installed(), names):
        if isinstance(component, str):
            print(component, flush=True)
            continue
        faults = list(violated(component))
        failed += bool(faults)
        print(f"{component.kind} {component.name}: {'; '.join(faults) or 'ok'}", flush=True)
    return failed


def components(registry: Any, names: tuple[str, ...]) -> Iterator[Any]:
    """An example of every built-in component, or why there is none."""
    from fw.core.catalogue.example import NoExample, example

    for kind, name in sorted(registry.providers):
        if not names or name in names:
            try:
                yield example(registry.get(kind, name), registry, quick=True)
            except NoExample as reason:
                yield f"{kind} {name}: left out, {reason}"


def violated(component: Any) -> Iterator[str]:
    """What it does not do on a GPU, or what is raised."""
    from fw.core.errors import MissingFile
    from fw.core.testing.contract import contracts, sentence

    for module in contracts(component):
        if hasattr(module, "forall"):
            module.forall = one_example
        for clause in module.CLAUSES:
            if any(words in inspect.getsource(clause) for words in SPEAKS_OF_GPUS):
                try:
                    clause(component)
                except MissingFile:
                    return
                except Exception as error:
                    yield f"{sentence(clause)}: {type(error).__name__}: {error}"


def one_example(body: Any, examples: int = 1, **given: Any) -> None:
    """`forall`, in short: that a clause holds for all is checked on the CPU."""
    from fw.core.testing.forall import forall

    forall(body, examples=1, **given)


if __name__ == "__main__":
    simulated("simcuda.contracts")
    install()
    sys.exit(main(*sys.argv[1:]))
