"""No password or token is printed or written, whatever the URI looks like that holds it."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from sites import Answer, fw, site, toy_recipe
from test_mlflow_tracker import describe, root, template
from toys import RECIPE

from fw.core.errors import FwError
from fw.core.messages import secrets
from fw.core.messages.secrets import HIDDEN, hide, redact, redacted, shaped, without_secrets
from fw.core.recipe import checks
from fw.core.recipe.loading import load
from fw.plugins.trackers.mlflow import MLflow

__all__ = ["root", "template"]  # fixtures
PASSWORD = "hunter2-Zebra9"

FORMS = (
    "http://alice:{}@127.0.0.1:{port}",
    "http://alice:{}@127.0.0.1:{port}/mlflow/",
    "HTTP://alice:{}@127.0.0.1:{port}",
    "http://:{}@127.0.0.1:{port}",
    "http://{}@127.0.0.1:{port}",
    "http://alice:{}:x@127.0.0.1:{port}",
    "http://alice:%40{}@127.0.0.1:{port}",
    "http://alice:p@{}@127.0.0.1:{port}",
    "http://alice:p/{}@127.0.0.1:{port}",
    "http://alice:12/{}@127.0.0.1:{port}",
    "http://alice:a?{}#b@127.0.0.1:{port}",
    "http://alice:[{}@127.0.0.1:{port}",
    "http://127.0.0.1:{port}/?token={}",
    "http://127.0.0.1:{port}/?a=1&api_key={}",
    "http://127.0.0.1:{port}/#access_token={}",
    "https://alice:{}@127.0.0.1:9",
    "postgresql://alice:{}@127.0.0.1:9/db",
    "postgresql+psycopg2://alice:{}@127.0.0.1:9/db",
    "postgresql+x+y://alice:{}@127.0.0.1:9/db",
    "postgresql://127.0.0.1:9/db?user=alice&password={}",
    "mysql+pymysql://alice:p@{}@127.0.0.1:9/db",
    "mssql://alice:{}@127.0.0.1/db?driver=x;PWD={}",
    "nonsense://alice:{}@there",
    "sqlite:///{out}/recipe/secret.yaml/mlflow.db?password={}",
)


AWAY = FORMS[:7] + FORMS[12:16]
"""Addresses of servers that may answer later."""


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process of its own; and MLflow asks once, for the tests' sake."""
    monkeypatch.setattr(secrets, "_known", set())
    monkeypatch.setattr(secrets, "_addresses", {})
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


class Refusing(BaseHTTPRequestHandler):
    """A server that answers 500 and repeats what it was asked with."""

    def do_GET(self) -> None:
        self.send_response(500)
        self.end_headers()
        given = self.headers.get("Authorization", "").encode()
        self.wfile.write(b"cannot serve " + self.path.encode() + b" Authorization: " + given)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def refusing() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()


def places_of(secret: str, answer: Answer, *folders: Path) -> list[str]:
    """Where the secret can be read: on the terminal, in a file's bytes (databases, too) or in
    its name."""
    forms = {secret.encode(), quote(secret).encode(), base64.b64encode(f"alice:{secret}".encode())}
    said = (("stdout", answer.out), ("stderr", answer.err))
    found = [name for name, text in said if any(form in text.encode() for form in forms)]
    for path in (path for folder in folders for path in folder.rglob("*")):
        if any(
            form in os.fsencode(path) or (path.is_file() and form in path.read_bytes())
            for form in forms
        ):
            found.append(str(path))
    return found


def recipe_with(folder: Path, uri: str) -> Path:
    data = {**yaml.safe_load(RECIPE), "tracker": {"name": "mlflow", "uri": uri}}
    folder.mkdir()
    (folder / "secret.yaml").write_text(yaml.safe_dump(data))
    return folder / "secret.yaml"


def ending(form: str) -> int:
    """How a run ends: one whose server is away goes on without it, one whose address is none does
    not begin."""
    return 0 if form in AWAY else 2


@pytest.mark.parametrize("form", FORMS)
def test_a_secret_in_the_recipes_uri_is_nowhere(tmp_path, refusing, form):
    uri = (
        form.replace("{}", PASSWORD)
        .replace("{port}", str(refusing))
        .replace("{out}", str(tmp_path))
    )
    recipe, options = recipe_with(tmp_path / "recipe", uri), ("--device", "cpu", "--jobs", 1)
    with site(tmp_path / "site"):
        answer = fw("run", recipe, "--out", tmp_path / "out", *options)
    assert answer.code == ending(form)
    assert "Traceback" not in answer.err
    assert "warning: tracker.uri: it holds a password or a token" in answer.err
    assert places_of(PASSWORD, answer, tmp_path / "out") == []
    resolved = next((tmp_path / "out").glob("toy/*/recipe.resolved.yaml"))
    assert HIDDEN in yaml.safe_load(resolved.read_text())["tracker"]["uri"]


@pytest.mark.parametrize("form", FORMS[:1] + FORMS[7:8] + FORMS[12:13] + FORMS[18:19])
def test_a_secret_in_the_environments_uri_is_nowhere(tmp_path, refusing, monkeypatch, form):
    uri = form.replace("{}", PASSWORD).replace("{port}", str(refusing))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    recipe = recipe_with(tmp_path / "recipe", "")
    logged = ("--set", "tracker={name: mlflow, uri: null}")
    with site(tmp_path / "site"):
        options = ("--out", tmp_path / "out", "--device", "cpu", "--jobs", 1)
        answer = fw("run", recipe, *logged, *options)
    assert answer.code == ending(form)
    assert places_of(PASSWORD, answer, tmp_path / "out") == []


@contextmanager
def mlflow_server(folder: Path, template: Path) -> Iterator[str]:
    """A real MLflow server on loopback; it takes any user."""
    shutil.copy(template, folder / "mlflow.db")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        "sqlite:///mlflow.db",
    ]
    command += ["--port", str(port), "--workers", "1"]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, start_new_session=True, **quiet
    )
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield f"127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def test_a_whole_run_on_a_real_server_writes_no_secret_of_its_address(
    tmp_path, template, monkeypatch
):
    served, out = tmp_path / "served", tmp_path / "out"
    served.mkdir()
    with mlflow_server(served, template) as place, site(tmp_path / "site"):
        words = (
            "--set",
            f"tracker={{name: mlflow, uri: 'http://alice:{PASSWORD}@{place}'}}",
            "--out",
            out,
        )
        answer = fw("run", toy_recipe(tmp_path), *words, "--device", "cpu", "--jobs", "1")
        assert answer.code == 0, answer.err
        assert f"http://{HIDDEN}@{place}/#/experiments" in answer.out
        assert places_of(PASSWORD, answer, out, served) == []
        assert len(list(served.rglob("recipe.resolved.yaml"))) == 1 + 3  # one in each arm's model
        resolved = out / "toy" / "latest" / "recipe.resolved.yaml"
        hidden = MLflow(uri=yaml.safe_load(resolved.read_text())["tracker"]["uri"])
        description = describe(out)
        with pytest.raises(FwError, match="MLFLOW_TRACKING_URI"):
            hidden.open(description)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://alice:{PASSWORD}@{place}")
        hidden.open(description).end("finished")


def test_texts_and_uris_without_secrets_stay_as_they_are():
    for text in (
        "sqlite:////home/me@work/runs/mlflow.db",
        "http://127.0.0.1:5000/#/experiments/1/runs?viewStateShareKey=fw-seed0-0123&workflowType=machine_learning",
        "https://host/a@b",
        "postgresql://me@host/db",
        "tokens=4, basic authorization, secrets belong into the environment",
        "file:///home/a:b@c/mlartifacts",
        "eval/fd: 0.123, class 12345678 of 3",
        "",
    ):
        assert hide(text) == text
        assert redact(text) == text


def test_secrets_in_words_of_others_are_hidden_by_their_shape():
    for text in (
        f"cannot reach postgresql://me:{PASSWORD}@host/db, really",
        f"failed with url: /api?token={PASSWORD}&x=1 (caused by x)",
        f"('https://x:{PASSWORD}@github.com/a/b', \"no\")",
        f"connection failed: host=x password={PASSWORD} dbname=y",
        f"Authorization: Bearer {PASSWORD}",
        f"{{'authorization': 'Basic {PASSWORD}'}}",
    ):
        assert PASSWORD not in redact(text)
        assert HIDDEN in redact(text)
        assert redact(redact(text)) == redact(text)


def test_secrets_of_the_environment_are_hidden_wherever_they_stand(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    monkeypatch.setenv("MY_API_KEY", "Quokka-1-key")
    monkeypatch.setenv("SHORT_TOKEN", "toy")
    assert (
        redact(f"user alice ({PASSWORD}, Quokka-1-key) runs toy")
        == f"user alice ({HIDDEN}, {HIDDEN}) runs toy"
    )
    assert redacted({"test": [PASSWORD, 1, None]}) == {"test": [HIDDEN, 1, None]}


def test_a_stages_own_words_are_without_secrets(tmp_path, monkeypatch):
    import toys

    def fails(self, *_):
        raise RuntimeError(f"no data at https://bob:{PASSWORD}@host/x")

    with site(tmp_path / "site"):
        monkeypatch.setattr(toys.Dots, "load", fails)
        words = (
            "--set",
            "tracker=null",
            "--out",
            tmp_path / "out",
            "--jobs",
            "1",
            "--device",
            "cpu",
        )
        answer = fw("run", toy_recipe(tmp_path), *words)
    assert answer.code == 1
    assert "https://***@host/x" in answer.err
    assert list((tmp_path / "out").rglob("traceback.txt"))
    assert places_of(PASSWORD, answer, tmp_path / "out") == []


def test_a_field_that_is_named_like_a_secret_is_left_out_of_the_resolved_recipe():
    spec = {
        "name": "other",
        "token": PASSWORD,
        "url": "https://host",
        "tokens": "4",
        "password": None,
    }
    assert without_secrets(spec) == {**spec, "token": HIDDEN}


def test_recipes_without_secrets_are_resolved_as_ever():
    for entry in files("fw.recipes").iterdir():
        if entry.name.endswith(".yaml"):
            recipe = load(Path(str(entry)))
            assert (
                yaml.safe_load(recipe.to_yaml())["tracker"]
                == recipe.model_dump(mode="json")["tracker"]
            )
            assert not list(checks.secrets_in(recipe))


def test_an_address_without_its_password_is_completed_from_the_environment(root, monkeypatch):
    from fw.plugins.trackers.mlflow_uris import chosen

    hidden = f"http://{HIDDEN}@host:5000"
    with pytest.raises(FwError, match="MLFLOW_TRACKING_USERNAME"):
        chosen(hidden, root)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    assert chosen(hidden, root) == "http://host:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://alice:{PASSWORD}@other:5000")
    assert chosen(hidden, root) == "http://host:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://alice:{PASSWORD}@host:5000")
    assert chosen(hidden, root) == f"http://alice:{PASSWORD}@host:5000"


@pytest.mark.parametrize(
    "text",
    [
        "a" * 50_000,
        "http://x:" * 5_000,
        "x+y" * 20_000 + "://",
        "?" + "a." * 25_000,
        "token=" * 9_000,
    ],
    ids=["word", "addresses", "scheme", "query", "names"],
)
def test_hiding_costs_no_more_than_the_length_of_the_text(text: str) -> None:
    begun = time.process_time()
    shaped(text[: len(text) // 8])
    eighth = time.process_time() - begun
    begun = time.process_time()
    shaped(text)
    assert time.process_time() - begun < 24 * eighth + 0.2  # 64 times, were it quadratic


@pytest.mark.parametrize(
    "uri",
    [
        "mssql+pyodbc:///?odbc_connect=Driver%3DX%3BPWD%3Ds3cretpw1%3B",
        "ftp://s3cretpw1@host/x",
        "Driver=X;UID=me;PWD=s3cretpw1;",
    ],
)
def test_forms_that_drivers_take_are_hidden(uri: str) -> None:
    assert "s3cretpw1" not in redact(uri)
