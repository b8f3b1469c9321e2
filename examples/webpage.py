"""What the WebSocket examples share: one page from the same port, and who may connect.

Any page of the web can have its visitor's browser open a WebSocket to this machine, or to one in
the visitor's network. The browser only says whose page it was, so it is up to the server to refuse:

* An `Origin` other than the one the page came from is some other site. (A program that is no
  browser sends none. It could send anything, so there is no point in asking it.)
* A `Host` that is a name is refused, but for `names`: whoever owns a name can let it point here
  after his own page is loaded (DNS rebinding), and then the origin is the right one.

The page is one file with its script and its style inside. A Content-Security-Policy lets these two
run and nothing else: whatever text gets into the page, no script in it would.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gevffi import ws

PAGES = Path(__file__).with_name("pages")


def load(name: str) -> ws.Response:
    """Return the answer that a file in `pages` is."""
    html = (PAGES / name).read_text(encoding="utf-8")

    def hashes(tag: str) -> str:
        texts = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digests = [hashlib.sha256(text.encode()).digest() for text in texts]
        return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)

    policy = (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; "
        "connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    fields = {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    return ws.Response(200, html, fields)


class Door(ws.Upgrader):
    """Serves `page` at "/", and opens WebSockets to that page and to what is no browser."""

    page: ws.Response
    names = frozenset({"localhost"})
    """Under which this is served, beside addresses."""

    def on_http(self, conn: Any, request: ws.Request) -> ws.Response | None:
        return self.page if request.path == "/" else None

    def on_request(self, conn: Any, request: ws.Request) -> None:
        own = (f"http://{request.host}", f"https://{request.host}")  # the second: behind a proxy
        if request.origin is not None and request.origin.lower() not in own:
            raise ws.RefuseError(403, "this is not for pages of other sites\n")

    def on_host(self, conn: Any, host: str) -> None:
        name = urlsplit(f"//{host}").hostname or ""
        try:
            ipaddress.ip_address(name)
        except ValueError:
            if name not in self.names:
                raise ws.RefuseError(403, "this is not served under that name\n") from None
