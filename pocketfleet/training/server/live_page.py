"""The page at ``/`` as the browser gets it: one file without any data, and the policy that it is held to.

The page asks for the administrator's credential, keeps it in the tab's ``sessionStorage`` and sends it with ``fetch``
in the header ``Authorization``; server-sent events come over that ``fetch`` too. ``EventSource`` cannot send a header:
it would need the secret, or a ticket in its place, in an address, which proxies and histories keep, or a cookie, which
a browser sends for other sites' pages as well.
"""

import base64
import hashlib
import re
from functools import cache
from importlib import resources

__all__ = ["live_page"]


@cache
def live_page() -> tuple[bytes, dict[str, str]]:
    """The file and its headers; only its own script and style run, and they reach nothing but this service."""
    text = resources.files("pocketfleet").joinpath("templates", "live.html").read_text(encoding="utf-8")
    style, script = (_hash(re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)) for tag in ("style", "script"))
    policy = {
        "default-src": "'none'",
        "style-src": style,
        "script-src": script,
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    headers = {
        "Content-Security-Policy": "; ".join(f"{name} {allowed}" for name, allowed in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-cache",
    }
    return text.encode(), headers


def _hash(found: list[str]) -> str:
    (text,) = found
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
