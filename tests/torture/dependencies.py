"""Test fw with the lowest stated versions of its dependencies, and with the latest ones.

Each set is installed into an environment of its own, with fw, and a part of the tests is run
there. What the registry does not have is said, and the nearest version is taken instead.

    python -m torture.dependencies --only lowest --resolve     what pip would install, and no more
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]

TESTS = ("tests/test_run.py", "tests/test_recipe.py", "tests/test_job.py", "tests/test_store.py")
"""Every stage, the tracker, the command; minutes, not an hour."""

REQUIREMENT = re.compile(r"([A-Za-z0-9][\w.-]*)\s*(.*)")


def main() -> int:
    """1 if a set could not be had, or a test failed with it."""
    given = arguments()
    sets = {"lowest": lowest, "latest": latest}
    fine = True
    for name in [given.only] if given.only else list(sets):
        fine = tried(name, sets[name], given.resolve, given.tests or TESTS) and fine
    return 0 if fine else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m torture.dependencies",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", choices=("lowest", "latest"))
    parser.add_argument(
        "--resolve", action="store_true", help="only find out what would be installed"
    )
    parser.add_argument("tests", nargs="*", help=f"what pytest is given [{' '.join(TESTS)}]")
    return parser.parse_args()


def tried(
    name: str, pinned: Callable[[Sequence[str]], list[str]], resolve: bool, tests: Sequence[str]
) -> bool:
    """Install one set and test with it."""
    print(f"{name}:", flush=True)
    with tempfile.TemporaryDirectory(prefix=f"fw-{name}-") as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder) / "bin" / "python")
        if not any(installed(python, what, wanted, resolve) for what, wanted in choices(pinned)):
            return False
        if resolve:
            return True
        frozen = said([python, "-m", "pip", "freeze", "--exclude-editable"])
        print(f"  installed: {' '.join(frozen.stdout.split())}", flush=True)
        ended = subprocess.run([python, "-m", "pytest", "-q", *tests], cwd=ROOT, check=False)
        print(f"  the tests {'failed' if ended.returncode else 'passed'}", flush=True)
        return ended.returncode == 0


def choices(pinned: Callable[[Sequence[str]], list[str]]) -> Iterator[tuple[str, list[str]]]:
    """What to try to install: all of the set, or, where that cannot be, less of what is
    optional."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    ours, extras = pinned(project["dependencies"]), optional["test"]
    yield "all of them", [*ours, *pinned(extras)]
    yield "with any version of what is optional", [*ours, *extras]
    libraries = {entry for extra in ("hub", "pretrained") for entry in optional[extra]}
    yield "without what is optional", [*ours, *(each for each in extras if each not in libraries)]


def installed(python: str, what: str, wanted: Sequence[str], resolve: bool) -> bool:
    """Whether pip can have these together, in an environment; says why not."""
    dry = ["--dry-run"] if resolve else ["--editable", str(ROOT)]
    done = said([python, "-m", "pip", "install", "--quiet", "--no-input", *dry, *wanted])
    if done.returncode:
        reasons = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        print(f"  {what}: pip cannot install them together: {' '.join(reasons)}", flush=True)
    elif resolve:
        print(f"  {what}: pip can install them together", flush=True)
    return done.returncode == 0


def latest(requirements: Sequence[str]) -> list[str]:
    return list(requirements)


def lowest(requirements: Sequence[str]) -> list[str]:
    """Each pinned to the lowest version that it states, or to the next one that there is."""
    return [pinned(requirement) for requirement in requirements]


def pinned(requirement: str) -> str:
    found = REQUIREMENT.fullmatch(requirement)
    bound = re.search(r">=\s*([\w.]+)", requirement)
    if found is None or bound is None:
        print(f"  {requirement}: states no lowest version, so any is taken", flush=True)
        return requirement
    name, least = found[1], bound[1]
    there = available(name)
    if not there:
        print(f"  {name}: the registry lists no versions; asking for {least} itself", flush=True)
        return f"{name}=={least}"
    fitting = sorted((each for each in there if key(each) >= key(least)), key=key)
    if not fitting:
        print(f"  {name}: nothing from {least} on can be had, the newest is {there[0]}", flush=True)
        return requirement
    if key(fitting[0]) != key(least):
        print(f"  {name}: {least} cannot be had; taking {fitting[0]}", flush=True)
    return f"{name}=={fitting[0]}"


def available(name: str) -> list[str]:
    """The released versions that pip would take on this Python, newest first."""
    done = said([sys.executable, "-m", "pip", "index", "versions", name])
    listed = re.search(r"Available versions: (.*)", done.stdout)
    return listed[1].split(", ") if listed else []


def key(version: str) -> tuple[int, ...]:
    """What orders released versions: 1.6 and 1.6.0 are equal."""
    numbers = [int(part) for part in re.findall(r"\d+", version.partition("+")[0])]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def said(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    sys.exit(main())
