"""A headless Chromium, MLflow's server on a folder of runs, and the pages that a run is looked at
on: for the tests of these pages, and for their pictures (screenshots.py)."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WIDTH, HEIGHT = 1280, 800
"""The first screen."""

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

PATIENCE = 120
"""Seconds that a server or a page may take to come up on a busy machine."""

SETTLED = 3000
"""Milliseconds after which MLflow's charts have stopped moving."""


def lacking() -> str | None:
    """Why there is no browser here, or None."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "playwright is not installed: pip install 'fw[browser]'"
    if chromium() is None:
        return f"no browser is installed: none of {', '.join(NAMES)} is on PATH"
    return None


def chromium() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """A browser (playwright's) whose pages have the size of the first screen."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(
            executable_path=chromium(),
            args=["--no-sandbox"],  # which root needs
        )
        try:
            yield opened
        finally:
            opened.close()


@contextlib.contextmanager
def served(out: Path) -> Iterator[str]:
    """The address of `fw ui` on a folder of runs, while it is up."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "fw.core", "ui", "--out", str(out), "--port", str(port)]
    quiet = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    server = subprocess.Popen(
        words, env=quiet, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(PATIENCE):
            assert server.poll() is None, "fw ui ended"
            with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5):
                break
            time.sleep(1)
        yield address
    finally:
        server.terminate()
        server.wait(PATIENCE)


@dataclass(frozen=True)
class Look:
    """A page, and texts that are on it once it is there."""

    name: str
    address: str
    texts: Sequence[str]

    def open(self, page: Any) -> None:
        page.goto("about:blank")  # MLflow's pages differ behind the `#`, which loads none anew
        page.goto(self.address)
        for text in self.texts:
            page.get_by_text(text).first.wait_for(timeout=1000 * PATIENCE)
        if self.address.startswith("http"):
            page.wait_for_timeout(SETTLED)


def looks(run: Path, server: str) -> dict[str, Look]:
    """The report of a finished run and MLflow's pages that show it, by name."""
    result = json.loads((run / "run.json").read_text("utf-8"))
    handle, arms = result["mlflow"], result["arms"]
    candidate = next(name for name in arms if name != result["baseline"])
    experiment = f"{server}#/experiments/{handle['experiment_id']}"
    headline, models = result["headline"], logged_models(server, handle["experiment_id"])
    view = re.sub(r"http://[^/]+/", server, re.findall(r"http://\S+", result["look"])[-1])
    made = [
        Look("report", (run / "report.html").resolve().as_uri(), [headline]),
        Look("experiment", experiment, [result["recipe"]]),
        Look("view", view, list(arms)),
        Look("parent", f"{experiment}/runs/{handle['parent_run_id']}", [headline]),
        Look("arm", f"{experiment}/runs/{handle['children'][candidate]}", [f"eval/{headline}"]),
        Look("model", f"{experiment}/models/{models[candidate]}", [f"eval/{headline}"]),
    ]
    return {look.name: look for look in made}


def logged_models(server: str, experiment: str) -> dict[str, str]:
    """The ids of an experiment's logged models, by arm."""
    request = urllib.request.Request(
        f"{server}api/2.0/mlflow/logged-models/search",
        json.dumps({"experiment_ids": [experiment]}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        models = json.load(answer).get("models", [])
    tagged = {
        model["info"]["model_id"]: {tag["key"]: tag["value"] for tag in model["info"]["tags"]}
        for model in models
    }
    return {tags["fw.arm"]: model for model, tags in tagged.items() if "fw.arm" in tags}
