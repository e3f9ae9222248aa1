"""In a real browser: the question of a finished run is answered in the first screen, and the pages
of MLflow show its arms with their scores."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import HEIGHT, WIDTH, Look, browser, lacking, looks, served
from sites import fw

pytestmark = pytest.mark.skipif(lacking() is not None, reason=lacking() or "")

TINY = Path(__file__).parent / "tiny.yaml"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on digits, with MLflow."""
    out = tmp_path_factory.mktemp("browser")
    done = fw("run", TINY, "--out", out, "--jobs", 1, "--device", "cpu")
    assert done.code == 0, done.err
    return out / "tiny/latest"


@pytest.fixture(scope="module")
def pages(run: Path) -> Iterator[dict[str, Look]]:
    with served(run.parents[1]) as server:
        yield looks(run, server)


@pytest.fixture(scope="module")
def opened() -> Iterator[Any]:
    with browser() as chromium:
        yield chromium


@pytest.fixture
def page(opened: Any) -> Iterator[Any]:
    made = opened.new_page(viewport={"width": WIDTH, "height": HEIGHT})
    yield made
    made.close()


@pytest.fixture
def report(run: Path, page: Any) -> Any:
    """The page of the run, opened, and what went wrong on it and where it turned to."""
    page.errors, page.requests = [], []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda said: page.errors.append(said.text) if said.type == "error" else None)
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto((run / "report.html").resolve().as_uri())
    return page


def test_the_first_screen_of_the_report_answers_the_question(run: Path, report: Any) -> None:
    result = json.loads((run / "run.json").read_text("utf-8"))
    answer = [report.locator("#answer h1"), report.locator("#answer .verdict")]
    compared = (result.get("verdict") or {}).get("comparisons", [])
    if compared:
        answer += [*report.locator("#answer .differences tbody tr").all()[: len(compared)]]
    for part in answer:
        box = part.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= WIDTH
        assert box["y"] + box["height"] <= HEIGHT
    said = report.locator("#answer").inner_text()
    assert result["baseline"] in said
    assert result["headline"] in said
    for each in compared:
        assert each["decision"] in said


def test_the_report_asks_nobody_for_anything_and_has_no_errors(run: Path, report: Any) -> None:
    report.wait_for_timeout(300)
    assert report.errors == []
    own = (run / "report.html").resolve().as_uri()
    assert [url for url in report.requests if not url.startswith("data:")] == [own]


def test_the_report_is_as_wide_as_its_window_on_screens_of_all_sizes(report: Any) -> None:
    for width in (390, 800, WIDTH):
        report.set_viewport_size({"width": width, "height": HEIGHT})
        assert report.evaluate("document.documentElement.scrollWidth") <= width


def test_the_report_is_light_or_dark_as_the_reader_has_it(report: Any) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    ink = "getComputedStyle(document.querySelector('svg.figure text')).fill"
    both = []
    for scheme in ("light", "dark"):
        report.emulate_media(color_scheme=scheme)
        both.append([shade(report.evaluate(what)) for what in (background, ink)])
    (light, dark_ink), (dark, light_ink) = both
    assert light > 230 > 60 > dark
    assert light - dark_ink > 120
    assert light_ink - dark > 120


def shade(colour: str) -> float:
    """How bright `rgb(0, 0, 0)` is."""
    numbers = [float(each) for each in colour.strip("rgba()").split(",")[:3]]
    return sum(numbers) / 3


def test_a_click_on_a_heading_sorts_the_arms_and_leaves_the_floor_below(report: Any) -> None:
    table = report.locator("table.sortable")
    floor = table.locator("tfoot").inner_text()
    heading = table.locator("thead th").nth(1)

    def means() -> list[float]:
        cells = table.locator("tbody tr > :nth-child(2)").all_inner_texts()
        return [float(cell.split()[0]) for cell in cells]

    given = means()
    heading.click()
    assert means() == sorted(given)
    heading.press("Enter")
    assert means() == sorted(given, reverse=True)
    assert heading.get_attribute("aria-sort") == "descending"
    assert table.locator("tfoot").inner_text() == floor


def test_the_report_is_complete_without_scripts(run: Path, opened: Any) -> None:
    context = opened.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((run / "report.html").resolve().as_uri())
    assert page.locator("table.sortable tbody tr").count() == 3
    assert page.locator("#samples img").count() == 3
    context.close()


def test_pictures_of_the_report_are_there(report: Any) -> None:
    for details in report.locator("details").all():
        details.evaluate("each => { each.open = true; }")
    assert report.evaluate("[...document.images].every(each => each.naturalWidth > 0)")
    assert report.locator("img").count() >= 10
    assert report.locator("svg.figure").count() == 3


def test_the_saved_view_shows_the_arms_with_their_scores(
    run: Path, pages: dict[str, Look], page: Any
) -> None:
    pages["view"].open(page)
    result = json.loads((run / "run.json").read_text("utf-8"))
    text = page.locator("body").text_content()
    for name, arm in result["arms"].items():
        assert name in text
        mean = arm["metrics"][result["headline"]]["mean"]
        assert f"{mean:.3f}" in text or f"{mean:.2f}" in text


@pytest.mark.parametrize("name", ["experiment", "parent", "arm", "model"])
def test_a_page_of_mlflow_opens_and_shows_what_it_is_of(
    name: str, pages: dict[str, Look], page: Any
) -> None:
    failed: list[str] = []
    page.on("pageerror", lambda error: failed.append(str(error)))
    pages[name].open(page)
    assert failed == []
