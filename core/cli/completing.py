"""What a shell offers when a word is completed: recipes, arms, keys, runs, names of components. It
imports nothing heavy, and prints nothing but words: what goes wrong offers nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import typer

COMPLETING = "_FW_COMPLETE"
"""The variable by which a shell asks; typer's, of the name `fw`."""

RESOLVED = "recipe.resolved.yaml"


def answer_shell(command: Callable[[], None]) -> int:
    """Let typer answer the shell, silent about all else."""
    rejoin(os.environ)
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        sys.stderr = nowhere
        try:
            command()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 1
        except BaseException:
            return 1
    return 0


def rejoin(environment: Any) -> None:
    """Undo that bash takes words apart at `=` and `:`: `--set train.steps=3`, `--out=runs`."""
    words = environment.get("COMP_WORDS", "").split("\n")
    try:
        current = int(environment["COMP_CWORD"])
    except (KeyError, ValueError):
        return
    joined: list[str] = []
    now = current
    glue = False
    for place, word in enumerate(words):
        apart = word in ("=", ":", "+=")
        if joined and (apart or glue):
            joined[-1] += word
        else:
            joined.append(word)
        glue = apart
        if place == current:
            now = len(joined) - 1
    environment["COMP_WORDS"] = "\n".join(joined)
    environment["COMP_CWORD"] = str(now)


def shipped_names() -> list[str]:
    """Names of recipes that come with fw."""
    from fw.core.recipe.shipped import shipped

    return list(shipped())


def recipes(incomplete: str) -> list[str]:
    """Names of recipes that come with fw, and files."""
    return [*shipped_names(), *files(incomplete, (".yaml", ".yml"))]


def files(incomplete: str, endings: tuple[str, ...]) -> Iterator[str]:
    """Files that the word may become, also in the folders that it may."""
    for path in beginning_with(incomplete):
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        yield from (str(each) for each in inside if each.suffix in endings and each.is_file())


def plugin_files(incomplete: str) -> list[str]:
    return list(files(incomplete, (".py",)))


def runs(incomplete: str) -> Iterator[str]:
    """Run folders: those that the word may become, and the latest below."""
    for path in beginning_with(incomplete):
        for folders in ([path], path.glob("latest"), path.glob("*/latest")):
            yield from map(str, with_recipe(folders))


def with_recipe(folders: Iterable[Path]) -> Iterator[Path]:
    yield from (folder for folder in sorted(folders) if (folder / RESOLVED).is_file())


def runs_folders(incomplete: str) -> Iterator[str]:
    """Folders with a store in them."""
    for path in beginning_with(incomplete):
        yield from (str(each) for each in (path, *path.glob("*")) if (each / "store").is_dir())


def beginning_with(incomplete: str) -> list[Path]:
    """Paths that begin with the word, but for hidden ones and those that a shell would quote."""
    folder, _, start = incomplete.rpartition("/")
    where = Path(folder or ("/" if incomplete.startswith("/") else "."))
    hidden = start.startswith(".")
    paths = [path for path in sorted(where.glob(f"{start}*")) if plain(path.name)]
    return [path for path in paths if hidden or not path.name.startswith(".")]


def plain(word: str) -> bool:
    return not any(sign in word for sign in " \t\n'\"\\$`*?[]{}()<>|&;!#:~")


def arms(ctx: typer.Context) -> list[str]:
    """The arms of the recipe or the run that is named before."""
    return [str(name) for name in recipe_of(ctx).get("arms") or {}]


def keys(ctx: typer.Context, incomplete: str) -> list[str]:
    """The keys that the recipe writes, each with its value."""
    return [] if "=" in incomplete else list(assignments(recipe_of(ctx), ""))


def assignments(value: Any, path: str) -> Iterator[str]:
    from fw.core.recipe.source import dump

    if isinstance(value, dict | list):
        for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
            yield from assignments(entry, f"{path}.{key}" if path else str(key))
    else:
        text = dump(value).removesuffix("...\n").strip()
        if plain(text):
            yield f"{path}={text}"


def recipe_of(ctx: typer.Context) -> dict[str, Any]:
    """The recipe, as it is written, of the command's RECIPE or RUN; an empty one if there is
    none."""
    from fw.core.recipe.shipped import located
    from fw.core.recipe.source import read

    for name in ("recipe", "recipes", "run_"):
        value = ctx.params.get(name)
        value = value[0] if isinstance(value, list | tuple) and value else value
        if value:
            path = Path(value)
            return dict(read(path / RESOLVED if name == "run_" else located(path)).data)
    return {}


def components(ctx: typer.Context) -> list[str]:
    """Names of components and kinds."""
    return [*names(ctx, "name"), *names(ctx, "kind")]


def kinds(ctx: typer.Context) -> list[str]:
    return names(ctx, "kind")


def names(ctx: typer.Context, what: str) -> list[str]:
    from fw.core.catalogue.named import named

    return named(what, map(Path, ctx.params.get("plugin") or ()))
