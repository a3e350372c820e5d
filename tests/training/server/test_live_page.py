"""The page holds no data and no foreign thing, and its policy allows nothing but itself."""

import re

from pocketfleet.training.server.live_page import live_page


def test_the_policy_allows_the_page_and_nothing_else() -> None:
    content, headers = live_page()
    text = content.decode()
    policy = dict(one.split(" ", 1) for one in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert policy["connect-src"] == "'self'"
    for tag in ("script", "style"):
        assert re.fullmatch(r"'sha256-[A-Za-z0-9+/]{43}='", policy[f"{tag}-src"])
        assert text.count(f"<{tag}") == 1
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_nothing_is_loaded_from_elsewhere_or_put_in_as_markup() -> None:
    text = live_page()[0].decode()
    assert re.findall(r"https?://[^\"' ]+", text) == ["http://www.w3.org/2000/svg"]  # a name, not an address
    assert re.findall(r'(?:src|href)="([^"]*)"', text) == ["data:,"]
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|\son\w+=|style=", text)
