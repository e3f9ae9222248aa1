"""`fw export`: an arm's images or weights, as other tools read them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from rich.console import Console

from fw.core.api.arm import LoadedArm
from fw.core.errors import FwError
from fw.core.execution.devices import checked_device
from fw.core.export.diffusers import write_diffusers
from fw.core.export.folder import write_folder
from fw.core.export.images import Choice, Images
from fw.core.export.npz import write_npz
from fw.core.export.weights import write_weights
from fw.core.messages.plain import writing
from fw.core.run.finished import FinishedRun

Form = Literal["npz", "png", "safetensors", "diffusers"]

FORMS = "samples.npz, model.safetensors, or a folder (of PNG files; with --as diffusers, a model)"

FILES: dict[Form, str] = {"npz": ".npz", "safetensors": ".safetensors"}
"""How the files of these forms end; the others are folders."""

OF_IMAGES: tuple[Form, ...] = ("npz", "png")


def form_of(target: str, named: str | None) -> Form:
    """What is to be written; FwError if the target and `--as` do not go together."""
    suffix = Path(target).suffix.lower()
    is_folder = target.endswith(("/", "\\")) or not suffix or Path(target).is_dir()
    if named is None:
        by_suffix: dict[str, Form] = {end: form for form, end in FILES.items()}
        if is_folder:
            return "png"
        if suffix not in by_suffix:
            raise FwError(f"--to {target}: name {FORMS}; a folder's name ends with /")
        return by_suffix[suffix]
    for form in get_args(Form):
        if form == named:
            ending = FILES.get(form)
            if ending is not None and (is_folder or suffix != ending):
                raise FwError(f"--as {form} --to {target}: name a file that ends with {ending}")
            if ending is None and suffix in FILES.values() and not is_folder:
                raise FwError(f"--as {form} --to {target}: it is a folder that is written")
            return form
    raise FwError(f"--as {named}: it is one of {', '.join(get_args(Form))}")


def check_target(path: Path, form: Form) -> None:
    """FwError unless it can be written: a file is replaced, a folder only if it is empty."""
    with writing(path, "--to"):
        if not path.absolute().parent.is_dir():
            raise FwError(
                f"--to {path}: there is no folder {path.absolute().parent}; make it first"
            )
        if form in FILES and path.is_dir():
            raise FwError(f"--to {path}: there is a folder of this name")
        if form not in FILES and path.exists() and not (path.is_dir() and is_empty(path)):
            raise FwError(f"--to {path}: it is there already; name a new folder, or remove it")


def is_empty(folder: Path) -> bool:
    return next(folder.iterdir(), None) is None


def export(
    run: FinishedRun,
    name: str,
    training: int | None,
    target: str,
    named: str | None,
    choice: Choice,
    console: Console,
) -> list[str]:
    """Write the target; returns what to answer."""
    run.check()
    form, path = form_of(target, named), Path(target)
    if form not in OF_IMAGES and (choice.count is not None or choice.seed is not None):
        raise FwError(f"--to {target}: -n and --seed are of images, and this is the network")
    check_target(path, form)
    checked_device(choice.device)
    arm = LoadedArm(run, name, training, console)
    about: list[str] = []
    with writing(path, "--to"):
        if form in OF_IMAGES:
            images = Images(arm.finished, choice, console)
            write: Callable[[Images, Path], None] = {"npz": write_npz, "png": write_folder}[form]
            write(images, path)
            classes = " with their classes" if images.have_classes else ""
            about = [f"{len(images)} images{classes}"]
        elif form == "safetensors":
            write_weights(arm.finished, path, console)
        else:
            write_diffusers(arm, path, console)
    return [str(path), *about]
