"""The recipes that come with fw, found by name and copied."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from fw.core.errors import FwError, RecipeError

ENDING = ".yaml"


def shipped() -> dict[str, Path]:
    """The files of the recipes that come with fw, by name."""
    folder = Path(str(files("fw.recipes")))
    return {path.stem: path for path in sorted(folder.glob(f"*{ENDING}"))}


def about(recipe: Path) -> str:
    """What a recipe says of itself, in one line: the comment that it begins with."""
    with recipe.open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()


def located(path: Path) -> Path:
    """The file of a recipe that the user named: a path or, where no file has it, the name of one
    that comes with fw. RecipeError with what is near if it is neither."""
    if path.is_file() or not named(path):
        return path
    if (recipe := shipped().get(path.name)) is not None:
        return recipe
    if path.exists():
        return path
    raise RecipeError([f"{path}: there is no such file, and {unknown(path.name)}"])


def missing(path: Path) -> str:
    """What to do about a recipe's path with no file: where one that comes with fw is called like
    it, its name says so."""
    if path.stem in shipped():
        return f"`fw recipes {path.stem}` copies the recipe of this name that comes with fw"
    return "`fw recipes` lists those that come with fw"


def copy(name: str, to: Path | None = None) -> Path:
    """Copy a recipe that comes with fw, into this folder or to the file or folder `to`; FwError
    rather than writing over a file."""
    name = name.removesuffix(ENDING)
    recipe = shipped().get(name)
    if recipe is None:
        raise FwError(unknown(name))
    target = Path(recipe.name) if to is None else to / recipe.name if to.is_dir() else to
    try:
        with target.open("xb") as file:
            file.write(recipe.read_bytes())
    except FileExistsError:
        raise FwError(f"{target} is there already: name another file with -o") from None
    except FileNotFoundError:
        raise FwError(f"-o {to}: there is no folder {target.parent}") from None
    return target


def named(path: Path) -> bool:
    """Whether it can be the name of a recipe that comes with fw."""
    return path.parent == Path() and path.suffix not in (ENDING, ".yml")


def unknown(name: str) -> str:
    return f"no recipe '{name}' comes with fw{nearest(name, shipped())}"


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown word: what is nearest, or all that is known."""
    known = list(known)
    if near := difflib.get_close_matches(word, known, n=3, cutoff=0.5):
        quoted = " or ".join(f"'{each}'" for each in near)
        return f"; did you mean {quoted}?"
    return f" (known: {', '.join(known)})"
