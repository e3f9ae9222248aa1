"""`fw ui` for MLflow: MLflow's own server on a runs folder, and the URLs of its saved views."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from fw.core.errors import FwError, StageFailed
from fw.core.machine.stopping import POLITE
from fw.core.messages.escaping import visible
from fw.core.messages.secrets import redact
from fw.plugins.trackers.mlflow_database import write_lock
from fw.plugins.trackers.mlflow_library import clear_errors, import_mlflow
from fw.plugins.trackers.mlflow_moved import settle
from fw.plugins.trackers.mlflow_uris import DATABASE, HERE, sqlite_uri

HOST = "127.0.0.1"
PORT = 5000
VIEW_TAG = "mlflow.sharedViewState."
"""Experiment tags with this prefix are MLflow's saved views."""


def serve(root: Path, port: int = PORT, host: str = HOST, browse: bool = False) -> int:
    """Serve the experiments in `root` until Ctrl-C, and print where to look; `browse` also opens
    the page of the newest run in a browser. Returns the exit code.

    Errors: FwError when `root` has no database or the port is taken, StageFailed when the server
    ends itself.
    """
    database = root.absolute() / DATABASE
    if not database.is_file():
        raise FwError(
            f"there is no {DATABASE} in {root}: run a recipe first, or name a runs folder with "
            "--out"
        )
    check_port(host, port)
    uri = sqlite_uri(database)
    with clear_errors(uri), write_lock(uri):
        settle(database)
    with (
        tempfile.TemporaryFile() as output,
        interruptible(),
        server(database, host, port, output) as process,
    ):
        try:
            base = f"http://{host}:{port}"
            print(visible(f"starting MLflow on {database} (stop it with Ctrl-C) ..."), flush=True)
            wait_until_healthy(process, base, output)
            urls = view_urls(uri, base)
            for name, url in urls.items():
                print(visible(f"{name}: {url}"), flush=True)
            if browse and urls and has_display():
                page = list(urls.values())[-1]
                threading.Thread(target=webbrowser.open, args=(page,), daemon=True).start()
            process.wait()
        except KeyboardInterrupt:
            return 0
        raise StageFailed(f"the MLflow server stopped by itself: {last_line(output)}")


def view_url(base: str, experiment: str, view: str) -> str:
    """The page of an experiment's saved view: the arms side by side, as charts."""
    query = f"viewStateShareKey={view}&workflowType=machine_learning&compareRunsMode=CHART"
    return f"{base}/#/experiments/{experiment}/runs?{query}"


def has_display() -> bool:
    """Whether a browser that is opened here is one that the user sees."""
    if sys.platform in ("darwin", "win32"):
        return "SSH_CONNECTION" not in os.environ
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def check_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise FwError(
                f"cannot listen on {host}:{port} ({reason}): choose another --port"
            ) from None


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end the server as Ctrl-C does."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in POLITE}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def server(
    database: Path, host: str, port: int, output: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    """The server in a process group of its own, which is gone afterwards."""
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        HERE,
    ]  # no path that has to be quoted
    command += ["--host", host, "--port", str(port), "--workers", "1"]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    process = subprocess.Popen(
        command,
        cwd=database.parent,
        env={**os.environ, **quiet},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        stop_group(process)


def stop_group(process: subprocess.Popen[bytes], patience: float = 10.0) -> None:
    """End the process and its children: politely, and after `patience` seconds by force."""
    for end in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, end)
            process.wait(patience)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def wait_until_healthy(
    process: subprocess.Popen[bytes], base: str, output: IO[bytes], seconds: float = 120.0
) -> None:
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{base}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise StageFailed(f"the MLflow server did not start: {last_line(output)}")


def last_line(output: IO[bytes]) -> str:
    output.seek(0)
    lines = output.read().decode(errors="replace").strip().splitlines()
    return redact(lines[-1]) if lines else "it said nothing"


def view_urls(uri: str, base: str) -> dict[str, str]:
    """The newest saved view of each experiment, or else its plain page, by the experiment's name;
    the experiment with the newest view is the last.

    MLflow 3.17 opens an experiment on its pages for language models unless the address says
    `workflowType=machine_learning`, or the browser remembers that somebody chose it: no tag and no
    setting of the server is asked for (`mlflow.experimentKind` is only where its navigation by
    workflow is compiled out).
    """
    client = import_mlflow().MlflowClient(tracking_uri=uri)
    urls = {}
    experiments = client.search_experiments(filter_string="name != 'Default'")
    for experiment in sorted(experiments, key=lambda each: newest_view(each.tags)[1]):
        view, _ = newest_view(experiment.tags)
        urls[experiment.name] = (
            view_url(base, experiment.experiment_id, view)
            if view
            else (
                f"{base}/#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning"
            )
        )
    return urls


def newest_view(tags: Mapping[str, str]) -> tuple[str, int]:
    """The name of the newest saved view and when it was saved; nothing and 0 if there is none."""
    views = {
        key.removeprefix(VIEW_TAG): json.loads(value).get("updatedAt", 0)
        for key, value in tags.items()
        if key.startswith(VIEW_TAG)
    }
    return max(views.items(), key=lambda view: view[1], default=("", 0))
