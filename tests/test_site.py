"""The docs site builds strictly, its links lead somewhere, and it asks nothing of the network."""

from __future__ import annotations

import functools
import http.server
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from browsing import browser, lacking

pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install 'fw[docs]'")

ROOT = Path(__file__).parents[1]


class Links(HTMLParser):
    """What a page links to, what it loads, and its anchors."""

    def __init__(self, page: Path):
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag in ("link", "script", "img", "iframe", "source"):
            self.loaded += [given[name] for name in ("href", "src") if name in given]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "site"
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        words,
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Links]:
    return {page.resolve(): Links(page) for page in site.rglob("*.html") if page.name != "404.html"}


def test_all_links_and_anchors_of_all_pages_lead_to_what_is_there(pages: dict[Path, Links]) -> None:
    dead = []
    for page, found in pages.items():
        for link in found.links:
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = unquote(link).partition("#")
            file = (page.parent / path).resolve() if path else page
            file = file / "index.html" if file.is_dir() else file
            if not file.exists() or (anchor and anchor not in pages[file].anchors):
                dead.append(f"{page.name}: {link}")
    assert dead == []


def test_pages_load_nothing_from_elsewhere(pages: dict[Path, Links]) -> None:
    outside = {
        (page.name, each)
        for page, found in pages.items()
        for each in found.loaded
        if re.match(r"(https?:)?//", each)
    }
    assert outside == set()


def test_every_page_of_the_docs_and_what_they_link_to_is_in_the_site(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix(".html")
        name = name.with_name("index.html") if page.name == "README.md" else name
        assert (site / name).exists(), name
    assert "def ignores_condition" in re.sub(
        r"<[^>]+>", "", (site / "source/core/learning/ignoring.py.html").read_text("utf-8")
    )
    assert (site / "source/core/kinds/index.html").exists()
    assert not list(site.rglob("*.py")), "the code is in pages"


def test_a_notebook_becomes_a_page_with_its_code_outputs_tables_and_pictures() -> None:
    import nbformat.v4 as nb

    picture = nb.new_output("display_data", data={"image/png": "aGk=\n", "text/plain": "<Figure>"})
    frame = (
        '<style>\n</style>\n\n<table border="1" class="dataframe">\n<tr><td>1</td></tr>\n</table>'
    )
    table = nb.new_output("execute_result", data={"text/html": frame, "text/plain": "1"})
    said = nb.new_output("stream", name="stdout", text="said\n")
    warned = nb.new_output("stream", name="stderr", text="/home/somebody/warning\n")
    cells = [
        nb.new_markdown_cell("# Title\n\nSee [recipes.md](recipes.md)."),
        nb.new_code_cell("print('```')", outputs=[warned, said, table, picture]),
        nb.new_code_cell(""),
    ]
    sys.path.insert(0, str(ROOT / "docs/site"))
    try:
        from notebooks import parts
    finally:
        sys.path.remove(str(ROOT / "docs/site"))
    title, code, *outputs = parts(nb.new_notebook(cells=cells))
    assert title.startswith("# Title")
    assert "print('```')" in code
    assert outputs[0].splitlines()[1] == "said"
    assert "<table>\n<tr><td>1</td></tr>" in outputs[1]
    assert 'src="data:image/png;base64,aGk="' in outputs[2]
    assert len(outputs) == 3


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.skipif(lacking() is not None, reason=lacking() or "")
def test_a_browser_asks_this_server_alone_finds_pages_and_scrolls_no_page_sideways(
    address: str,
) -> None:
    with browser() as chromium:
        page = chromium.new_page(viewport={"width": 390, "height": 800})
        asked: list[str] = []
        faults: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: faults.append(str(error)))
        for name in ("index", "comparing", "tutorials/own_network", "source/core/kinds/index"):
            page.goto(f"{address}/{name}.html")
            page.wait_for_load_state("networkidle")
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= 390, name
        page.set_viewport_size({"width": 1280, "height": 800})
        page.goto(f"{address}/index.html")  # a page that was loaded narrow keeps its search closed
        page.wait_for_load_state("networkidle")
        page.fill("input.md-search__input", "autoguidance")
        page.wait_for_selector(".md-search-result__item a")
        assert "guidance.html" in page.inner_html(".md-search-result__list")
        assert faults == []
        assert [url for url in asked if not url.startswith((address, "data:"))] == []
