"""The browser that pages are opened in, started once for each file of tests."""

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """Debian's Chromium; without it the test is skipped, in continuous integration it fails."""
    if CHROMIUM is None:
        what = "no chromium on this machine (Debian: apt-get install chromium)"
        pytest.fail(what) if os.environ.get("CI") else pytest.skip(what)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        # Root has no sandbox of its own to start.
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()
