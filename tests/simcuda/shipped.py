"""`python -m simcuda.shipped FOLDER [RECIPE...]`: the shipped recipes at a very small scale, one
after the other, on the second of two simulated devices; then `fw sample` and `fw heatmap`.

They share a store, so what is alike in several is done once. `FOLDER/waits.jsonl` says what each
stage waited for.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from simcuda.run import install, simulated

HERE = ("--device", "cuda:1")
TRAINING, HELD_OUT = 64, 24
"""Images of a data set that are used."""


def main(folder: Path, *names: str) -> None:
    from simcuda.shrunk import RECIPES, shrunk
    from simcuda.waits import WAITS

    fewer_images()
    for name in names or RECIPES:
        path = folder / f"{name}.yaml"
        path.write_text(json.dumps(shrunk(name, folder)), encoding="utf-8")
        report(name, fw("run", path, "--out", folder / "runs", *HERE, "--jobs", "1"))
    run = folder / "runs" / (names or RECIPES)[-1] / "latest"
    arm = ("--arm", next(iter(shrunk(run.parent.name, folder)["arms"])))
    drawn = ("-n", "4", "-o", folder / "drawn.png")
    read = ("-n", "20", "--draws", "1", "--sigmas", "0.05", "-o", folder / "read.png")
    for command, options in {"sample": drawn, "heatmap": read}.items():
        with WAITS.recorded(command):
            report(command, fw(command, run, *arm, *options, *HERE))


def report(what: str, code: int) -> None:
    print(f"{what}: exit code {code}", flush=True)


def fewer_images() -> None:
    from fw.core.kinds import Dataset
    from simcuda.run import descendants

    def few(load: Any) -> Any:
        def loaded(self: Dataset, split: str) -> Any:
            data = load(self, split)
            rows = slice(TRAINING if split == "train" else HELD_OUT)
            labels = None if data.labels is None else data.labels[rows]
            return type(data)(data.images[rows], labels, data.classes)

        return loaded

    for dataset in descendants(Dataset):
        if "load" in vars(dataset):
            dataset.load = few(dataset.load)


def fw(*words: Any) -> int:
    """The exit code of `fw WORDS` in this process."""
    from fw.core.cli import app, guarded

    try:
        return guarded(lambda: app([*map(str, words)], prog_name="fw")) or 0
    except SystemExit as ended:
        return int(ended.code or 0)


if __name__ == "__main__":
    simulated("simcuda.shipped")
    os.environ["SIMCUDA_WAITS"] = str(Path(sys.argv[1]) / "waits.jsonl")
    install()
    main(Path(sys.argv[1]), *sys.argv[2:])
