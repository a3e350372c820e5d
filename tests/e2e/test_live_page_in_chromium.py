"""The live page in Chromium, of a service that runs beside it."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "training" / "server"))
from server_process import ServerProcess, started
from tiny_service import BASE, CHECK_IN, digest, update_bytes

from pocketfleet.training.server import administration

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# What a malicious device says of itself.
MARKUP = "<img src=x onerror=document.title='owned'>"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with started(tmp_path_factory.mktemp("service")) as one:
        yield one


@pytest.fixture(scope="module")
def credential(server: ServerProcess) -> str:
    return administration.new_admin_credential(server.folder / "state")


@pytest.fixture(scope="module")
def devices(server: ServerProcess) -> list[dict[str, str]]:
    """Headers of 60 devices; the last is malicious, three are of another model."""
    tokens = administration.issue_tokens(server.folder / "state", count=60)
    models = [*["Galaxy S24"] * 56, *["Pixel 8"] * 3, MARKUP]
    answers = [
        httpx.post(
            f"{server.url}{BASE}/enrol",
            json={"token": token, "phone": {"model": model, "os_version": MARKUP}, "app_version": MARKUP},
            timeout=60.0,
        )
        for token, model in zip(tokens, models, strict=True)
    ]
    return [{"Authorization": f"Bearer {answer.json()['credential']}"} for answer in answers]


class Watched:
    """A page with what its console said and what it asked for."""

    def __init__(self, browser: "Browser", url: str, *, width: int = 1280, scheme: str = "light") -> None:
        self.page: Page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
        self.told: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.told.append(message.text))
        self.page.on("pageerror", lambda error: self.told.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(url)

    def sign_in(self, credential: str) -> None:
        """By the keyboard alone: the form has the focus."""
        self.page.wait_for_selector("#credential:focus")
        self.page.keyboard.type(credential)
        self.page.keyboard.press("Enter")

    def until(self, selector: str, text: str) -> None:
        """It says so, waited for. The page's policy lets no test's script poll it."""
        from playwright.sync_api import expect

        expect(self.page.locator(selector)).to_have_text(re.compile(text), timeout=20_000)

    def until_count(self, selector: str, count: int) -> None:
        from playwright.sync_api import expect

        expect(self.page.locator(selector)).to_have_count(count, timeout=20_000)

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)


def rounds_of(server: ServerProcess, devices: list[dict[str, str]], count: int) -> None:
    """Devices take part until so many rounds more have closed: four reports each."""
    for _ in range(count):
        reported = 0
        while reported < 4:
            for headers in devices[:6]:
                asked = httpx.post(f"{server.url}{BASE}/check-in", json=CHECK_IN, headers=headers).json()
                if asked["assignment"] is None:
                    continue
                body, number = update_bytes(1.0, 2.0, 3.0), asked["assignment"]["assignment_id"]
                facts: dict[str, str | float] = {"num_examples": 4, "steps": 1, "examples_held": 5, "train_loss": 0.5}
                answer = httpx.put(
                    f"{server.url}{BASE}/reports/{number}",
                    params=facts,
                    content=body,
                    headers=headers | {"Content-Digest": digest(body)},
                )
                reported += answer.status_code == 200
                if reported == 4:
                    break


def test_the_page_shows_rounds_while_they_run(
    browser: "Browser", server: ServerProcess, credential: str, devices: list[dict[str, str]]
) -> None:
    watched = Watched(browser, server.url)
    watched.sign_in(credential)
    watched.until("#title", "^Population tiny$")
    assert watched.text("#state") == "Running."
    assert "60" in watched.text("#facts")
    before = watched.page.locator("#rounds tr").count()
    rounds_of(server, devices, 2)
    # Nobody touches the page.
    watched.until_count("#rounds tr", before + 2)
    watched.until_count("#versions tr", before + 3)
    assert "cohort" in watched.text("#rounds")
    assert watched.page.locator("#chart rect").count() == 120
    assert "check-ins" in watched.text("#chart-words")
    administration.pause(server.folder / "state")
    watched.until("#state", "^Paused")
    administration.resume(server.folder / "state")
    watched.until("#state", "^Running.$")
    assert watched.told == []
    assert {url.split("?")[0] for url in watched.asked} <= {
        f"{server.url}/{path}" for path in ("", "live/events", "live/devices")
    }
    # The secret is in no address.
    assert not any(credential in url for url in watched.asked)
    watched.page.reload()
    # The tab keeps it; another one does not.
    watched.until("#title", "^Population tiny$")
    other = Watched(browser, server.url)
    assert other.page.is_visible("#credential")
    other.page.close()
    watched.page.click("#sign-out")
    assert watched.page.is_hidden("#figures")
    assert watched.page.evaluate("sessionStorage.length") == 0
    watched.page.close()


def test_devices_are_filtered_and_paged_by_keyboard(
    browser: "Browser", server: ServerProcess, credential: str, devices: list[dict[str, str]]
) -> None:
    assert len(devices) == 60
    watched = Watched(browser, server.url)
    watched.sign_in(credential)
    watched.until_count("#devices tr", 50)
    page = watched.page
    reached = []
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.getAttribute('aria-label')"))
        if reached[-1] == "text":
            break
    # On from where the form was; the table of minutes is folded.
    assert [one for one in reached if one] == ["Rounds", "Versions", "text"]
    page.keyboard.type("pixel")
    page.keyboard.press("Enter")
    watched.until_count("#devices tr", 3)
    assert watched.text("#device-words") == "3 devices."
    page.fill("#text", "")
    page.press("#text", "Enter")
    watched.until_count("#devices tr", 50)
    page.focus("#next")
    page.keyboard.press("Enter")
    watched.until_count("#devices tr", 10)
    # What devices say of themselves is text.
    assert MARKUP in watched.text("#devices")
    assert page.locator("#devices img").count() == 0
    assert page.title() == "tiny: version " + watched.text("#facts dd").split(" ")[0]
    page.select_option("#standing", "revoked")
    page.press("#text", "Enter")
    watched.until("#device-words", "^No such device.$")
    assert watched.told == []
    page.close()


def test_a_wrong_credential_is_told_and_forgotten(browser: "Browser", server: ServerProcess, credential: str) -> None:
    watched = Watched(browser, server.url)
    watched.sign_in("wrong")
    watched.until("#state.alert", ".")
    assert watched.text("#state").startswith("That is not the administrator's credential")
    assert watched.page.is_hidden("#figures")
    assert watched.page.evaluate("sessionStorage.length") == 0
    # The browser tells of the refusal by itself, and nothing else is wrong.
    assert len(watched.told) == 1
    assert "401" in watched.told[0]
    watched.sign_in(credential)
    watched.until("#title", "^Population tiny$")
    watched.page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits(
    browser: "Browser",
    server: ServerProcess,
    credential: str,
    devices: list[dict[str, str]],
    width: int,
    scheme: str,
) -> None:
    rounds_of(server, devices, 1)
    watched = Watched(browser, server.url, width=width, scheme=scheme)
    watched.sign_in(credential)
    watched.until_count("#devices tr", 50)
    watched.page.click("summary")
    scrolled, seen = watched.page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert scrolled <= seen == width
    paper = watched.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 28)")
    if shots := os.environ.get("POCKETFLEET_SHOTS"):
        watched.page.screenshot(path=f"{shots}/live-{width}-{scheme}.png", full_page=True)
    assert watched.told == []
    watched.page.close()
