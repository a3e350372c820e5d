"""The page of a run in Chromium: nothing is fetched, nothing overflows, a table downloads."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "device_sim"))
from page_reader import small_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from pocketfleet import Bundle


@pytest.fixture(scope="module")
def run(boston_bundle: "Bundle", tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(boston_bundle, tmp_path_factory.mktemp("browsed") / "run").path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_page_opens_whole(
    browser: "Browser", run: Path, pocketfleet: Callable[..., Any], width: int, scheme: str, tmp_path: Path
) -> None:
    assert pocketfleet("report", run).code == 0
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    told: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto((run / "report.html").as_uri())
    for fold in page.query_selector_all("summary"):
        fold.click()
    assert told == []
    assert asked == [(run / "report.html").as_uri()]
    scrolled, seen = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert scrolled <= seen == width
    with page.expect_download() as getting:
        page.click("[data-csv=costs]")
    getting.value.save_as(tmp_path / "costs.csv")
    assert (tmp_path / "costs.csv").read_text().startswith("cost,total,per_round,per_report,per_device\n")
    page.close()


def test_a_page_goes_where_it_is_told_or_says_why_not(
    run: Path, pocketfleet: Callable[..., Any], tmp_path: Path
) -> None:
    assert pocketfleet("report", run, "--out", tmp_path / "page.html", "--round", 1).code == 0
    assert "Round 1:" in (tmp_path / "page.html").read_text()
    for arguments, message in (
        ((tmp_path,), "holds no run"),
        ((run, "--out", tmp_path / "no" / "page.html"), "name a file in a folder that is there"),
        ((run, "--round", 99), r"--round must be a closed round of the run (0..4), got 99"),
    ):
        called = pocketfleet("report", *arguments)
        assert called.code == 2
        assert message in called.err
